//! Operations on SQLite with a fake clock, and those that two replicas must agree on also on PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::DateTime;
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use souk_events::{Bus, Heard};
use souk_interceptors::Caller;
use souk_inventory::config::Config;
use souk_inventory::domain::command::{Answer, Keyed, Receive, Reserve, Resolve};
use souk_inventory::domain::movement::Reason;
use souk_inventory::domain::product::{Details, Etag, Patch};
use souk_inventory::domain::query::{CreateProduct, ImportRow, UpdateProduct, WatchStock};
use souk_inventory::domain::reservation::{Lines, State};
use souk_inventory::domain::{Location, Refusal, Reservation, Sku, StockKey, StockLevel};
use souk_inventory::error::Error;
use souk_inventory::ops::import_products::{Effect, Imported, import_products};
use souk_inventory::ops::watch_stock::Update;
use souk_inventory::ops::{self, App};
use souk_inventory::store::invariants;
use souk_inventory::{Deps, open};
use souk_proto_common::{Currency, IdempotencyKey, Money};
use souk_runtime::{Clock, Kernel};
use souk_testkit::TestDatabase;
use uuid::Uuid;

struct Shop {
    app: App,
    bus: Bus,
    kernel: Kernel,
    database: TestDatabase,
}

impl Shop {
    async fn on(database: TestDatabase) -> Self {
        let kernel = Kernel::new(Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap()));
        let bus = Bus::memory();
        let app = replica(&kernel, &database, &bus).await;
        Self { app, bus, kernel, database }
    }

    async fn on_sqlite() -> Self {
        Self::on(souk_testkit::sqlite().await).await
    }

    /// With `quantity` units of each product.
    async fn stocked(self, products: &[&str], quantity: i64) -> Self {
        for text in products {
            ops::create_product(&self.app, &staff(), create(&self.id(), text)).await.unwrap();
            if quantity > 0 {
                self.receive(text, quantity).await.unwrap();
            }
        }
        self
    }

    fn id(&self) -> Uuid {
        self.kernel.ids.new_id()
    }

    async fn receive(&self, text: &str, quantity: i64) -> Result<Answer<StockLevel>, Error> {
        let command = Receive { key: key(text), quantity, reason: Reason::Purchase, reference: String::new() };
        ops::receive_stock(&self.app, &staff(), keyed(self.id(), command)).await
    }

    async fn reserve(&self, pairs: &[(&str, i64)]) -> Result<Reservation, Error> {
        Ok(ops::reserve(&self.app, &order(), self.reserve_command(pairs)).await?.value)
    }

    fn reserve_command(&self, pairs: &[(&str, i64)]) -> Keyed<Reserve> {
        let lines = Lines::sum(pairs.iter().map(|(text, quantity)| (key(text), *quantity))).unwrap();
        keyed(self.id(), Reserve { reservation_id: self.id(), lines, ttl: Duration::from_secs(10) })
    }

    async fn commit(&self, reservation_id: Uuid) -> Result<Reservation, Error> {
        let command = keyed(self.id(), Resolve { reservation_id, lines: None });
        Ok(ops::commit_reservation(&self.app, &order(), command).await?.value)
    }

    async fn level(&self, text: &str) -> StockLevel {
        ops::get_stock(&self.app, key(text)).await.unwrap()
    }

    async fn assert_sound(&self) {
        let mut tx = self.database.read().await.unwrap();
        assert_eq!(invariants::check(&mut tx).await.unwrap(), []);
    }

    fn wait(&self, seconds: u64) {
        self.kernel.clock.advance(Duration::from_secs(seconds));
    }
}

/// A process of the service on that database, whose sweeper never comes by itself.
async fn replica(kernel: &Kernel, database: &TestDatabase, bus: &Bus) -> App {
    let mut config = Config { database: database.config().clone(), ..Config::default() };
    config.limits.sweep_interval_ms = 1_000_000_000;
    config.limits.due_holds_max = 3;
    open(kernel, &config, &Deps { bus: bus.clone() }).await.unwrap()
}

fn staff() -> Caller {
    Caller::proven("0190a5d0-0000-7000-8000-000000000001", BTreeSet::new(), None)
}

fn order() -> Caller {
    Caller::proven("service:order", BTreeSet::new(), None)
}

fn sku(text: &str) -> Sku {
    Sku::parse(text).unwrap()
}

fn key(text: &str) -> StockKey {
    StockKey::new(sku(text), Location::main())
}

fn keyed<C>(request_id: Uuid, command: C) -> Keyed<C> {
    Keyed { key: IdempotencyKey { request_id, fingerprint: [1; 32] }, command }
}

fn details(name: &str, amount_minor: i64) -> Details {
    Details {
        name: name.into(),
        description: String::new(),
        price: Money { currency: Currency::parse("EUR").unwrap(), amount_minor },
        tax_basis_points: 0,
        attributes: BTreeMap::new(),
    }
}

fn create(id: &Uuid, text: &str) -> Keyed<CreateProduct> {
    keyed(*id, CreateProduct { sku: sku(text), details: details(text, 100) })
}

fn is_short(result: &Result<Reservation, Error>) -> bool {
    matches!(result, Err(Error::Refused(Refusal::InsufficientStock(_))))
}

#[tokio::test]
async fn a_due_hold_is_as_good_as_none_to_the_reserve_that_needs_it() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA", "CUP"], 5).await;
    let first = shop.reserve(&[("TEA", 5), ("CUP", 5)]).await.unwrap();
    assert!(is_short(&shop.reserve(&[("TEA", 1)]).await));
    shop.wait(10);
    shop.reserve(&[("TEA", 5)]).await.unwrap();
    assert_eq!(shop.level("CUP").await.stock.held, 0, "a hold ends as a whole");
    assert!(matches!(shop.commit(first.id).await, Err(Error::Refused(Refusal::Expired(_)))));
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_backlog_of_due_holds_is_reclaimed_however_long_it_is() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 20).await;
    for _ in 0..20 {
        shop.reserve(&[("TEA", 1)]).await.unwrap();
    }
    shop.wait(10);
    shop.reserve(&[("TEA", 20)]).await.unwrap(); // far more than due_holds_max
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_commit_that_races_the_expiry_has_one_winner() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 1).await;
    let (mut commits, mut expiries) = (0, 0);
    for round in 0..60_u8 {
        let held = shop.reserve(&[("TEA", 1)]).await.unwrap();
        // In every third round the hold is due before, in every third after the race; between these, who knows.
        shop.wait(if round % 3 == 0 { 10 } else { 9 });
        let tick = async {
            for _ in 0..round % 5 {
                tokio::task::yield_now().await;
            }
            shop.wait(u64::from(round % 3 == 1));
        };
        let (committed, taken, ()) = tokio::join!(shop.commit(held.id), shop.reserve(&[("TEA", 1)]), tick);
        match (&committed, &taken) {
            (Ok(_), taken) if is_short(taken) => commits += 1,
            (Err(Error::Refused(Refusal::Expired(_))), taken) => {
                // Before the hold was due, the other Reserve was refused; from then on it got the unit.
                assert!(taken.is_ok() || is_short(taken), "{taken:?}");
                expiries += 1;
            }
            both => panic!("{both:?}"),
        }
        shop.assert_sound().await;
        let winner = taken.map_or(held.id, |taken| taken.id);
        let release = keyed(shop.id(), Resolve { reservation_id: winner, lines: None });
        drop(ops::release_reservation(&shop.app, &order(), release).await);
        shop.wait(10);
    }
    assert!(commits > 0 && expiries > 0, "both must have happened: {commits} commits, {expiries} expiries");
}

#[tokio::test]
async fn of_n_reserves_on_s_units_exactly_as_many_succeed_as_there_are_units() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 100).await;
    let results = join_all((0..200).map(|_| shop.reserve(&[("TEA", 1)]).boxed())).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 100);
    assert_eq!(results.iter().filter(|result| is_short(result)).count(), 100);
    assert_eq!(shop.level("TEA").await.stock.available(), 0);
    let stats = shop.app.stock.stats();
    assert!(stats.batches() < stats.commands(), "concurrent commands share transactions");
    shop.assert_sound().await;
}

#[tokio::test]
async fn two_replicas_never_oversell() {
    let shop = Shop::on(souk_testkit::postgres().await).await.stocked(&["TEA", "CUP"], 50).await;
    let other = replica(&shop.kernel, &shop.database, &Bus::memory()).await;
    let buyers = (0..200).map(|buyer| {
        let app = if buyer % 2 == 0 { &shop.app } else { &other };
        // In both orders, so that careless locking would deadlock.
        let pairs = if buyer % 4 < 2 { [("TEA", 1), ("CUP", 1)] } else { [("CUP", 1), ("TEA", 1)] };
        let command = shop.reserve_command(&pairs);
        async move { ops::reserve(app, &order(), command).await.map(|answer| answer.value) }.boxed()
    });
    let results = join_all(buyers).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 50, "{results:?}");
    assert_eq!(results.iter().filter(|result| is_short(result)).count(), 150);
    shop.assert_sound().await;
}

#[tokio::test]
async fn one_key_is_one_effect_from_however_many_replicas() {
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        let shop = Shop::on(database).await.stocked(&["TEA"], 50).await;
        let other = replica(&shop.kernel, &shop.database, &Bus::memory()).await;
        let command = shop.reserve_command(&[("TEA", 2)]);
        let calls = (0..50).map(|call| {
            let (app, command) = (if call % 2 == 0 { &shop.app } else { &other }, command.clone());
            async move { ops::reserve(app, &order(), command).await.unwrap() }.boxed()
        });
        let answers = join_all(calls).await;
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
        assert!(answers.iter().all(|answer| answer.value == answers[0].value));
        assert_eq!(shop.level("TEA").await.stock.held, 2);
        let mut other_body = command.clone();
        other_body.key.fingerprint = [2; 32];
        let refused = ops::reserve(&shop.app, &order(), other_body).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::KeyReused("request_id")))), "{refused:?}");
        let anothers = ops::reserve(&shop.app, &staff(), command).await;
        assert!(matches!(anothers, Err(Error::Refused(Refusal::KeyReused("reservation_id")))), "{anothers:?}");
        shop.assert_sound().await;
    }
}

#[tokio::test]
async fn a_reservation_is_recognised_by_its_name_under_another_key() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 5).await;
    let mut command = shop.reserve_command(&[("TEA", 2)]);
    let first = ops::reserve(&shop.app, &order(), command.clone()).await.unwrap();
    command.key.request_id = shop.id();
    let again = ops::reserve(&shop.app, &order(), command.clone()).await.unwrap();
    assert_eq!((again.replayed, again.value), (true, first.value));
    shop.commit(command.command.reservation_id).await.unwrap();
    let late = ops::reserve(&shop.app, &order(), command).await;
    assert!(matches!(late, Err(Error::Refused(Refusal::AlreadyCommitted(_)))), "{late:?}");
}

#[tokio::test]
async fn a_commit_is_answered_the_same_again_even_after_the_expiry() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 5).await;
    let held = shop.reserve(&[("TEA", 2)]).await.unwrap();
    let command = keyed(shop.id(), Resolve { reservation_id: held.id, lines: None });
    let first = ops::commit_reservation(&shop.app, &order(), command.clone()).await.unwrap();
    shop.wait(1_000);
    let again = ops::commit_reservation(&shop.app, &order(), command).await.unwrap();
    assert_eq!((again.replayed, again.value), (true, first.value));
}

#[tokio::test]
async fn the_sweeper_leaves_no_hold_that_is_due() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 50).await;
    for _ in 0..7 {
        shop.reserve(&[("TEA", 1)]).await.unwrap();
    }
    shop.wait(5);
    let live = shop.reserve(&[("TEA", 1)]).await.unwrap();
    shop.wait(5);
    let ended = ops::expire_holds(&shop.app, shop.kernel.clock.now()).await.unwrap();
    assert_eq!((ended, shop.level("TEA").await.stock.held), (7, 1));
    assert_eq!(ops::expire_holds(&shop.app, shop.kernel.clock.now()).await.unwrap(), 0);
    assert_eq!(shop.commit(live.id).await.unwrap().state, State::Committed);
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_watcher_has_the_snapshot_then_changes_and_never_the_same_twice() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA", "CUP"], 5).await;
    let watch = |known| WatchStock { keys: vec![(key("TEA"), known), (key("CUP"), None)] };
    let mut updates = Box::pin(ops::watch_stock(&shop.app, watch(None)).await.unwrap());
    assert_eq!(versions(&mut updates, 2).await, [("TEA".into(), 1), ("CUP".into(), 1)]);
    assert_eq!(updates.next().await.unwrap().unwrap(), Update::SnapshotEnd);
    assert_eq!(updates.next().now_or_never().map(|_| ()), None, "nothing changed");
    // A slow reader: of many changes it gets the last.
    for _ in 0..5 {
        shop.receive("TEA", 1).await.unwrap();
    }
    assert_eq!(versions(&mut updates, 1).await, [("TEA".into(), 6)]);
    assert_eq!(updates.next().now_or_never().map(|_| ()), None);
    // To resume, it says what it has.
    let mut resumed = Box::pin(ops::watch_stock(&shop.app, watch(Some(6))).await.unwrap());
    assert_eq!(versions(&mut resumed, 1).await, [("CUP".into(), 1)]);
    assert_eq!(resumed.next().await.unwrap().unwrap(), Update::SnapshotEnd);
    let mut behind = Box::pin(ops::watch_stock(&shop.app, watch(Some(5))).await.unwrap());
    assert_eq!(versions(&mut behind, 1).await, [("TEA".into(), 6)]);
    // And it is told of the end.
    assert!(shop.kernel.tasks.stop(Duration::from_secs(10)).await);
    assert!(matches!(updates.next().await, Some(Err(Error::ShuttingDown))));
    assert!(updates.next().await.is_none());
}

async fn versions(
    updates: &mut (impl futures::Stream<Item = Result<Update, Error>> + Unpin),
    count: usize,
) -> Vec<(String, i64)> {
    let mut versions = Vec::new();
    for _ in 0..count {
        let Update::Level(level) = updates.next().await.unwrap().unwrap() else { panic!("a level was expected") };
        versions.push((level.key.sku.as_str().to_owned(), level.stock.version));
    }
    versions
}

#[tokio::test]
async fn a_watcher_hears_of_what_another_replica_did() {
    let shop = Shop::on(souk_testkit::postgres().await).await.stocked(&["TEA"], 5).await;
    let other = Kernel::new(shop.kernel.clock.clone());
    let app = replica(&other, &shop.database, &Bus::memory()).await;
    let mut updates = Box::pin(ops::watch_stock(&app, WatchStock { keys: vec![(key("TEA"), Some(1))] }).await.unwrap());
    assert_eq!(updates.next().await.unwrap().unwrap(), Update::SnapshotEnd);
    shop.receive("TEA", 1).await.unwrap();
    // The poll of the other replica waits for the clock; it may begin to wait only now.
    let told = loop {
        shop.wait(1);
        if let Some(told) = versions(&mut updates, 1).now_or_never() {
            break told;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(told, [("TEA".into(), 2)]);
}

#[tokio::test]
async fn a_product_is_created_once_and_a_late_repeat_is_recognised() {
    let shop = Shop::on_sqlite().await;
    let command = create(&shop.id(), "TEA");
    let created = ops::create_product(&shop.app, &staff(), command.clone()).await.unwrap();
    assert!(!created.replayed);
    let again = ops::create_product(&shop.app, &staff(), command.clone()).await.unwrap();
    assert_eq!((again.replayed, &again.value), (true, &created.value));
    let taken = ops::create_product(&shop.app, &staff(), create(&shop.id(), "TEA")).await;
    assert!(matches!(taken, Err(Error::ProductExists(_))), "{taken:?}");
    let mut reused = command.clone();
    reused.key.fingerprint = [2; 32];
    let reused = ops::create_product(&shop.app, &staff(), reused).await;
    assert!(matches!(reused, Err(Error::KeyReused)), "{reused:?}");
    // Keys are forgotten after 72 hours, what they created is not.
    shop.wait(73 * 3_600);
    let forgotten = ops::expire_holds::forget_keys(&shop.app, shop.kernel.clock.now()).await.unwrap();
    assert_eq!(forgotten, 1);
    assert!(ops::create_product(&shop.app, &staff(), command).await.unwrap().replayed);
}

#[tokio::test]
async fn an_update_changes_what_is_named_if_the_etag_is_current() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 0).await;
    let patch = Patch { name: Some("Green tea".into()), ..Patch::default() };
    let update = |etag, patch| keyed(shop.id(), UpdateProduct { sku: sku("TEA"), etag, patch });
    let updated = ops::update_product(&shop.app, &staff(), update(Some(Etag(1)), patch.clone())).await.unwrap().value;
    assert_eq!((updated.details.name.as_str(), updated.version), ("Green tea", 2));
    let late = ops::update_product(&shop.app, &staff(), update(Some(Etag(1)), patch.clone())).await;
    assert!(matches!(late, Err(Error::ProductChanged { current: Etag(2), .. })), "{late:?}");
    let same = ops::update_product(&shop.app, &staff(), update(None, patch)).await.unwrap().value;
    assert_eq!(same, updated, "what is there already changes nothing");
    assert_eq!(ops::get_product(&shop.app, sku("TEA")).await.unwrap(), updated);
}

#[tokio::test]
async fn an_import_creates_updates_and_leaves_alone_row_by_row() {
    let shop = Shop::on_sqlite().await.stocked(&["OLD", "SAME"], 0).await;
    let row = |id: u128, text: &str, etag, amount_minor| Keyed {
        key: IdempotencyKey { request_id: Uuid::from_u128(id), fingerprint: [1; 32] },
        command: ImportRow { sku: sku(text), etag, details: details(text, amount_minor) },
    };
    let rows = [
        row(1, "NEW", None, 100),
        row(2, "OLD", Some(Etag(1)), 200),
        row(3, "SAME", None, 100),
        row(4, "OLD", Some(Etag(1)), 300),
        row(5, "NEW", None, 500),
        row(6, "NONE", Some(Etag(1)), 100),
    ];
    let done = |effect, version, replayed| Answer { value: Imported { effect, etag: Etag(version) }, replayed };
    let results = import_products(&shop.app, &staff(), &rows).await.unwrap();
    assert_eq!(results[0].clone().unwrap(), done(Effect::Created, 1, false));
    assert_eq!(results[1].clone().unwrap(), done(Effect::Updated, 2, false));
    assert_eq!(results[2].clone().unwrap(), done(Effect::Unchanged, 1, false));
    assert!(matches!(results[3], Err(Error::ProductChanged { .. })));
    assert_eq!(results[4].clone().unwrap(), done(Effect::Updated, 2, false));
    assert!(matches!(results[5], Err(Error::ProductNotFound(_))));
    assert_eq!(ops::get_product(&shop.app, sku("NEW")).await.unwrap().details.price.amount_minor, 500);
    let again = import_products(&shop.app, &staff(), &rows[..2]).await.unwrap();
    assert_eq!(again[0].clone().unwrap(), done(Effect::Created, 1, true));
    assert_eq!(again[1].clone().unwrap(), done(Effect::Updated, 2, true));
    let mut other = rows[0].clone();
    other.key.fingerprint = [2; 32];
    assert!(matches!(import_products(&shop.app, &staff(), &[other]).await.unwrap()[0], Err(Error::KeyReused)));
}

#[tokio::test]
async fn every_change_is_told_in_order() {
    let shop = Shop::on_sqlite().await;
    let mut listener = shop.bus.listen(&["souk.inventory.>"]).await.unwrap();
    let shop = shop.stocked(&["TEA"], 5).await;
    let first = shop.reserve(&[("TEA", 1)]).await.unwrap();
    shop.commit(first.id).await.unwrap();
    let release = keyed(shop.id(), Resolve { reservation_id: first.id, lines: None });
    ops::release_reservation(&shop.app, &order(), release).await.unwrap();
    let second = shop.reserve(&[("TEA", 1)]).await.unwrap();
    shop.wait(10);
    ops::expire_holds(&shop.app, shop.kernel.clock.now()).await.unwrap();
    let patch = Patch { price: Some(details("TEA", 200).price), ..Patch::default() };
    let update = keyed(shop.id(), UpdateProduct { sku: sku("TEA"), etag: None, patch });
    ops::update_product(&shop.app, &staff(), update).await.unwrap();

    let mut told: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    while told.values().map(Vec::len).sum::<usize>() < 13 {
        let Some(Heard::Event(event)) = listener.next().await else { panic!("an event was expected") };
        let kind = event.kind.trim_start_matches("souk.inventory.v1.").to_owned();
        told.entry(event.aggregate.clone()).or_default().push((kind, event.version));
    }
    let expected =
        |kinds: &[&str]| -> Vec<(String, i64)> { kinds.iter().map(|kind| (*kind).to_owned()).zip(1..).collect() };
    assert_eq!(told["product/TEA"], expected(&["ProductCreated", "ProductUpdated"]));
    assert_eq!(told["stock/main/TEA"], expected(&["StockChanged"; 6]));
    let resolved = ["ReservationHeld", "ReservationCommitted", "ReservationReleased"];
    assert_eq!(told[&format!("reservation/{}", first.id)], expected(&resolved));
    assert_eq!(told[&format!("reservation/{}", second.id)], expected(&["ReservationHeld", "ReservationExpired"]));
}
