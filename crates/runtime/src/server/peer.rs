//! Who is at the other end of a connection.

use std::net::SocketAddr;

/// The other end of the connection that a request came by; an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; behind a load balancer that speaks the PROXY protocol, that of the balancer's client.
    pub address: SocketAddr,
}
