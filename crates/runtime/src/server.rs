//! The gRPC server: HTTP/2 with bounds on everything a peer can make grow, gRPC-Web for browsers, and an orderly end.
//!
//! A connection is accepted (`accept`), says what it speaks (`greeting`), is served by hyper and driven to its end (`connection`). Beside
//! what hyper and h2 bound, `budget` counts what a peer says that serves no call, and `calls` what it is sent and does not read.

mod accept;
mod budget;
mod calls;
mod config;
mod connection;
mod greeting;
mod healthcheck;
mod metrics;
mod peer;
mod places;
mod replay;
mod standard;
mod through;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Service, ServiceBuilder};
use tower_http::cors::{AllowOrigin, CorsLayer};

pub(crate) use self::config::DRAIN_TIMEOUT_MS_MAX;
pub use self::config::{ClientCertificate, ProxyProtocol, ServerConfig, ServerTls};
use self::connection::Shared;
pub use self::healthcheck::healthcheck;
use self::metrics::Metrics;
pub use self::peer::Peer;
pub use self::places::{Place, Places, network};
pub use self::standard::{About, with_health_and_reflection};
use self::tls::Tls;
use crate::kernel::Kernel;

/// Listens on the configured address. Port 0 is any free one: ask the listener which.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves `service` (the routes under their interceptors) until the process ends, then drains: no new connections, calls in flight finish
/// within `drain_timeout_ms`, then what is left is cut.
pub fn serve<S>(
    kernel: &Kernel,
    name: &'static str,
    listener: TcpListener,
    config: &ServerConfig,
    service: S,
) -> anyhow::Result<()>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let service =
        ServiceBuilder::new().layer(cors(&config.allowed_origins)?).layer(GrpcWebLayer::new()).service(service);
    let shared = Shared {
        name,
        config: config.clone(),
        service,
        tls: Tls::new(kernel, name, &config.tls)?,
        ids: kernel.ids.clone(),
        metrics: Metrics::new(kernel, name),
        peers: Places::new(config.connections_per_peer_max),
        ending: kernel.tasks.shutdown().clone(),
    };
    kernel.tasks.spawn("grpc server", accept::run(Arc::new(shared), listener));
    Ok(())
}

fn cors(origins: &[String]) -> anyhow::Result<CorsLayer> {
    let origins = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let parsed: Result<Vec<HeaderValue>, _> = origins.iter().map(|origin| origin.parse()).collect();
        AllowOrigin::list(parsed.context("an origin is no header value")?)
    };
    let exposed = ["grpc-status", "grpc-message", "grpc-status-details-bin", "souk-idempotent-replay", "souk-outcome"];
    Ok(CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("x-grpc-web"),
            HeaderName::from_static("x-user-agent"),
            HeaderName::from_static("grpc-timeout"),
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers(exposed.map(HeaderName::from_static)))
}
