//! A shop of one test: a database, replicas on it, a clock that stands still.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::DateTime;
use souk_events::Bus;
use souk_interceptors::Caller;
use souk_inventory::config::Config;
use souk_inventory::domain::command::{Answer, Keyed, Receive, Reserve, Resolve};
use souk_inventory::domain::movement::Reason;
use souk_inventory::domain::product::Details;
use souk_inventory::domain::query::CreateProduct;
use souk_inventory::domain::reservation::Lines;
use souk_inventory::domain::{Location, Refusal, Reservation, Sku, StockKey, StockLevel};
use souk_inventory::error::Error;
use souk_inventory::ops::{self, App};
use souk_inventory::store::invariants;
use souk_inventory::{Deps, open};
use souk_proto_common::{Currency, IdempotencyKey, Money};
use souk_runtime::{Clock, Kernel};
use souk_testkit::TestDatabase;
use uuid::Uuid;

pub(crate) struct Shop {
    pub(crate) app: App,
    pub(crate) bus: Bus,
    pub(crate) kernel: Kernel,
    pub(crate) database: TestDatabase,
}

impl Shop {
    pub(crate) async fn on(database: TestDatabase) -> Self {
        let kernel = Kernel::new(Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap()));
        let bus = Bus::memory();
        let app = replica(&kernel, &database, &bus).await;
        Self { app, bus, kernel, database }
    }

    pub(crate) async fn on_sqlite() -> Self {
        Self::on(souk_testkit::sqlite().await).await
    }

    /// With `quantity` units of each product.
    pub(crate) async fn stocked(self, products: &[&str], quantity: i64) -> Self {
        for text in products {
            ops::create_product(&self.app, &staff(), create(&self.id(), text)).await.unwrap();
            if quantity > 0 {
                self.receive(text, quantity).await.unwrap();
            }
        }
        self
    }

    pub(crate) fn id(&self) -> Uuid {
        self.kernel.ids.new_id()
    }

    pub(crate) async fn receive(&self, text: &str, quantity: i64) -> Result<Answer<StockLevel>, Error> {
        let command = Receive { key: key(text), quantity, reason: Reason::Purchase, reference: String::new() };
        ops::receive_stock(&self.app, &staff(), keyed(self.id(), command)).await
    }

    pub(crate) async fn reserve(&self, pairs: &[(&str, i64)]) -> Result<Reservation, Error> {
        Ok(ops::reserve(&self.app, &order(), self.reserve_command(pairs)).await?.value)
    }

    pub(crate) fn reserve_command(&self, pairs: &[(&str, i64)]) -> Keyed<Reserve> {
        let lines = Lines::sum(pairs.iter().map(|(text, quantity)| (key(text), *quantity))).unwrap();
        keyed(self.id(), Reserve { reservation_id: self.id(), lines, ttl: Duration::from_secs(10) })
    }

    pub(crate) async fn commit(&self, reservation_id: Uuid) -> Result<Reservation, Error> {
        Ok(ops::commit_reservation(&self.app, &order(), self.resolve(reservation_id)).await?.value)
    }

    /// To commit or release all of it.
    pub(crate) fn resolve(&self, reservation_id: Uuid) -> Keyed<Resolve> {
        keyed(self.id(), Resolve { reservation_id, lines: None })
    }

    /// Another process on the same database, which hears of the first only through it.
    pub(crate) async fn another(&self) -> App {
        self.another_with(|_| {}).await
    }

    /// Another process, with other settings.
    pub(crate) async fn another_with(&self, change: impl FnOnce(&mut Config)) -> App {
        replica_with(&self.kernel, &self.database, &Bus::memory(), change).await
    }

    pub(crate) async fn level(&self, text: &str) -> StockLevel {
        ops::get_stock(&self.app, key(text)).await.unwrap()
    }

    pub(crate) async fn assert_sound(&self) {
        let mut tx = self.database.read().await.unwrap();
        assert_eq!(invariants::check(&mut tx).await.unwrap(), []);
    }

    pub(crate) fn wait(&self, seconds: u64) {
        self.kernel.clock.advance(Duration::from_secs(seconds));
    }
}

/// A process of the service on that database, whose sweeper never comes by itself.
pub(crate) async fn replica(kernel: &Kernel, database: &TestDatabase, bus: &Bus) -> App {
    replica_with(kernel, database, bus, |_| {}).await
}

async fn replica_with(kernel: &Kernel, database: &TestDatabase, bus: &Bus, change: impl FnOnce(&mut Config)) -> App {
    let mut config = Config { database: database.config().clone(), ..Config::default() };
    config.limits.sweep_interval_ms = 1_000_000_000;
    config.limits.sweep_batch_max = 4;
    config.limits.due_holds_max = 3;
    change(&mut config);
    open(kernel, &config, &Deps { bus: bus.clone() }).await.unwrap()
}

pub(crate) fn staff() -> Caller {
    Caller::proven("0190a5d0-0000-7000-8000-000000000001", BTreeSet::new(), None)
}

pub(crate) fn order() -> Caller {
    Caller::proven("service:order", BTreeSet::new(), None)
}

pub(crate) fn sku(text: &str) -> Sku {
    Sku::parse(text).unwrap()
}

pub(crate) fn key(text: &str) -> StockKey {
    StockKey::new(sku(text), Location::main())
}

pub(crate) fn keyed<C>(request_id: Uuid, command: C) -> Keyed<C> {
    Keyed { key: IdempotencyKey { request_id, fingerprint: [1; 32] }, command }
}

pub(crate) fn details(name: &str, amount_minor: i64) -> Details {
    Details {
        name: name.into(),
        description: String::new(),
        price: Money { currency: Currency::parse("EUR").unwrap(), amount_minor },
        tax_basis_points: 0,
        attributes: BTreeMap::new(),
    }
}

pub(crate) fn create(id: &Uuid, text: &str) -> Keyed<CreateProduct> {
    keyed(*id, CreateProduct { sku: sku(text), details: details(text, 100) })
}

pub(crate) fn is_short(result: &Result<Reservation, Error>) -> bool {
    matches!(result, Err(Error::Refused(Refusal::InsufficientStock(_))))
}
