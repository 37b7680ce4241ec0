//! A page's way in: gRPC-Web over HTTP/1.1, and who may call from where.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use chrono::DateTime;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use souk_proto_common::failure::reason_of;
use souk_proto_common::v1::Reason;
use souk_proto_order::v1::order_service_client::OrderServiceClient;
use souk_proto_order::v1::{OrderItem, OrderState, PlaceOrderRequest, WatchOrderRequest};
use souk_runtime::Clock;
use souk_testkit::suite::{Bearer, Suite, config, new_id};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use tonic_types::StatusExt;
use tonic_web::GrpcWebClientLayer;

const SHOP: &str = "https://shop.example";

/// Sends a request of HTTP/1.1 as a browser would, and reads the head of the answer.
async fn head_of(address: SocketAddr, request: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(request.replace('\n', "\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_places_and_watches_an_order_and_reads_the_details_of_an_error() {
    let suite = Suite::start().await;
    suite.product("TEA", 690, 2).await;
    let alice = suite.customer("alice").await;
    let http1 = Client::builder(TokioExecutor::new()).build_http();
    let web = tower::ServiceBuilder::new().layer(GrpcWebClientLayer::new()).service(http1);
    let origin = format!("http://{}", suite.running.order.address).parse().unwrap();
    let web = tonic::service::interceptor::InterceptedService::new(web, Bearer::of(Some(&alice)));
    let mut orders = OrderServiceClient::with_origin(web, origin);

    let request = |quantity| {
        let items = vec![OrderItem { sku: "TEA".into(), quantity }];
        PlaceOrderRequest { request_id: new_id(), items, expected_total: None }
    };
    let order_id = orders.place_order(request(2)).await.unwrap().into_inner().order.unwrap().order_id;
    let watch = WatchOrderRequest { order_id, after_version: 0 };
    let mut versions = orders.watch_order(watch).await.unwrap().into_inner();
    for state in [OrderState::Pending, OrderState::Confirmed] {
        assert_eq!(versions.message().await.unwrap().unwrap().order.unwrap().state(), state);
    }
    let refused = orders.place_order(request(1)).await.unwrap_err();
    assert_eq!((refused.code(), reason_of(&refused)), (Code::FailedPrecondition, Some(Reason::InsufficientStock)));
    assert_eq!(refused.get_details_precondition_failure().unwrap().violations.len(), 1);
    suite.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_named_origins_may_call() {
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let mut config = config(folder.path());
    config.order.server.allowed_origins = vec![SHOP.into()];
    let suite = Suite::start_with(config, Clock::fake(DateTime::from_timestamp(1_790_000_000, 0).unwrap())).await;
    let ask = |origin: &str| {
        format!(
            "OPTIONS /souk.order.v1.OrderService/PlaceOrder HTTP/1.1\nhost: souk\norigin: {origin}\n\
             access-control-request-method: POST\naccess-control-request-headers: authorization,x-grpc-web\n\n"
        )
    };
    let order = suite.running.order.address;
    let allowed = head_of(order, &ask(SHOP)).await;
    assert!(allowed.starts_with("http/1.1 200"), "{allowed}");
    assert!(allowed.contains(&format!("access-control-allow-origin: {SHOP}")), "{allowed}");
    assert!(allowed.contains("authorization"), "{allowed}");
    for (address, origin) in [(order, "https://evil.example"), (suite.running.user.address, SHOP)] {
        let head = head_of(address, &ask(origin)).await;
        assert!(!head.contains("access-control-allow-origin"), "{head}");
    }
    suite.stop().await;
}
