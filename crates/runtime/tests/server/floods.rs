//! Peers that keep us busy with what is no call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use souk_runtime::server::ServerConfig;
use tokio::io::AsyncWriteExt;
use tonic_health::pb::HealthCheckRequest;

use crate::harness::{Server, eventually, is_well, rude, soon};

/// Runs `attack` beside a client that calls all the while, and none of whose calls may fail.
async fn beside_a_client(server: &Server, attack: impl Future<Output = ()>) {
    let over = Arc::new(AtomicBool::new(false));
    let (mut client, until) = (server.client(), over.clone());
    let calling = tokio::spawn(async move {
        let mut calls = 0;
        while !until.load(Ordering::Relaxed) {
            soon(client.check(HealthCheckRequest::default())).await.unwrap();
            calls += 1;
        }
        calls
    });
    attack.await;
    over.store(true, Ordering::Relaxed);
    assert!(calling.await.unwrap() > 0);
    is_well(&mut server.client()).await;
}

#[tokio::test]
async fn floods_of_what_is_no_call_end_the_connection() {
    let server = Server::start(ServerConfig::default()).await;
    let ping = rude::frame(6, 0, 0, &[7; 8]);
    let answer = rude::frame(6, 1, 0, &[7; 8]);
    let settings = rude::frame(4, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]);
    let priority = rude::frame(2, 0, 1, &[0, 0, 0, 0, 16]);
    let unknown = rude::frame(0x42, 0, 0, b"greased");
    let window = rude::frame(8, 0, 0, &[0, 0, 0, 1]);
    for (flood, frame) in (1..).zip([ping, answer, settings, priority, unknown, window]) {
        beside_a_client(&server, rude::flood(server.address, &[], &frame)).await;
        eventually("it is counted", async || server.ended("flood") == flood).await;
    }
}

#[tokio::test]
async fn headers_without_end_end_the_connection() {
    let server = Server::start(ServerConfig::default()).await;
    // HEADERS that are to be continued, and are, for ever: `x: y`, literal, not indexed.
    let (begin, again) = (rude::frame(1, 0, 1, &[0x82]), rude::frame(9, 0, 1, &[0, 1, b'x', 1, b'y']));
    beside_a_client(&server, rude::flood(server.address, &begin, &again)).await;
    eventually("it is counted", async || server.ended("error") == 1).await;
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_the_connection() {
    let server = Server::start(ServerConfig::default()).await;
    // POST http /, at once taken back.
    let streams = (1..200_000).step_by(2).map(|stream| {
        [rude::frame(1, 4, stream, &[0x83, 0x86, 0x84]), rude::frame(3, 0, stream, &[0, 0, 0, 8])].concat()
    });
    let bytes: Vec<u8> = streams.flatten().collect();
    beside_a_client(&server, async {
        let mut socket = rude::greeted(server.address).await;
        // It is cut off in the middle.
        drop(socket.write_all(&bytes).await);
        rude::is_closed(socket).await;
    })
    .await;
    eventually("it is counted", async || server.ended("error") + server.ended("flood") == 1).await;
}

#[tokio::test]
async fn who_calls_and_reads_may_say_what_goes_with_it() {
    // Hardly anything beside calls, which bring their window updates and resets with them.
    let server = Server::start(ServerConfig { control_frames_per_second_max: 16, ..ServerConfig::default() }).await;
    let mut client = server.client();
    for _ in 0..300 {
        is_well(&mut client).await;
        // A watch that is given up is a reset.
        let watch = client.watch(HealthCheckRequest { service: "shop".into() }).await.unwrap();
        drop(watch);
    }
    assert_eq!(server.count("grpc_server_connections_accepted_total{server=\"test\"}"), 1);
}
