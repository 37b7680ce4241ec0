//! Too much is refused at once; and the place of whatever ends, however it ends, is free again.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use souk_interceptors::server::StackConfig;
use souk_proto_common::Reason;
use souk_testkit::eventually;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::harness::{Server, assert_refused, fed, held};
use crate::probe::{Probe, READ, message, soon};

fn one_call(config: &mut StackConfig) {
    config.calls_max = 1;
}

fn one_stream(config: &mut StackConfig) {
    config.streams_max = 1;
}

/// The one place is taken.
#[track_caller]
fn assert_shed<T: std::fmt::Debug>(result: Result<T, Status>) {
    let status = assert_refused(result, Code::Unavailable, Reason::LoadShed);
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(delay > Duration::ZERO, "{delay:?}");
}

#[tokio::test]
async fn a_call_over_the_limit_is_told_when_to_come_again_and_enters_when_another_has_ended() {
    let (probe, mut calls) = held();
    let server = Server::with(probe, one_call).await;
    for answer in [Ok(Bytes::new()), Err(Status::not_found("planted"))] {
        let meanwhile = async {
            let sender = soon(calls.recv()).await.unwrap();
            assert_shed(server.call(READ, message()).await);
            sender.send(answer.clone()).unwrap();
        };
        let (result, ()) = join(server.call(READ, message()), meanwhile).await;
        assert_eq!(result.is_ok(), answer.is_ok());
    }
}

#[tokio::test]
async fn the_place_of_a_call_whose_caller_does_not_read_is_free() {
    let server = Server::with(Probe::echo(), one_call).await;
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut client, connection) = h2::client::Builder::new().initial_window_size(0).handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut unread = Vec::new();
    for _ in 0..3 {
        let request = http::Request::post(format!("http://probe{READ}")).header("content-type", "application/grpc");
        let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(&[0, 0, 0, 0, 1, b'x']), true).unwrap();
        let answer = soon(answer).await.unwrap();
        assert!(!answer.headers().contains_key("grpc-status"), "{answer:?}");
        unread.push(answer);
    }
}

#[tokio::test]
async fn the_place_of_a_call_whose_caller_has_gone_is_free() {
    let (probe, mut calls) = held();
    let server = Server::with(probe, one_call).await;
    for _ in 0..3 {
        let call = tokio::spawn(crate::probe::call(server.channel.clone(), READ, message()));
        let mut sender = soon(calls.recv()).await.unwrap();
        assert_shed(server.call(READ, message()).await);
        call.abort();
        soon(sender.closed()).await;
    }
}

#[tokio::test]
async fn the_place_of_a_stream_is_taken_until_its_end() {
    let (probe, mut streams) = fed();
    let server = Server::with(probe, one_stream).await;
    for end in [None, Some(Err(Status::aborted("planted")))] {
        let mut answers = server.watch().await.unwrap();
        let feed = soon(streams.recv()).await.unwrap();
        feed.send(Ok(Bytes::new())).unwrap();
        assert!(soon(answers.message()).await.unwrap().is_some());
        assert_shed(server.watch().await);
        if let Some(end) = end {
            feed.send(end).unwrap();
        }
        drop(feed);
        assert!(!matches!(soon(answers.message()).await, Ok(Some(_))));
    }
    server.watch().await.unwrap();
}

#[tokio::test]
async fn the_place_of_a_stream_whose_caller_has_gone_is_free() {
    let (probe, mut streams) = fed();
    let server = Server::with(probe, one_stream).await;
    for _ in 0..3 {
        let answers = server.watch().await.unwrap();
        let feed = soon(streams.recv()).await.unwrap();
        assert_shed(server.watch().await);
        drop(answers);
        soon(feed.closed()).await;
    }
}

#[tokio::test]
async fn open_streams_take_no_places_of_calls() {
    let (probe, _streams) = fed();
    let server = Server::with(probe, |config| (config.calls_max, config.streams_max) = (1, 1)).await;
    let _open = server.watch().await.unwrap();
    server.call(READ, message()).await.unwrap();
    assert_shed(server.watch().await);
}

/// One that is well.
async fn well(amend: impl FnOnce(&mut StackConfig)) -> Server {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    Server::on(Routes::new(health).prepare(), &[], amend).await
}

#[tokio::test]
async fn a_peer_watches_health_so_often_and_may_always_ask() {
    let server = well(|config| config.observers_per_peer_max = 1).await;
    let mut client = HealthClient::new(server.channel.clone());
    for _ in 0..2 {
        let mut answers = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert!(soon(answers.message()).await.unwrap().is_some());
        assert_shed(client.watch(HealthCheckRequest::default()).await);
        client.check(HealthCheckRequest::default()).await.unwrap();
        drop(answers);
        let free = async || client.clone().watch(HealthCheckRequest::default()).await.is_ok();
        eventually("the place is free again", free).await;
    }
}

#[tokio::test]
async fn a_question_of_health_that_does_not_end_is_given_up() {
    let server = well(|config| config.default_deadline_ms = 20).await;
    let (answer, _body) = half(&server, "/grpc.health.v1.Health/Check").await;
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4");
}

/// A request of which only the beginning comes, on a connection of its own.
async fn half(server: &Server, path: &str) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://probe{path}")).header("content-type", "application/grpc");
    let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from_static(&[0, 0, 0, 1, 0, b'x']), false).unwrap();
    (answer, body)
}

#[tokio::test]
async fn a_peer_has_only_so_many_requests_that_are_not_whole() {
    let server = Server::with(Probe::echo(), |config| config.arriving_per_peer_max = 1).await;
    let (first, second) = (half(&server, READ).await, half(&server, READ).await);
    // One of them is one too many, whichever came first.
    let (refused, _) = soon(futures::future::select(first.0, second.0)).await.factor_first();
    assert_eq!(refused.unwrap().headers()["grpc-status"], "14");
    server.call(READ, message()).await.unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_come_in_time_is_given_up() {
    let server = well(|config| config.arrival_timeout_ms = 20).await;
    let (answer, _body) = half(&server, "/grpc.health.v1.Health/Check").await;
    assert_eq!(soon(answer).await.unwrap().headers()["grpc-status"], "4");
}

#[tokio::test]
async fn health_is_told_when_nothing_else_is() {
    let full = |config: &mut StackConfig| (config.calls_max, config.streams_max) = (0, 0);
    let server = well(full).await;
    HealthClient::new(server.channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    let server = Server::with(Probe::echo(), full).await;
    assert_shed(server.call(READ, message()).await);
}
