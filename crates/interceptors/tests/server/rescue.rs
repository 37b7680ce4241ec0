//! Whatever fails, the caller has a status with a reason, and knows whether anything can have taken effect.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use souk_interceptors::client::{Outcome, outcome};
use souk_proto_common::failure::{DOMAIN, reason_of};
use souk_proto_common::{Access, Failure, Method, Reason, Shape};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;
use tower::Service;

use crate::harness::{Server, assert_refused, with_header};
use crate::probe::{Answers, Probe, READ, REQUEST_BYTES_MAX, message};

/// A server whose every call, and every stream after its first answer, fails with this.
async fn failing(status: Status) -> Server {
    let of_stream = status.clone();
    let probe = Probe::echo().answering(move |_| futures::future::ready(Err(status.clone())));
    Server::of(probe.streaming(move |_| {
        let answers: Answers = futures::stream::iter([Ok(Bytes::new()), Err(of_stream.clone())]).boxed();
        futures::future::ready(Ok(answers))
    }))
    .await
}

async fn end_of_stream(server: &Server) -> Result<Option<Bytes>, Status> {
    let mut answers = server.watch().await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    answers.message().await
}

#[tokio::test]
async fn a_failure_arrives_with_its_reason_and_details_from_a_call_and_from_a_stream() {
    let failure = Failure::unavailable(Reason::DbUnavailable, "planted", Duration::from_secs(3))
        .metadata("key", "value")
        .resource("souk.test.v1.Thing", "42");
    let server = failing(failure.into()).await;
    for result in [server.call(READ, message()).await.map(|_| None), end_of_stream(&server).await] {
        let status = assert_refused(result, Code::Unavailable, Reason::DbUnavailable);
        assert_eq!(status.message(), "planted");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.domain.as_str(), info.metadata["key"].as_str()), (DOMAIN, "value"));
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(3)));
        assert_eq!(details.resource_info().unwrap().resource_name, "42");
    }
}

#[tokio::test]
async fn a_refusal_is_marked_as_definite_and_a_failure_in_the_middle_is_not() {
    let table = [
        (Code::NotFound, Reason::OrderNotFound, Outcome::Definite),
        (Code::InvalidArgument, Reason::InvalidRequest, Outcome::Definite),
        (Code::FailedPrecondition, Reason::InsufficientStock, Outcome::Definite),
        (Code::Aborted, Reason::SerializationConflict, Outcome::Definite),
        (Code::Unavailable, Reason::ShuttingDown, Outcome::Definite),
        (Code::Unavailable, Reason::DbUnavailable, Outcome::Unknown),
        (Code::Unavailable, Reason::PeerUnavailable, Outcome::Unknown),
        (Code::DeadlineExceeded, Reason::DeadlineExceeded, Outcome::Unknown),
        (Code::Cancelled, Reason::Cancelled, Outcome::Unknown),
        (Code::Internal, Reason::Internal, Outcome::Unknown),
    ];
    for (code, reason, expected) in table {
        let server = failing(Failure::new(code, reason, "planted").into()).await;
        let status = assert_refused(server.call(READ, message()).await, code, reason);
        assert_eq!(outcome(&status), expected, "{reason:?}");
    }
}

#[tokio::test]
async fn a_status_without_a_reason_is_a_bug_of_ours_and_tells_nothing_of_itself() {
    for code in [Code::Internal, Code::Unknown, Code::NotFound, Code::Unavailable, Code::OutOfRange, Code::DataLoss] {
        let server = failing(Status::new(code, "SELECT secret FROM table")).await;
        for result in [server.call(READ, message()).await.map(|_| None), end_of_stream(&server).await] {
            let status = assert_refused(result, Code::Internal, Reason::Internal);
            assert_eq!((status.message(), outcome(&status)), ("internal error", Outcome::Unknown), "{code:?}");
            let call_id = status.get_details_request_info().unwrap().request_id;
            assert!(uuid::Uuid::try_parse(&call_id).is_ok(), "{call_id}");
        }
    }
}

#[tokio::test]
async fn a_cancellation_is_no_bug() {
    let server = failing(Status::cancelled("tonic's words")).await;
    assert_refused(server.call(READ, message()).await, Code::Cancelled, Reason::Cancelled);
    assert_refused(end_of_stream(&server).await, Code::Cancelled, Reason::Cancelled);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_told_as_such() {
    let server = Server::of(Probe::echo()).await;
    let sized = |bytes: usize| Request::new(Bytes::from(vec![b'x'; bytes]));
    assert_eq!(server.call(READ, sized(REQUEST_BYTES_MAX)).await.unwrap().get_ref().len(), REQUEST_BYTES_MAX);
    let refused = server.call(READ, sized(REQUEST_BYTES_MAX + 1)).await;
    let status = assert_refused(refused, Code::ResourceExhausted, Reason::MessageTooLarge);
    assert_eq!(outcome(&status), Outcome::Definite);
}

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// Health as if it were of our contract: real protobuf.
static CHECKED: [Method; 1] =
    [Method { path: CHECK, access: Access::Public, shape: Shape::Unary, read_only: true, keyed: false }];

#[tokio::test]
async fn what_cannot_be_decoded_is_the_callers_fault() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("tea", tonic_health::ServingStatus::Serving).await;
    let server = Server::on(Routes::new(health).prepare(), &[&CHECKED], |_| ()).await;
    let framed = |length: u8, message: &[u8]| [&[0, 0, 0, 0, length], message].concat();
    assert_eq!(sent(&server, framed(5, b"\x0a\x03tea")).await.code(), Code::Ok);
    let bad = [
        ("invalid UTF-8", framed(5, b"\x0a\x03t\xff\xfe")),
        ("a field that is cut short", framed(3, b"\x0a\x7ft")),
        ("no protobuf at all", framed(4, b"\xff\xff\xff\xff")),
        ("no message", Vec::new()),
        ("half a message", framed(9, b"\x0a\x07")),
        ("compressed, it does not say how", [&[1, 0, 0, 0, 5][..], b"\x0a\x03tea"].concat()),
        ("a flag that gRPC does not know", [&[9, 0, 0, 0, 5][..], b"\x0a\x03tea"].concat()),
    ];
    for (name, body) in bad {
        let status = sent(&server, body).await;
        assert_eq!(
            (status.code(), reason_of(&status)),
            (Code::InvalidArgument, Some(Reason::InvalidRequest)),
            "{name}"
        );
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!((violations.len(), violations[0].reason.as_str()), (1, "INVALID_FORMAT"), "{name}");
        assert_eq!(outcome(&status), Outcome::Definite, "{name}");
    }
}

#[tokio::test]
async fn a_compression_that_is_not_known_is_told_as_such() {
    let server = Server::of(Probe::echo()).await;
    let status = server.call(READ, with_header("grpc-encoding", "snappy")).await;
    assert_refused(status, Code::Unimplemented, Reason::UnsupportedEncoding);
}

/// The status that a request with this body is answered with.
async fn sent(server: &Server, body: Vec<u8>) -> Status {
    let body = Body::new(Full::new(Bytes::from(body)).map_err(|impossible| match impossible {}));
    let request = http::Request::post(CHECK).header("content-type", "application/grpc").body(body).unwrap();
    let mut channel = server.channel.clone();
    std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    let headers = response.headers().clone();
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned();
    Status::from_header_map(&headers).or_else(|| Status::from_header_map(&trailers?)).unwrap()
}

#[tokio::test]
async fn health_answers_in_its_own_words() {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::on(Routes::new(health).prepare(), &[], |_| ()).await;
    let request = HealthCheckRequest { service: "nobody".into() };
    let status = HealthClient::new(server.channel.clone()).check(request).await.unwrap_err();
    assert_eq!((status.code(), status.details()), (Code::NotFound, &[][..]));
}

#[tokio::test]
async fn a_watch_of_health_ends_with_the_server() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let server = Server::on(Routes::new(health).prepare(), &[], |_| ()).await;
    let mut client = HealthClient::new(server.channel.clone());
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let tasks = server.kernel.tasks.clone();
    let stopping = tokio::spawn(async move { tasks.stop(Duration::from_mins(1)).await });
    let told = watch.message().await;
    assert_refused(told, Code::Unavailable, Reason::ShuttingDown);
    drop((client, server.channel));
    assert!(stopping.await.unwrap());
}
