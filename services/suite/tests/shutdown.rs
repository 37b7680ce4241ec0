//! SIGTERM, in the middle of everything.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use souk_db::idempotency::Key;
use souk_db::{Db, DbConfig};
use souk_proto_order::v1::{ListOrdersRequest, OrderItem, PlaceOrderRequest};
use souk_runtime::Clock;
use souk_testkit::eventually;
use souk_testkit::process::{Process, database};
use souk_testkit::suite::{Suite, config, new_id};

const SKU: &str = "TEA-GREEN-100G";
const ORDERS: i64 = 20;
/// Nobody gives up waiting for the database before it is free.
const PATIENT: [&str; 4] =
    ["--order.database.lock_timeout_ms", "60000", "--order.database.acquire_timeout_ms", "60000"];

async fn held(inventory: &Db) -> i64 {
    let mut tx = inventory.read().await.unwrap();
    let text = "SELECT held FROM stock WHERE sku = $1";
    let (held,): (i64,) = souk_db::sql(text).bind(SKU).fetch_one(&mut tx).await.unwrap();
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_leaves_each_database_in_one_file() {
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let suite = Suite::start_with(config(folder.path()), Clock::system()).await;
    suite.product(SKU, 690, 5).await;
    suite.stop().await;
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["inventory.sqlite", "order.sqlite", "user.sqlite"]);
}

/// The call has come, and not got to the inventory yet, when everything is to end.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_in_flight_finds_the_inventory_to_the_last() {
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let mut config = config(folder.path());
    config.order.limits.duplicate_wait_ms = 60_000;
    let suite = Suite::start_with(config, Clock::system()).await;
    suite.product(SKU, 690, 5).await;
    let alice = suite.customer("alice").await;
    let items = vec![OrderItem { sku: SKU.into(), quantity: 1 }];
    let request = PlaceOrderRequest { request_id: new_id(), items, expected_total: None };
    // It waits for another call of its key.
    let key = Key {
        caller: alice.user_id.clone(),
        method: souk_order::ops::place_order::METHOD.into(),
        request_id: request.request_id.parse().unwrap(),
    };
    let until = tokio::time::Instant::now() + Duration::from_mins(1);
    let other = suite.running.order.app.in_flight.enter(key, until).await.unwrap();
    let mut orders = suite.orders(Some(&alice));
    let call = tokio::spawn(async move { orders.place_order(request).await });
    let came = |line: &str| {
        line.starts_with("grpc_server_started_total") && line.contains("\"PlaceOrder\"") && line.ends_with(" 1")
    };
    eventually("it has come", async || suite.kernel.metrics.encode().lines().any(came)).await;
    let address = suite.running.order.address;
    let stopping = tokio::spawn(suite.stop());
    eventually("it ends", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    drop(other);
    call.await.unwrap().unwrap();
    stopping.await.unwrap();
    // Whatever has become of its step, nobody has to wait for the lease of somebody who is gone.
    let file = folder.path().join("order.sqlite");
    let order = Db::open(&DbConfig::at(format!("sqlite://{}", file.display()))).await.unwrap();
    let text = "SELECT COUNT(*) FROM saga_steps WHERE state = 'DUE' AND holder IS NOT NULL";
    let (leased,): (i64,) = souk_db::sql(text).fetch_one(&mut order.read().await.unwrap()).await.unwrap();
    assert_eq!(leased, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_in_flight_is_answered_and_kept() {
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let start = || Process::start(env!("CARGO_BIN_EXE_souk"), folder.path(), None, &PATIENT);
    let process = start();
    let alice = process.alice().await;
    let (inventory, order) = (database(folder.path(), "inventory").await, database(folder.path(), "order").await);
    // Somebody else writes to the orders' database: every order gets its stock, and waits to be stored.
    let blocker = order.write().await.unwrap();
    let orders = process.orders(&alice);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..ORDERS {
        let mut orders = orders.clone();
        let items = vec![OrderItem { sku: SKU.into(), quantity: 1 }];
        let request = PlaceOrderRequest { request_id: new_id(), items, expected_total: None };
        calls.spawn(async move { orders.place_order(request).await.unwrap().into_inner().order.unwrap().order_id });
    }
    eventually("all are in flight", async || held(&inventory).await == ORDERS).await;
    process.terminate();
    let address = process.order_address().to_owned();
    eventually("it ends", async || tokio::net::TcpStream::connect(&address).await.is_err()).await;
    blocker.rollback().await.unwrap();
    let answered: BTreeSet<String> = calls.join_all().await.into_iter().collect();
    process.ended();

    let process = start();
    let alice = process.alice().await;
    let listed = process.orders(&alice).list_orders(ListOrdersRequest::default()).await.unwrap().into_inner().orders;
    let kept: BTreeSet<String> = listed.into_iter().map(|order| order.order_id).collect();
    assert_eq!(i64::try_from(kept.len()), Ok(ORDERS));
    assert_eq!(kept, answered);
    process.stop();
}
