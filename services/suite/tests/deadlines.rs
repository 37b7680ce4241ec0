//! P7: the time of a call is that of everything that is done for it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use souk_runtime::Clock;
use souk_testkit::eventually;
use souk_testkit::suite::{Suite, config, one};
use tonic::{Code, Request, Status};

/// The time of the call is over.
fn assert_over(status: &Status) {
    // tonic's client has a timer of its own; should it be faster than the server's answer, it says CANCELLED, and names no server.
    let timer_of_the_client = status.code() == Code::Cancelled && status.metadata().is_empty();
    assert!(status.code() == Code::DeadlineExceeded || timer_of_the_client, "{status:?}");
}

/// An answer that nobody waits for any more costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_cannot_be_met_ends_the_work_behind_it() {
    const DEADLINE: Duration = Duration::from_secs(2);
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let mut config = config(folder.path());
    config.order.database.acquire_timeout_ms = 60_000; // nobody gives up before the caller does
    let suite = Suite::start_with(config, Clock::system()).await;
    suite.product("TEA", 690, 5).await;
    let alice = suite.customer("alice").await;
    // Somebody else writes to the orders' database, and takes long.
    let app = &suite.running.order.app;
    let blocker = app.db.write().await.unwrap();
    let mut request = Request::new(one("TEA", 1));
    request.set_timeout(DEADLINE);
    let mut orders = suite.orders(Some(&alice));
    let call = tokio::spawn(async move { orders.place_order(request).await });
    // Its stock is held: now it waits for the database, and until the deadline for nothing else.
    eventually("the stock is held", async || suite.level("TEA").await.held == 1).await;
    let over_at = tokio::time::Instant::now() + DEADLINE;
    let status = call.await.unwrap().unwrap_err();
    assert!(tokio::time::Instant::now() < over_at + DEADLINE, "the caller was kept waiting");
    assert_over(&status);
    // The server counts from when the call has come, which was before its stock was held.
    tokio::time::sleep_until(over_at).await;
    blocker.rollback().await.unwrap();
    eventually("what waited is dropped", async || app.placing.stats().dropped() == 1).await;
    // The next order is the first.
    let order = suite.place(&alice, one("TEA", 1)).await.unwrap();
    let orders = suite.own_orders(&alice).await;
    assert_eq!(orders.iter().map(|order| order.order_id.clone()).collect::<Vec<_>>(), [order.order_id]);
    assert_eq!(app.placing.stats().commands(), 1);
    suite.assert_invariants().await;
    suite.stop().await;
}

/// How many calls of `rpc` have come to their server.
fn came(suite: &Suite, rpc: &str) -> u64 {
    let metrics = suite.kernel.metrics.encode();
    let lines = metrics.lines().filter(|line| line.starts_with("grpc_server_started_total"));
    let counts =
        lines.filter(|line| line.contains(&format!("\"{rpc}\""))).filter_map(|line| line.split(' ').next_back());
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

/// P7: the time of a call is that of all calls behind it.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_milliseconds_that_are_too_short_leave_nothing_behind() {
    const DEADLINE: Duration = Duration::from_millis(50);
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let mut config = config(folder.path());
    config.inventory.database.acquire_timeout_ms = 60_000; // nobody gives up before the caller does
    let suite = Suite::start_with(config, Clock::system()).await;
    suite.product("TEA", 690, 5).await;
    let alice = suite.customer("alice").await;
    // With keys, tokens, prices and connections at hand, all of the time is the inventory's.
    let first = suite.place(&alice, one("TEA", 1)).await.unwrap();
    suite.settled(&alice, &first.order_id).await;
    let inventory = &suite.running.inventory.app;
    let blocker = inventory.db.write().await.unwrap();
    let reserves = came(&suite, "BatchChangeReservations");
    eventually("a call comes as far as to the inventory", async || {
        let mut request = Request::new(one("TEA", 1));
        request.set_timeout(DEADLINE);
        let began = tokio::time::Instant::now();
        let status = suite.orders(Some(&alice)).place_order(request).await.unwrap_err();
        assert_over(&status);
        assert!(began.elapsed() < Duration::from_secs(1), "the caller was kept waiting");
        came(&suite, "BatchChangeReservations") > reserves
    })
    .await;
    blocker.rollback().await.unwrap();
    // What the inventory is told next, it does after all that it was told before.
    let next = suite.place(&alice, one("TEA", 1)).await.unwrap();
    suite.settled(&alice, &next.order_id).await;
    let placed: Vec<String> = suite.own_orders(&alice).await.into_iter().map(|order| order.order_id).collect();
    assert_eq!(placed, [next.order_id, first.order_id]);
    let level = suite.level("TEA").await;
    assert_eq!((level.held, level.allocated), (0, 2));
    let mut tx = inventory.db.read().await.unwrap();
    let (holds,): (i64,) = souk_db::sql("SELECT COUNT(*) FROM reservations").fetch_one(&mut tx).await.unwrap();
    assert_eq!(holds, 2, "there was a hold for nobody");
    tx.rollback().await.unwrap();
    suite.assert_invariants().await;
    suite.stop().await;
}
