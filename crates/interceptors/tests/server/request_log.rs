//! One line for each call that was let in: what, by whom, how it ended. Nothing of what was said.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use souk_proto_common::{Failure, Reason};
use tonic::service::Routes;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{ADMIN, MINE, Server, fed, fed_through, held, with_header};
use crate::logs::{Fields, Logs};
use crate::probe::{Probe, READ, REQUEST_BYTES_MAX, WATCH, message, soon};

/// The one line of the one call.
#[track_caller]
fn only(logs: &Logs) -> Fields {
    let [line] = logs.lines("call").try_into().unwrap();
    line.fields
}

#[tokio::test]
async fn a_line_says_what_by_whom_and_how_it_ended() {
    let logs = Logs::record();
    let refusal = || async { Err(Failure::new(Code::NotFound, Reason::OrderNotFound, "planted").into()) };
    let server = Server::of(Probe::echo().answering(move |_| refusal())).await;
    let mut request = server.signed("alice", "probe.admin");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    server.call(ADMIN, request).await.unwrap_err();
    let line = only(&logs);
    assert_eq!(line["method"], ADMIN);
    assert_eq!(line["code"], "NOT_FOUND");
    assert_eq!(line["caller"], "alice");
    assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(line["call_id"], logs.spans()[0]["call_id"]);
    assert!(line["micros"].parse::<u64>().unwrap() < Duration::from_mins(1).as_micros().try_into().unwrap());
}

#[tokio::test]
async fn the_code_is_the_one_that_the_caller_was_told() {
    let logs = Logs::record();
    let server = Server::of(Probe::echo()).await;
    let too_large = Request::new(Bytes::from(vec![b'x'; REQUEST_BYTES_MAX + 1]));
    assert_eq!(server.call(READ, too_large).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(only(&logs)["code"], "RESOURCE_EXHAUSTED");
}

#[tokio::test]
async fn a_call_that_is_not_let_in_has_a_line_too_and_it_says_why() {
    let logs = Logs::record();
    let server = Server::of(Probe::echo()).await;
    server.call(MINE, message()).await.unwrap_err();
    server.call(ADMIN, server.signed("alice", "probe.read")).await.unwrap_err();
    let lines = logs.lines("call refused");
    let told: Vec<(&str, &str, &str)> = lines
        .iter()
        .map(|line| (line.fields["method"].as_str(), line.fields["code"].as_str(), line.fields["reason"].as_str()))
        .collect();
    let expected = [(MINE, "UNAUTHENTICATED", "TOKEN_MISSING"), (ADMIN, "PERMISSION_DENIED", "SCOPE_MISSING")];
    assert_eq!(told, expected);
    assert!(logs.lines("call").is_empty());
}

#[tokio::test]
async fn each_call_has_one_line() {
    let logs = Logs::record();
    let server = Server::of(Probe::echo()).await;
    for _ in 0..3 {
        server.call(READ, message()).await.unwrap();
    }
    assert_eq!(logs.lines("call").len(), 3);
}

#[tokio::test]
async fn a_stream_has_one_line_at_its_end() {
    let logs = Logs::record();
    let (probe, mut streams) = fed();
    let server = Server::of(probe).await;
    let mut answers = server.watch().await.unwrap();
    let feed = soon(streams.recv()).await.unwrap();
    for _ in 0..3 {
        feed.send(Ok(Bytes::new())).unwrap();
        assert!(soon(answers.message()).await.unwrap().is_some());
    }
    assert!(logs.lines("call").is_empty());
    drop(feed);
    assert!(soon(answers.message()).await.unwrap().is_none());
    let line = only(&logs);
    assert_eq!((line["method"].as_str(), line["code"].as_str()), (WATCH, "OK"));
}

#[tokio::test]
async fn nothing_that_was_said_is_in_the_log_and_no_token() {
    let logs = Logs::record();
    let answering =
        |request: Request<Bytes>| async move { Ok([b"answered-", &request.into_inner()[..]].concat().into()) };
    let server = Server::of(Probe::echo().answering(answering)).await;
    let good = server.token("alice", "probe.admin");
    let ended = server.token("bob", "");
    for (token, path) in [(&good, ADMIN), (&good, READ), (&"no-token-at-all".to_owned(), MINE)] {
        let mut request = with_header("authorization", &format!("Bearer {token}"));
        *request.get_mut() = "a-secret".into();
        drop(server.call(path, request).await);
    }
    server.kernel.clock.advance(Duration::from_hours(1));
    server.call(MINE, with_header("authorization", &format!("Bearer {ended}"))).await.unwrap_err();
    let text = logs.text();
    assert!(text.contains("alice"), "{text}");
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    for secret in ["a-secret".to_owned(), "answered-".into(), "no-token".into(), signature(&good), signature(&ended)] {
        assert!(!text.contains(&secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn a_call_whose_caller_has_gone_has_its_line() {
    let logs = Logs::record();
    let (probe, mut calls) = held();
    let server = Server::of(probe).await;
    let call = tokio::spawn(crate::probe::call(server.channel.clone(), READ, message()));
    let mut answer = soon(calls.recv()).await.unwrap();
    call.abort();
    soon(answer.closed()).await;
    assert_eq!(only(&logs)["code"], "CANCELLED");
}

#[tokio::test]
async fn a_stream_whose_caller_has_gone_has_its_line() {
    let logs = Logs::record();
    let (probe, mut streams) = fed();
    let server = Server::of(probe).await;
    let answers = server.watch().await.unwrap();
    let feed = soon(streams.recv()).await.unwrap();
    drop(answers);
    soon(feed.closed()).await;
    assert_eq!(only(&logs)["code"], "CANCELLED");
}

#[tokio::test]
async fn a_call_that_is_late_has_its_line() {
    let logs = Logs::record();
    let (probe, mut calls) = held();
    let server = Server::with(probe, |config| config.default_deadline_ms = 50).await;
    let (result, _held) = join(server.call(READ, message()), soon(calls.recv())).await;
    result.unwrap_err();
    assert_eq!(only(&logs)["code"], "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_stream_that_is_late_has_its_line() {
    let logs = Logs::record();
    let (probe, _streams) = fed();
    Server::of(probe).await.answer_within(WATCH, "300m").await;
    assert_eq!(only(&logs)["code"], "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_call_that_panicked_has_its_line() {
    let logs = Logs::record();
    let server = Server::of(Probe::echo().answering(|_| async { panic!("planted") })).await;
    server.call(READ, message()).await.unwrap_err();
    assert_eq!(only(&logs)["code"], "INTERNAL");
}

#[tokio::test]
async fn a_stream_that_panicked_has_its_line() {
    let logs = Logs::record();
    let (probe, mut streams) = fed_through(|_| panic!("planted"));
    let server = Server::of(probe).await;
    let mut answers = server.watch().await.unwrap();
    soon(streams.recv()).await.unwrap().send(Ok(Bytes::new())).unwrap();
    soon(answers.message()).await.unwrap_err();
    assert_eq!(only(&logs)["code"], "INTERNAL");
}

#[tokio::test]
async fn health_has_no_line() {
    let logs = Logs::record();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::on(Routes::new(health).prepare(), &[], |_| ()).await;
    HealthClient::new(server.channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    assert!(logs.lines("call").is_empty());
    assert_eq!(logs.spans().len(), 1);
}
