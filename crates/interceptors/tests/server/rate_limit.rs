//! How often each caller may call, told by a clock that the test moves.

use std::time::Duration;

use bytes::Bytes;
use souk_interceptors::server::{RateLimit, StackConfig};
use souk_proto_common::Reason;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

use crate::harness::{ADMIN, MINE, Server, assert_refused};
use crate::probe::{ADD, Probe, READ, message};

/// Two reads at once, and four in a second; one write; three logins.
fn tight(config: &mut StackConfig) {
    config.reads = RateLimit { per_second: 4, burst: 2 };
    config.writes = RateLimit { per_second: 1, burst: 1 };
    config.logins = RateLimit { per_second: 1, burst: 3 };
}

/// Refused with what a client needs to do better; how long it is to wait.
#[track_caller]
fn assert_limited(result: Result<Response<Bytes>, Status>, who: &str, class: &str) -> Duration {
    let status = assert_refused(result, Code::ResourceExhausted, Reason::RateLimited);
    let violations = status.get_details_quota_failure().unwrap().violations;
    assert_eq!((violations.len(), violations[0].subject.as_str()), (1, who));
    assert!(violations[0].description.contains(class), "{violations:?}");
    status.get_details_retry_info().unwrap().retry_delay.unwrap()
}

/// So many get through, and the next one does not.
async fn assert_left(server: &Server, path: &'static str, request: impl Fn() -> Request<Bytes>, calls: usize) {
    for _ in 0..calls {
        server.call(path, request()).await.unwrap();
    }
    assert_refused(server.call(path, request()).await, Code::ResourceExhausted, Reason::RateLimited);
}

#[tokio::test]
async fn who_calls_too_often_is_told_when_to_come_again_and_is_let_in_then() {
    let server = Server::with(Probe::echo(), tight).await;
    let alice = || server.signed("alice", "");
    assert_left(&server, MINE, alice, 2).await;
    let delay = assert_limited(server.call(MINE, alice()).await, "alice", "reads");
    assert_eq!(delay, Duration::from_millis(250));
    server.kernel.clock.advance(Duration::from_millis(249));
    let delay = assert_limited(server.call(MINE, alice()).await, "alice", "reads");
    server.kernel.clock.advance(delay);
    assert_left(&server, MINE, alice, 1).await;
    // However long nobody called, the burst is all there is.
    server.kernel.clock.advance(Duration::from_mins(5));
    assert_left(&server, MINE, alice, 2).await;
}

#[tokio::test]
async fn each_caller_has_limits_of_their_own() {
    let server = Server::with(Probe::echo(), tight).await;
    assert_left(&server, MINE, || server.signed("alice", ""), 2).await;
    assert_left(&server, MINE, || server.signed("bob", ""), 2).await;
    // Another token of the same caller is no other caller.
    server.kernel.clock.advance(Duration::from_millis(250));
    assert_left(&server, MINE, || server.signed("alice", "another"), 1).await;
}

#[tokio::test]
async fn who_has_no_token_is_known_by_address() {
    let server = Server::with(Probe::echo(), tight).await;
    assert_left(&server, READ, message, 2).await;
    assert_limited(server.call(READ, message()).await, "ip:127.0.0.1", "reads");
    assert_left(&server, READ, || server.signed("alice", ""), 2).await;
}

#[tokio::test]
async fn reads_writes_and_logins_are_counted_apart() {
    let server = Server::with(Probe::echo(), tight).await;
    let alice = || server.signed("alice", "probe.admin");
    assert_left(&server, MINE, alice, 2).await;
    assert_left(&server, ADMIN, alice, 1).await;
    assert_limited(server.call(ADMIN, alice()).await, "alice", "writes");
    assert_left(&server, ADD, alice, 3).await;
    assert_limited(server.call(ADD, alice()).await, "alice", "logins");
    assert_left(&server, ADD, message, 3).await;
}

#[tokio::test]
async fn a_service_calls_for_many_and_is_not_counted() {
    let server = Server::with(Probe::echo(), tight).await;
    for _ in 0..20 {
        server.call(ADMIN, server.signed("service:order", "probe.admin")).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_counts_as_one_call() {
    let server = Server::with(Probe::echo(), tight).await;
    for _ in 0..2 {
        let mut answers = server.watch().await.unwrap();
        while answers.message().await.unwrap().is_some() {}
    }
    assert_refused(server.watch().await, Code::ResourceExhausted, Reason::RateLimited);
}
