//! Calls go to the addresses of a name that answer, evenly, and to no others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use souk_interceptors::client::{Outcome, outcome};
use souk_runtime::server::bind;
use souk_testkit::eventually;
use tokio::time::Instant;
use tonic::Code;
use tonic_health::ServingStatus;
use tonic_types::StatusExt;

use crate::peer::definite;
use crate::probe::{self, ADD, READ, WATCH, message};
use crate::replica::{Client, Name, Replica, at};

/// A time that does not come.
const HOUR_MS: u64 = 3_600_000;

async fn calls(client: &Client, count: usize) {
    for _ in 0..count {
        probe::call(client.channel.clone(), READ, message()).await.unwrap();
    }
}

async fn healthy(client: &Client, count: i64) {
    eventually("addresses are healthy", async || client.healthy() == count).await;
}

fn addresses(replicas: &[Replica]) -> Vec<std::net::SocketAddr> {
    replicas.iter().map(|replica| replica.address).collect()
}

#[tokio::test]
async fn calls_are_even_over_all_addresses_of_a_name() {
    let replicas = Replica::start_all::<3>().await;
    let client = Name::of(addresses(&replicas)).client(|_| ());
    healthy(&client, 3).await;
    calls(&client, 300).await;
    join_all((0..30).map(|_| calls(&client, 10))).await;
    for replica in &replicas {
        assert!((140..=260).contains(&replica.served()), "{}", replica.served());
    }
    assert_eq!(replicas.iter().map(Replica::served).sum::<usize>(), 600);
    assert_eq!(client.metric("addresses", ",state=\"known\""), 3);
}

#[tokio::test]
async fn whoever_has_a_stream_open_is_spared_until_it_ends() {
    let replicas = Replica::start_all::<2>().await;
    let client = Name::of(addresses(&replicas)).client(|_| ());
    healthy(&client, 2).await;
    let mut stream = probe::watch(client.channel.clone(), WATCH, message()).await.unwrap();
    stream.message().await.unwrap();
    assert_eq!(client.metric("calls_in_flight", ""), 1);
    calls(&client, 50).await;
    let mut served = replicas.each_ref().map(Replica::served);
    served.sort_unstable();
    assert_eq!(served, [0, 50]);
    drop(stream);
    eventually("no call is in flight", async || client.metric("calls_in_flight", "") == 0).await;
    calls(&client, 50).await;
    assert!(replicas.iter().all(|replica| replica.served() > 0));
}

#[tokio::test]
async fn new_addresses_are_found_and_old_ones_forgotten() {
    let [first, second] = Replica::start_all().await;
    let name = Name::of([first.address]);
    let client = name.client(|_| ());
    calls(&client, 10).await;
    assert_eq!((first.served(), second.served()), (10, 0));
    name.becomes(Ok(vec![first.address, second.address]));
    healthy(&client, 2).await;
    calls(&client, 50).await;
    assert!(second.served() > 0);
    name.becomes(Ok(vec![second.address]));
    healthy(&client, 1).await;
    let before = (first.served(), second.served());
    calls(&client, 20).await;
    assert_eq!((first.served(), second.served()), (before.0, before.1 + 20));
}

#[tokio::test]
async fn an_answer_that_fails_or_is_empty_changes_nothing() {
    let [replica] = Replica::start_all().await;
    let name = Name::of([replica.address]);
    let client = name.client(|_| ());
    calls(&client, 1).await;
    for (failures, answer) in [Err(io::ErrorKind::TimedOut), Ok(Vec::new())].into_iter().enumerate() {
        name.becomes(answer);
        let before = i64::try_from(failures).unwrap() * client.metric("resolve_failures_total", "");
        eventually("it is looked up", async || client.metric("resolve_failures_total", "") > before + 1).await;
        calls(&client, 5).await;
    }
}

#[tokio::test]
async fn a_call_waits_for_the_first_answer_of_the_resolver() {
    let [replica] = Replica::start_all().await;
    let name = Name::of([]);
    let client = name.client(|_| ());
    name.becomes(Ok(vec![replica.address]));
    eventually("it is found", async || probe::call(client.channel.clone(), READ, message()).await.is_ok()).await;
}

#[tokio::test]
async fn the_first_call_waits_for_a_server_that_has_just_started() {
    let [replica] = Replica::start_all().await;
    replica.says(ServingStatus::NotServing).await;
    let client = Name::of([replica.address]).client(|_| ());
    let ejections = async || client.metric("ejections_total", ",cause=\"not_serving\"") == 1;
    eventually("it has said no", ejections).await;
    let call = tokio::spawn(probe::call(client.channel.clone(), READ, message()));
    replica.says(ServingStatus::Serving).await;
    call.await.unwrap().unwrap();
    // Once it has served, no is no.
    replica.says(ServingStatus::NotServing).await;
    healthy(&client, 0).await;
    is_refused(&client).await;
}

/// As in a rolling restart: the next one goes before it has been heard that the one before is back.
#[tokio::test]
async fn a_call_waits_for_a_server_that_has_just_started_while_the_last_one_goes() {
    let [first, second] = Replica::start_all().await;
    second.says(ServingStatus::NotServing).await;
    let client = Name::of([first.address, second.address]).client(|_| ());
    let ejections = async || client.metric("ejections_total", ",cause=\"not_serving\"") == 1;
    eventually("it has said no", ejections).await;
    first.says(ServingStatus::NotServing).await;
    healthy(&client, 0).await;
    let call = tokio::spawn(probe::call(client.channel.clone(), READ, message()));
    second.says(ServingStatus::Serving).await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dead_address_gets_no_calls_and_returns_when_it_lives() {
    let [first, second] = Replica::start_all().await;
    let name = Name::of([first.address, second.address]);
    let client = name.client(|_| ());
    healthy(&client, 2).await;
    let (address, looked_up) = (second.address, name.asked.load(Ordering::Relaxed));
    second.kill().await;
    calls(&client, 50).await;
    healthy(&client, 1).await;
    eventually("it was ejected", async || client.metric("ejections_total", ",cause=\"unreachable\"") >= 1).await;
    eventually("the name is looked up", async || name.asked.load(Ordering::Relaxed) > looked_up).await;
    let second = Replica::start(address).await;
    healthy(&client, 2).await;
    calls(&client, 50).await;
    assert!(second.served() > 0);
}

#[tokio::test]
async fn names_are_looked_up_at_once_when_connections_fail() {
    let [first, second] = Replica::start_all().await;
    let name = Name::of([first.address]);
    let client = name.client(|config| config.resolve_interval_ms = HOUR_MS);
    calls(&client, 1).await;
    name.becomes(Ok(vec![second.address]));
    first.kill().await;
    eventually("the other is found", async || probe::call(client.channel.clone(), READ, message()).await.is_ok()).await;
    assert!(second.served() > 0);
}

#[tokio::test]
async fn an_address_that_accepts_and_never_answers_gets_no_calls() {
    let [replica] = Replica::start_all().await;
    let silent = bind(at(1, replica.address.port())).await.unwrap();
    let address = silent.local_addr().unwrap();
    let client = Name::of([replica.address, address]).client(|config| config.connect_timeout_ms = 300);
    calls(&client, 50).await;
    eventually("it is out", async || client.metric("ejections_total", ",cause=\"unreachable\"") == 1).await;
    calls(&client, 50).await;
    assert_eq!(replica.served(), 100);
    drop(silent);
    let _woken = Replica::start(address).await;
    healthy(&client, 2).await;
}

#[tokio::test]
async fn an_address_that_says_that_it_does_not_serve_gets_no_calls() {
    let [first, second] = Replica::start_all().await;
    let client = Name::of([first.address, second.address]).client(|_| ());
    healthy(&client, 2).await;
    second.says(ServingStatus::NotServing).await;
    healthy(&client, 1).await;
    let before = second.served();
    calls(&client, 50).await;
    assert_eq!(second.served(), before);
    second.says(ServingStatus::Serving).await;
    healthy(&client, 2).await;
    calls(&client, 50).await;
    assert!(second.served() > before);
}

/// What a caller is told when nobody answers: long before a connection or the call would be given up.
async fn is_refused(client: &Client) {
    let began = Instant::now();
    let refused = client.metric("refused_total", "");
    let status = probe::call(client.channel.clone(), ADD, message()).await.unwrap_err();
    assert_eq!((status.code(), outcome(&status)), (Code::Unavailable, Outcome::Definite), "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "PEER_UNAVAILABLE");
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    assert_eq!(client.metric("refused_total", "") - refused, 1, "it is tried once");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn where_nobody_answers_a_call_fails_at_once() {
    let [first, second] = Replica::start_all().await;
    let client = Name::of([first.address, second.address]).client(|_| ());
    healthy(&client, 2).await;
    let address = first.address;
    second.kill().await;
    assert_eq!(client.is_missing(), None);
    first.says(ServingStatus::NotServing).await;
    healthy(&client, 0).await;
    assert_eq!(client.is_missing().unwrap(), "none of 2 addresses answers");
    is_refused(&client).await;
    first.kill().await;
    is_refused(&client).await;
    // Whoever is back is found by the next call, however long the pause would have been.
    let _back = Replica::start(address).await;
    eventually("it is back", async || probe::call(client.channel.clone(), READ, message()).await.is_ok()).await;
}

#[tokio::test]
async fn where_nobody_has_ever_answered_a_call_waits_no_longer_than_for_a_connection() {
    let silent = bind(at(0, 0)).await.unwrap();
    let client = Name::of([silent.local_addr().unwrap()]).client(|config| {
        (config.connect_timeout_ms, config.timeout_ms) = (300, HOUR_MS);
    });
    let began = Instant::now();
    is_refused(&client).await;
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    is_refused(&client).await;
}

#[tokio::test]
async fn the_callers_own_token_is_sent_where_the_client_has_none() {
    let peer = crate::peer::Peer::start().await;
    let mut request = message();
    request.metadata_mut().insert("authorization", "Bearer mine".parse().unwrap());
    probe::call(peer.client(), READ, request).await.unwrap();
    assert_eq!(peer.header("authorization"), "Bearer mine");
}

#[tokio::test]
async fn a_second_try_goes_to_another_address() {
    let [well] = Replica::start_all().await;
    let bad = Replica::answering(at(1, well.address.port()), |_| Err(definite(Code::Unavailable))).await;
    let client = Name::of([well.address, bad.address]).client(|config| {
        (config.tries_max, config.outlier_failures, config.retry_budget_percent) = (2, u32::MAX >> 1, 100);
    });
    healthy(&client, 2).await;
    for _ in 0..50 {
        probe::call(client.channel.clone(), ADD, message()).await.unwrap();
    }
    assert_eq!(well.served(), 50);
    assert!(bad.served() > 0);
    assert_eq!(client.metric("retries_total", ""), i64::try_from(bad.served()).unwrap());
}

#[tokio::test]
async fn an_address_that_fails_call_after_call_is_left_alone_for_a_while() {
    let [well] = Replica::start_all().await;
    let recovered = Arc::new(AtomicBool::new(false));
    let is_well = recovered.clone();
    let bad = Replica::answering(at(1, well.address.port()), move |_| {
        if is_well.load(Ordering::Relaxed) { Ok(bytes::Bytes::new()) } else { Err(definite(Code::Unavailable)) }
    })
    .await;
    let client = Name::of([well.address, bad.address]).client(|config| {
        (config.outlier_failures, config.outlier_ejection_ms, config.retry_budget_percent) = (3, 1_500, 100);
    });
    healthy(&client, 2).await;
    eventually("it is left alone", async || {
        calls(&client, 1).await;
        client.metric("ejections_total", ",cause=\"outlier\"") == 1
    })
    .await;
    assert_eq!((bad.served(), client.healthy()), (3, 1));
    recovered.store(true, Ordering::Relaxed);
    healthy(&client, 2).await;
    calls(&client, 50).await;
    assert!(bad.served() > 3);
}

#[tokio::test]
async fn an_address_is_left_alone_for_silence_only_if_it_had_time_to_answer() {
    let [well] = Replica::start_all().await;
    let silent = Replica::silent(at(1, well.address.port())).await;
    let name = Name::of([well.address, silent.address]);
    let client = |timeout_ms| {
        name.client(|config| (config.timeout_ms, config.outlier_failures, config.tries_max) = (timeout_ms, 3, 1))
    };
    let left_alone = |client: &Client| client.metric("ejections_total", ",cause=\"outlier\"");
    let hasty = client(20);
    healthy(&hasty, 2).await;
    eventually("it was called often", async || {
        drop(probe::call(hasty.channel.clone(), READ, message()).await);
        silent.served() > 20
    })
    .await;
    assert_eq!(left_alone(&hasty), 0);
    let patient = client(400);
    healthy(&patient, 2).await;
    eventually("it is left alone", async || {
        drop(probe::call(patient.channel.clone(), READ, message()).await);
        left_alone(&patient) == 1
    })
    .await;
}

#[tokio::test]
async fn the_only_address_is_never_left_alone_for_failed_calls() {
    let bad = Replica::answering(at(0, 0), |_| Err(definite(Code::Unavailable))).await;
    let client = Name::of([bad.address]).client(|config| (config.outlier_failures, config.tries_max) = (1, 1));
    for _ in 0..20 {
        probe::call(client.channel.clone(), READ, message()).await.unwrap_err();
    }
    assert_eq!(bad.served(), 20);
}

#[tokio::test]
async fn a_rolling_restart_fails_no_call() {
    let mut replicas: Vec<Replica> = Replica::start_all::<2>().await.into();
    let client = Name::of(addresses(&replicas)).client(|_| ());
    healthy(&client, 2).await;
    let (ended, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let start = |_| {
        let (channel, ended, count) = (client.channel.clone(), ended.clone(), count.clone());
        // Not repeatable: it must not have been lost.
        tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                probe::call(channel.clone(), ADD, message()).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let callers: Vec<_> = (0..16).map(start).collect();
    for _ in 0..6 {
        let replica = replicas.remove(0);
        let address = replica.address;
        replica.stop().await;
        let before = count.load(Ordering::Relaxed);
        eventually("calls go on", async || count.load(Ordering::Relaxed) > before + 50).await;
        replicas.push(Replica::start(address).await);
        // The next one ends as soon as this one is there, whatever the client knows of it.
    }
    ended.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(count.load(Ordering::Relaxed) > 300);
}
