//! The inventory is down, slow, or answers into the void: nothing is lost, nothing is held twice, nothing is given up.

use std::time::Duration;

use souk_db::sql;
use souk_events::Event;
use souk_order::domain::{OrderId, StepKind};
use souk_order::store::{self, NewStep};
use souk_proto_common::v1::Reason;
use souk_proto_inventory::v1::{Reservation, ReservationExpired};
use souk_proto_order::v1::{ListOrdersRequest, OrderState};
use souk_testkit::suite::{Person, new_id};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;
use tonic_types::StatusExt;

use super::proxy::{Fault, Gate};
use super::{HOLD_TTL, Shop, eventually, items, state, why, within};

async fn shop() -> (Shop, Person) {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    (shop, alice)
}

#[tokio::test]
async fn an_inventory_that_does_not_answer_is_told_at_once_and_the_key_stays_free() {
    let (shop, alice) = shop().await;
    let request = items(&[("TEA", 2)]);
    for method in ["BatchGetProducts", "Reserve"] {
        shop.proxy.break_next(method, [Fault::Refuse]);
        let told = shop.place(&alice, request.clone()).await.unwrap_err();
        assert_eq!(why(&told), (Code::Unavailable, Some(Reason::PeerUnavailable)), "{method}");
        assert!(told.get_details_retry_info().unwrap().retry_delay.is_some());
    }
    assert_eq!(shop.rows().await, [0; 6]);
    let placed = shop.place(&alice, request).await.unwrap();
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
    assert_eq!(shop.promised("TEA").await, (0, 2));
}

#[tokio::test]
async fn a_hold_whose_answer_was_lost_is_the_hold_of_the_repeat() {
    let (shop, alice) = shop().await;
    let request = items(&[("TEA", 2)]);
    shop.proxy.break_next("Reserve", [Fault::LoseAnswer, Fault::LoseAnswer]);
    for _ in 0..2 {
        let told = shop.place(&alice, request.clone()).await.unwrap_err();
        assert_eq!(why(&told), (Code::Unavailable, Some(Reason::PeerUnavailable)));
        assert_eq!(shop.promised("TEA").await, (2, 0), "held once, however often it is tried");
    }
    let placed = shop.place(&alice, request).await.unwrap();
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
    assert_eq!(shop.promised("TEA").await, (0, 2));
}

#[tokio::test]
async fn a_repeat_whose_hold_has_run_out_gets_a_new_one() {
    let (shop, alice) = shop().await;
    let request = items(&[("TEA", 10)]);
    for _ in 0..2 {
        shop.proxy.break_next("Reserve", [Fault::LoseAnswer]);
        // The first finds nothing, the second a hold that has run out, and each leaves one behind.
        let told = shop.place(&alice, request.clone()).await.unwrap_err();
        assert_eq!(why(&told), (Code::Unavailable, Some(Reason::PeerUnavailable)));
        shop.clock.advance(HOLD_TTL);
    }
    let placed = shop.place(&alice, request).await.unwrap();
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
    assert_eq!(shop.promised("TEA").await, (0, 10));
    shop.at_rest().await;
}

#[tokio::test]
async fn a_deadline_ends_the_waiting_and_the_repeat_goes_on_from_there() {
    let (shop, alice) = shop().await;
    let request = items(&[("TEA", 2)]);
    let gate = Gate::new();
    shop.proxy.break_next("Reserve", [Fault::HoldAnswer(gate.clone())]);
    let began = Instant::now();
    let call = within(request.clone(), Duration::from_millis(300));
    let told = shop.orders(&alice).place_order(call).await.unwrap_err();
    // tonic's client has a timer of its own; should it be faster than the server's answer, it says CANCELLED, and names no server.
    let timer_of_the_client = told.code() == Code::Cancelled && told.metadata().is_empty();
    let server = why(&told) == (Code::DeadlineExceeded, Some(Reason::DeadlineExceeded));
    assert!(server || timer_of_the_client, "{told:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    gate.open();
    let placed = shop.place(&alice, request).await.unwrap();
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
    assert_eq!(shop.promised("TEA").await, (0, 2));
}

#[tokio::test]
async fn a_commit_is_tried_until_it_is_answered_and_is_one_commit() {
    let (shop, alice) = shop().await;
    shop.proxy.break_next("Commit", [Fault::Refuse, Fault::LoseAnswer, Fault::Refuse]);
    let placed = shop.place(&alice, items(&[("TEA", 2)])).await.unwrap();
    let line = r#"order_saga_tries_total{step="COMMIT_STOCK",outcome="postponed"}"#;
    for tries in 1..=3 {
        eventually("the commit is put off", async || shop.metric(line) == Some(f64::from(tries))).await;
        shop.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
    assert_eq!(shop.proxy.calls("Commit"), 4);
    assert_eq!(shop.promised("TEA").await, (0, 2));
    shop.at_rest().await;
}

#[tokio::test]
async fn a_step_past_its_deadline_is_counted_and_still_done() {
    let mut shop = Shop::closed().await;
    let database = shop.sqlite();
    // The pause after the second try is longer than the way past the deadline, so that the worker looks around once more before the third.
    shop.start(database, |config| {
        config.saga.deadline_ms = 10_000;
        config.saga.backoff_ms = 20_000;
    })
    .await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    shop.proxy.break_next("Commit", [Fault::Refuse]);
    let placed = shop.place(&alice, items(&[("TEA", 2)])).await.unwrap();
    let line = r#"order_saga_tries_total{step="COMMIT_STOCK",outcome="postponed"}"#;
    eventually("the commit is put off", async || shop.metric(line) == Some(1.0)).await;
    assert_eq!(shop.metric("order_saga_overdue"), Some(0.0));
    eventually("the step is overdue", async || {
        shop.clock.advance(Duration::from_millis(200));
        shop.metric("order_saga_overdue") == Some(1.0)
    })
    .await;
    assert_eq!(shop.proxy.calls("Commit"), 1);
    eventually("the step is done in the end, and nothing is overdue", async || {
        shop.clock.advance(Duration::from_millis(200));
        shop.metric("order_saga_overdue") == Some(0.0)
    })
    .await;
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
}

#[tokio::test]
async fn the_backlog_is_counted_however_busy_the_worker_is() {
    let (shop, alice) = shop().await;
    let gate = Gate::new();
    shop.proxy.break_next("Commit", [Fault::HoldRequest(gate.clone())]);
    shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
    gate.reached().await;
    assert_eq!(shop.metric("order_saga_due"), Some(0.0));
    // Orders come before the worker has rested for the second after which it looks around by itself.
    for _ in 0..3 {
        shop.clock.advance(Duration::from_millis(600));
        let placed = shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
        shop.settled(&alice, &placed).await;
    }
    assert!(shop.metric("order_saga_due") >= Some(1.0));
    gate.open();
    shop.at_rest().await;
}

#[tokio::test]
async fn changes_that_fail_together_are_tried_apart() {
    const ORDERS: i64 = 5;
    let mut shop = Shop::closed().await;
    let database = shop.sqlite();
    shop.start(database, |config| {
        config.lane.batch_max = 8;
        config.lane.calls_max = 1;
    })
    .await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let gate = Gate::new();
    shop.proxy.break_next("Reserve", [Fault::HoldRequest(gate.clone())]);
    shop.proxy.break_next("BatchChangeReservations", [Fault::Break]);
    let mut calls = JoinSet::new();
    let place = || {
        let mut orders = shop.orders(&alice);
        async move { orders.place_order(items(&[("TEA", 1)])).await.unwrap() }
    };
    calls.spawn(place());
    gate.reached().await;
    for _ in 1..ORDERS {
        calls.spawn(place());
    }
    let came = |line: &str| line.contains("_started_total") && line.contains("\"PlaceOrder\"") && line.ends_with(" 5");
    eventually("all have come", async || shop.replicas[0].kernel.metrics.encode().lines().any(came)).await;
    // The others wait for the call that is on its way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    gate.open();
    calls.join_all().await;
    shop.stock_becomes("TEA", |level| level.allocated == ORDERS).await;
    assert!(shop.proxy.calls("BatchChangeReservations") > 0, "some came together");
    shop.at_rest().await;
}

#[tokio::test]
async fn what_others_left_behind_is_done_however_busy_the_worker_is() {
    let (shop, alice) = shop().await;
    let placed = shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
    shop.settled(&alice, &placed).await;
    let mut tx = shop.replicas[0].running.app.db.write().await.unwrap();
    let text = "UPDATE saga_steps SET state = 'DUE', holder = NULL, due_at = $1";
    sql(text).bind(shop.clock.now()).execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(shop.steps_due().await, 1);
    // Orders come before the worker has rested for the second after which it looks around by itself.
    for _ in 0..3 {
        shop.clock.advance(Duration::from_millis(600));
        let placed = shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
        shop.settled(&alice, &placed).await;
    }
    shop.at_rest().await;
}

#[tokio::test]
async fn stock_is_given_back_although_orders_want_every_hand() {
    let mut shop = Shop::closed().await;
    let database = shop.sqlite();
    shop.start(database, |config| config.saga.concurrency_max = 1).await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let placed = shop.place(&alice, items(&[("TEA", 2)])).await.unwrap();
    shop.settled(&alice, &placed).await;
    let gate = Gate::new();
    shop.proxy.break_next("Commit", [Fault::HoldRequest(gate.clone())]);
    shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
    gate.reached().await;
    let (mut orders, waits) = (shop.orders(&alice), items(&[("TEA", 1)]));
    let waiting = tokio::spawn(async move { orders.place_order(waits).await.map(drop) });
    shop.cancel(&alice, &placed).await.unwrap();
    shop.stock_becomes("TEA", |level| level.allocated == 0).await;
    assert!(!waiting.is_finished());
    gate.open();
    waiting.await.unwrap().unwrap();
    shop.at_rest().await;
    assert_eq!(shop.promised("TEA").await, (0, 2));
}

#[tokio::test]
async fn an_order_whose_caller_has_gone_while_it_was_stored_is_confirmed() {
    let (shop, alice) = shop().await;
    // The caller goes away while the order waits to be stored, most likely.
    for _ in 0..5 {
        let blocker = shop.replicas[0].running.app.db.write().await.unwrap();
        let (mut orders, (held, _)) = (shop.orders(&alice), shop.promised("TEA").await);
        let call = tokio::spawn(async move { orders.place_order(items(&[("TEA", 1)])).await });
        shop.stock_becomes("TEA", |level| level.held == held + 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        call.abort();
        assert!(call.await.is_err());
        tokio::time::sleep(Duration::from_millis(50)).await;
        blocker.rollback().await.unwrap();
        let allocated = shop.stock_becomes("TEA", |level| level.allocated > 0);
        if tokio::time::timeout(Duration::from_secs(1), allocated).await.is_ok() {
            return;
        }
    }
    panic!("no order was stored");
}

#[tokio::test]
async fn a_step_without_an_order_keeps_no_other_from_being_done() {
    let (shop, alice) = shop().await;
    let now = shop.clock.now();
    let mut tx = shop.replicas[0].running.app.db.write().await.unwrap();
    let nobodys = OrderId(new_id().parse().unwrap());
    let step =
        NewStep { order_id: nobodys, kind: StepKind::CommitStock, deadline_at: now, traceparent: None, taken: None };
    store::insert_steps(&[step], now).execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    let placed = shop.place(&alice, items(&[("TEA", 2)])).await.unwrap();
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
    assert_eq!(shop.steps_due().await, 1, "an operator will see it");
}

#[tokio::test]
async fn an_order_whose_hold_runs_out_before_its_commit_expires() {
    let (shop, alice) = shop().await;
    let gate = Gate::new();
    shop.proxy.break_next("Commit", [Fault::HoldRequest(gate.clone())]);
    let placed = shop.place(&alice, items(&[("TEA", 2)])).await.unwrap();
    gate.reached().await;
    let mut versions = shop.watch(&alice, &placed, 1).await;
    shop.clock.advance(HOLD_TTL);
    gate.open();
    let expired = super::next(&mut versions).await.unwrap();
    assert_eq!((state(&expired), expired.state_reason.as_str()), (OrderState::Expired, "RESERVATION_EXPIRED"));
    assert!(super::next(&mut versions).await.is_none());
    shop.stock_becomes("TEA", |level| level.held == 0).await;
    shop.at_rest().await;
}

#[tokio::test]
async fn what_a_dead_process_left_is_finished_by_the_next() {
    let mut shop = Shop::closed().await;
    let database = shop.sqlite();
    shop.start(database.clone(), |_| ()).await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    shop.proxy.break_next("Commit", [Fault::Refuse]);
    let placed = shop.place(&alice, items(&[("TEA", 2)])).await.unwrap();
    let line = r#"order_saga_tries_total{step="COMMIT_STOCK",outcome="postponed"}"#;
    eventually("the commit is put off", async || shop.metric(line) == Some(1.0)).await;
    assert!(shop.replicas[0].kernel.tasks.stop(super::PATIENCE).await);
    shop.replicas[0].running.app.db.close().await;
    shop.replicas.clear();

    shop.clock.advance(Duration::from_secs(1));
    shop.start(database, |_| ()).await;
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
    shop.at_rest().await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_told_at_once() {
    let (shop, alice) = shop().await;
    shop.replicas[0].running.app.db.close().await;
    let told = shop.place(&alice, items(&[("TEA", 2)])).await.unwrap_err();
    assert_eq!(why(&told), (Code::Unavailable, Some(Reason::DbUnavailable)));
    let told = shop.orders(&alice).list_orders(ListOrdersRequest::default()).await.unwrap_err();
    assert_eq!(why(&told), (Code::Unavailable, Some(Reason::DbUnavailable)));
    assert_eq!(shop.promised("TEA").await, (0, 0));
}

#[tokio::test]
async fn an_order_learns_at_once_of_a_hold_that_ended_by_itself() {
    let mut shop = Shop::closed().await;
    let database = shop.sqlite();
    let day = Duration::from_hours(24);
    shop.start(database, |config| {
        config.saga.backoff_ms = u64::try_from(day.as_millis()).unwrap();
        config.saga.backoff_max_ms = config.saga.backoff_ms;
    })
    .await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    shop.proxy.break_next("Commit", [Fault::Refuse]);
    let placed = shop.place(&alice, items(&[("TEA", 2)])).await.unwrap();
    eventually("the step is put off", async || shop.metric(POSTPONED) == Some(1.0)).await;
    shop.clock.advance(HOLD_TTL);
    let news = expired(&shop, &placed.order_id).await;
    shop.replicas[0].bus.publish(&news).await.unwrap();
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Expired);
    shop.at_rest().await;
    // Told again, or of somebody else's, it changes nothing.
    let other = Event { id: new_id().parse().unwrap(), ..news.clone() };
    for repeated in [news, other] {
        shop.replicas[0].bus.publish(&repeated).await.unwrap();
    }
    assert_eq!(shop.steps_due().await, 0);
}

const POSTPONED: &str = r#"order_saga_tries_total{step="COMMIT_STOCK",outcome="postponed"}"#;

/// The inventory's news that the hold of an order has run out.
async fn expired(shop: &Shop, order_id: &str) -> Event {
    let mut tx = shop.replicas[0].running.app.db.read().await.unwrap();
    let order_id = OrderId(order_id.parse().unwrap());
    let (_, reservation_id) = store::reservations_of(&mut tx, &[order_id]).await.unwrap().pop().unwrap();
    let reservation = Some(Reservation { reservation_id: reservation_id.to_string(), ..Reservation::default() });
    let about = (format!("reservation/{reservation_id}"), 2);
    let (subject, id) = ("souk.inventory.reservation.expired", new_id().parse().unwrap());
    Event::new(id, "souk.inventory", subject, about, shop.clock.now(), &ReservationExpired { reservation })
}
