//! Reads the stock of several products at a location, as of one moment.

use std::collections::BTreeSet;

use souk_db::Tx;

use crate::domain::query::BatchGetStock;
use crate::domain::{Location, Refusal, Sku, StockKey, StockLevel};
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// The levels of those that exist, and those that do not, each in the order of asking.
pub async fn batch_get_stock(app: &App, query: BatchGetStock) -> Result<(Vec<StockLevel>, Vec<Sku>), Error> {
    let mut tx = app.db.read().await?;
    check_location(&mut tx, &query.location).await?;
    let keys: Vec<StockKey> = query.skus.into_iter().map(|sku| StockKey::new(sku, query.location.clone())).collect();
    read_levels(&mut tx, keys).await
}

pub(super) async fn check_location(tx: &mut Tx, location: &Location) -> Result<(), Error> {
    let unknown = store::unknown_locations(tx, &BTreeSet::from([location.clone()])).await?;
    unknown.into_iter().next().map_or(Ok(()), |unknown| Err(Refusal::LocationNotFound(unknown).into()))
}

/// The levels of records whose products exist, and the products that do not.
pub(super) async fn read_levels(tx: &mut Tx, keys: Vec<StockKey>) -> Result<(Vec<StockLevel>, Vec<Sku>), Error> {
    let mut stocks = store::levels(tx, &keys).await?;
    let without_row: Vec<Sku> =
        keys.iter().filter(|key| !stocks.contains_key(key)).map(|key| key.sku.clone()).collect();
    let known = store::known_skus(tx, &without_row).await?;
    let mut levels = Vec::with_capacity(keys.len());
    let mut missing = Vec::new();
    for key in keys {
        match stocks.remove(&key) {
            Some(stock) => levels.push(StockLevel { key, stock }),
            None if known.contains(&key.sku) => levels.push(StockLevel { key, stock: crate::domain::Stock::default() }),
            None => missing.push(key.sku),
        }
    }
    Ok((levels, missing))
}
