//! Clients that ask and do not read.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use souk_runtime::server::ServerConfig;
use tokio::net::TcpStream;
use tonic::body::Body;

use crate::harness::{Server, eventually, soon};

/// A server whose answers have so many bytes.
async fn server(config: ServerConfig, bytes: usize) -> Server {
    let service = tower::service_fn(move |_| {
        let answer = Response::new(Body::new(Full::new(Bytes::from(vec![0; bytes]))));
        async move { Ok::<_, Infallible>(answer) }
    });
    Server::of(config, service).await
}

const UNREAD: &str = "grpc_server_unread_bytes{server=\"test\"}";

#[tokio::test]
async fn who_asks_and_asks_and_never_reads_is_cut_off_and_what_was_kept_is_freed() {
    let config = ServerConfig { unread_bytes_max: 17 * 256 * 1_024, ..ServerConfig::default() };
    let server = server(config, 256 * 1_024).await;
    let (mut client, connection) =
        soon(h2::client::handshake(TcpStream::connect(server.address).await.unwrap())).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut answers = Vec::new();
    // As much as may be, and the connection lives.
    for _ in 0..16 {
        answers.push(client.send_request(Request::post("http://souk/a/b").body(()).unwrap(), true).unwrap().0);
    }
    eventually("all is kept", async || server.count(UNREAD) > 15 * 256 * 1_024).await;
    assert_eq!(server.ended("unread"), 0);
    answers.push(client.send_request(Request::post("http://souk/a/b").body(()).unwrap(), true).unwrap().0);
    answers.push(client.send_request(Request::post("http://souk/a/b").body(()).unwrap(), true).unwrap().0);
    eventually("it is cut", async || server.ended("unread") == 1).await;
    drop(soon(connection).await);
    eventually("nothing is kept", async || server.count(UNREAD) == 0).await;
}

#[tokio::test]
async fn who_reads_may_have_as_much_as_they_like() {
    let config = ServerConfig { unread_bytes_max: 1_024 * 1_024, ..ServerConfig::default() };
    let server = server(config, 256 * 1_024).await;
    let (mut client, connection) =
        soon(h2::client::handshake(TcpStream::connect(server.address).await.unwrap())).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..40 {
        let request = Request::post("http://souk/a/b").body(()).unwrap();
        let mut body = soon(client.send_request(request, true).unwrap().0).await.unwrap().into_body();
        let mut read = 0;
        while let Some(bytes) = soon(body.data()).await {
            let length = bytes.unwrap().len();
            read += length;
            body.flow_control().release_capacity(length).unwrap();
        }
        assert_eq!(read, 256 * 1_024);
    }
    assert_eq!(server.ended("unread"), 0);
    eventually("nothing is kept", async || server.count(UNREAD) == 0).await;
}

#[tokio::test]
async fn small_answers_that_are_not_read_count_for_what_they_keep() {
    let server = server(ServerConfig { unread_bytes_max: 1_024 * 1_024, ..ServerConfig::default() }, 1).await;
    let socket = TcpStream::connect(server.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (mut client, connection) = soon(builder.initial_window_size(0).handshake::<_, Bytes>(socket)).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..256 {
        let Ok(mut ready) = soon(client.ready()).await else { break };
        answers.push(ready.send_request(Request::post("http://souk/a/b").body(()).unwrap(), true).unwrap().0);
        client = ready;
    }
    eventually("it is cut", async || server.ended("unread") == 1).await;
}
