//! What a customer lives through, with real clients over real sockets. The numbers are those of the promises.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use prost::Message;
use souk_proto_common::failure::reason_of;
use souk_proto_common::google_rpc;
use souk_proto_common::v1::{Money, Reason};
use souk_proto_inventory::v1::GetProductRequest;
use souk_proto_order::v1::place_order_result::Outcome;
use souk_proto_order::v1::{
    CancelOrderRequest, GetOrderRequest, ListOrdersRequest, OrderState, PlaceOrderRequest, PlaceOrdersRequest,
    WatchOrderRequest,
};
use souk_testkit::eventually;
use souk_testkit::form::Souk;
use souk_testkit::load::number;
use souk_testkit::shop::{PASSWORD, Person, new_id, one};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tonic_types::StatusExt;

fn assert_short_of(status: &Status, sku: &str) {
    assert_eq!((status.code(), reason_of(status)), (Code::FailedPrecondition, Some(Reason::InsufficientStock)));
    let violations = status.get_details_precondition_failure().unwrap().violations;
    assert!(violations.iter().any(|violation| violation.subject == format!("sku/{sku}")), "{violations:?}");
}

/// The error of an order of a stream, as the status of a call.
fn as_status(error: &google_rpc::Status) -> Status {
    Status::with_details(Code::from(error.code), error.message.clone(), error.encode_to_vec().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_priced_by_the_server_confirmed_and_its_stock_committed() {
    let souk = crate::FORM.start().await;
    souk.product("TEA", 690, 10).await;
    let alice = souk.customer("alice").await;
    let order = souk.place(&alice, one("TEA", 3)).await.unwrap();
    assert_eq!((order.state(), order.version), (OrderState::Pending, 1));
    assert_eq!(order.owner_id, alice.user_id);
    assert_eq!(order.total, Some(Money { currency_code: "EUR".into(), amount_minor: 2_070 }));
    let confirmed = souk.settled(&alice, &order.order_id).await;
    assert_eq!((confirmed.state(), confirmed.version), (OrderState::Confirmed, 2));
    let level = souk.level("TEA").await;
    assert_eq!((level.on_hand, level.held, level.allocated, level.available), (10, 0, 3, 7));
    souk.assert_invariants().await;
    souk.stop().await;
}

/// P2: 200 buyers, one unit each, 100 in stock.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_buyers_of_a_hundred_units_leave_exactly_none() {
    let souk = Arc::new(crate::FORM.start().await);
    souk.product("LAMP", 14_900, 100).await;
    let names = futures::stream::iter(0..200).map(|number| {
        let souk = souk.clone();
        async move { souk.customer(&format!("buyer-{number}")).await }
    });
    let buyers: Vec<Person> = names.buffer_unordered(8).collect().await;
    let mut tasks = tokio::task::JoinSet::new();
    for buyer in buyers {
        let souk = souk.clone();
        tasks.spawn(async move {
            let placed = souk.place(&buyer, one("LAMP", 1)).await;
            match placed {
                Ok(order) => Ok(souk.settled(&buyer, &order.order_id).await),
                Err(status) => Err(status),
            }
        });
    }
    let results = tasks.join_all().await;
    let (placed, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((placed.len(), refused.len()), (100, 100));
    assert!(placed.into_iter().all(|order| order.unwrap().state() == OrderState::Confirmed));
    for status in refused {
        assert_short_of(&status.unwrap_err(), "LAMP");
    }
    let level = souk.level("LAMP").await;
    assert_eq!((level.on_hand, level.held, level.allocated, level.available), (100, 0, 100, 0));
    souk.assert_invariants().await;
}

/// P2, through the client stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_two_hundred_orders_takes_exactly_what_is_there() {
    let souk = crate::FORM.start().await;
    souk.product("LAMP", 14_900, 100).await;
    let alice = souk.customer("alice").await;
    let requests: Vec<PlaceOrdersRequest> =
        (0..200).map(|_| PlaceOrdersRequest { order: Some(one("LAMP", 1)) }).collect();
    let ids: Vec<String> = requests.iter().map(|request| request.order.as_ref().unwrap().request_id.clone()).collect();
    let response =
        souk.orders(Some(&alice)).place_orders(futures::stream::iter(requests.clone())).await.unwrap().into_inner();
    assert_eq!(response.results.iter().map(|result| result.request_id.clone()).collect::<Vec<_>>(), ids);
    let mut placed = 0;
    for result in &response.results {
        match result.outcome.as_ref().unwrap() {
            Outcome::Order(order) => {
                placed += 1;
                assert_eq!(souk.settled(&alice, &order.order_id).await.state(), OrderState::Confirmed);
            }
            Outcome::Error(error) => assert_short_of(&as_status(error), "LAMP"),
        }
    }
    assert_eq!(placed, 100);
    assert_eq!(souk.level("LAMP").await.available, 0);
    // The same stream again: the same orders, and nothing else.
    let again = souk.orders(Some(&alice)).place_orders(futures::stream::iter(requests)).await.unwrap().into_inner();
    let orders = |results: &[souk_proto_order::v1::PlaceOrderResult]| -> BTreeSet<String> {
        let id =
            |outcome: &Outcome| if let Outcome::Order(order) = outcome { Some(order.order_id.clone()) } else { None };
        results.iter().filter_map(|result| id(result.outcome.as_ref().unwrap())).collect()
    };
    assert_eq!(orders(&again.results), orders(&response.results));
    assert_eq!(souk.own_orders(&alice).await.len(), 100);
    souk.assert_invariants().await;
    souk.stop().await;
}

/// P3: after a stop in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_no_order_no_stock_and_no_place_in_a_watch() {
    const ORDERS: usize = 1_000;
    let souk = crate::FORM.start().await;
    souk.product("TEA", 690, 10_000).await;
    let alice = souk.customer("alice").await;
    let requests: Vec<PlaceOrdersRequest> =
        (0..ORDERS).map(|_| PlaceOrdersRequest { order: Some(one("TEA", 1)) }).collect();
    let results =
        souk.orders(Some(&alice)).place_orders(futures::stream::iter(requests)).await.unwrap().into_inner().results;
    let acknowledged: BTreeSet<String> = results
        .iter()
        .map(|result| match result.outcome.as_ref().unwrap() {
            Outcome::Order(order) => order.order_id.clone(),
            Outcome::Error(error) => panic!("{error:?}"),
        })
        .collect();
    assert_eq!(acknowledged.len(), ORDERS);

    let souk = souk.restart().await;
    let alice = souk.log_in("alice@example.com", PASSWORD).await;
    // The connection of the process that is gone may end under the first call: whoever has no policy for it asks a read again.
    drop(souk.orders(Some(&alice)).list_orders(ListOrdersRequest::default()).await);
    let found: BTreeSet<String> = souk.own_orders(&alice).await.into_iter().map(|order| order.order_id).collect();
    assert_eq!(found, acknowledged);
    // Those that were PENDING at the stop are confirmed now; each watch resumes after the first version and has the second next.
    for order_id in &acknowledged {
        let settled = souk.settled(&alice, order_id).await;
        assert_eq!((settled.state(), settled.version), (OrderState::Confirmed, 2));
    }
    souk.assert_invariants().await;
    let orders = i64::try_from(ORDERS).unwrap();
    let allocated = number(&souk.inventory_database().await, "SELECT CAST(SUM(allocated) AS BIGINT) FROM stock").await;
    assert_eq!(allocated, orders);
    // Every version is an event, and none is lost: two of each order.
    assert_eq!(number(&souk.orders_database().await, "SELECT COUNT(*) FROM outbox").await, 2 * orders);
    souk.stop().await;
}

/// P1: one key is one order.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_equal_requests_at_once_are_one_order_and_fifty_equal_answers() {
    let souk = Arc::new(crate::FORM.start().await);
    souk.product("TEA", 690, 100).await;
    let alice = souk.customer("alice").await;
    let request = one("TEA", 1);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (souk, alice, request) = (souk.clone(), alice.clone(), request.clone());
        tasks.spawn(async move { souk.place(&alice, request).await.unwrap() });
    }
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    souk.settled(&alice, &answers[0].order_id).await;
    assert_eq!(souk.own_orders(&alice).await.len(), 1);
    let level = souk.level("TEA").await;
    assert_eq!((level.held, level.allocated), (0, 1));
    // Later, too, the stored answer: PENDING, as it was told first, and marked as told before.
    let late = souk.orders(Some(&alice)).place_order(request).await.unwrap();
    assert_eq!(late.metadata().get("souk-idempotent-replay").unwrap(), "true");
    assert_eq!(late.into_inner().order.unwrap(), answers[0]);
    souk.assert_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_its_callers_and_stands_for_one_body() {
    let souk = crate::FORM.start().await;
    souk.product("TEA", 690, 100).await;
    let (alice, bob) = (souk.customer("alice").await, souk.customer("bob").await);
    let request = one("TEA", 1);
    let first = souk.place(&alice, request.clone()).await.unwrap();
    let mut other_body = request.clone();
    other_body.items[0].quantity = 2;
    let refused = souk.place(&alice, other_body).await.unwrap_err();
    assert_eq!((refused.code(), reason_of(&refused)), (Code::FailedPrecondition, Some(Reason::IdempotencyKeyReused)));
    let bobs = souk.place(&bob, request).await.unwrap();
    assert_ne!(bobs.order_id, first.order_id);
    assert_eq!(bobs.owner_id, bob.user_id);
    souk.settled(&alice, &first.order_id).await;
    souk.settled(&bob, &bobs.order_id).await;
    assert_eq!(souk.level("TEA").await.allocated, 2);
    souk.assert_invariants().await;
    souk.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_failed_can_be_sent_again_under_its_key() {
    let souk = crate::FORM.start().await;
    souk.product("LAMP", 14_900, 0).await;
    let alice = souk.customer("alice").await;
    let request = one("LAMP", 1);
    assert_short_of(&souk.place(&alice, request.clone()).await.unwrap_err(), "LAMP");
    souk.product("OTHER", 1, 0).await;
    let receive = souk_proto_inventory::v1::ReceiveRequest {
        request_id: new_id(),
        sku: "LAMP".into(),
        quantity: 1,
        reason: souk_proto_inventory::v1::MovementReason::Purchase.into(),
        ..Default::default()
    };
    souk.stock(Some(souk.admin())).receive(receive).await.unwrap();
    let order = souk.place(&alice, request).await.unwrap();
    assert_eq!(souk.settled(&alice, &order.order_id).await.state(), OrderState::Confirmed);
    souk.assert_invariants().await;
    souk.stop().await;
}

/// P11: nobody touches what is not theirs, or learns that it exists.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_its_owners_business_and_the_staffs() {
    let souk = crate::FORM.start().await;
    souk.product("TEA", 690, 100).await;
    let (alice, bob) = (souk.customer("alice").await, souk.customer("bob").await);
    let order_id = souk.place(&alice, one("TEA", 1)).await.unwrap().order_id;
    let mut orders = souk.orders(Some(&bob));
    let mut refusals = Vec::new();
    for id in [order_id.clone(), new_id()] {
        refusals.push(orders.get_order(GetOrderRequest { order_id: id.clone() }).await.unwrap_err());
        refusals
            .push(orders.watch_order(WatchOrderRequest { order_id: id.clone(), after_version: 0 }).await.unwrap_err());
        let cancel = CancelOrderRequest { request_id: new_id(), order_id: id, etag: String::new() };
        refusals.push(orders.cancel_order(cancel).await.unwrap_err());
    }
    refusals.push(
        orders
            .list_orders(ListOrdersRequest { owner_id: alice.user_id.clone(), ..Default::default() })
            .await
            .unwrap_err(),
    );
    for status in &refusals {
        assert_eq!((status.code(), reason_of(status)), (Code::PermissionDenied, Some(Reason::NotOwner)), "{status:?}");
        assert_eq!(status.message(), refusals[0].message(), "an order's existence is told");
    }
    assert!(souk.own_orders(&bob).await.is_empty());
    let staff =
        souk.orders(Some(souk.admin())).get_order(GetOrderRequest { order_id: order_id.clone() }).await.unwrap();
    assert_eq!(staff.into_inner().order.unwrap().owner_id, alice.user_id);
    let absent = souk.orders(Some(souk.admin())).get_order(GetOrderRequest { order_id: new_id() }).await.unwrap_err();
    assert_eq!((absent.code(), reason_of(&absent)), (Code::NotFound, Some(Reason::OrderNotFound)));
    souk.assert_invariants().await;
    souk.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_prices_and_a_surprised_caller_is_told() {
    let souk = crate::FORM.start().await;
    souk.product("TEA", 690, 100).await;
    let alice = souk.customer("alice").await;
    let expecting = |amount_minor| PlaceOrderRequest {
        expected_total: Some(Money { currency_code: "EUR".into(), amount_minor }),
        ..one("TEA", 1)
    };
    let refused = souk.place(&alice, expecting(1)).await.unwrap_err();
    assert_eq!((refused.code(), reason_of(&refused)), (Code::FailedPrecondition, Some(Reason::PriceChanged)));
    assert_eq!(souk.level("TEA").await.version, 1, "a refused order holds nothing");
    souk.place(&alice, expecting(690)).await.unwrap();
    souk.assert_invariants().await;
    souk.stop().await;
}

/// Prices are remembered, and never too old: only the event says that one has changed. It must reach every replica.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_price_is_the_price_of_the_next_order() {
    /// So many that every replica has one of them.
    const ORDERS: usize = 16;
    let souk = crate::FORM.start().await;
    souk.product("TEA", 690, 10_000).await;
    let alice = souk.customer("alice").await;
    let euros = |amount_minor| Some(Money { currency_code: "EUR".into(), amount_minor });
    let all_cost = async |price| {
        for _ in 0..ORDERS {
            if souk.place(&alice, one("TEA", 1)).await.unwrap().total != price {
                return false;
            }
        }
        true
    };
    assert!(all_cost(euros(690)).await);
    let product = souk_proto_inventory::v1::Product { sku: "TEA".into(), price: euros(750), ..Default::default() };
    let update = souk_proto_inventory::v1::UpdateProductRequest {
        request_id: new_id(),
        product: Some(product),
        update_mask: Some(pbjson_types::FieldMask { paths: vec!["price".into()] }),
    };
    souk.catalog(Some(souk.admin())).update_product(update).await.unwrap();
    eventually("the event of the new price has come", async || all_cost(euros(750)).await).await;
    souk.assert_invariants().await;
    souk.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_gives_its_stock_back_once() {
    let souk = crate::FORM.start().await;
    souk.product("TEA", 690, 5).await;
    let alice = souk.customer("alice").await;
    let order = souk.place(&alice, one("TEA", 5)).await.unwrap();
    souk.settled(&alice, &order.order_id).await;
    let cancel = CancelOrderRequest { request_id: new_id(), order_id: order.order_id.clone(), etag: String::new() };
    let mut orders = souk.orders(Some(&alice));
    let cancelled = orders.cancel_order(cancel.clone()).await.unwrap().into_inner().order.unwrap();
    assert_eq!(cancelled.state(), OrderState::Cancelled);
    let replayed = orders.cancel_order(cancel).await.unwrap();
    assert_eq!(replayed.metadata().get("souk-idempotent-replay").unwrap(), "true");
    assert_eq!(replayed.into_inner().order.unwrap(), cancelled);
    let again = CancelOrderRequest { request_id: new_id(), order_id: order.order_id.clone(), etag: String::new() };
    let refused = orders.cancel_order(again).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidStateTransition));
    assert_eq!(refused.get_details_error_info().unwrap().metadata["current_state"], "CANCELLED");
    released(&souk, "TEA", 5).await;
    souk.assert_invariants().await;
    souk.stop().await;
}

/// Waits, by watching the stock, until so much is available.
async fn released(souk: &Souk, sku: &str, available: i64) {
    use souk_proto_inventory::v1::watch_stock_response::Update;
    let request = souk_proto_inventory::v1::WatchStockRequest { skus: vec![sku.to_owned()], ..Default::default() };
    let mut levels = souk.stock(Some(souk.admin())).watch_stock(request).await.unwrap().into_inner();
    let waiting = async {
        while let Some(message) = levels.message().await.unwrap() {
            if matches!(message.update, Some(Update::Level(level)) if level.available == available) {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the stock comes back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_be_compressed() {
    let souk = crate::FORM.start().await;
    souk.product("TEA", 690, 1).await;
    let request = GetProductRequest { sku: "TEA".into() };
    let mut compressing = souk.catalog(None).send_compressed(CompressionEncoding::Gzip);
    assert_eq!(compressing.get_product(request).await.unwrap().into_inner().product.unwrap().sku, "TEA");
    souk.stop().await;
}
