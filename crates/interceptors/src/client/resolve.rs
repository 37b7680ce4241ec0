//! From names to addresses, again and again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::pool::Pool;
use super::target::Target;

/// Looks up the addresses of a host and a port.
pub type Lookup = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// However often connections fail, a name is not looked up again sooner.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// A resolver that takes longer has not answered.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of a longer answer, only so many addresses are used.
const ADDRESSES_MAX: usize = 256;

/// As the system does it.
pub(super) fn system() -> Lookup {
    Arc::new(|host, port| async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }.boxed())
}

/// A configured address, and the socket addresses that it was last known to stand for.
struct Name {
    target: Arc<Target>,
    known: Vec<SocketAddr>,
    is_failing: bool,
}

/// Keeps the pool's addresses as the answers are. Ends at once where there is nothing to look up.
pub(super) async fn keep_resolved(pool: Arc<Pool>, targets: Vec<Arc<Target>>, lookup: Lookup, interval: Duration) {
    let mut names: Vec<Name> =
        targets.into_iter().map(|target| Name { target, known: Vec::new(), is_failing: false }).collect();
    loop {
        join_all(names.iter_mut().map(|name| name.look_up(&pool, &lookup))).await;
        let mut addresses: Vec<(SocketAddr, Arc<Target>)> = Vec::new();
        for (name, address) in names.iter().flat_map(|name| name.known.iter().map(move |address| (name, address))) {
            // Two names of one address are one address.
            if !addresses.iter().any(|(known, _)| known == address) && addresses.len() < ADDRESSES_MAX {
                addresses.push((*address, name.target.clone()));
            }
        }
        pool.set_addresses(&addresses);
        if names.iter().all(|name| name.target.literal().is_some()) {
            return;
        }
        let earliest = Instant::now() + PAUSE_MIN;
        let pause =
            if addresses.is_empty() { PAUSE_MIN } else { interval.mul_f64(0.75 + pool.random_fraction() / 2.0) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = pool.resolve_now.notified() => tokio::time::sleep_until(earliest).await,
        }
    }
}

impl Name {
    /// An answer that fails or is empty changes nothing: the resolver may be down, and the peer is not.
    async fn look_up(&mut self, pool: &Pool, lookup: &Lookup) {
        let Target { host, port, .. } = &*self.target;
        if let Some(address) = self.target.literal() {
            self.known = vec![address];
            return;
        }
        let why = match timeout(PATIENCE, lookup(host.clone(), *port)).await {
            Ok(Ok(mut addresses)) if !addresses.is_empty() => {
                addresses.sort_unstable();
                addresses.dedup();
                if addresses != self.known {
                    info!(peer = pool.peer, host, ?addresses, "a name has other addresses");
                }
                (self.known, self.is_failing) = (addresses, false);
                return;
            }
            Ok(Ok(_)) => "it has no address".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the resolver does not answer".to_owned(),
        };
        pool.gauges.resolve_failures.inc();
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(peer = pool.peer, host, why, known = self.known.len(), "a name cannot be looked up");
        }
    }
}
