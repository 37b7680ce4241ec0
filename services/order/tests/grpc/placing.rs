//! Placing: one key, one order.

use std::collections::HashSet;
use std::time::Duration;

use souk_proto_common::REPLAY_HEADER;
use souk_proto_common::v1::{Money, Reason};
use souk_proto_inventory::v1 as inventory;
use souk_proto_order::v1::{ListOrdersRequest, OrderState, PlaceOrderRequest};
use souk_proto_user::v1::IssueServiceTokenRequest;
use souk_testkit::suite::new_id;
use tonic::Code;
use tonic_types::StatusExt;

use super::proxy::{Fault, Gate};
use super::{SECRET, Shop, items, state, why, within};

#[tokio::test]
async fn an_order_says_what_was_bought_and_every_step_of_it_is_told() {
    let shop = Shop::open().await;
    let price = Some(Money { currency_code: "EUR".into(), amount_minor: 1_999 });
    let product = inventory::Product {
        sku: "TEA".into(),
        name: "Green tea".into(),
        price,
        tax_basis_points: 1_900,
        ..Default::default()
    };
    let admin = shop.suite.admin();
    let create = inventory::CreateProductRequest { request_id: new_id(), product: Some(product) };
    shop.suite.catalog(Some(admin)).create_product(create).await.unwrap();
    let receive = inventory::ReceiveRequest {
        request_id: new_id(),
        sku: "TEA".into(),
        quantity: 10,
        reason: inventory::MovementReason::Purchase.into(),
        ..Default::default()
    };
    shop.suite.stock(Some(admin)).receive(receive).await.unwrap();

    let alice = shop.suite.customer("alice").await;
    let placed = shop.place(&alice, items(&[("TEA", 1), ("TEA", 2)])).await.unwrap();
    assert_eq!(
        (state(&placed), placed.version, placed.owner_id.as_str()),
        (OrderState::Pending, 1, alice.user_id.as_str())
    );
    let [line] = placed.lines.as_slice() else { panic!("{placed:?}") };
    assert_eq!((line.sku.as_str(), line.name.as_str(), line.quantity), ("TEA", "Green tea", 3));
    let minor = |money: &Option<Money>| money.as_ref().unwrap().amount_minor;
    assert_eq!((minor(&line.unit_price), minor(&line.tax), minor(&line.total)), (1_999, 1_139, 7_136));
    assert_eq!(minor(&placed.total), 7_136);

    let confirmed = shop.settled(&alice, &placed).await;
    assert_eq!((state(&confirmed), confirmed.version), (OrderState::Confirmed, 2));
    assert_ne!(confirmed.etag, placed.etag);
    assert_eq!(shop.promised("TEA").await, (0, 3));
    let mut tx = shop.replicas[0].running.app.db.read().await.unwrap();
    let told: Vec<(String, i64, String)> =
        souk_db::sql("SELECT subject, version, kind FROM outbox ORDER BY version").fetch_all(&mut tx).await.unwrap();
    let expected = [
        ("souk.order.order.placed".to_owned(), 1, "souk.order.v1.OrderPlaced".to_owned()),
        ("souk.order.order.confirmed".to_owned(), 2, "souk.order.v1.OrderConfirmed".to_owned()),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_request_repeated_fifty_times_at_once_is_one_order_and_one_hold() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let request = items(&[("TEA", 2)]);
    let calls = (0..50).map(|_| {
        let (mut orders, request) = (shop.orders(&alice), request.clone());
        tokio::spawn(async move { orders.place_order(request).await.unwrap() })
    });
    let mut answers = Vec::new();
    let mut replayed = 0;
    for call in futures::future::join_all(calls).await {
        let response = call.unwrap();
        replayed += usize::from(response.metadata().get(REPLAY_HEADER).is_some_and(|value| value == "true"));
        answers.push(response.into_inner().order.unwrap());
    }
    assert_eq!(replayed, 49);
    assert!(answers.iter().all(|order| *order == answers[0]));
    shop.settled(&alice, &answers[0]).await;
    assert_eq!(shop.promised("TEA").await, (0, 2));
    assert_eq!(shop.proxy.calls("Reserve"), 1);
    let late = shop.place(&alice, request).await.unwrap();
    assert_eq!(late, answers[0], "the stored answer, whatever became of the order");
    let listed = shop.orders(&alice).list_orders(ListOrdersRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.orders.len(), 1);
}

#[tokio::test]
async fn two_replicas_place_one_order_under_one_key() {
    let mut shop = Shop::closed().await;
    let database = souk_testkit::postgres().await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    for round in 0..10 {
        let request = items(&[("TEA", 1)]);
        let calls = (0..8).map(|call| {
            let (mut orders, request) = (shop.orders_at(call % 2, &alice), request.clone());
            tokio::spawn(async move { orders.place_order(request).await.unwrap().into_inner().order.unwrap() })
        });
        let ids: HashSet<String> =
            futures::future::join_all(calls).await.into_iter().map(|order| order.unwrap().order_id).collect();
        assert_eq!(ids.len(), 1, "round {round}");
    }
    shop.stock_becomes("TEA", |level| (level.held, level.allocated) == (0, 10)).await;
    shop.at_rest().await;
}

#[tokio::test]
async fn the_last_unit_is_not_refused_to_a_duplicate_of_the_order_that_has_it() {
    let mut shop = Shop::closed().await;
    let database = souk_testkit::postgres().await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.suite.product("TEA", 100, 1).await;
    let alice = shop.suite.customer("alice").await;
    let request = items(&[("TEA", 1)]);
    let gate = Gate::new();
    shop.proxy.break_next("Reserve", [Fault::HoldRequest(gate.clone())]);
    let late = {
        let (mut orders, request) = (shop.orders_at(1, &alice), request.clone());
        tokio::spawn(async move { orders.place_order(request).await })
    };
    gate.reached().await;
    // While the duplicate has looked for the order and not held its stock, the order is placed, confirmed and so has the last unit.
    let placed = shop.place(&alice, request).await.unwrap();
    shop.settled(&alice, &placed).await;
    gate.open();
    let answer = late.await.unwrap().unwrap();
    assert_eq!(answer.metadata().get(REPLAY_HEADER).unwrap(), "true");
    assert_eq!(answer.into_inner().order.unwrap(), placed);
    assert_eq!(shop.promised("TEA").await, (0, 1));
}

#[tokio::test]
async fn a_key_has_its_answer_though_a_duplicate_finds_another_price() {
    let mut shop = Shop::closed().await;
    let database = souk_testkit::postgres().await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let euros = |amount_minor| Some(Money { currency_code: "EUR".into(), amount_minor });
    let request = PlaceOrderRequest { expected_total: euros(100), ..items(&[("TEA", 1)]) };
    let gate = Gate::new();
    shop.proxy.break_next("BatchGetProducts", [Fault::HoldRequest(gate.clone())]);
    let late = {
        let (mut orders, request) = (shop.orders_at(1, &alice), request.clone());
        tokio::spawn(async move { orders.place_order(request).await })
    };
    gate.reached().await;
    // While the duplicate has looked for the order and not priced it, the order is placed and the price changes.
    let placed = shop.place(&alice, request).await.unwrap();
    change_price(&shop, "TEA", euros(150)).await;
    gate.open();
    let answer = late.await.unwrap().unwrap();
    assert_eq!(answer.metadata().get(REPLAY_HEADER).unwrap(), "true");
    assert_eq!(answer.into_inner().order.unwrap(), placed);
}

async fn change_price(shop: &Shop, sku: &str, price: Option<Money>) {
    let product = inventory::Product { sku: sku.into(), price, ..Default::default() };
    let update_mask = Some(pbjson_types::FieldMask { paths: vec!["price".into()] });
    let update = inventory::UpdateProductRequest { request_id: new_id(), product: Some(product), update_mask };
    shop.suite.catalog(Some(shop.suite.admin())).update_product(update).await.unwrap();
}

#[tokio::test]
async fn another_body_under_a_key_that_another_replica_is_using_is_refused() {
    let mut shop = Shop::closed().await;
    let database = souk_testkit::postgres().await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.start(database.config().clone(), |_| ()).await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let request = items(&[("TEA", 1)]);
    let other = PlaceOrderRequest { request_id: request.request_id.clone(), ..items(&[("TEA", 2)]) };
    let gate = Gate::new();
    shop.proxy.break_next("Reserve", [Fault::HoldAnswer(gate.clone())]);
    let late = {
        let mut orders = shop.orders_at(1, &alice);
        tokio::spawn(async move { orders.place_order(other).await })
    };
    gate.reached().await;
    // Both have found the key free, and both have their stock.
    let placed = shop.place(&alice, request).await.unwrap();
    gate.open();
    let refused = late.await.unwrap().unwrap_err();
    assert_eq!(why(&refused), (Code::FailedPrecondition, Some(Reason::IdempotencyKeyReused)));
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
    shop.at_rest().await;
    assert_eq!(shop.promised("TEA").await, (0, 1), "what was held for the other is given back");
    assert_eq!(shop.rows().await[0], 1);
}

#[tokio::test]
async fn a_duplicate_that_has_waited_long_enough_is_told_to_come_again() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let request = items(&[("TEA", 1)]);
    let gate = Gate::new();
    shop.proxy.break_next("Reserve", [Fault::HoldRequest(gate.clone())]);
    let first = {
        let (mut orders, request) = (shop.orders(&alice), request.clone());
        tokio::spawn(async move { orders.place_order(request).await })
    };
    gate.reached().await;
    let began = tokio::time::Instant::now();
    let waiting = within(request.clone(), Duration::from_millis(600));
    let told = shop.orders(&alice).place_order(waiting).await.unwrap_err();
    assert_eq!(why(&told), (Code::Aborted, Some(Reason::RequestInProgress)));
    assert!(told.get_details_retry_info().unwrap().retry_delay.is_some());
    let waited = began.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_millis(600)).contains(&waited), "{waited:?}");
    gate.open();
    let placed = first.await.unwrap().unwrap().into_inner().order.unwrap();
    assert_eq!(shop.place(&alice, request).await.unwrap(), placed);
}

#[tokio::test]
async fn another_body_under_the_key_is_refused_and_another_caller_is_unrelated() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let (alice, bob) = (shop.suite.customer("alice").await, shop.suite.customer("bob").await);
    let request = items(&[("TEA", 1)]);
    let placed = shop.place(&alice, request.clone()).await.unwrap();
    let mut other = request.clone();
    other.items[0].quantity = 2;
    let refused = shop.place(&alice, other).await.unwrap_err();
    assert_eq!(why(&refused), (Code::FailedPrecondition, Some(Reason::IdempotencyKeyReused)));
    let of_bob = shop.place(&bob, request).await.unwrap();
    assert_ne!(of_bob.order_id, placed.order_id);
    shop.stock_becomes("TEA", |level| (level.held, level.allocated) == (0, 2)).await;
}

#[tokio::test]
async fn what_the_inventory_refuses_is_told_by_name_and_the_key_stays_free() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 1).await;
    shop.suite.product("CUP", 100, 0).await;
    let alice = shop.suite.customer("alice").await;
    let request = items(&[("TEA", 2), ("CUP", 1)]);
    let refused = shop.place(&alice, request.clone()).await.unwrap_err();
    assert_eq!(why(&refused), (Code::FailedPrecondition, Some(Reason::InsufficientStock)));
    let mut short: Vec<String> = refused
        .get_details_precondition_failure()
        .unwrap()
        .violations
        .into_iter()
        .map(|violation| violation.subject)
        .collect();
    short.sort();
    assert_eq!(short, ["sku/CUP", "sku/TEA"]);
    assert_eq!(shop.rows().await, [0; 6]);

    let unknown = shop.place(&alice, items(&[("TEA", 1), ("NOPE", 1), ("NADA", 1)])).await.unwrap_err();
    assert_eq!(why(&unknown), (Code::NotFound, Some(Reason::ProductNotFound)));
    assert_eq!(unknown.get_details_resource_info().unwrap().resource_name, "NOPE");
    assert_eq!(unknown.get_details_precondition_failure().unwrap().violations.len(), 2);

    for (sku, quantity) in [("TEA", 1), ("CUP", 1)] {
        let receive = inventory::ReceiveRequest {
            request_id: new_id(),
            sku: sku.into(),
            quantity,
            reason: inventory::MovementReason::Purchase.into(),
            ..Default::default()
        };
        shop.suite.stock(Some(shop.suite.admin())).receive(receive).await.unwrap();
    }
    let placed = shop.place(&alice, request).await.unwrap();
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
}

#[tokio::test]
async fn a_caller_is_not_charged_what_they_did_not_expect() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let euros = |amount_minor| Some(Money { currency_code: "EUR".into(), amount_minor });
    let expecting = |expected_total| {
        let mut request = items(&[("TEA", 2)]);
        request.expected_total = expected_total;
        request
    };
    assert!(shop.place(&alice, expecting(euros(200))).await.is_ok());
    let refused = shop.place(&alice, expecting(euros(199))).await.unwrap_err();
    assert_eq!(why(&refused), (Code::FailedPrecondition, Some(Reason::PriceChanged)));
    let metadata = refused.get_details_error_info().unwrap().metadata;
    assert_eq!((metadata["expected_total_minor"].as_str(), metadata["total_minor"].as_str()), ("199", "200"));
    let dollars = Some(Money { currency_code: "USD".into(), amount_minor: 200 });
    let refused = shop.place(&alice, expecting(dollars)).await.unwrap_err();
    assert_eq!(why(&refused), (Code::FailedPrecondition, Some(Reason::PriceChanged)));

    // This order service hears no events of the inventory, so it remembers the old price; the caller knows the new one.
    change_price(&shop, "TEA", euros(150)).await;
    let placed = shop.place(&alice, expecting(euros(300))).await.unwrap();
    assert_eq!(placed.total, euros(300));
    let refused = shop.place(&alice, expecting(euros(200))).await.unwrap_err();
    assert_eq!(why(&refused), (Code::FailedPrecondition, Some(Reason::PriceChanged)));
}

#[tokio::test]
async fn lines_must_add_up() {
    let shop = Shop::open().await;
    let alice = shop.suite.customer("alice").await;
    for index in 0..10 {
        shop.suite.product(&format!("GOLD{index}"), 1_000_000_000_000, 0).await;
    }
    let names: Vec<String> = (0..10).map(|index| format!("GOLD{index}")).collect();
    let lines: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1_000_000)).collect();
    let refused = shop.place(&alice, items(&lines)).await.unwrap_err();
    assert_eq!(why(&refused), (Code::InvalidArgument, Some(Reason::InvalidRequest)));
    let violations = refused.get_details_bad_request().unwrap().field_violations;
    let violated: Vec<(&str, &str)> =
        violations.iter().map(|violation| (violation.field.as_str(), violation.reason.as_str())).collect();
    assert_eq!(violated, [("items[9]", "AMOUNT_OVERFLOW")]);
    assert_eq!(shop.proxy.calls("Reserve"), 0, "nothing is held for it");
}

#[tokio::test]
async fn a_service_owns_no_orders() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let request = IssueServiceTokenRequest { service: "robot".into(), client_secret: SECRET.into() };
    let token = shop.suite.auth().issue_service_token(request).await.unwrap().into_inner().access_token;
    let refused = shop.orders_with_token(0, &token).place_order(items(&[("TEA", 1)])).await.unwrap_err();
    assert_eq!(why(&refused), (Code::PermissionDenied, Some(Reason::NotOwner)));
}
