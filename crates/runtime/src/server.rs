//! The gRPC server: HTTP/2 with bounds on everything a peer can make grow, gRPC-Web for browsers, and an orderly end.

mod connection;
mod standard;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::Server;
use tonic_web::GrpcWebLayer;
use tower::{Service, ServiceBuilder};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::{error, warn};

use self::connection::Connection;
pub use self::standard::{About, with_health_and_reflection};
use crate::config::check_bounds;
use crate::kernel::Kernel;

/// How a service listens, and what a peer may take of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The address of the service's gRPC.
    pub listen: SocketAddr,
    /// Streams (calls) that one connection may have open at a time.
    pub streams_per_connection_max: u32,
    /// Bytes of one stream that a peer may send before they are read.
    pub stream_window_bytes: u32,
    /// Bytes of all streams of a connection that a peer may send before they are read. Half of it bounds what small frames cost beyond their
    /// bytes (about 1 KiB each until they are read): too small, and a client that streams small messages fast is cut off.
    pub connection_window_bytes: u32,
    /// Bytes of headers that one request may have.
    pub header_bytes_max: u32,
    /// Streams that a peer may open and reset before they are accepted; more end the connection.
    pub pending_resets_max: usize,
    /// A connection without traffic is asked for a sign of life after so many milliseconds.
    pub keepalive_interval_ms: u64,
    /// And closed if none comes within so many.
    pub keepalive_timeout_ms: u64,
    /// Origins whose pages may call by gRPC-Web, as `https://shop.example`; `*`: all.
    pub allowed_origins: Vec<String>,
    /// At the end, calls in flight have so many milliseconds to finish.
    pub drain_timeout_ms: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            streams_per_connection_max: 1_024,
            stream_window_bytes: 65_535,
            connection_window_bytes: 16 * 1_024 * 1_024,
            header_bytes_max: 8 * 1_024,
            pending_resets_max: 64,
            keepalive_interval_ms: 30_000,
            keepalive_timeout_ms: 10_000,
            allowed_origins: Vec::new(),
            drain_timeout_ms: 10_000,
        }
    }
}

impl ServerConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        let positive = [
            ("streams_per_connection_max", self.streams_per_connection_max.into()),
            ("stream_window_bytes", self.stream_window_bytes.into()),
            ("connection_window_bytes", self.connection_window_bytes.into()),
            ("header_bytes_max", self.header_bytes_max.into()),
            ("pending_resets_max", self.pending_resets_max as u64),
            ("keepalive_interval_ms", self.keepalive_interval_ms),
            ("keepalive_timeout_ms", self.keepalive_timeout_ms),
        ];
        check_bounds(problems, at, 1..=i32::MAX as u64, &positive);
        check_bounds(problems, at, 0..=DRAIN_TIMEOUT_MS_MAX, &[("drain_timeout_ms", self.drain_timeout_ms)]);
        if let Err(error) = cors(&self.allowed_origins) {
            problems.push(format!("{at}.allowed_origins: {error}"));
        }
    }

    /// The defaults, listening on this port of the loopback.
    pub fn on_port(port: u16) -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], port)), ..Self::default() }
    }
}

/// An orchestrator that waits longer than an hour has been forgotten.
pub(crate) const DRAIN_TIMEOUT_MS_MAX: u64 = 3_600_000;

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
