//! The client's side of a call to another service.

mod connect;
mod deadline;
mod outcome;
mod retry;
mod service_token;
mod trace;

use http::{Request, Response};
use souk_proto_common::Method;
use souk_runtime::Kernel;
use tonic::Status;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

pub use connect::ClientConfig;
pub use outcome::{Outcome, outcome};
pub use service_token::{IssuedToken, ServiceToken, TokenSource};

use crate::middleware::Around;

/// What the generated clients stand on: `StockServiceClient::new(channel)`.
pub type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// A channel to the service at the configured addresses, connected when it is first used. `methods` are the tables of the contracts
/// that it serves, `token` what we prove ourselves with.
pub fn connect(
    kernel: &Kernel,
    config: &ClientConfig,
    methods: &[&'static [Method]],
    token: Option<ServiceToken>,
) -> anyhow::Result<Channel> {
    let service = ServiceBuilder::new()
        // what is left of the caller's time, over all tries
        .layer(Around(deadline::Deadline::new(config)))
        // again, where that cannot do harm
        .layer(Around(retry::Retry::new(kernel, config, methods)))
        // who we are
        .layer(Around(service_token::Authenticate::new(token)))
        // the trace goes on
        .layer(Around(trace::Propagate::new(kernel)))
        .service(connect::channel(config)?.map_err(outcome::of_transport));
    Ok(BoxCloneSyncService::new(service))
}
