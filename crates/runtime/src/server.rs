//! The gRPC server: HTTP/2 with bounds on everything a peer can make grow, gRPC-Web for browsers, and an orderly end.

mod config;
mod connection;
mod healthcheck;
mod peer;
mod standard;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::Server;
use tonic::transport::server::TcpConnectInfo;
use tonic_web::GrpcWebLayer;
use tower::{Service, ServiceBuilder};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::{error, warn};

pub(crate) use self::config::DRAIN_TIMEOUT_MS_MAX;
pub use self::config::{ClientCertificate, ServerConfig, ServerTls};
use self::connection::Connection;
pub use self::healthcheck::healthcheck;
pub use self::peer::Peer;
pub use self::standard::{About, with_health_and_reflection};
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
    let service = ServiceBuilder::new()
        .map_request(with_peer)
        .layer(cors(&config.allowed_origins)?)
        .layer(GrpcWebLayer::new())
        .service(service);
    let server = Server::builder()
        .accept_http1(true) // gRPC-Web; a plain HTTP/1 request is answered 400
        .max_concurrent_streams(config.streams_per_connection_max)
        .http2_max_header_list_size(config.header_bytes_max)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .http2_max_pending_accept_reset_streams(Some(config.pending_resets_max))
        .http2_keepalive_interval(Some(Duration::from_millis(config.keepalive_interval_ms)))
        .http2_keepalive_timeout(Some(Duration::from_millis(config.keepalive_timeout_ms)));
    let ending = kernel.tasks.shutdown().clone();
    let cut = CancellationToken::new();
    let cutting = cut.clone();
    let incoming =
        TcpListenerStream::new(listener).map(move |socket| socket.and_then(|socket| Connection::new(socket, &cutting)));
    let serving = server.serve_with_incoming_shutdown(service, incoming, ending.clone().cancelled_owned());
    let drain_timeout = Duration::from_millis(config.drain_timeout_ms);
    kernel.tasks.spawn("grpc server", async move {
        let cut_late = async {
            ending.cancelled().await;
            tokio::time::sleep(drain_timeout).await;
            warn!(service = name, "calls in flight are cut");
            cut.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = serving => if let Err(error) = result {
                error!(service = name, %error, "grpc server failed");
            },
            () = cut_late => {}
        }
    });
    Ok(())
}

fn with_peer(mut request: Request<Body>) -> Request<Body> {
    let address = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    if let Some(address) = address {
        request.extensions_mut().insert(Peer::at(address));
    }
    request
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
