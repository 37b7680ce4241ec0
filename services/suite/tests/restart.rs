//! P3: what was acknowledged is there after a kill, and a watcher goes on where it was. After a stop in order: in the journeys.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use souk_db::Db;
use souk_proto_order::v1::order_service_client::OrderServiceClient;
use souk_proto_order::v1::{ListOrdersRequest, Order, OrderState, WatchOrderRequest};
use souk_testkit::load::number;
use souk_testkit::process::{Process, database, owed};
use souk_testkit::suite::{Client, assert_invariants, one};
use souk_testkit::within;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const SKU: &str = "TEA-GREEN-100G";
const BUYERS: usize = 30;
const ORDERS: usize = 300;
/// It is killed at so many acknowledged orders.
const ENOUGH: usize = ORDERS / 2;
/// Holds outlive the leases of the process that was killed: what was acknowledged is confirmed.
const HOLD: Duration = Duration::from_secs(12);
const SETTINGS: [&str; 8] = [
    "--order.limits.hold_ttl_ms",
    "12000",
    "--order.saga.lease_ms",
    "3000",
    "--order.inventory.timeout_ms",
    "2500",
    "--order.relay.lease_ttl_ms",
    "2000",
];

fn start(folder: &Path) -> Process {
    Process::start(env!("CARGO_BIN_EXE_souk"), folder, None, &SETTINGS)
}

/// Places one order after the other, and watches each until it is confirmed, as long as there is somebody who answers. Each order that was
/// acknowledged, and the last version that its watcher has seen.
async fn buy(mut orders: OrderServiceClient<Client>, told: mpsc::UnboundedSender<()>) -> BTreeMap<String, i64> {
    let mut seen = BTreeMap::new();
    for _ in 0..ORDERS / BUYERS {
        let Ok(placed) = orders.place_order(one(SKU, 1)).await else { break };
        let order_id = placed.into_inner().order.unwrap().order_id;
        told.send(()).unwrap();
        seen.insert(order_id.clone(), 0);
        let request = WatchOrderRequest { order_id: order_id.clone(), after_version: 0 };
        let Ok(versions) = orders.watch_order(request).await else { break };
        let mut versions = versions.into_inner();
        while seen[&order_id] < 2 {
            let Ok(Some(message)) = versions.message().await else { return seen };
            let version = message.order.unwrap().version;
            assert_eq!(version, seen[&order_id] + 1, "{order_id}: versions follow each other");
            seen.insert(order_id.clone(), version);
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_amid_three_hundred_orders_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let process = start(folder.path());
    let alice = process.alice().await;
    let (told, mut acknowledgements) = mpsc::unbounded_channel();
    let mut buyers = JoinSet::new();
    for _ in 0..BUYERS {
        buyers.spawn(buy(process.orders(&alice), told.clone()));
    }
    for _ in 0..ENOUGH {
        acknowledgements.recv().await.unwrap();
    }
    process.kill();
    let killed_at = tokio::time::Instant::now();
    let seen: BTreeMap<String, i64> = buyers.join_all().await.into_iter().flatten().collect();
    assert!((ENOUGH..ORDERS).contains(&seen.len()), "{} orders were acknowledged", seen.len());

    let process = start(folder.path());
    let alice = process.alice().await;
    let mut orders = process.orders(&alice);
    let (inventory, order) = (database(folder.path(), "inventory").await, database(folder.path(), "order").await);
    // Nothing is owed, and of an order that was not stored nothing is held: when its hold is over, and a sweep, with time to spare.
    let rest = (killed_at + HOLD + Duration::from_secs(10)).duration_since(tokio::time::Instant::now());
    within(rest, "the holds of orders that were not stored have ended, and all is done and published", async || {
        number(&inventory, "SELECT CAST(SUM(held) AS BIGINT) FROM stock").await == 0 && owed(&order).await == 0
    })
    .await;
    let kept = all_orders(&mut orders).await;
    for order_id in seen.keys() {
        assert_eq!(kept.get(order_id).map(Order::state), Some(OrderState::Confirmed), "{order_id}");
    }
    for (order_id, order) in &kept {
        let after = seen.get(order_id).copied().unwrap_or_default();
        assert_resumes(&mut orders, order_id, after, order.version).await;
    }
    assert_gapless(&order, i64::try_from(kept.len()).unwrap()).await;
    assert_invariants(&inventory).await;
    let confirmed = "SELECT CAST(SUM(quantity) AS BIGINT) FROM order_lines JOIN orders USING (order_id)
        WHERE state = 'CONFIRMED'";
    let allocated = number(&inventory, "SELECT CAST(SUM(allocated) AS BIGINT) FROM stock").await;
    assert_eq!(number(&order, confirmed).await, allocated);
    process.stop();
}

async fn all_orders(orders: &mut OrderServiceClient<Client>) -> BTreeMap<String, Order> {
    let request = ListOrdersRequest { page_size: 1_000, ..ListOrdersRequest::default() };
    let page = orders.list_orders(request).await.unwrap().into_inner();
    assert!(page.next_page_token.is_empty());
    page.orders.into_iter().map(|order| (order.order_id.clone(), order)).collect()
}

/// Who has seen version `after` is told each that follows, to the `last`, once and in order.
async fn assert_resumes(orders: &mut OrderServiceClient<Client>, order_id: &str, after: i64, last: i64) {
    let request = WatchOrderRequest { order_id: order_id.to_owned(), after_version: after };
    let mut versions = orders.watch_order(request).await.unwrap().into_inner();
    for expected in after + 1..=last {
        let version = versions.message().await.unwrap().unwrap().order.unwrap().version;
        assert_eq!(version, expected, "{order_id}: the watch resumes after {after}");
    }
}

/// Each of so many orders has every version from 1 to its last, and an event of each.
async fn assert_gapless(order: &Db, orders: i64) {
    for (table, its_order) in [("order_versions", "v.order_id"), ("outbox", "v.aggregate")] {
        let whole = format!(
            "SELECT COUNT(*) FROM (SELECT COUNT(*) AS many, COUNT(DISTINCT v.version) AS different, MIN(v.version) AS
             first, MAX(v.version) AS last FROM {table} v GROUP BY {its_order})
             WHERE first = 1 AND many = last AND different = last"
        );
        assert_eq!(number(order, whole).await, orders, "{table}");
        let all = format!("SELECT COUNT(*) FROM {table}");
        assert_eq!(number(order, all).await, number(order, "SELECT SUM(version) FROM orders").await, "{table}");
    }
}
