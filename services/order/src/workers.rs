//! What goes on beside the calls: what orders owe, forgetting old keys and changed prices, telling watchers what other replicas changed.

mod saga;

use std::time::Duration;

use prost::Message;
use souk_db::{idempotency, lease};
use souk_events::{Bus, BusError, Event, Heard};
use souk_proto_inventory::v1 as inventory;
use souk_runtime::{Kernel, story};
use tracing::warn;
use uuid::Uuid;

use crate::domain::Sku;
use crate::error::Error;
use crate::ops::App;
use crate::ops::drive_saga::millis;
use crate::{events, store};

const SWEEPER: &str = "order.sweeper";

/// Starts all of them; they end with the process.
pub(crate) async fn start(app: &App, kernel: &Kernel, bus: &Bus) -> Result<(), BusError> {
    let mut products = bus.listen(&[events::PRODUCT_SUBJECTS]).await?;
    let mut orders = bus.listen(&[events::SUBJECTS]).await?;
    let tasks = &kernel.tasks;
    tasks.spawn("order saga", saga::run(app.clone(), saga::Meters::new(&kernel.metrics)));
    tasks.spawn_until_shutdown("order sweeper", sweep(app.clone()));
    tasks.spawn_until_shutdown("order watch poll", poll(app.clone()));
    let listening = app.clone();
    tasks.spawn_until_shutdown("order price bus", async move {
        while let Some(heard) = products.next().await {
            forget_price(&listening, &heard);
        }
    });
    let listening = app.clone();
    tasks.spawn_until_shutdown("order watch bus", async move {
        while let Some(heard) = orders.next().await {
            tell_watchers(&listening, &heard).await;
        }
    });
    Ok(())
}

/// Whoever has missed an event does not know which prices have changed.
fn forget_price(app: &App, heard: &Heard) {
    let changed = match heard {
        Heard::Event(event) => changed_product(event),
        Heard::Lagged(_) => None,
    };
    match changed {
        Some(sku) => app.inventory.prices().forget(&sku),
        None => app.inventory.prices().forget_all(),
    }
}

fn changed_product(event: &Event) -> Option<Sku> {
    let product = match event.subject.as_str() {
        "souk.inventory.product.created" => inventory::ProductCreated::decode(event.data.as_slice()).ok()?.product,
        _ => inventory::ProductUpdated::decode(event.data.as_slice()).ok()?.product,
    };
    Sku::parse(&product?.sku).ok()
}

/// For changes of replicas on the same bus. An event only says that there is something to read.
async fn tell_watchers(app: &App, heard: &Heard) {
    match heard {
        Heard::Event(event) => {
            if let Some(order_id) = events::order_of(event) {
                app.watchers.tell(order_id, event.version);
            }
        }
        Heard::Lagged(_) => refresh_watchers(app).await,
    }
}

/// For changes of replicas that this process hears nothing of by the bus.
async fn poll(app: App) {
    loop {
        app.clock.sleep(Duration::from_millis(app.limits.watch_poll_ms)).await;
        refresh_watchers(&app).await;
    }
}

async fn refresh_watchers(app: &App) {
    let watched = app.watchers.watched();
    if watched.is_empty() {
        return;
    }
    let read = async {
        let mut tx = app.db.read().await?;
        store::current_versions(&mut tx, &watched).await
    };
    match read.await {
        Ok(versions) => versions.into_iter().for_each(|(order_id, version)| app.watchers.tell(order_id, version)),
        Err(error) => warn!(error = story(&error), "watched orders cannot be read"),
    }
}

/// One replica at a time, by lease. Nobody waits for it: it only keeps the tables tidy.
async fn sweep(app: App) {
    let holder = app.ids.new_id();
    loop {
        app.clock.sleep(Duration::from_millis(app.limits.sweep_interval_ms)).await;
        if let Err(error) = sweep_once(&app, holder).await {
            warn!(error = story(&error), "sweep failed");
        }
    }
}

async fn sweep_once(app: &App, holder: Uuid) -> Result<(), Error> {
    let ttl = millis(app.limits.sweep_interval_ms.saturating_mul(3));
    loop {
        let now = app.clock.now();
        let mut tx = app.db.write().await?;
        let lease = lease::acquire(&mut tx, SWEEPER, holder, now, ttl).await?;
        let swept = match lease {
            Some(_) => idempotency::sweep(&mut tx, now, app.limits.sweep_batch_max).await?,
            None => 0,
        };
        tx.commit().await?;
        if swept < u64::from(app.limits.sweep_batch_max) {
            return Ok(());
        }
    }
}
