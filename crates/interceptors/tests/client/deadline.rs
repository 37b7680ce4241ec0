//! A call for a call has what is left of its time, less a margin; and ends then, whatever the peer does.

use std::time::Duration;

use bytes::Bytes;
use souk_interceptors::client::{Outcome, outcome};
use souk_runtime::server::bind;
use tokio::time::Instant;
use tonic::Code;

use crate::peer::{Peer, call_through, come_again_in, watch_through};
use crate::probe::{self, ADD, READ, WATCH, message};

/// What a peer is told that it has, in milliseconds.
fn told(header: &str) -> u64 {
    header.strip_suffix('m').unwrap().parse().unwrap()
}

/// Unlike what a machine takes, however busy.
const HOUR_MS: u64 = 3_600_000;

#[tokio::test]
async fn the_peer_is_told_what_is_left_of_the_served_call_less_the_margin() {
    let peer = Peer::start().await;
    let client = peer.client_with(None, |config| (config.timeout_ms, config.margin_ms) = (60, HOUR_MS));
    let mut request = message();
    request.set_timeout(Duration::from_hours(3));
    call_through(client, request).await.unwrap();
    let told = told(&peer.header("grpc-timeout"));
    assert!(told <= 2 * HOUR_MS && told > HOUR_MS, "{told}");
}

#[tokio::test]
async fn a_call_for_no_other_has_the_configured_time() {
    let peer = Peer::start().await;
    let client = peer.client_with(None, |config| config.timeout_ms = HOUR_MS);
    probe::call(client, READ, message()).await.unwrap();
    let told = told(&peer.header("grpc-timeout"));
    assert!(told <= HOUR_MS && told > HOUR_MS / 2, "{told}");
}

#[tokio::test]
async fn each_try_is_told_what_is_left_by_then() {
    let again = || Err(come_again_in(Duration::from_millis(40)));
    let peer = Peer::answering(move |nth| if nth == 0 { again() } else { Ok(Bytes::new()) }).await;
    probe::call(peer.client(), READ, message()).await.unwrap();
    let [first, second] = peer.headers("grpc-timeout").try_into().unwrap();
    let (first, second) = (told(&first.unwrap()), told(&second.unwrap()));
    assert!(second + 40 <= first, "{first} {second}");
}

#[tokio::test]
async fn without_time_for_it_the_peer_is_not_called() {
    let peer = Peer::start().await;
    let client = peer.client_with(None, |config| config.margin_ms = HOUR_MS);
    let mut request = message();
    request.set_timeout(Duration::from_mins(30));
    call_through(client, request).await.unwrap_err();
    assert_eq!(peer.calls(), 0);
}

#[tokio::test]
async fn a_peer_that_does_not_answer_in_time_is_late() {
    // The system takes the connection, and nobody ever reads from it.
    let silent = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    for path in [READ, ADD, WATCH] {
        let client = Peer::start().await.client_with(None, |config| {
            config.addresses = vec![address.clone()];
            config.timeout_ms = 100;
        });
        let began = Instant::now();
        let status = probe::call(client, path, message()).await.unwrap_err();
        assert_eq!((status.code(), outcome(&status)), (Code::DeadlineExceeded, Outcome::Unknown), "{path} {status:?}");
        assert!(began.elapsed() >= Duration::from_millis(90), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_stream_has_its_time_for_the_beginning_only() {
    let peer = Peer::start().await;
    let client = peer.client_with(None, |config| config.timeout_ms = 60_000);
    let mut answers = probe::watch(client, WATCH, message()).await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    assert_eq!(peer.headers("grpc-timeout"), [None]);
}

#[tokio::test]
async fn a_stream_that_is_made_for_a_call_is_told_what_is_left_of_it() {
    let peer = Peer::start().await;
    let client = peer.client_with(None, |config| config.margin_ms = HOUR_MS);
    let mut request = message();
    request.set_timeout(Duration::from_hours(3));
    watch_through(client, request).await.unwrap();
    let told = told(&peer.header("grpc-timeout"));
    assert!(told <= 2 * HOUR_MS && told > HOUR_MS, "{told}");
}
