//! One address of a peer: its connection, and what goes on there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use super::config::ClientConfig;
use super::dial::Dial;
use super::target::Target;
use super::tls::Tls;

/// An address with a channel of its own, connected when it is first used.
pub(super) struct Address {
    /// Its place in the pool; a renewed one keeps it.
    pub(super) id: u64,
    pub(super) socket: SocketAddr,
    pub(super) channel: Channel,
    /// Calls that have not ended, streams included.
    pub(super) in_flight: AtomicUsize,
    /// Calls in a row that have failed here.
    failures: AtomicU32,
    open: watch::Sender<usize>,
}

impl Address {
    /// One more call has ended here; how many in a row had failed before, and have now.
    pub(super) fn ended(&self, has_failed: bool) -> (u32, u32) {
        if has_failed {
            let before = self.failures.fetch_add(1, Ordering::Relaxed);
            return (before, before.saturating_add(1));
        }
        let before = self.failures.load(Ordering::Relaxed);
        // Written only where it changes: every call comes here.
        if before != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        (before, 0)
    }

    /// Waits until no connection is open.
    pub(super) async fn disconnected(&self) {
        // We hold a sender, so that it cannot close.
        drop(self.open.subscribe().wait_for(|open| *open == 0).await);
    }
}

/// Makes the addresses of one peer.
pub(super) struct Maker {
    connect_timeout: Duration,
    keepalive_interval: Duration,
    keepalive_timeout: Duration,
    tls: Option<Arc<Tls>>,
}

impl Maker {
    pub(super) fn new(config: &ClientConfig, tls: Option<Arc<Tls>>) -> Self {
        Self {
            connect_timeout: Duration::from_millis(config.connect_timeout_ms),
            keepalive_interval: Duration::from_millis(config.keepalive_interval_ms),
            keepalive_timeout: Duration::from_millis(config.keepalive_timeout_ms),
            tls,
        }
    }

    /// Whether the name of `target` can be one of a server.
    pub(super) fn check(&self, target: &Target) -> anyhow::Result<()> {
        self.tls_to(target).map(drop)
    }

    fn tls_to(&self, target: &Target) -> anyhow::Result<Option<(Arc<Tls>, ServerName<'static>)>> {
        match &self.tls {
            Some(tls) if target.is_secure => Ok(Some((tls.clone(), tls.server_name(target)?))),
            _ => Ok(None),
        }
    }

    /// `target` has been checked.
    pub(super) fn make(&self, id: u64, socket: SocketAddr, target: &Target) -> Address {
        let open = watch::Sender::new(0);
        let tls = self.tls_to(target).expect("all targets were checked");
        let dial = Dial { address: socket, tls, within: self.connect_timeout, open: open.clone() };
        // TLS is ours, so tonic is not to know of it: it would want to do it itself.
        let endpoint = Endpoint::from_static("http://peer")
            .origin(target.origin.clone())
            .http2_keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout)
            // Without pings on an idle connection a partition is noticed by nobody.
            .keep_alive_while_idle(true);
        Address {
            id,
            socket,
            channel: endpoint.connect_with_connector_lazy(dial),
            in_flight: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            open,
        }
    }
}
