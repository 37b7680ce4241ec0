//! What goes on beside the calls: ending holds that ran out, forgetting old keys, and what other replicas changed: telling watchers of it,
//! forgetting what is remembered of it.

use std::sync::Arc;
use std::time::Duration;

use souk_events::{Bus, Event, Heard, Listener};
use souk_proto_inventory::v1 as pb;
use souk_runtime::{Kernel, Remembered, story};
use tracing::{debug, warn};

use crate::domain::{Location, Product, Sku, StockKey};
use crate::events::{PRODUCT_SUBJECTS, STOCK_CHANGED, product_of};
use crate::ops::watch_stock::refresh;
use crate::ops::{self, App};

/// Starts all of them; they end with the process.
pub(crate) async fn start(app: &App, kernel: &Kernel, bus: &Bus) -> anyhow::Result<()> {
    let heard = bus.listen(&[STOCK_CHANGED]).await?;
    let heard_of_products = bus.listen(&[PRODUCT_SUBJECTS]).await?;
    let tasks = &kernel.tasks;
    tasks.spawn_until_shutdown("stock sweeper", sweep(app.clone()));
    tasks.spawn_until_shutdown("stock watch poll", poll(app.clone()));
    tasks.spawn_until_shutdown("stock watch bus", listen(app.clone(), heard));
    tasks.spawn_until_shutdown("product bus", forget_products(app.clone(), heard_of_products));
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

/// For changes of replicas on the same bus, and of callers who went away.
async fn forget_products(app: App, mut listener: Listener) {
    while let Some(heard) = listener.next().await {
        forget_product(&app.products, &heard);
    }
}

/// Whoever has missed an event does not know which products have changed.
fn forget_product(products: &Remembered<Sku, Arc<Product>>, heard: &Heard) {
    let changed = match heard {
        Heard::Event(event) => product_of(event),
        Heard::Lagged(_) => None,
    };
    match changed {
        Some(sku) => products.forget(&sku),
        None => products.forget_all(),
    }
}

/// The record that an event tells of, if somebody watches it and was not told.
fn missed(app: &App, event: &Event) -> Option<StockKey> {
    let level = event.decode::<pb::StockChanged>().ok()?.level?;
    let key = StockKey::new(Sku::parse(&level.sku).ok()?, Location::parse(&level.location).ok()?);
    app.watchers.misses(&key, level.version).then_some(key)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use chrono::{DateTime, TimeDelta};
    use souk_proto_common::{Currency, Money};
    use souk_runtime::{Clock, Ids};

    use super::*;
    use crate::domain::product::Details;
    use crate::events;

    fn product(text: &str) -> Arc<Product> {
        let price = Money { currency: Currency::parse("EUR").unwrap(), amount_minor: 100 };
        let details = Details {
            name: text.into(),
            description: String::new(),
            price,
            tax_basis_points: 0,
            attributes: [].into(),
        };
        Arc::new(Product::new(Sku::parse(text).unwrap(), details, DateTime::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn an_event_is_about_its_product_and_a_gap_about_all() {
        let products = Remembered::new(Clock::system(), 100, TimeDelta::seconds(3_600));
        let forgotten = async |heard: &Heard| {
            for text in ["TEA", "CUP"] {
                let known = product(text);
                products.get(&known.sku, async || Ok::<_, Infallible>(Some(known.clone()))).await.unwrap();
            }
            forget_product(&products, heard);
            let mut forgotten = Vec::new();
            for text in ["TEA", "CUP"] {
                let ask = async || Ok::<_, Infallible>(None);
                if products.get(&Sku::parse(text).unwrap(), ask).await.unwrap().is_none() {
                    forgotten.push(text);
                }
            }
            forgotten
        };
        let ids = Ids::system(Clock::system());
        assert_eq!(forgotten(&Heard::Event(events::product_updated(&product("TEA"), &ids).into())).await, ["TEA"]);
        assert_eq!(forgotten(&Heard::Event(events::product_created(&product("CUP"), &ids).into())).await, ["CUP"]);
        assert_eq!(forgotten(&Heard::Lagged(1)).await, ["TEA", "CUP"]);
    }
}
