//! Streams from the caller, and both ways: under the same stack.

use bytes::Bytes;
use futures::Stream;
use http::uri::PathAndQuery;
use souk_proto_common::Reason;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::harness::{CHAT, Server, UPLOAD, assert_refused};
use crate::probe::{REQUEST_BYTES_MAX, Raw, soon};

async fn upload(server: &Server, messages: impl Stream<Item = Bytes> + Send + 'static) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(server.channel.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(UPLOAD);
    client.client_streaming(Request::new(messages), path, Raw).await.map(Response::into_inner)
}

async fn chat(
    server: &Server,
    messages: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Streaming<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(server.channel.clone());
    client.ready().await.unwrap();
    client.streaming(Request::new(messages), PathAndQuery::from_static(CHAT), Raw).await.map(Response::into_inner)
}

/// Messages that the test sends one by one.
fn fed() -> (mpsc::UnboundedSender<Bytes>, UnboundedReceiverStream<Bytes>) {
    let (feed, messages) = mpsc::unbounded_channel();
    (feed, UnboundedReceiverStream::new(messages))
}

fn of(bytes: usize) -> Bytes {
    vec![b'x'; bytes].into()
}

#[tokio::test]
async fn a_message_that_is_too_large_is_told_as_such_wherever_it_stands() {
    let server = Server::of(crate::probe::Probe::echo()).await;
    let too_large = || futures::stream::iter([of(1), of(REQUEST_BYTES_MAX + 1)]);
    let refused = upload(&server, too_large()).await;
    assert_refused(refused, Code::ResourceExhausted, Reason::MessageTooLarge);
    let mut answers = chat(&server, too_large()).await.unwrap();
    assert_eq!(answers.message().await.unwrap(), Some(of(1)));
    assert_refused(answers.message().await, Code::ResourceExhausted, Reason::MessageTooLarge);
    assert_eq!(upload(&server, futures::stream::iter([of(1), of(REQUEST_BYTES_MAX)])).await.unwrap(), "1025");
}

#[tokio::test]
async fn a_stream_in_any_direction_takes_the_place_of_a_stream_until_its_end() {
    let server = Server::with(crate::probe::Probe::echo(), |config| config.streams_max = 1).await;
    for _ in 0..2 {
        let (feed, messages) = fed();
        let mut answers = chat(&server, messages).await.unwrap();
        feed.send(of(1)).unwrap();
        assert_eq!(soon(answers.message()).await.unwrap(), Some(of(1)));
        let refused = upload(&server, futures::stream::empty()).await;
        assert_refused(refused, Code::Unavailable, Reason::LoadShed);
        let refused = chat(&server, futures::stream::empty()).await;
        assert_refused(refused.map(|_| ()), Code::Unavailable, Reason::LoadShed);
        drop(feed);
        assert_eq!(soon(answers.message()).await.unwrap(), None);
        assert_eq!(upload(&server, futures::stream::iter([of(2), of(3)])).await.unwrap(), "5");
    }
}

#[tokio::test]
async fn a_stream_in_any_direction_is_counted_once() {
    let server = Server::of(crate::probe::Probe::echo()).await;
    upload(&server, futures::stream::iter([of(1), of(2)])).await.unwrap();
    let mut answers = chat(&server, futures::stream::iter([of(1), of(2)])).await.unwrap();
    while soon(answers.message()).await.unwrap().is_some() {}
    for method in ["Upload", "Chat"] {
        let rpc = format!(r#"grpc_service="probe.v1.Probe",grpc_method="{method}""#);
        assert_eq!(server.count(&format!("grpc_server_started_total{{{rpc}}}")), 1);
        assert_eq!(server.count(&format!(r#"grpc_server_handled_total{{{rpc},grpc_code="OK"}}"#)), 1);
    }
}
