//! Levels of products as they are and as they change.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt, select_all};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::domain::query::WatchStock;
use crate::domain::{StockKey, StockLevel};
use crate::error::Error;
use crate::ops::App;
use crate::ops::batch_get_stock::{check_location, read_levels};
use crate::watchers::Latest;

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A level that the watcher does not have.
    Level(Arc<StockLevel>),
    /// All that was there when the watch began has been told.
    SnapshotEnd,
}

/// First what the watcher does not have, then every change. Ends with an error when the process does.
pub async fn watch_stock(
    app: &App,
    query: WatchStock,
) -> Result<impl Stream<Item = Result<Update, Error>> + Send + use<>, Error> {
    // First the changes, then the snapshot: a change between the two is told twice at most, and left out the second time.
    let changes = app.watchers.subscribe(query.keys.iter().map(|(key, _)| key));
    let levels = snapshot(app, query.keys.iter().map(|(key, _)| key.clone()).collect()).await?;
    let mut told: HashMap<StockKey, i64> =
        query.keys.into_iter().filter_map(|(key, known)| Some((key, known?))).collect();
    let mut first = Vec::with_capacity(levels.len() + 1);
    for level in levels {
        if is_new(&mut told, &level) {
            first.push(Update::Level(Arc::new(level)));
        }
    }
    first.push(Update::SnapshotEnd);
    let updates = stream::iter(first).chain(updates(changes, told));
    let ended = app.shutdown.clone().cancelled_owned();
    Ok(updates.take_until(ended).map(Ok).chain(stream::once(ready(Err(Error::ShuttingDown)))))
}

async fn snapshot(app: &App, keys: Vec<StockKey>) -> Result<Vec<StockLevel>, Error> {
    let mut tx = app.db.read().await?;
    if let Some(key) = keys.first() {
        check_location(&mut tx, &key.location).await?;
    }
    let (levels, missing) = read_levels(&mut tx, keys).await?;
    missing.into_iter().next().map_or(Ok(levels), |sku| Err(Error::ProductNotFound(sku)))
}

fn updates(changes: Vec<watch::Receiver<Latest>>, mut told: HashMap<StockKey, i64>) -> impl Stream<Item = Update> {
    select_all(changes.into_iter().map(WatchStream::from_changes)).filter_map(move |latest| {
        let new = latest.filter(|level| is_new(&mut told, level));
        ready(new.map(Update::Level))
    })
}

/// Whether the watcher does not have the level; from now on it does.
fn is_new(told: &mut HashMap<StockKey, i64>, level: &StockLevel) -> bool {
    let known = told.get(&level.key).copied().unwrap_or(-1);
    if level.stock.version <= known {
        return false;
    }
    told.insert(level.key.clone(), level.stock.version);
    true
}

/// Reads the levels that somebody watches and tells what is new: what other replicas have changed.
pub async fn refresh(app: &App, keys: Vec<StockKey>) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut tx = app.db.read().await?;
    let (levels, _) = read_levels(&mut tx, keys).await?;
    app.watchers.tell(levels);
    Ok(())
}
