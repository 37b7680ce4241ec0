//! Bad input for every field of every RPC: every bad field is named, and nothing is changed.

use souk_proto_common::v1::{Money, Reason};
use souk_proto_order::v1::{
    CancelOrderRequest, GetOrderRequest, ListOrdersRequest, OrderItem, PlaceOrderRequest, PlaceOrderResponse,
    WatchOrderRequest,
};
use souk_testkit::suite::{Person, new_id};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Shop, items, why};

#[track_caller]
fn assert_names(refused: &Status, expected: &[(&str, &str)]) {
    assert_eq!(why(refused), (Code::InvalidArgument, Some(Reason::InvalidRequest)), "{refused:?}");
    let violations = refused.get_details_bad_request().unwrap().field_violations;
    let named: Vec<(&str, &str)> =
        violations.iter().map(|violation| (violation.field.as_str(), violation.reason.as_str())).collect();
    assert_eq!(named, expected);
    assert!(violations.iter().all(|violation| !violation.description.is_empty()));
}

async fn refused_order(shop: &Shop, person: &Person, request: PlaceOrderRequest, expected: &[(&str, &str)]) {
    assert_names(&shop.place(person, request).await.unwrap_err(), expected);
}

#[tokio::test]
async fn every_bad_field_of_an_order_is_named_and_nothing_changed() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let before = (shop.rows().await, shop.promised("TEA").await);
    let everything = PlaceOrderRequest {
        request_id: "no uuid".into(),
        items: items(&[("", 1), (&"A".repeat(65), 0), ("T E A", -1), ("TEA", i64::MAX), ("TEA", i64::MIN)]).items,
        expected_total: Some(Money { currency_code: "eur".into(), amount_minor: i64::MIN }),
    };
    let expected = [
        ("request_id", "INVALID_FORMAT"),
        ("items[0].sku", "REQUIRED"),
        ("items[1].sku", "TOO_LONG"),
        ("items[1].quantity", "OUT_OF_BOUNDS"),
        ("items[2].sku", "INVALID_FORMAT"),
        ("items[2].quantity", "OUT_OF_BOUNDS"),
        ("items[3].quantity", "OUT_OF_BOUNDS"),
        ("items[4].quantity", "OUT_OF_BOUNDS"),
        ("expected_total.currency_code", "UNKNOWN_CURRENCY"),
        ("expected_total.amount_minor", "OUT_OF_BOUNDS"),
    ];
    refused_order(&shop, &alice, everything, &expected).await;
    refused_order(&shop, &alice, PlaceOrderRequest::default(), &[("request_id", "REQUIRED"), ("items", "REQUIRED")])
        .await;
    let line = OrderItem { sku: "A".repeat(64), quantity: 0 };
    let lines = PlaceOrderRequest { request_id: new_id(), items: vec![line; 10_000], expected_total: None };
    refused_order(&shop, &alice, lines, &[("items", "TOO_MANY")]).await;
    let sum = items(&[("TEA", 999_999), ("TEA", 2)]);
    refused_order(&shop, &alice, sum, &[("items[1].quantity", "OUT_OF_BOUNDS")]).await;
    // More bad fields than an error may name: the rest is counted.
    let many = items(&[("", 1); 50]);
    let refused = shop.place(&alice, many).await.unwrap_err();
    assert_eq!(refused.get_details_bad_request().unwrap().field_violations.len(), 20);
    assert_eq!(refused.get_details_error_info().unwrap().metadata["violations_omitted"], "30");
    // More than a message may have.
    let huge = items(&[(&"A".repeat(2_000_000), 1)]);
    let refused = shop.place(&alice, huge).await.unwrap_err();
    assert_eq!(why(&refused), (Code::ResourceExhausted, Some(Reason::MessageTooLarge)));
    assert_eq!((shop.rows().await, shop.promised("TEA").await), before);
    assert_eq!(shop.proxy.calls("Reserve"), 0);
}

/// PlaceOrderRequest as a careless client writes it: its texts are any bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyBytes {
    #[prost(bytes = "vec", tag = "1")]
    request_id: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    items: Vec<AnyItem>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyItem {
    #[prost(bytes = "vec", tag = "1")]
    sku: Vec<u8>,
    #[prost(int64, tag = "2")]
    quantity: i64,
}

#[tokio::test]
async fn a_text_that_is_no_text_is_refused_with_a_reason() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let good =
        AnyBytes { request_id: new_id().into_bytes(), items: vec![AnyItem { sku: b"TEA".to_vec(), quantity: 1 }] };
    let bad_id = AnyBytes { request_id: vec![0xff, 0xfe], ..good.clone() };
    let bad_sku = AnyBytes { items: vec![AnyItem { sku: vec![b'T', 0xc3, 0x28], quantity: 1 }], ..good.clone() };
    for (bytes, field) in [(bad_id, "request_id"), (bad_sku, "items.sku")] {
        assert_names(&place_bytes(&shop, &alice, bytes).await.unwrap_err(), &[(field, "INVALID_FORMAT")]);
    }
    assert_eq!(shop.rows().await, [0; 6]);
    assert!(place_bytes(&shop, &alice, good).await.is_ok());
}

async fn place_bytes(shop: &Shop, person: &Person, bytes: AnyBytes) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(shop.replicas[0].channel.clone());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(bytes);
    request.metadata_mut().insert("authorization", format!("Bearer {}", person.token).parse().unwrap());
    let path = http::uri::PathAndQuery::from_static(souk_order::ops::place_order::METHOD);
    let codec = tonic_prost::ProstCodec::<AnyBytes, PlaceOrderResponse>::default();
    client.unary(request, path, codec).await.map(drop)
}

#[tokio::test]
async fn every_bad_field_of_the_other_calls_is_named() {
    let shop = Shop::open().await;
    let alice = shop.suite.customer("alice").await;
    let mut orders = shop.orders(&alice);
    let get = orders.get_order(GetOrderRequest { order_id: "{}".into() }).await.unwrap_err();
    assert_names(&get, &[("order_id", "INVALID_FORMAT")]);
    let watch = orders.watch_order(WatchOrderRequest { order_id: String::new(), after_version: i64::MIN });
    assert_names(&watch.await.unwrap_err(), &[("order_id", "REQUIRED"), ("after_version", "OUT_OF_BOUNDS")]);
    let cancel = CancelOrderRequest { request_id: "1".into(), order_id: "2".into(), etag: "3".into() };
    let expected = [("request_id", "INVALID_FORMAT"), ("order_id", "INVALID_FORMAT"), ("etag", "INVALID_FORMAT")];
    assert_names(&orders.cancel_order(cancel).await.unwrap_err(), &expected);
    let list = ListOrdersRequest {
        page_size: i32::MIN,
        page_token: "A".repeat(5_000),
        states: vec![0, 7],
        created_from: Some(pbjson_types::Timestamp { seconds: 0, nanos: i32::MAX }),
        created_before: Some(pbjson_types::Timestamp { seconds: i64::MIN, nanos: 0 }),
        owner_id: "00000000-0000-0000-0000-000000000000".into(),
    };
    let expected = [
        ("page_size", "OUT_OF_BOUNDS"),
        ("page_token", "INVALID_PAGE_TOKEN"),
        ("states[0]", "INVALID_ENUM"),
        ("states[1]", "INVALID_ENUM"),
        ("created_from", "INVALID_FORMAT"),
        ("created_before", "INVALID_FORMAT"),
        ("owner_id", "INVALID_FORMAT"),
    ];
    assert_names(&orders.list_orders(list).await.unwrap_err(), &expected);
    assert_eq!(shop.rows().await, [0; 6]);
}
