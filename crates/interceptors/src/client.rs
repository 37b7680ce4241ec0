//! The client's side of a call to another service.

mod address;
mod balance;
mod config;
mod deadline;
mod dial;
mod gauges;
mod health;
mod outcome;
mod pool;
mod resolve;
mod retry;
mod service_token;
mod target;
mod tls;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{Request, Response};
use souk_proto_common::Method;
use souk_runtime::Kernel;
use tonic::Status;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, service_fn};

pub use config::{ClientConfig, ClientTls};
pub use outcome::{Outcome, outcome};
pub use resolve::Lookup;
pub use service_token::{IssuedToken, ServiceToken, TokenSource};

use self::address::Maker;
use self::balance::Balance;
use self::pool::Pool;
use self::target::Target;
use self::tls::Tls;
use crate::middleware::{Around, Innermost, Whole};

/// What the generated clients stand on: `StockServiceClient::new(channel)`.
pub type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// A channel to the service at the configured addresses, which begins to connect at once. `peer` is what metrics, logs and callers know it
/// by, `methods` are the tables of the contracts that it serves, `token` what we prove ourselves with; without one, a call's own
/// `authorization` is sent as it is. Must be called on a runtime: addresses are watched in tasks of their own, which end with the channel.
pub fn connect(
    kernel: &Kernel,
    peer: &'static str,
    config: &ClientConfig,
    methods: &[&'static [Method]],
    token: Option<ServiceToken>,
) -> anyhow::Result<Channel> {
    connect_with(kernel, peer, config, methods, token, resolve::system())
}

/// The same, with names looked up so.
pub fn connect_with(
    kernel: &Kernel,
    peer: &'static str,
    config: &ClientConfig,
    methods: &[&'static [Method]],
    token: Option<ServiceToken>,
    lookup: Lookup,
) -> anyhow::Result<Channel> {
    let pool = start(kernel, peer, config, lookup).with_context(|| format!("the client of the {peer} service"))?;
    let retries = pool.gauges.retries.clone();
    let balance = Balance::new(pool);
    let stack = ServiceBuilder::new()
        // what is left of the caller's time, over all tries
        .layer(Around(deadline::Deadline::new(config)))
        // again, where that cannot do harm
        .layer(Around(retry::Retry::new(kernel, config, methods, retries)))
        // who we are
        .layer(Around(service_token::Authenticate::new(token)))
        // the trace goes on
        .layer(Around(trace::Propagate::new(kernel, methods)))
        // one of those addresses that answer
        .service(Innermost(service_fn(move |request| balance.clone().call(request))));
    Ok(BoxCloneSyncService::new(Whole::new(stack, std::convert::identity)))
}

/// The addresses of the peer, kept as its names, its servers and our files say.
fn start(kernel: &Kernel, peer: &'static str, config: &ClientConfig, lookup: Lookup) -> anyhow::Result<Arc<Pool>> {
    anyhow::ensure!(!config.addresses.is_empty(), "there is no address");
    let targets: Result<Vec<_>, _> = config.addresses.iter().map(|text| Target::parse(text).map(Arc::new)).collect();
    let targets = targets.map_err(anyhow::Error::msg)?;
    let is_secure = targets.iter().any(|target| target.is_secure);
    let tls = if is_secure { Some(Arc::new(Tls::load(kernel, peer, &config.tls)?)) } else { None };
    let maker = Maker::new(config, tls);
    for target in &targets {
        maker.check(target)?;
    }
    let pool = Arc::new(Pool::new(kernel, peer, config, maker));
    let interval = Duration::from_millis(config.resolve_interval_ms);
    let resolving = resolve::keep_resolved(pool.clone(), targets, lookup, interval);
    tokio::spawn(pool.closed.clone().run_until_cancelled_owned(resolving));
    Ok(pool)
}
