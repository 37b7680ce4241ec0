//! Who calls, and whether they may.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use souk_interceptors::{Caller, CallerKind, context};
use souk_proto_common::Reason;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request};

use crate::harness::{ADMIN, MINE, Server, UNRULED, assert_refused, with_header};
use crate::probe::{Probe, READ, message};

#[tokio::test]
async fn without_a_rule_nobody_enters() {
    let server = Server::of(Probe::echo()).await;
    assert_refused(server.call(UNRULED, message()).await, Code::Unimplemented, Reason::UnknownMethod);
    let admin = server.signed("alice", "probe.admin");
    assert_refused(server.call(UNRULED, admin).await, Code::Unimplemented, Reason::UnknownMethod);
}

#[tokio::test]
async fn an_open_method_takes_anyone_whatever_token_they_send() {
    let server = Server::of(Probe::echo()).await;
    for request in [message(), with_header("authorization", "Bearer nonsense"), server.signed("alice", "")] {
        server.call(READ, request).await.unwrap();
    }
}

#[tokio::test]
async fn a_method_for_the_signed_in_takes_any_good_token_and_nothing_else() {
    let server = Server::of(Probe::echo()).await;
    server.call(MINE, server.signed("alice", "")).await.unwrap();
    server.call(MINE, with_header("authorization", &format!("bEaReR {}", server.token("alice", "")))).await.unwrap();
    assert_refused(server.call(MINE, message()).await, Code::Unauthenticated, Reason::TokenMissing);
    let token = server.token("alice", "");
    for bad in [format!("Basic {token}"), token, "Bearer".into(), "Bearer ".into(), "Bearer nonsense".into()] {
        let refused = server.call(MINE, with_header("authorization", &bad)).await;
        assert_refused(refused, Code::Unauthenticated, Reason::TokenInvalid);
    }
}

#[tokio::test]
async fn two_tokens_are_one_too_many() {
    let server = Server::of(Probe::echo()).await;
    let mut request = server.signed("alice", "");
    let other = format!("Bearer {}", server.token("bob", ""));
    request.metadata_mut().append("authorization", other.parse().unwrap());
    assert_refused(server.call(MINE, request).await, Code::Unauthenticated, Reason::TokenInvalid);
}

#[tokio::test]
async fn a_token_that_has_ended_is_told_from_one_that_never_was_good() {
    let server = Server::of(Probe::echo()).await;
    let token = format!("Bearer {}", server.token("alice", ""));
    server.call(MINE, with_header("authorization", &token)).await.unwrap();
    server.kernel.clock.advance(Duration::from_secs(610));
    let refused = server.call(MINE, with_header("authorization", &token)).await;
    assert_refused(refused, Code::Unauthenticated, Reason::TokenExpired);
}

#[tokio::test]
async fn a_scope_lets_in_who_has_it_and_the_refusal_names_it() {
    let server = Server::of(Probe::echo()).await;
    server.call(ADMIN, server.signed("alice", "probe.read probe.admin")).await.unwrap();
    assert_refused(server.call(ADMIN, message()).await, Code::Unauthenticated, Reason::TokenMissing);
    for other in ["", "probe.read", "probe", "probe.admin.more", "PROBE.ADMIN"] {
        let refused = server.call(ADMIN, server.signed("alice", other)).await;
        let status = assert_refused(refused, Code::PermissionDenied, Reason::ScopeMissing);
        let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
        assert_eq!(info.metadata["scope"], "probe.admin");
    }
}

#[tokio::test]
async fn a_refused_call_never_reaches_its_handler() {
    let calls = Arc::new(Mutex::new(0));
    let seen = calls.clone();
    let counting = Probe::echo().answering(move |_| {
        *seen.lock().unwrap() += 1;
        async { Ok(Bytes::new()) }
    });
    let server = Server::of(counting).await;
    for path in [UNRULED, MINE, ADMIN] {
        server.call(path, message()).await.unwrap_err();
    }
    assert_eq!(*calls.lock().unwrap(), 0);
    server.call(READ, message()).await.unwrap();
    assert_eq!(*calls.lock().unwrap(), 1);
}

#[tokio::test]
async fn the_handler_knows_its_caller_and_never_sees_the_token() {
    type Seen = (Caller, Caller, MetadataMap);
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let sink = seen.clone();
    let server = Server::of(Probe::echo().answering(move |request: Request<Bytes>| {
        let sink = sink.clone();
        async move {
            let by_task = context::current().unwrap().caller;
            let by_request = request.extensions().get::<Caller>().unwrap().clone();
            sink.lock().unwrap().push((by_task, by_request, request.metadata().clone()));
            Ok(Bytes::new())
        }
    }))
    .await;
    server.call(READ, message()).await.unwrap();
    server.call(READ, server.signed("service:order", "probe.read")).await.unwrap();
    let seen = seen.lock().unwrap();
    let [(nobody, _, _), (by_task, by_request, metadata)] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(nobody.is_anonymous());
    assert_eq!((by_request.kind(), by_request.subject()), (CallerKind::Service, "service:order"));
    assert!(by_request.has_scope("probe.read") && by_task == by_request);
    assert!(metadata.get("authorization").is_none(), "{metadata:?}");
}
