//! Every call is counted when it comes and once when it ends, under the code that its caller has got, or would have.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join;
use souk_proto_common::{Failure, Reason};
use tonic::{Code, Status};

use crate::harness::{ADMIN, MINE, Server, UNRULED, fed, held};
use crate::probe::{Answers, PUT, Probe, READ, message, soon};

/// What is counted under a method: started, ended by each code, and how often a duration was measured.
fn counted(server: &Server, method: &str) -> (u64, BTreeMap<String, u64>, u64) {
    let rpc = match method {
        "other" => r#"grpc_service="other",grpc_method="other""#.to_owned(),
        name => format!(r#"grpc_service="probe.v1.Probe",grpc_method="{name}""#),
    };
    let text = server.kernel.metrics.encode();
    let prefix = format!("grpc_server_handled_total{{{rpc},grpc_code=\"");
    let by_code = text.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("\"} "));
    let by_code = by_code.map(|(code, count)| (code.to_owned(), count.parse().unwrap()));
    (
        server.count(&format!("grpc_server_started_total{{{rpc}}}")),
        by_code.filter(|(_, count)| *count > 0).collect(),
        server.count(&format!("grpc_server_handling_seconds_count{{{rpc}}}")),
    )
}

#[track_caller]
fn assert_counted(server: &Server, method: &str, codes: &[(&str, u64)]) {
    let all = codes.iter().map(|(_, count)| count).sum();
    let codes = codes.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect();
    assert_eq!(counted(server, method), (all, codes, all));
}

fn conflict() -> Status {
    Failure::new(Code::Aborted, Reason::SerializationConflict, "planted").into()
}

#[tokio::test]
async fn every_method_and_code_stands_at_zero_from_the_start() {
    let server = Server::of(Probe::echo()).await;
    for method in ["Read", "Watch", "Admin", "other"] {
        assert_counted(&server, method, &[]);
    }
    let text = server.kernel.metrics.encode();
    let of_read = r#"grpc_server_handled_total{grpc_service="probe.v1.Probe",grpc_method="Read","#;
    assert_eq!(text.lines().filter(|line| line.starts_with(of_read)).count(), 17);
}

#[tokio::test]
async fn a_call_is_counted_once_under_its_code() {
    let answering = |request: tonic::Request<Bytes>| async move {
        match request.metadata().get("fail") {
            Some(_) => Err(Status::aborted("planted")),
            None => Ok(Bytes::new()),
        }
    };
    let server = Server::of(Probe::echo().answering(answering)).await;
    server.call(READ, message()).await.unwrap();
    server.call(READ, message()).await.unwrap();
    server.call(READ, crate::harness::with_header("fail", "yes")).await.unwrap_err();
    server.call(PUT, message()).await.unwrap();
    // A status without a reason is a bug, and the caller has got INTERNAL.
    assert_counted(&server, "Read", &[("OK", 2), ("INTERNAL", 1)]);
    assert_counted(&server, "Put", &[("OK", 1)]);
    assert_counted(&server, "other", &[]);
}

#[tokio::test]
async fn a_refused_call_is_counted_under_its_refusal() {
    let server = Server::with(Probe::echo(), |config| config.streams_max = 0).await;
    server.call(MINE, message()).await.unwrap_err();
    server.call(ADMIN, server.signed("alice", "")).await.unwrap_err();
    server.watch().await.unwrap_err();
    server.call(UNRULED, message()).await.unwrap_err();
    assert_counted(&server, "Mine", &[("UNAUTHENTICATED", 1)]);
    assert_counted(&server, "Admin", &[("PERMISSION_DENIED", 1)]);
    assert_counted(&server, "Watch", &[("UNAVAILABLE", 1)]);
    assert_counted(&server, "other", &[("UNIMPLEMENTED", 1)]);
}

#[tokio::test]
async fn a_stream_has_ended_when_its_last_answer_is_out() {
    let (probe, mut streams) = fed();
    let server = Server::of(probe).await;
    let mut answers = server.watch().await.unwrap();
    let feed = soon(streams.recv()).await.unwrap();
    for _ in 0..3 {
        feed.send(Ok(Bytes::new())).unwrap();
        assert!(soon(answers.message()).await.unwrap().is_some());
    }
    assert_eq!(counted(&server, "Watch"), (1, BTreeMap::new(), 0));
    drop(feed);
    assert!(soon(answers.message()).await.unwrap().is_none());
    assert_counted(&server, "Watch", &[("OK", 1)]);
}

#[tokio::test]
async fn a_stream_that_fails_halfway_is_counted_under_its_failure_alone() {
    let server = Server::of(Probe::echo().streaming(|_| async {
        let answers: Answers = futures::stream::iter([Ok(Bytes::new()), Err(conflict())]).boxed();
        Ok(answers)
    }))
    .await;
    let mut answers = server.watch().await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    assert_eq!(answers.message().await.unwrap_err().code(), Code::Aborted);
    drop(answers);
    assert_counted(&server, "Watch", &[("ABORTED", 1)]);
}

#[tokio::test]
async fn a_call_whose_caller_has_gone_is_cancelled() {
    let (probe, mut calls) = held();
    let server = Server::of(probe).await;
    let call = tokio::spawn(crate::probe::call(server.channel.clone(), READ, message()));
    let mut answer = soon(calls.recv()).await.unwrap();
    call.abort();
    soon(answer.closed()).await;
    assert_counted(&server, "Read", &[("CANCELLED", 1)]);
}

#[tokio::test]
async fn a_stream_whose_caller_has_gone_is_cancelled() {
    let (probe, mut streams) = fed();
    let server = Server::of(probe).await;
    let answers = server.watch().await.unwrap();
    let feed = soon(streams.recv()).await.unwrap();
    drop(answers);
    soon(feed.closed()).await;
    assert_counted(&server, "Watch", &[("CANCELLED", 1)]);
}

#[tokio::test]
async fn a_call_that_is_late_is_counted_as_late() {
    let (probe, mut calls) = held();
    let server = Server::with(probe, |config| config.default_deadline_ms = 50).await;
    let (result, held) = join(server.call(READ, message()), soon(calls.recv())).await;
    result.unwrap_err();
    assert!(held.unwrap().is_closed());
    assert_counted(&server, "Read", &[("DEADLINE_EXCEEDED", 1)]);
}
