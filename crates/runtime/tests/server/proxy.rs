//! Behind a load balancer that speaks the PROXY protocol.

use std::convert::Infallible;

use http::Request;
use souk_runtime::server::{Peer, ProxyProtocol, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;

use crate::harness::{Server, rude, soon};

/// A server that tells whom it takes the peer for.
async fn server(config: ServerConfig) -> Server {
    let service = tower::service_fn(async |request: Request<Body>| {
        let peer = request.extensions().get::<Peer>().unwrap();
        Ok::<_, Infallible>(Status::not_found(peer.address.to_string()).into_http())
    });
    Server::of(config, service).await
}

fn required() -> ServerConfig {
    ServerConfig { proxy_protocol: ProxyProtocol::Required, ..ServerConfig::default() }
}

/// Connects as the balancer does, and asks.
async fn ask(server: &Server, header: &[u8]) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    // In pieces, as a network may cut it.
    for piece in header.chunks(7) {
        // It may have heard enough.
        drop(socket.write_all(piece).await);
        tokio::task::yield_now().await;
    }
    let request =
        b"POST /a/b HTTP/1.1\r\nhost: test\r\ncontent-type: application/grpc-web\r\ncontent-length: 0\r\n\r\n";
    drop(socket.write_all(request).await);
    let mut answer = vec![0; 4_096];
    let length = soon(socket.read(&mut answer)).await.unwrap_or(0);
    (socket, String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// 203.0.113.9:8080 to 10.0.0.1:80
const V4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

/// <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, section 2.2
fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, addresses].concat()
}

#[tokio::test]
async fn the_peer_is_whom_the_balancer_names() {
    let server = server(required()).await;
    let with_more = [&V4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    let cases: [(&[u8], &str); 4] = [
        (b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n", "203.0.113.7:4711"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n", "[2001:db8::7]:4711"),
        (&version_2(1, 0x11, &V4), "203.0.113.9:8080"),
        (&version_2(1, 0x11, &with_more), "203.0.113.9:8080"),
    ];
    for (header, peer) in cases {
        let (_, answer) = ask(&server, header).await;
        assert!(answer.contains(&format!("grpc-message: {peer}")), "{peer}: {answer}");
    }
    // The balancer itself, looking whether we are well.
    for header in [&b"PROXY UNKNOWN\r\n"[..], &version_2(0, 0, &[])] {
        let (_, answer) = ask(&server, header).await;
        assert!(answer.contains("grpc-message: 127.0.0.1:"), "{answer}");
    }
}

#[tokio::test]
async fn without_the_header_nobody_is_let_in() {
    let server = server(required()).await;
    let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 4_096]].concat();
    let bad: [&[u8]; 4] = [b"", b"PROXY TCP4 nobody 10.0.0.1 1 2\r\n", rude::PREFACE, &endless];
    for header in bad {
        let (_, answer) = ask(&server, header).await;
        assert_eq!(answer, "", "{header:?}");
    }
    assert_eq!(server.refused("proxy_header"), 4);
}

#[tokio::test]
async fn where_it_is_optional_the_balancer_says_who_is_there_and_others_come_as_they_are() {
    let server = server(ServerConfig { proxy_protocol: ProxyProtocol::Optional, ..ServerConfig::default() }).await;
    for header in [&b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n"[..], &version_2(1, 0x11, &V4)] {
        let (_, answer) = ask(&server, header).await;
        assert!(answer.contains("grpc-message: 203.0.113."), "{answer}");
    }
    let (_, answer) = ask(&server, b"").await;
    assert!(answer.contains("grpc-message: 127.0.0.1:"), "{answer}");
    let bad: [&[u8]; 2] = [b"PROXY TCP4 nobody 10.0.0.1 1 2\r\n", &version_2(1, 0x11, &[1])];
    for header in bad {
        let (_, answer) = ask(&server, header).await;
        assert_eq!(answer, "", "{header:?}");
    }
    assert_eq!(server.refused("proxy_header"), 2);
}

#[tokio::test]
async fn places_are_those_of_whom_the_balancer_names() {
    let server = server(ServerConfig { connections_per_peer_max: 1, ..required() }).await;
    let (_first, answer) = ask(&server, b"PROXY TCP4 203.0.113.7 10.0.0.1 1 80\r\n").await;
    assert!(answer.contains("203.0.113.7"), "{answer}");
    let (_, answer) = ask(&server, b"PROXY TCP4 203.0.113.7 10.0.0.1 2 80\r\n").await;
    assert_eq!(answer, "");
    let (_, answer) = ask(&server, b"PROXY TCP4 203.0.113.8 10.0.0.1 3 80\r\n").await;
    assert!(answer.contains("203.0.113.8"), "{answer}");
}
