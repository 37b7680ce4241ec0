//! Connections that have lived long enough.

use std::time::Duration;

use souk_runtime::server::ServerConfig;
use tonic_health::pb::HealthCheckRequest;

use crate::harness::{Server, eventually, is_well, rude, soon};

#[tokio::test]
async fn connections_end_at_an_age_and_no_call_fails() {
    let server = Server::start(ServerConfig { connection_age_max_ms: 50, ..ServerConfig::default() }).await;
    let client = server.client();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, ended) = (client.clone(), server.kernel.metrics.clone());
            let aged = "grpc_server_connections_ended_total{server=\"test\",reason=\"age\"} ";
            tokio::spawn(async move {
                let mut calls = 0;
                let so_far = || ended.encode().lines().find_map(|line| line.strip_prefix(aged)?.parse().ok());
                while so_far().unwrap_or(0) < 20 {
                    client.check(HealthCheckRequest::default()).await.unwrap();
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for caller in callers {
        assert!(soon(caller).await.unwrap() > 20);
    }
}

#[tokio::test]
async fn a_stream_has_a_grace_and_then_it_is_cut() {
    let config = ServerConfig { connection_age_max_ms: 50, connection_age_grace_ms: 300, ..ServerConfig::default() };
    let server = Server::start(config).await;
    let mut client = server.client();
    let began = tokio::time::Instant::now();
    let mut watch = client.watch(HealthCheckRequest { service: "shop".into() }).await.unwrap().into_inner();
    assert!(soon(watch.message()).await.unwrap().is_some());
    soon(watch.message()).await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_millis(340), "{:?}", began.elapsed());
    eventually("it is counted", async || server.ended("cut") == 1).await;
    is_well(&mut client).await;
}

#[tokio::test]
async fn a_connection_without_a_call_ends_and_one_with_a_call_does_not() {
    let server = Server::start(ServerConfig { connection_idle_max_ms: 100, ..ServerConfig::default() }).await;
    let mut client = server.client();
    let mut watch = client.watch(HealthCheckRequest { service: "shop".into() }).await.unwrap().into_inner();
    assert!(soon(watch.message()).await.unwrap().is_some());
    rude::is_closed(rude::greeted(server.address).await).await;
    rude::is_closed(rude::greeted(server.address).await).await;
    eventually("they are counted", async || server.ended("idle") == 2).await;
    assert_eq!(server.count("grpc_server_connections{server=\"test\"}"), 1);
    is_well(&mut client).await;
    drop(watch);
    eventually("now it is idle", async || server.ended("idle") == 3).await;
    is_well(&mut client).await;
}
