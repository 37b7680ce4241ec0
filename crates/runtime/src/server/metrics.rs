//! What a server's connections are counted by.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::kernel::Kernel;

type By = Family<[(&'static str, &'static str); 2], Counter>;

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// `connections_max`.
    Total,
    /// `connections_per_peer_max`.
    Peer,
    /// It did not say what it wants within `handshake_timeout_ms`.
    Timeout,
    /// It had not said what it wants when it, or the server, went away.
    Gone,
    /// What it began with is no PROXY header.
    ProxyHeader,
    /// It speaks no TLS, has no good certificate, or finds that we have none.
    Tls,
}

impl Refused {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Peer => "peer",
            Self::Timeout => "timeout",
            Self::Gone => "gone",
            Self::ProxyHeader => "proxy_header",
            Self::Tls => "tls",
        }
    }
}

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The peer has closed it.
    Peer,
    /// It broke, or the peer broke the rules of HTTP.
    Error,
    /// `connection_age_max_ms`.
    Age,
    /// `connection_idle_max_ms`.
    Idle,
    /// The server ends.
    Shutdown,
    /// Its calls did not end within the time that they had.
    Cut,
    /// `control_frames_per_second_max`.
    Flood,
    /// `unread_bytes_max`.
    Unread,
}

impl Ended {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Error => "error",
            Self::Age => "age",
            Self::Idle => "idle",
            Self::Shutdown => "shutdown",
            Self::Cut => "cut",
            Self::Flood => "flood",
            Self::Unread => "unread",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    server: &'static str,
    pub(super) open: Gauge,
    pub(super) accepted: Counter,
    pub(super) accept_errors: Counter,
    /// Bytes of answers that wait until their clients read.
    pub(super) unread: Gauge,
    refused: By,
    ended: By,
}

impl Metrics {
    pub(super) fn new(kernel: &Kernel, server: &'static str) -> Self {
        let of = [("server", server)];
        let metrics = &kernel.metrics;
        let gauge = |name, help| metrics.register_labelled(name, help, &of);
        let counter = |name, help| metrics.register_labelled(name, help, &of);
        Self {
            server,
            open: gauge("grpc_server_connections", "Connections that are open"),
            accepted: counter("grpc_server_connections_accepted", "Connections that came in"),
            accept_errors: counter("grpc_server_accept_errors", "Connections that the system could not hand over"),
            unread: gauge("grpc_server_unread_bytes", "Bytes of answers that wait until their clients read them"),
            refused: metrics.register("grpc_server_connections_refused", "Connections that were not let in, by why"),
            ended: metrics.register("grpc_server_connections_ended", "Connections that have ended, by why"),
        }
    }

    pub(super) fn refused(&self, why: Refused) {
        self.refused.get_or_create(&[("server", self.server), ("reason", why.as_str())]).inc();
    }

    pub(super) fn ended(&self, why: Ended) {
        self.ended.get_or_create(&[("server", self.server), ("reason", why.as_str())]).inc();
    }
}
