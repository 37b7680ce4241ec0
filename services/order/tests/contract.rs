//! The store on both engines.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use souk_db::{Db, Kind, MigrationSet, all_touched, schema, sql, together};
use souk_order::domain::commands::Position;
use souk_order::domain::{Canceller, ListOrders, Order, OrderId, OrderLine, OrderState, Sku, Step, StepKind, UserId};
use souk_order::store::{self, Finished, Head, NewOrder, NewStep, Postponed, Version};
use souk_proto_common::{Currency, IdempotencyKey, Money};
use souk_testkit::on_both;
use uuid::Uuid;

const MIGRATIONS: &[&MigrationSet] = &[&souk_db::MIGRATIONS, &souk_events::MIGRATIONS, &store::MIGRATIONS];

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_800_000_000_000_001).unwrap() + TimeDelta::seconds(seconds)
}

fn id(number: u128) -> OrderId {
    OrderId(Uuid::from_u128(number))
}

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(0xabc0_0000 + number))
}

fn euros(amount_minor: i64) -> Money {
    Money { currency: Currency::parse("EUR").unwrap(), amount_minor }
}

/// An order of `owner` under the key of its own number, placed at second `number`.
fn new_order(number: u128, owner: UserId) -> NewOrder {
    let line = |sku: &str, quantity| OrderLine {
        sku: Sku::parse(sku).unwrap(),
        name: format!("The \"{sku}\" — ü"),
        quantity,
        unit_price: euros(1_999),
        tax_basis_points: 1_900,
        tax: euros(380),
        total: euros(2_379),
    };
    let priced = (vec![line("TEA", 1), line("CUP", 2)], euros(4_758));
    let placed_at = at(i64::try_from(number).unwrap());
    let order = Order::place(id(number), owner, Uuid::from_u128(number + 1_000), priced, placed_at);
    NewOrder { order, key: IdempotencyKey { request_id: Uuid::from_u128(number + 2_000), fingerprint: [7; 32] } }
}

fn version(order: &Order) -> Version {
    let snapshot = format!("{} v{}", order.id, order.version).into_bytes();
    Version { order_id: order.id, version: order.version, snapshot, created_at: order.updated_at }
}

const POSITION: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Stores orders with their first version and step; those that were stored.
async fn place(db: &Db, orders: &[NewOrder]) -> HashSet<OrderId> {
    let mut tx = db.write().await.unwrap();
    let stored = store::insert_orders(&mut tx, &orders.iter().collect::<Vec<_>>()).await.unwrap();
    let new = || orders.iter().map(|new| &new.order).filter(|order| stored.contains(&order.id));
    let versions: Vec<Version> = new().map(version).collect();
    let steps: Vec<NewStep> = stored.iter().map(|id| new_step(*id, StepKind::CommitStock)).collect();
    let parts = [store::insert_lines(new()), store::insert_versions(&versions), store::insert_steps(&steps, at(0))];
    together(&mut tx, parts).await.unwrap();
    tx.commit().await.unwrap();
    stored
}

fn new_step(order_id: OrderId, kind: StepKind) -> NewStep {
    NewStep { order_id, kind, deadline_at: at(60), traceparent: Some(POSITION.to_owned()), taken: None }
}

async fn save(db: &Db, order: &Order) -> Result<(), souk_db::Error> {
    let mut tx = db.write().await.unwrap();
    let changes = [store::update_orders(std::slice::from_ref(order)), store::insert_versions(&[version(order)])];
    let [orders, versions] = together(&mut tx, changes).await?;
    all_touched(orders.min(versions), 1, "an order")?;
    tx.commit().await
}

async fn load(db: &Db, id: OrderId) -> Order {
    let mut tx = db.write().await.unwrap();
    store::orders_for_update(&mut tx, &[id]).await.unwrap().pop().unwrap()
}

async fn claim(db: &Db, now: DateTime<Utc>, limit: i64) -> Vec<Step> {
    let mut tx = db.write().await.unwrap();
    let lease_until = now + TimeDelta::seconds(15);
    let steps = store::claim_steps(&mut tx, Uuid::from_u128(1), now, lease_until, limit).await.unwrap();
    tx.commit().await.unwrap();
    let positions: Vec<String> = steps.iter().map(|(_, position)| position.unwrap().to_string()).collect();
    assert_eq!(positions, vec![POSITION; steps.len()], "a step comes back with its place in a trace");
    steps.into_iter().map(|(step, _)| step).collect()
}

#[tokio::test]
async fn both_engines_have_the_same_schema() {
    let mut schemas = Vec::new();
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        database.migrate(MIGRATIONS).await.unwrap();
        schemas.push(schema::columns(&mut database.read().await.unwrap()).await.unwrap());
    }
    assert!(schemas[0].len() > 50);
    assert_eq!(schemas[0], schemas[1]);
}

#[tokio::test]
async fn an_order_is_kept_as_it_was_placed() {
    on_both(MIGRATIONS, async |db| {
        let (first, second) = (new_order(1, user(1)), new_order(2, user(2)));
        assert_eq!(place(&db, &[first.clone(), second.clone()]).await, HashSet::from([id(1), id(2)]));
        let mut tx = db.write().await.unwrap();
        let found = store::orders_for_update(&mut tx, &[id(2), id(9), id(1), id(2)]).await.unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.contains(&first.order) && found.contains(&second.order), "{found:?}");
    })
    .await;
}

#[tokio::test]
async fn a_key_is_one_order_of_its_owner() {
    on_both(MIGRATIONS, async |db| {
        let first = new_order(1, user(1));
        let again = NewOrder { key: first.key, ..new_order(2, user(1)) };
        let twin = NewOrder { key: first.key, ..new_order(3, user(1)) };
        let of_another = NewOrder { key: first.key, ..new_order(4, user(2)) };
        assert_eq!(place(&db, &[first.clone(), twin, of_another]).await, HashSet::from([id(1), id(4)]), "in one batch");
        assert_eq!(place(&db, &[again]).await, HashSet::new(), "in a later one");
        let mut tx = db.read().await.unwrap();
        let keys = [(user(1), first.key.request_id), (user(2), first.key.request_id), (user(3), first.key.request_id)];
        let mut placed = store::orders_by_key(&mut tx, &keys).await.unwrap();
        placed.sort_by_key(|placed| placed.order_id);
        assert_eq!(placed.len(), 2);
        assert_eq!((placed[0].order_id, placed[0].owner_id, placed[0].key), (id(1), user(1), first.key));
        assert_eq!(placed[0].reservation_id, first.order.reservation_id);
        assert_eq!(placed[0].snapshot, version(&first.order).snapshot);
        let lines: Vec<(i64,)> = sql("SELECT COUNT(*) FROM order_lines").fetch_all(&mut tx).await.unwrap();
        assert_eq!(lines, [(4,)], "what is not stored has no lines");
    })
    .await;
}

#[tokio::test]
async fn the_answer_to_a_key_stays_the_first_version() {
    on_both(MIGRATIONS, async |db| {
        let new = new_order(1, user(1));
        place(&db, std::slice::from_ref(&new)).await;
        save(&db, &new.order.confirm(at(9)).unwrap()).await.unwrap();
        let mut tx = db.read().await.unwrap();
        let placed = store::orders_by_key(&mut tx, &[(user(1), new.key.request_id)]).await.unwrap();
        assert_eq!(placed[0].snapshot, version(&new.order).snapshot);
    })
    .await;
}

#[tokio::test]
async fn a_change_is_stored_and_a_stale_one_is_not() {
    on_both(MIGRATIONS, async |db| {
        let new = new_order(1, user(1));
        place(&db, std::slice::from_ref(&new)).await;
        let cancelled = new.order.cancel(Canceller::Owner, at(5)).unwrap();
        save(&db, &cancelled).await.unwrap();
        assert_eq!(load(&db, id(1)).await, cancelled);
        let stale = new.order.confirm(at(6)).unwrap();
        assert_eq!(save(&db, &stale).await.unwrap_err().kind(), Kind::Conflict);
        assert_eq!(load(&db, id(1)).await, cancelled);
    })
    .await;
}

#[tokio::test]
async fn versions_are_read_in_order_from_any_one_on() {
    on_both(MIGRATIONS, async |db| {
        let new = new_order(1, user(1));
        place(&db, &[new.clone(), new_order(2, user(1))]).await;
        let confirmed = new.order.confirm(at(9)).unwrap();
        let cancelled = confirmed.cancel(Canceller::Staff, at(10)).unwrap();
        save(&db, &confirmed).await.unwrap();
        save(&db, &cancelled).await.unwrap();
        let mut tx = db.read().await.unwrap();
        let numbers =
            |versions: Vec<(i64, Vec<u8>)>| versions.into_iter().map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(numbers(store::versions_after(&mut tx, id(1), 0, 10).await.unwrap()), [1, 2, 3]);
        assert_eq!(numbers(store::versions_after(&mut tx, id(1), 1, 1).await.unwrap()), [2]);
        assert!(store::versions_after(&mut tx, id(1), 3, 10).await.unwrap().is_empty());
        let head = Head { owner_id: user(1), state: OrderState::Cancelled, version: 3 };
        assert_eq!(store::head(&mut tx, id(1)).await.unwrap(), Some(head));
        assert_eq!(store::head(&mut tx, id(9)).await.unwrap(), None);
        let latest = store::latest(&mut tx, id(1)).await.unwrap();
        assert_eq!(latest, Some((user(1), version(&cancelled).snapshot)));
        assert_eq!(store::latest(&mut tx, id(9)).await.unwrap(), None);
        let mut current = store::current_versions(&mut tx, &[id(9), id(2), id(1)]).await.unwrap();
        current.sort_unstable();
        assert_eq!(current, [(id(1), 3), (id(2), 1)]);
    })
    .await;
}

fn everything() -> ListOrders {
    ListOrders {
        owner_id: None,
        states: Vec::new(),
        created_from: None,
        created_before: None,
        page_size: 50,
        after: None,
    }
}

async fn listed(db: &Db, query: &ListOrders, limit: i64) -> Vec<OrderId> {
    let mut tx = db.read().await.unwrap();
    let listed = store::list_orders(&mut tx, query, limit).await.unwrap();
    listed.into_iter().map(|order| order.position.order_id).collect()
}

#[tokio::test]
async fn orders_are_listed_newest_first_and_filtered() {
    on_both(MIGRATIONS, async |db| {
        let mut orders: Vec<NewOrder> = (1..=4).map(|number| new_order(number, user(number % 2))).collect();
        // Two of one moment, and one whose time has no fraction.
        orders[2].order.created_at = orders[1].order.created_at;
        orders[3].order.created_at = DateTime::from_timestamp(1_800_000_009, 0).unwrap();
        place(&db, &orders).await;
        save(&db, &orders[0].order.confirm(at(9)).unwrap()).await.unwrap();
        save(&db, &orders[1].order.expire(at(9)).unwrap()).await.unwrap();

        assert_eq!(listed(&db, &everything(), 10).await, [id(4), id(3), id(2), id(1)]);
        assert_eq!(listed(&db, &everything(), 2).await, [id(4), id(3)]);
        let query = ListOrders { owner_id: Some(user(1)), ..everything() };
        assert_eq!(listed(&db, &query, 10).await, [id(3), id(1)]);
        let query = ListOrders { states: vec![OrderState::Confirmed, OrderState::Expired], ..everything() };
        assert_eq!(listed(&db, &query, 10).await, [id(2), id(1)]);
        let query = ListOrders { created_from: Some(at(2)), created_before: Some(at(8)), ..everything() };
        assert_eq!(listed(&db, &query, 10).await, [id(3), id(2)]);
        let query = ListOrders { owner_id: Some(user(0)), states: vec![OrderState::Pending], ..query };
        assert_eq!(listed(&db, &query, 10).await, []);
        let after = Position { created_at: at(2), order_id: id(3) };
        let query = ListOrders { after: Some(after), ..everything() };
        assert_eq!(listed(&db, &query, 10).await, [id(2), id(1)]);
        let mut tx = db.read().await.unwrap();
        let first = store::list_orders(&mut tx, &query, 1).await.unwrap().remove(0);
        assert_eq!(first.position, Position { created_at: at(2), order_id: id(2) });
        assert_eq!(first.snapshot, format!("{} v2", id(2)).into_bytes(), "the last version");
    })
    .await;
}

#[tokio::test]
async fn a_step_that_is_taken_up_is_nobody_elses_until_its_lease_runs_out() {
    on_both(MIGRATIONS, async |db| {
        place(&db, &[new_order(1, user(1))]).await;
        assert!(claim(&db, at(0) - TimeDelta::microseconds(1), 10).await.is_empty(), "not due yet");
        let first = claim(&db, at(0), 10).await;
        let expected =
            Step { order_id: id(1), kind: StepKind::CommitStock, epoch: 1, attempts: 1, deadline_at: at(60) };
        assert_eq!(first, [expected]);
        assert!(claim(&db, at(14), 10).await.is_empty());
        let second = claim(&db, at(15), 10).await;
        assert_eq!(second, [Step { epoch: 2, attempts: 2, ..expected }]);

        let mut tx = db.write().await.unwrap();
        let current = store::lock_current(&mut tx, &[first[0], second[0]]).await.unwrap();
        assert_eq!(current, [(id(1), StepKind::CommitStock, 2)], "whoever was replaced may not finish it");
        let finished = Finished { order_id: id(1), kind: StepKind::CommitStock };
        store::finish_steps(&[finished], at(16)).execute(&mut tx).await.unwrap();
        assert_eq!(store::lock_current(&mut tx, &second).await.unwrap(), [], "what is over stays over");
        tx.commit().await.unwrap();
        assert!(claim(&db, at(1_000), 10).await.is_empty());
        let mut tx = db.read().await.unwrap();
        let reservations = store::reservations_of(&mut tx, &[id(1), id(9)]).await.unwrap();
        assert_eq!(reservations, [(id(1), Uuid::from_u128(1_001))]);
    })
    .await;
}

#[tokio::test]
async fn a_step_that_is_put_off_is_due_again_then() {
    on_both(MIGRATIONS, async |db| {
        place(&db, &[new_order(1, user(1))]).await;
        let step = claim(&db, at(0), 1).await[0];
        let mut tx = db.write().await.unwrap();
        let (order_id, kind) = (step.order_id, step.kind);
        let postponed = Postponed { order_id, kind, due_at: at(3), error: "down".into() };
        store::postpone_steps(&[postponed], at(1)).execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        assert!(claim(&db, at(2), 1).await.is_empty());
        assert_eq!(claim(&db, at(3), 1).await, [Step { epoch: 2, attempts: 2, ..step }]);
        let mut tx = db.read().await.unwrap();
        let error: (Option<String>,) = sql("SELECT last_error FROM saga_steps").fetch_one(&mut tx).await.unwrap();
        assert_eq!(error.0.as_deref(), Some("down"));
    })
    .await;
}

#[tokio::test]
async fn a_step_that_was_put_off_can_be_due_now_and_one_that_is_being_tried_cannot() {
    on_both(MIGRATIONS, async |db| {
        place(&db, &[new_order(1, user(1)), new_order(2, user(1))]).await;
        let hastened = async |now| {
            let mut tx = db.write().await.unwrap();
            let hastened = store::hasten_steps(&mut tx, Uuid::from_u128(1_001), now).await.unwrap();
            tx.commit().await.unwrap();
            hastened
        };
        let taken = claim(&db, at(0), 10).await;
        assert_eq!((taken.len(), hastened(at(1)).await), (2, 0));
        let mut tx = db.write().await.unwrap();
        let postponed =
            |step: &Step| Postponed { order_id: step.order_id, kind: step.kind, due_at: at(90), error: "down".into() };
        let postponed: Vec<Postponed> = taken.iter().map(postponed).collect();
        store::postpone_steps(&postponed, at(2)).execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        assert!(claim(&db, at(3), 10).await.is_empty());
        assert_eq!((hastened(at(3)).await, hastened(at(3)).await), (1, 0));
        let claimed = claim(&db, at(3), 10).await;
        assert_eq!(
            claimed.iter().map(|step| step.order_id).collect::<Vec<_>>(),
            [id(1)],
            "the other's stock is another"
        );
    })
    .await;
}

#[tokio::test]
async fn a_step_that_is_dropped_is_never_done() {
    on_both(MIGRATIONS, async |db| {
        place(&db, &[new_order(1, user(1))]).await;
        let step = claim(&db, at(0), 1).await[0];
        let mut tx = db.write().await.unwrap();
        assert!(store::drop_step(&mut tx, id(1), StepKind::CommitStock, at(1)).await.unwrap());
        assert!(!store::drop_step(&mut tx, id(1), StepKind::CommitStock, at(1)).await.unwrap());
        assert_eq!(store::lock_current(&mut tx, &[step]).await.unwrap(), []);
        let release = [new_step(id(1), StepKind::ReleaseStock)];
        store::insert_steps(&release, at(1)).execute(&mut tx).await.unwrap();
        store::insert_steps(&release, at(9)).execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        let left = claim(&db, at(1_000), 10).await;
        assert_eq!(left.iter().map(|step| step.kind).collect::<Vec<_>>(), [StepKind::ReleaseStock]);
    })
    .await;
}

#[tokio::test]
async fn a_backlog_is_counted_and_what_is_late_in_it() {
    on_both(MIGRATIONS, async |db| {
        place(&db, &[new_order(1, user(1)), new_order(2, user(1)), new_order(3, user(1))]).await;
        let mut tx = db.write().await.unwrap();
        store::finish_steps(&[Finished { order_id: id(1), kind: StepKind::CommitStock }], at(1))
            .execute(&mut tx)
            .await
            .unwrap();
        let backlog = async |tx: &mut souk_db::Tx, now, most| {
            let backlog = store::backlog(tx, now, most).await.unwrap();
            (backlog.due, backlog.overdue, backlog.oldest)
        };
        assert_eq!(backlog(&mut tx, at(60), 10).await, (2, 0, Some(at(0))));
        assert_eq!(backlog(&mut tx, at(61), 10).await, (2, 2, Some(at(0))));
        assert_eq!(backlog(&mut tx, at(61), 1).await, (1, 1, Some(at(0))));
    })
    .await;
}

#[tokio::test]
async fn workers_that_come_at_once_share_the_steps() {
    on_both(MIGRATIONS, async |db| {
        let orders: Vec<NewOrder> = (1..=60).map(|number| new_order(number, user(1))).collect();
        place(&db, &orders).await;
        let workers = (0..4).map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..5 {
                    mine.extend(claim(&db, at(0), 4).await);
                }
                mine
            })
        });
        let taken: Vec<Step> =
            futures::future::join_all(workers).await.into_iter().flat_map(|mine| mine.unwrap()).collect();
        let distinct: HashSet<OrderId> = taken.iter().map(|step| step.order_id).collect();
        assert_eq!((taken.len(), distinct.len()), (60, 60), "every step once");
        assert!(taken.iter().all(|step| step.epoch == 1));
    })
    .await;
}

#[tokio::test]
async fn a_worker_does_not_wait_for_whoever_is_just_cancelling() {
    let database = souk_testkit::postgres().await;
    database.migrate(MIGRATIONS).await.unwrap();
    place(&database, &[new_order(1, user(1)), new_order(2, user(1))]).await;
    let mut cancelling = database.write().await.unwrap();
    assert!(store::drop_step(&mut cancelling, id(1), StepKind::CommitStock, at(0)).await.unwrap());
    let claimed = claim(&database, at(0), 10).await;
    assert_eq!(claimed.iter().map(|step| step.order_id).collect::<Vec<_>>(), [id(2)]);
    cancelling.commit().await.unwrap();
    assert!(claim(&database, at(0), 10).await.is_empty());
}
