//! Connections that do not say what they want.

use souk_runtime::server::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Server, is_well, rude, soon};

/// What each of them says before it falls silent.
async fn closed_after(server: &Server, said: &[u8]) {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(said).await.unwrap();
    rude::is_closed(socket).await;
}

#[tokio::test]
async fn a_socket_that_is_silent_or_stops_in_the_middle_of_its_preface_is_closed() {
    let server = Server::start(ServerConfig { handshake_timeout_ms: 200, ..ServerConfig::default() }).await;
    let mut client = server.client();
    is_well(&mut client).await;
    closed_after(&server, b"").await;
    closed_after(&server, &rude::PREFACE[..12]).await;
    assert_eq!(server.refused("timeout"), 2);
    is_well(&mut client).await;
    assert_eq!(server.count("grpc_server_connections_accepted_total{server=\"test\"}"), 3, "the client's is the same");
}

#[tokio::test]
async fn half_a_request_over_http_1_is_closed_and_so_is_one_that_does_not_follow() {
    let server = Server::start(ServerConfig { header_read_timeout_ms: 200, ..ServerConfig::default() }).await;
    closed_after(&server, b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: te").await;
    // One that is answered, and is kept open for another.
    closed_after(&server, b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n").await;
    is_well(&mut server.client()).await;
}

#[tokio::test]
async fn what_is_no_http_is_closed_and_too_many_headers_are_refused() {
    let server = Server::start(ServerConfig::default()).await;
    closed_after(&server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on\r\n\r\n").await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let many = "x: 1234567890\r\n".repeat(600);
    socket.write_all(format!("POST / HTTP/1.1\r\nhost: test\r\n{many}\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    soon(socket.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 431");
    is_well(&mut server.client()).await;
}
