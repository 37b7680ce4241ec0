//! How many connections there may be.

use souk_runtime::server::ServerConfig;
use tokio::net::TcpStream;

use crate::harness::{Server, eventually, is_well, rude};

#[tokio::test]
async fn more_connections_than_may_be_are_closed_and_the_others_stay() {
    let server = Server::start(ServerConfig { connections_max: 2, ..ServerConfig::default() }).await;
    let mut client = server.client();
    is_well(&mut client).await;
    let second = rude::greeted(server.address).await;
    for refused in 1..=5 {
        rude::is_closed(TcpStream::connect(server.address).await.unwrap()).await;
        assert_eq!(server.refused("total"), refused);
    }
    is_well(&mut client).await;
    drop(second);
    eventually("there is a place again", async || server.count("grpc_server_connections{server=\"test\"}") == 1).await;
    is_well(&mut server.client()).await;
}

#[tokio::test]
async fn more_connections_of_one_peer_than_may_be_are_closed() {
    let server = Server::start(ServerConfig { connections_per_peer_max: 2, ..ServerConfig::default() }).await;
    let mut client = server.client();
    is_well(&mut client).await;
    let second = rude::greeted(server.address).await;
    rude::is_closed(TcpStream::connect(server.address).await.unwrap()).await;
    assert_eq!(server.refused("peer"), 1);
    is_well(&mut client).await;
    drop(second);
    eventually("there is a place again", async || server.count("grpc_server_connections{server=\"test\"}") == 1).await;
    is_well(&mut server.client()).await;
}
