//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

/// The other end of the connection that a request came by; an extension of every request. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; behind a load balancer that speaks the PROXY protocol, that of the balancer's client.
    pub address: SocketAddr,
    /// The DNS names and URIs of the certificate that it has shown and that was found good; none without one.
    pub certificate_names: Arc<[String]>,
}
