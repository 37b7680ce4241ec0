//! What goes on beside the calls: ending holds that ran out, forgetting old keys, and telling watchers what other replicas changed.

use std::time::Duration;

use souk_events::{Bus, Event, Heard, Listener};
use souk_proto_inventory::v1 as pb;
use souk_runtime::{Kernel, story};
use tracing::{debug, warn};

use crate::domain::{Location, Sku, StockKey};
use crate::events::STOCK_CHANGED;
use crate::ops::watch_stock::refresh;
use crate::ops::{self, App};

/// Starts all of them; they end with the process.
pub(crate) async fn start(app: &App, kernel: &Kernel, bus: &Bus) -> anyhow::Result<()> {
    let heard = bus.listen(&[STOCK_CHANGED]).await?;
    let tasks = &kernel.tasks;
    tasks.spawn_until_shutdown("stock sweeper", sweep(app.clone()));
    tasks.spawn_until_shutdown("stock watch poll", poll(app.clone()));
    tasks.spawn_until_shutdown("stock watch bus", listen(app.clone(), heard));
    Ok(())
}

/// One replica at a time, by lease. Nobody waits for it: it only keeps the tables tidy.
async fn sweep(app: App) {
    let holder = app.ids.new_id();
    let interval = Duration::from_millis(app.limits.sweep_interval_ms);
    loop {
        app.clock.sleep(interval).await;
        match ops::sweep(&app, holder).await {
            Ok(0) => {}
            Ok(ended) => debug!(ended, "holds ran out"),
            Err(error) => warn!(error = story(&error), "sweep failed"),
        }
    }
}

/// For changes of replicas that this process hears nothing of by the bus.
async fn poll(app: App) {
    loop {
        app.clock.sleep(Duration::from_millis(app.limits.watch_poll_ms)).await;
        if let Err(error) = refresh(&app, app.watchers.watched()).await {
            warn!(error = story(&error), "watched stock cannot be read");
        }
    }
}

/// For changes of replicas on the same bus. An event only says that there is something to read.
async fn listen(app: App, mut listener: Listener) {
    while let Some(heard) = listener.next().await {
        let keys = match heard {
            Heard::Event(event) => missed(&app, &event).into_iter().collect(),
            Heard::Lagged(_) => app.watchers.watched(),
        };
        if let Err(error) = refresh(&app, keys).await {
            warn!(error = story(&error), "watched stock cannot be read");
        }
    }
}

/// The record that an event tells of, if somebody watches it and was not told.
fn missed(app: &App, event: &Event) -> Option<StockKey> {
    let level = event.decode::<pb::StockChanged>().ok()?.level?;
    let key = StockKey::new(Sku::parse(&level.sku).ok()?, Location::parse(&level.location).ok()?);
    app.watchers.misses(&key, level.version).then_some(key)
}
