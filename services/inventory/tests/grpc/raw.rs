//! Messages that no generated client sends.

use souk_proto_common::v1::Reason;
use souk_testkit::raw::RawCodec;
use tonic::client::Grpc;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status};

use crate::harness::{Client, STAFF, Server, assert_refused};

/// Sends one message to an RPC of whatever shape; what becomes of the call.
async fn send(client: Client, method: &'static str, message: Vec<u8>) -> Result<(), Status> {
    let mut grpc = Grpc::new(client);
    grpc.ready().await.unwrap();
    let request = Request::new(futures::stream::iter([message]));
    let mut responses = grpc.streaming(request, method.parse().unwrap(), RawCodec).await?.into_inner();
    while responses.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn text_that_is_no_utf_8_is_refused_in_every_shape_of_call() {
    let server = Server::start().await;
    let before = server.rows().await;
    let field_1 = vec![0x0a, 0x02, 0xff, 0xfe]; // a text of two bytes
    for method in [
        "/souk.inventory.v1.CatalogService/GetProduct",
        "/souk.inventory.v1.CatalogService/ImportProducts",
        "/souk.inventory.v1.StockService/WatchStock",
        "/souk.inventory.v1.StockService/SyncMovements",
    ] {
        let client = InterceptedService::new(server.channel(), server.bearer("someone", STAFF));
        let refused = send(client, method, field_1.clone()).await;
        assert_refused(refused, Code::InvalidArgument, Reason::InvalidRequest);
    }
    assert_eq!(server.rows().await, before);
}
