//! What is known of a call whose connection ends: against servers that end it at a certain byte.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use souk_interceptors::client::{Outcome, outcome};
use souk_runtime::server::{ServerConfig, bind};
use souk_testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::probe::{self, ADD, message, soon};
use crate::replica::{Name, Replica};

/// The type and flags of a frame of HTTP/2 (RFC 9113, 6).
const HEADERS: (u8, u8) = (1, 0x5); // the last of its stream and of the headers
const RST_STREAM: (u8, u8) = (3, 0);
const SETTINGS: (u8, u8) = (4, 0);
const SETTINGS_ACK: (u8, u8) = (4, 1);
const GOAWAY: (u8, u8) = (7, 0);
const PREFACE_BYTES: usize = 24;

/// How a connection ends when the first call comes.
#[derive(Clone, Copy)]
enum End {
    /// The stream is refused.
    Refused,
    /// The connection goes away, and the last stream that was looked at came before the call.
    GoesAwayBefore,
    /// The connection goes away, and the call has been looked at.
    GoesAwayAfter,
    /// The connection just ends.
    Cut,
}

fn frame((kind, flags): (u8, u8), stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `:status: 200`, the content type, `grpc-status: 12`; in HPACK without a table (RFC 7541, 6.2.2).
fn unimplemented() -> Vec<u8> {
    let literal = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
    };
    [vec![0x88], literal("content-type", "application/grpc"), literal("grpc-status", "12")].concat()
}

/// Serves one connection. Its first stream is the watch of health.
async fn serve(mut socket: TcpStream, end: End) -> io::Result<()> {
    socket.read_exact(&mut [0; PREFACE_BYTES]).await?;
    socket.write_all(&frame(SETTINGS, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        socket.read_exact(&mut vec![0; length as usize]).await?;
        let last = |last: u32| [last.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        match (head[3], stream) {
            (4, _) if head[4] == 0 => socket.write_all(&frame(SETTINGS_ACK, 0, &[])).await?,
            (1, 1) => socket.write_all(&frame(HEADERS, 1, &unimplemented())).await?,
            (1, stream) => match end {
                End::Refused => socket.write_all(&frame(RST_STREAM, stream, &7_u32.to_be_bytes())).await?,
                End::GoesAwayBefore => return socket.write_all(&frame(GOAWAY, 0, &last(1))).await,
                End::GoesAwayAfter => return socket.write_all(&frame(GOAWAY, 0, &last(stream))).await,
                End::Cut => return Ok(()),
            },
            _ => {}
        }
    }
}

async fn ending(end: End, at: SocketAddr) -> SocketAddr {
    let listener = bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, end));
        }
    });
    address
}

fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[tokio::test]
async fn a_call_that_the_peer_has_not_looked_at_has_had_no_effect() {
    for (end, expected) in [
        (End::Refused, Outcome::Definite),
        (End::GoesAwayBefore, Outcome::Definite),
        (End::GoesAwayAfter, Outcome::Unknown),
        (End::Cut, Outcome::Unknown),
    ] {
        let address = ending(end, anywhere()).await;
        let client = Name::of([address]).client(|config| config.tries_max = 1);
        let status = soon(probe::call(client.channel.clone(), ADD, message())).await.unwrap_err();
        assert_eq!((status.code(), outcome(&status)), (Code::Unavailable, expected), "{status:?}");
        assert_eq!(client.metric("refused_total", ""), 0, "it was sent");
    }
}

#[tokio::test]
async fn a_connection_that_ends_at_its_age_costs_no_call() {
    // The watch of health does not end by itself: it is cut when the grace is over, and goes on at the next connection.
    let config = ServerConfig { connection_age_max_ms: 50, connection_age_grace_ms: 100, ..ServerConfig::default() };
    let replica = Replica::start_with(anywhere(), &config, |_| Ok(Bytes::new())).await;
    // Nor may the method be repeated: whatever came too late for a connection is known not to have been sent.
    let client = Name::of([replica.address]).client(|config| config.retry_budget_percent = 100);
    eventually("connections have ended", async || {
        for _ in 0..10 {
            probe::call(client.channel.clone(), ADD, message()).await.unwrap();
        }
        replica.aged() >= 5
    })
    .await;
}

#[tokio::test]
async fn where_it_can_be_made_elsewhere_nobody_learns_of_it() {
    for end in [End::Refused, End::GoesAwayBefore] {
        let [well] = Replica::start_all().await;
        let bad = ending(end, ([127, 0, 0, 2], well.address.port()).into()).await;
        let client = Name::of([well.address, bad]).client(|config| {
            (config.outlier_failures, config.retry_budget_percent) = (1_000_000, 100);
        });
        eventually("both are well", async || client.healthy() == 2).await;
        for _ in 0..20 {
            probe::call(client.channel.clone(), ADD, message()).await.unwrap();
        }
        assert_eq!(well.served(), 20);
        assert!(client.metric("retries_total", "") > 0);
    }
}
