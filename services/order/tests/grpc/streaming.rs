//! WatchOrder and PlaceOrders.

use std::collections::BTreeSet;

use futures::{FutureExt, StreamExt};
use souk_db::DbConfig;
use souk_interceptors::Caller;
use souk_order::domain::{OrderId, WatchOrder};
use souk_proto_common::v1::Reason;
use souk_proto_order::v1::place_order_result::Outcome;
use souk_proto_order::v1::{GetOrderRequest, OrderState, PlaceOrderRequest, PlaceOrdersRequest};
use souk_testkit::suite::Person;
use tonic::{Code, Status};
use tonic_types::pb;

use super::proxy::{Fault, Gate};
use super::{Shop, eventually, items, next, state, why};

async fn shop() -> (Shop, Person) {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    (shop, alice)
}

#[tokio::test]
async fn a_watch_tells_every_version_once_from_where_it_is_resumed() {
    let (shop, alice) = shop().await;
    let gate = Gate::new();
    shop.proxy.break_next("Commit", [Fault::HoldRequest(gate.clone())]);
    let placed = shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
    let mut from_start = shop.watch(&alice, &placed, 0).await;
    assert_eq!(next(&mut from_start).await.unwrap(), placed);
    let mut resumed = shop.watch(&alice, &placed, 1).await;
    let mut ahead = shop.watch(&alice, &placed, 1_000).await;
    gate.open();
    let confirmed = next(&mut from_start).await.unwrap();
    assert_eq!((state(&confirmed), confirmed.version), (OrderState::Confirmed, 2));
    assert_eq!(next(&mut resumed).await.unwrap(), confirmed);
    let cancelled = shop.cancel(&alice, &placed).await.unwrap();
    assert_eq!(next(&mut from_start).await.unwrap(), cancelled);
    assert_eq!(next(&mut resumed).await.unwrap(), cancelled);
    for watch in [&mut from_start, &mut resumed, &mut ahead] {
        assert!(next(watch).await.is_none(), "the end of the order is the end of the watch");
    }
    let mut late = shop.watch(&alice, &placed, 0).await;
    let mut versions = Vec::new();
    while let Some(order) = next(&mut late).await {
        versions.push(order.version);
    }
    assert_eq!(versions, [1, 2, 3]);
    assert!(next(&mut shop.watch(&alice, &placed, 3).await).await.is_none());
    eventually("nothing is kept of watches that are over", async || {
        shop.replicas[0].running.app.watchers.watched().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_watch_hears_of_what_another_replica_did() {
    let mut shop = Shop::closed().await;
    let database = souk_testkit::postgres().await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let placed = shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
    shop.settled(&alice, &placed).await;
    // The two have no bus in common.
    let request = souk_proto_order::v1::WatchOrderRequest { order_id: placed.order_id.clone(), after_version: 2 };
    let mut elsewhere = shop.orders_at(1, &alice).watch_order(request).await.unwrap().into_inner();
    shop.cancel(&alice, &placed).await.unwrap();
    let told = tokio::spawn(async move { next(&mut elsewhere).await });
    eventually("the other replica looks", async || {
        shop.clock.advance(std::time::Duration::from_millis(100));
        told.is_finished()
    })
    .await;
    assert_eq!(state(&told.await.unwrap().unwrap()), OrderState::Cancelled);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_no_connection() {
    let mut shop = Shop::closed().await;
    let database = shop.sqlite();
    shop.start(DbConfig { connections_max: 2, ..database }, |_| ()).await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let placed = shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
    let app = &shop.replicas[0].running.app;
    let caller = Caller::proven(alice.user_id.clone(), BTreeSet::new(), None);
    let query = WatchOrder { order_id: placed.order_id.parse().map(OrderId).unwrap(), after_version: 0 };
    let mut unread = Vec::new();
    for _ in 0..10 {
        let mut versions = Box::pin(souk_order::ops::watch_order(app, &caller, query).await.unwrap());
        // As hyper does: the first message is asked for once, and then nothing until the client has room.
        assert!(versions.next().now_or_never().is_none());
        unread.push(versions);
    }
    shop.orders(&alice).get_order(GetOrderRequest { order_id: placed.order_id }).await.unwrap();
}

#[tokio::test]
async fn a_watch_ends_with_the_server_and_says_so() {
    let (shop, alice) = shop().await;
    let placed = shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
    shop.settled(&alice, &placed).await;
    let mut versions = shop.watch(&alice, &placed, 2).await;
    let told = tokio::spawn(async move { versions.message().await });
    assert!(shop.replicas[0].kernel.tasks.stop(super::PATIENCE).await);
    let status = told.await.unwrap().unwrap_err();
    assert_eq!(why(&status), (Code::Unavailable, Some(Reason::ShuttingDown)));
}

fn stream(requests: Vec<PlaceOrderRequest>) -> impl futures::Stream<Item = PlaceOrdersRequest> + Send + 'static {
    futures::stream::iter(requests.into_iter().map(|order| PlaceOrdersRequest { order: Some(order) }))
}

#[tokio::test]
async fn orders_of_a_stream_stand_each_on_its_own_and_in_order() {
    let (shop, alice) = shop().await;
    let good = items(&[("TEA", 1)]);
    let too_many = items(&[("TEA", 100)]);
    let bad = PlaceOrderRequest { request_id: "x".repeat(500), ..items(&[("", 0)]) };
    let requests = vec![good.clone(), too_many.clone(), bad, good.clone(), items(&[("TEA", 2)])];
    let response = shop.orders(&alice).place_orders(stream(requests)).await.unwrap().into_inner();
    let [first, short, invalid, again, last] = response.results.as_slice() else { panic!("{response:?}") };

    let Some(Outcome::Order(order)) = &first.outcome else { panic!("{first:?}") };
    assert_eq!((first.request_id.as_str(), first.replayed || again.replayed), (good.request_id.as_str(), true));
    assert_eq!(again.outcome, Some(Outcome::Order(order.clone())), "the same order");
    assert!(first.replayed != again.replayed);
    assert!(matches!(&last.outcome, Some(Outcome::Order(order)) if order.lines[0].quantity == 2));

    let Some(Outcome::Error(error)) = &short.outcome else { panic!("{short:?}") };
    assert_eq!(
        (error.code, short.request_id.as_str()),
        (Code::FailedPrecondition.into(), too_many.request_id.as_str())
    );
    let kinds: Vec<&str> = error.details.iter().map(|detail| detail.type_url.rsplit('/').next().unwrap()).collect();
    assert!(kinds.contains(&"google.rpc.ErrorInfo") && kinds.contains(&"google.rpc.PreconditionFailure"), "{kinds:?}");

    let Some(Outcome::Error(error)) = &invalid.outcome else { panic!("{invalid:?}") };
    assert_eq!(Code::from(error.code), Code::InvalidArgument);
    let fields: Vec<String> = violations(error).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["order.request_id", "order.items[0].sku", "order.items[0].quantity"]);
    assert!(invalid.request_id.len() <= 100);
    shop.stock_becomes("TEA", |level| (level.held, level.allocated) == (0, 3)).await;
}

#[tokio::test]
async fn a_stream_is_bounded_and_what_was_placed_stays_placed() {
    let mut shop = Shop::closed().await;
    let database = shop.sqlite();
    shop.start(database, |config| config.limits.place_orders_max = 5).await;
    shop.suite.product("TEA", 100, 100).await;
    let alice = shop.suite.customer("alice").await;
    let all_five = (0..5).map(|_| items(&[("TEA", 1)])).collect();
    let response = shop.orders(&alice).place_orders(stream(all_five)).await.unwrap().into_inner();
    assert_eq!(response.results.len(), 5);
    // The sixth comes while those before it are in the middle of being placed.
    let gate = Gate::new();
    shop.proxy.break_next("Reserve", (0..5).map(|_| Fault::HoldRequest(gate.clone())));
    let six: Vec<PlaceOrderRequest> = (0..6).map(|_| items(&[("TEA", 1)])).collect();
    let mut orders = shop.orders(&alice);
    let call = tokio::spawn(async move { orders.place_orders(stream(six)).await });
    for _ in 0..5 {
        gate.reached().await;
    }
    (0..5).for_each(|_| gate.open());
    assert_too_many(&call.await.unwrap().unwrap_err());
    assert_eq!(shop.rows().await[0], 10, "all that came before it are placed");
    let empty = shop.orders(&alice).place_orders(stream(Vec::new())).await.unwrap().into_inner();
    assert!(empty.results.is_empty());
    shop.at_rest().await;
    assert_eq!(shop.promised("TEA").await, (0, 10));
}

fn assert_too_many(refused: &Status) {
    assert_eq!(why(refused), (Code::InvalidArgument, Some(Reason::InvalidRequest)));
    let named = tonic_types::StatusExt::get_details_bad_request(refused).unwrap().field_violations;
    assert_eq!((named[0].field.as_str(), named[0].reason.as_str()), ("orders", "TOO_MANY"));
}

#[tokio::test]
async fn what_came_before_a_message_that_cannot_be_read_is_placed() {
    let (shop, alice) = shop().await;
    let gate = Gate::new();
    shop.proxy.break_next("Reserve", (0..3).map(|_| Fault::HoldRequest(gate.clone())));
    let mut requests: Vec<PlaceOrderRequest> = (0..3).map(|_| items(&[("TEA", 1)])).collect();
    requests.push(items(&[(&"A".repeat(2_000_000), 1)]));
    requests.push(items(&[("TEA", 1)]));
    let mut orders = shop.orders(&alice);
    let call = tokio::spawn(async move { orders.place_orders(stream(requests)).await });
    for _ in 0..3 {
        gate.reached().await;
    }
    (0..3).for_each(|_| gate.open());
    let refused = call.await.unwrap().unwrap_err();
    assert_eq!(why(&refused), (Code::ResourceExhausted, Some(Reason::MessageTooLarge)));
    assert_eq!(shop.rows().await[0], 3);
    shop.at_rest().await;
    assert_eq!(shop.promised("TEA").await, (0, 3));
}

#[tokio::test]
async fn a_stream_of_orders_that_is_idle_at_the_end_is_told_so_and_what_it_sent_is_placed() {
    let (shop, alice) = shop().await;
    let gate = Gate::new();
    shop.proxy.break_next("Reserve", [Fault::HoldRequest(gate.clone())]);
    let mut orders = shop.orders(&alice);
    let requests = stream(vec![items(&[("TEA", 1)])]).chain(futures::stream::pending());
    let call = tokio::spawn(async move { orders.place_orders(requests).await });
    gate.reached().await;
    let tasks = shop.replicas[0].kernel.tasks.clone();
    let stopping = tokio::spawn(async move { tasks.stop(super::PATIENCE).await });
    tokio::task::yield_now().await;
    gate.open();
    let told = call.await.unwrap().unwrap_err();
    assert_eq!(why(&told), (Code::Unavailable, Some(Reason::ShuttingDown)));
    assert!(stopping.await.unwrap());
    assert_eq!(shop.promised("TEA").await.0 + shop.promised("TEA").await.1, 1, "its stock is set aside");
}

#[tokio::test]
async fn the_results_of_a_stream_are_bounded_to_the_byte() {
    let mut shop = Shop::closed().await;
    let database = souk_testkit::postgres().await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.suite.product("TEA", 100, 100).await;
    let alice = shop.suite.customer("alice").await;
    let requests: Vec<PlaceOrderRequest> = (0..20).map(|_| items(&[("TEA", 1)])).collect();
    shop.orders(&alice).place_orders(stream(requests.clone())).await.unwrap();
    let again = shop.orders(&alice).place_orders(stream(requests.clone())).await.unwrap().into_inner();
    let bytes = prost::Message::encoded_len(&again);
    shop.start(database.config().clone(), |config| config.limits.place_orders_result_bytes_max = bytes).await;
    shop.start(database.config().clone(), |config| config.limits.place_orders_result_bytes_max = bytes - 1).await;
    let fits = shop.orders_at(1, &alice).place_orders(stream(requests.clone())).await.unwrap().into_inner();
    assert_eq!(fits, again);
    assert_too_many(&shop.orders_at(2, &alice).place_orders(stream(requests)).await.unwrap_err());
}

#[tokio::test]
async fn what_a_price_is_refused_for_is_named_inside_its_message() {
    let (shop, alice) = shop().await;
    for index in 0..10 {
        shop.suite.product(&format!("GOLD{index}"), 1_000_000_000_000, 0).await;
    }
    let names: Vec<String> = (0..10).map(|index| format!("GOLD{index}")).collect();
    let lines: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1_000_000)).collect();
    let response = shop.orders(&alice).place_orders(stream(vec![items(&lines)])).await.unwrap().into_inner();
    let Some(Outcome::Error(error)) = &response.results[0].outcome else { panic!("{response:?}") };
    assert_eq!(violations(error), [("order.items[9]".to_owned(), "AMOUNT_OVERFLOW".to_owned())]);
}

/// Field and reason of each.
fn violations(error: &souk_proto_common::google_rpc::Status) -> Vec<(String, String)> {
    let detail = error.details.iter().find(|detail| detail.type_url.ends_with("BadRequest")).unwrap();
    let named: pb::BadRequest = prost::Message::decode(detail.value.as_ref()).unwrap();
    named.field_violations.into_iter().map(|violation| (violation.field, violation.reason)).collect()
}
