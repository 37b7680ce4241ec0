//! Cancelling, at every moment of the commit that it may race: CANCELLED, and every unit given back.

use std::time::Duration;

use souk_db::DbConfig;
use souk_db::idempotency::Key;
use souk_proto_common::REPLAY_HEADER;
use souk_proto_common::v1::Reason;
use souk_proto_order::v1::{CancelOrderRequest, OrderState, PlaceOrderRequest};
use souk_testkit::suite::{Person, new_id};
use tokio::time::Instant;
use tonic::Code;
use tonic_types::StatusExt;

use super::proxy::{Fault, Gate};
use super::{HOLD_TTL, PATIENCE, Shop, eventually, items, next, state, why, within};

async fn shop() -> (Shop, Person) {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    (shop, alice)
}

async fn superseded(shop: &Shop) {
    let line = r#"order_saga_tries_total{step="COMMIT_STOCK",outcome="superseded"}"#;
    eventually("the commit comes back to nobody", async || shop.metric(line) == Some(1.0)).await;
}

#[tokio::test]
async fn a_commit_that_never_got_there_finds_the_hold_given_back() {
    let (shop, alice) = shop().await;
    let gate = Gate::new();
    shop.proxy.break_next("Commit", [Fault::HoldRequest(gate.clone())]);
    let placed = shop.place(&alice, items(&[("TEA", 3)])).await.unwrap();
    gate.reached().await;
    let cancelled = shop.cancel(&alice, &placed).await.unwrap();
    assert_eq!((state(&cancelled), cancelled.version), (OrderState::Cancelled, 2));
    assert_eq!(cancelled.state_reason, "CANCELLED_BY_OWNER");
    shop.stock_becomes("TEA", |level| (level.held, level.allocated) == (0, 0)).await;
    gate.open();
    superseded(&shop).await;
    shop.at_rest().await;
    assert_eq!(shop.promised("TEA").await, (0, 0));
    let mut versions = shop.watch(&alice, &placed, 0).await;
    let seen = [next(&mut versions).await.unwrap(), next(&mut versions).await.unwrap()];
    assert_eq!(seen.each_ref().map(state), [OrderState::Pending, OrderState::Cancelled]);
    assert!(next(&mut versions).await.is_none());
}

#[tokio::test]
async fn a_commit_that_took_effect_is_undone() {
    let (shop, alice) = shop().await;
    let gate = Gate::new();
    shop.proxy.break_next("Commit", [Fault::HoldAnswer(gate.clone())]);
    let placed = shop.place(&alice, items(&[("TEA", 3)])).await.unwrap();
    gate.reached().await;
    assert_eq!(shop.promised("TEA").await, (0, 3));
    assert_eq!(state(&shop.cancel(&alice, &placed).await.unwrap()), OrderState::Cancelled);
    shop.stock_becomes("TEA", |level| (level.held, level.allocated) == (0, 0)).await;
    gate.open();
    superseded(&shop).await;
    shop.at_rest().await;
    assert_eq!(shop.promised("TEA").await, (0, 0));
}

#[tokio::test]
async fn an_order_is_cancelled_between_two_tries_of_its_commit() {
    let (shop, alice) = shop().await;
    let placed = {
        shop.proxy.break_next("Commit", [Fault::LoseAnswer]);
        shop.place(&alice, items(&[("TEA", 3)])).await.unwrap()
    };
    let line = r#"order_saga_tries_total{step="COMMIT_STOCK",outcome="postponed"}"#;
    eventually("the commit is put off", async || shop.metric(line) == Some(1.0)).await;
    shop.cancel(&alice, &placed).await.unwrap();
    shop.stock_becomes("TEA", |level| (level.held, level.allocated) == (0, 0)).await;
    shop.clock.advance(Duration::from_mins(1));
    shop.at_rest().await;
    assert_eq!(shop.proxy.calls("Commit"), 1, "a dropped step is not tried again");
}

#[tokio::test]
async fn a_confirmed_order_gives_back_what_was_allocated() {
    let (shop, alice) = shop().await;
    let placed = shop.place(&alice, items(&[("TEA", 3)])).await.unwrap();
    shop.settled(&alice, &placed).await;
    let cancelled = shop.cancel(&alice, &placed).await.unwrap();
    assert_eq!((state(&cancelled), cancelled.version), (OrderState::Cancelled, 3));
    shop.stock_becomes("TEA", |level| (level.held, level.allocated) == (0, 0)).await;
    shop.at_rest().await;
}

#[tokio::test]
async fn a_cancelled_order_whose_hold_ran_out_owes_nothing() {
    let (shop, alice) = shop().await;
    let gate = Gate::new();
    shop.proxy.break_next("Commit", [Fault::HoldRequest(gate.clone())]);
    let placed = shop.place(&alice, items(&[("TEA", 3)])).await.unwrap();
    gate.reached().await;
    shop.proxy.break_next("Release", [Fault::Refuse]);
    shop.cancel(&alice, &placed).await.unwrap();
    let line = r#"order_saga_tries_total{step="RELEASE_STOCK",outcome="postponed"}"#;
    eventually("the release is put off", async || shop.metric(line) == Some(1.0)).await;
    shop.clock.advance(HOLD_TTL);
    gate.open();
    shop.at_rest().await;
    shop.stock_becomes("TEA", |level| (level.held, level.allocated) == (0, 0)).await;
}

#[tokio::test]
async fn a_cancellation_is_repeated_without_harm_and_an_end_is_an_end() {
    let (shop, alice) = shop().await;
    let placed = shop.place(&alice, items(&[("TEA", 3)])).await.unwrap();
    let confirmed = shop.settled(&alice, &placed).await;
    let request =
        CancelOrderRequest { request_id: new_id(), order_id: placed.order_id.clone(), etag: placed.etag.clone() };
    let stale = shop.orders(&alice).cancel_order(request.clone()).await.unwrap_err();
    assert_eq!(why(&stale), (Code::Aborted, Some(Reason::EtagMismatch)));
    assert_eq!(stale.get_details_error_info().unwrap().metadata["etag"], confirmed.etag);

    let request = CancelOrderRequest { etag: confirmed.etag.clone(), ..request };
    let calls = (0..10).map(|_| {
        let (mut orders, request) = (shop.orders(&alice), request.clone());
        tokio::spawn(async move { orders.cancel_order(request).await.unwrap() })
    });
    let mut replayed = 0;
    for call in futures::future::join_all(calls).await {
        let response = call.unwrap();
        replayed += usize::from(response.metadata().get(REPLAY_HEADER).is_some());
        let order = response.into_inner().order.unwrap();
        assert_eq!((state(&order), order.version), (OrderState::Cancelled, 3));
    }
    assert_eq!(replayed, 9);
    let other = CancelOrderRequest { etag: String::new(), ..request };
    let reused = shop.orders(&alice).cancel_order(other).await.unwrap_err();
    assert_eq!(why(&reused), (Code::FailedPrecondition, Some(Reason::IdempotencyKeyReused)));

    let illegal = shop.cancel(&alice, &placed).await.unwrap_err();
    assert_eq!(why(&illegal), (Code::FailedPrecondition, Some(Reason::InvalidStateTransition)));
    let metadata = illegal.get_details_error_info().unwrap().metadata;
    assert_eq!((metadata["current_state"].as_str(), metadata["allowed_states"].as_str()), ("CANCELLED", ""));
}

#[tokio::test]
async fn a_duplicate_waits_for_the_first_and_then_is_told_to_come_again() {
    let (shop, alice) = shop().await;
    let placed = shop.place(&alice, items(&[("TEA", 3)])).await.unwrap();
    let request = CancelOrderRequest { request_id: new_id(), order_id: placed.order_id.clone(), etag: String::new() };
    // The first, as this process knows of it.
    let key = Key {
        caller: alice.user_id.clone(),
        method: souk_order::ops::cancel_order::METHOD.into(),
        request_id: request.request_id.parse().unwrap(),
    };
    let first = shop.replicas[0].running.app.in_flight.enter(key, Instant::now() + PATIENCE).await.unwrap();
    let began = Instant::now();
    let waiting = within(request.clone(), Duration::from_millis(600));
    let told = shop.orders(&alice).cancel_order(waiting).await.unwrap_err();
    assert_eq!(why(&told), (Code::Aborted, Some(Reason::RequestInProgress)));
    assert!(told.get_details_retry_info().unwrap().retry_delay.is_some());
    let waited = began.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_millis(600)).contains(&waited), "{waited:?}");
    // A key is that of a method.
    let unrelated = PlaceOrderRequest { request_id: request.request_id.clone(), ..items(&[("TEA", 1)]) };
    assert!(shop.place(&alice, unrelated).await.is_ok());
    drop(first);
    let cancelled = shop.orders(&alice).cancel_order(request).await.unwrap().into_inner().order.unwrap();
    assert_eq!(state(&cancelled), OrderState::Cancelled);
}

#[tokio::test]
async fn a_duplicate_of_another_replica_that_has_waited_long_enough_is_told_to_come_again() {
    let mut shop = Shop::closed().await;
    let database = souk_testkit::postgres().await;
    let impatient = DbConfig { lock_timeout_ms: 100, ..database.config().clone() };
    shop.start(impatient, |_| ()).await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let placed = shop.place(&alice, items(&[("TEA", 3)])).await.unwrap();
    shop.settled(&alice, &placed).await;
    // The other is about to cancel the order.
    let mut elsewhere = database.write().await.unwrap();
    let id = souk_order::domain::OrderId(placed.order_id.parse().unwrap());
    souk_order::store::orders_for_update(&mut elsewhere, &[id]).await.unwrap();
    let told = shop.cancel(&alice, &placed).await.unwrap_err();
    assert_eq!(why(&told), (Code::Aborted, Some(Reason::RequestInProgress)));
    assert!(told.get_details_retry_info().unwrap().retry_delay.is_some());
    elsewhere.rollback().await.unwrap();
    assert_eq!(state(&shop.cancel(&alice, &placed).await.unwrap()), OrderState::Cancelled);
}

#[tokio::test]
async fn many_cancel_at_once_and_one_does() {
    let mut shop = Shop::closed().await;
    let database = souk_testkit::postgres().await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    // On PostgreSQL, in two replicas, while the stock is being committed: half under one key, half under keys of their own.
    let placed = shop.place(&alice, items(&[("TEA", 3)])).await.unwrap();
    let shared = new_id();
    let calls = (0..16).map(|call| {
        let mut orders = shop.orders_at(call % 2, &alice);
        let request_id = if call < 8 { shared.clone() } else { new_id() };
        let request = CancelOrderRequest { request_id, order_id: placed.order_id.clone(), etag: String::new() };
        tokio::spawn(async move { (call < 8, orders.cancel_order(request).await) })
    });
    let (mut of_shared, mut of_own) = (0, 0);
    for call in futures::future::join_all(calls).await {
        match call.unwrap() {
            (true, Ok(_)) => of_shared += 1,
            (false, Ok(_)) => of_own += 1,
            (_, Err(status)) => {
                assert_eq!(why(&status), (Code::FailedPrecondition, Some(Reason::InvalidStateTransition)));
            }
        }
    }
    assert!((of_shared, of_own) == (8, 0) || (of_shared, of_own) == (0, 1), "{of_shared} {of_own}");
    shop.stock_becomes("TEA", |level| (level.held, level.allocated) == (0, 0)).await;
    shop.at_rest().await;
}
