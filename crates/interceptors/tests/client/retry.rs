//! Again, where that cannot do harm, and only there.

use std::time::Duration;

use bytes::Bytes;
use souk_interceptors::client::{Outcome, outcome};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use crate::peer::{Peer, come_again_in, definite};
use crate::probe::{self, ADD, PUT, READ, WATCH, message, soon};

/// Tries of a call in all.
const TRIES: usize = 3;

/// How often a method is tried at a peer that always fails so.
async fn tries(path: &'static str, status: Status) -> usize {
    let code = status.code();
    let peer = Peer::answering(move |_| Err(status.clone())).await;
    let client = peer.client_with(None, |config| config.tries_max = u32::try_from(TRIES).unwrap());
    let told = probe::call(client, path, message()).await.unwrap_err();
    assert_eq!((told.code(), told.message()), (code, "planted"), "the last failure is the answer");
    peer.calls()
}

#[tokio::test]
async fn a_definite_unavailable_is_tried_again_whatever_the_method_does() {
    for path in [READ, PUT, ADD] {
        assert_eq!(tries(path, definite(Code::Unavailable)).await, TRIES, "{path}");
    }
}

#[tokio::test]
async fn an_unknown_failure_is_tried_again_only_for_reads_and_under_a_key() {
    for code in [Code::Unavailable, Code::Unknown] {
        for (path, expected) in [(READ, TRIES), (PUT, TRIES), (ADD, 1)] {
            assert_eq!(tries(path, Status::new(code, "planted")).await, expected, "{path} {code:?}");
        }
    }
}

#[tokio::test]
async fn any_other_failure_is_the_answer() {
    let codes = [Code::NotFound, Code::Aborted, Code::ResourceExhausted, Code::Internal, Code::DeadlineExceeded];
    for code in codes {
        assert_eq!(tries(READ, definite(code)).await, 1, "{code:?}");
        assert_eq!(tries(READ, Status::new(code, "planted")).await, 1, "{code:?}");
    }
}

#[tokio::test]
async fn another_mark_than_definite_is_none() {
    let mut status = definite(Code::Unavailable);
    status.metadata_mut().insert(souk_interceptors::OUTCOME, "perhaps".parse().unwrap());
    assert_eq!(tries(ADD, status).await, 1);
}

#[tokio::test]
async fn a_retry_says_the_same_again_and_its_answer_is_the_answer() {
    let peer =
        Peer::answering(|nth| if nth < 2 { Err(definite(Code::Unavailable)) } else { Ok("at last".into()) }).await;
    let request = Request::new(Bytes::from_static(b"once more"));
    let answer = probe::call(peer.client(), ADD, request).await.unwrap();
    assert_eq!(answer.get_ref(), "at last");
    assert_eq!(peer.messages(), ["once more"; 3]);
}

#[tokio::test]
async fn a_stream_is_never_tried_again() {
    let peer = Peer::answering(|_| Err(definite(Code::Unavailable))).await;
    let status = probe::watch(peer.client(), WATCH, message()).await.unwrap_err();
    assert_eq!((status.code(), peer.calls()), (Code::Unavailable, 1));
}

#[tokio::test]
async fn a_method_that_no_table_has_is_never_tried_again() {
    let peer = Peer::answering(|_| Err(definite(Code::Unavailable))).await;
    probe::call(peer.client(), "/probe.v1.Probe/Unruled", message()).await.unwrap_err();
    assert_eq!(peer.calls(), 1);
}

#[tokio::test]
async fn nothing_is_tried_before_the_peer_has_asked_for_it() {
    let delay = Duration::from_millis(60);
    let peer = Peer::answering(move |nth| if nth == 0 { Err(come_again_in(delay)) } else { Ok(Bytes::new()) }).await;
    let began = Instant::now();
    probe::call(peer.client(), READ, message()).await.unwrap();
    assert!(began.elapsed() >= delay, "{:?}", began.elapsed());
}

#[tokio::test]
async fn nothing_is_tried_past_the_deadline_nor_waited_for() {
    let peer = Peer::answering(|_| Err(come_again_in(Duration::from_hours(2)))).await;
    let client = peer.client_with(None, |config| config.timeout_ms = 3_600_000);
    let call = probe::call(client, READ, message());
    let status = soon(call).await.unwrap_err();
    assert_eq!((status.code(), peer.calls()), (Code::Unavailable, 1));
}

#[tokio::test]
async fn retries_are_a_share_of_the_calls_and_a_few_to_begin_with() {
    let peer = Peer::answering(|_| Err(definite(Code::Unavailable))).await;
    let client = peer.client_with(None, |config| (config.tries_max, config.retry_budget_percent) = (2, 20));
    for _ in 0..100 {
        probe::call(client.clone(), READ, message()).await.unwrap_err();
    }
    assert_eq!(peer.calls(), 100 + 10 + 20);
}

#[tokio::test]
async fn without_a_budget_nothing_is_tried_again() {
    let peer = Peer::answering(|_| Err(definite(Code::Unavailable))).await;
    let client = peer.client_with(None, |config| config.retry_budget_percent = 0);
    probe::call(client, READ, message()).await.unwrap_err();
    assert_eq!(peer.calls(), 1);
}

#[tokio::test]
async fn a_request_that_is_too_large_to_be_kept_is_not_sent() {
    let peer = Peer::start().await;
    let large = Request::new(Bytes::from(vec![0; 4 * 1_024 * 1_024]));
    let status = probe::call(peer.client(), READ, large).await.unwrap_err();
    assert_eq!((status.code(), peer.calls()), (Code::ResourceExhausted, 0));
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_unavailable_and_nothing_took_effect() {
    let gone = souk_runtime::server::bind(([127, 0, 0, 1], 0).into()).await.unwrap().local_addr().unwrap();
    let client = Peer::start().await.client_with(None, |config| config.addresses = vec![format!("http://{gone}")]);
    let status = probe::call(client, ADD, message()).await.unwrap_err();
    assert_eq!((status.code(), outcome(&status)), (Code::Unavailable, Outcome::Definite));
    assert!(!status.message().contains(&gone.port().to_string()), "{status:?}");
}
