//! Who we are: one token for many calls, and a new one in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use souk_interceptors::client::{IssuedToken, Outcome, ServiceToken, outcome};
use souk_proto_common::{Failure, Reason};
use souk_runtime::{Clock, Secret};
use souk_testkit::eventually;
use tonic::{Code, Status};

use crate::peer::Peer;
use crate::probe::{self, ADD, READ, message};

/// Tokens `token-1`, `token-2`, …, good for ten minutes each; the first `failures` cannot be had.
fn numbered(clock: &Clock, failures: u32) -> (ServiceToken, Arc<AtomicU32>) {
    let (now, asked) = (clock.clone(), Arc::new(AtomicU32::new(0)));
    let count = asked.clone();
    let source = Arc::new(move || {
        let (number, expires_at) = (count.fetch_add(1, Ordering::Relaxed) + 1, now.now() + Duration::from_mins(10));
        async move {
            // Others come meanwhile.
            tokio::task::yield_now().await;
            let token = Secret::new(format!("token-{number}"));
            if number > failures { Ok(IssuedToken { token, expires_at }) } else { Err(Status::unknown("planted")) }
        }
        .boxed()
    });
    (ServiceToken::new(clock.clone(), source), asked)
}

/// The header of each call, by the number of its token.
fn bearers(numbers: &[u32]) -> Vec<Option<String>> {
    numbers.iter().map(|number| Some(format!("Bearer token-{number}"))).collect()
}

#[tokio::test]
async fn calls_that_come_together_share_one_token_that_is_fetched_once() {
    let peer = Peer::start().await;
    let (token, asked) = numbered(&peer.kernel.clock, 0);
    let client = peer.client_with(Some(token), |_| ());
    let calls = join_all((0..20).map(|_| probe::call(client.clone(), READ, message()))).await;
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    assert_eq!(peer.headers("authorization"), bearers(&[1; 20]));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn clients_of_several_peers_share_the_token() {
    let peers = [Peer::start().await, Peer::start().await];
    let (token, asked) = numbered(&peers[0].kernel.clock, 0);
    for peer in &peers {
        probe::call(peer.client_with(Some(token.clone()), |_| ()), READ, message()).await.unwrap();
        assert_eq!(peer.headers("authorization"), bearers(&[1]));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_token_is_renewed_a_minute_before_its_end() {
    let peer = Peer::start().await;
    let (token, asked) = numbered(&peer.kernel.clock, 0);
    let client = peer.client_with(Some(token), |_| ());
    for (advance, fetched) in [(0, 1), (539, 1), (1, 2), (0, 2), (539, 2), (1, 3), (0, 3)] {
        peer.kernel.clock.advance(Duration::from_secs(advance));
        probe::call(client.clone(), READ, message()).await.unwrap();
        eventually("it is fetched beside the call", async || asked.load(Ordering::Relaxed) == fetched).await;
        tokio::task::yield_now().await; // and kept
    }
    assert_eq!(peer.headers("authorization"), bearers(&[1, 1, 1, 2, 2, 2, 3]));
}

#[tokio::test]
async fn a_good_token_waits_for_nobody() {
    let peer = Peer::start().await;
    let (clock, asked) = (peer.kernel.clock.clone(), Arc::new(AtomicU32::new(0)));
    let (now, count) = (clock.clone(), asked.clone());
    let source = Arc::new(move || {
        let issued = IssuedToken { token: Secret::new("token-1"), expires_at: now.now() + Duration::from_mins(10) };
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            futures::future::ready(Ok(issued)).boxed()
        } else {
            futures::future::pending().boxed() // it is there, and silent
        }
    });
    let client = peer.client_with(Some(ServiceToken::new(clock.clone(), source)), |_| ());
    for advance in [0, 599, 0] {
        clock.advance(Duration::from_secs(advance));
        probe::call(client.clone(), READ, message()).await.unwrap();
    }
    assert_eq!(peer.headers("authorization"), bearers(&[1, 1, 1]));
    assert_eq!(asked.load(Ordering::Relaxed), 2, "one asks, for all");
}

#[tokio::test]
async fn a_call_that_could_not_prove_itself_was_not_made_and_is_tried_again() {
    let peer = Peer::start().await;
    let (token, asked) = numbered(&peer.kernel.clock, 1);
    probe::call(peer.client_with(Some(token), |_| ()), ADD, message()).await.unwrap();
    assert_eq!((asked.load(Ordering::Relaxed), peer.headers("authorization")), (2, bearers(&[2])));
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_used_until_its_end() {
    let peer = Peer::start().await;
    let (clock, down) = (peer.kernel.clock.clone(), Arc::new(AtomicBool::new(false)));
    let (now, is_down) = (clock.clone(), down.clone());
    let source = Arc::new(move || {
        let issued = IssuedToken { token: Secret::new("token-1"), expires_at: now.now() + Duration::from_mins(10) };
        let result = if is_down.load(Ordering::Relaxed) { Err(Status::unknown("planted")) } else { Ok(issued) };
        futures::future::ready(result).boxed()
    });
    let client = peer.client_with(Some(ServiceToken::new(clock.clone(), source)), |_| ());
    probe::call(client.clone(), READ, message()).await.unwrap();
    down.store(true, Ordering::Relaxed);
    clock.advance(Duration::from_secs(599));
    probe::call(client.clone(), READ, message()).await.unwrap();
    clock.advance(Duration::from_secs(1));
    assert_eq!(probe::call(client, READ, message()).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(peer.headers("authorization"), bearers(&[1, 1]));
}

#[tokio::test]
async fn a_token_that_the_peer_does_not_take_is_forgotten() {
    let refusal = || Failure::new(Code::Unauthenticated, Reason::TokenInvalid, "planted").into();
    let peer = Peer::answering(move |call| if call == 0 { Err(refusal()) } else { Ok(Bytes::new()) }).await;
    let (token, _) = numbered(&peer.kernel.clock, 0);
    let client = peer.client_with(Some(token), |_| ());
    assert_eq!(probe::call(client.clone(), READ, message()).await.unwrap_err().code(), Code::Unauthenticated);
    probe::call(client, READ, message()).await.unwrap();
    assert_eq!(peer.headers("authorization"), bearers(&[1, 2]));
}

#[tokio::test]
async fn without_a_token_the_call_is_unavailable_and_definite() {
    let peer = Peer::start().await;
    let (token, _) = numbered(&peer.kernel.clock, u32::MAX);
    let status = probe::call(peer.client_with(Some(token), |_| ()), ADD, message()).await.unwrap_err();
    assert_eq!((status.code(), outcome(&status)), (Code::Unavailable, Outcome::Definite));
    assert!(!status.message().contains("planted"), "{status:?}");
    assert_eq!(peer.calls(), 0);
}

#[tokio::test]
async fn a_client_that_needs_no_token_sends_none() {
    let peer = Peer::start().await;
    probe::call(peer.client(), READ, message()).await.unwrap();
    assert_eq!(peer.headers("authorization"), [None]);
}
