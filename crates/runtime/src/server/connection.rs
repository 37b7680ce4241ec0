//! One connection, from the socket to its end.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{Request, Response};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;
use tracing::debug;

use super::budget::Metered;
use super::calls::{self, Calls};
use super::config::ServerConfig;
use super::greeting::{Greeted, Version, greet};
use super::metrics::{Ended, Metrics, Refused};
use super::places::Places;
use super::tls::Tls;
use crate::ids::Ids;

/// What the connections of a server share.
pub(super) struct Shared<S> {
    pub(super) name: &'static str,
    pub(super) config: ServerConfig,
    pub(super) service: S,
    pub(super) tls: Option<Tls>,
    pub(super) ids: Ids,
    pub(super) metrics: Metrics,
    pub(super) peers: Arc<Places>,
    /// The server ends.
    pub(super) ending: CancellationToken,
}

/// One of the open connections, from its socket on.
pub(super) struct Counted(Gauge);

impl Counted {
    /// `None`, if there are `max` already.
    pub(super) fn new(open: &Gauge, max: usize) -> Option<Self> {
        let before = open.inc();
        let counted = Self(open.clone());
        (before < i64::try_from(max).unwrap_or(i64::MAX)).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Serves the connection to its end.
pub(super) async fn serve<S>(shared: Arc<Shared<S>>, socket: TcpStream, address: SocketAddr, counted: Counted)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    // Small answers leave at once. If the socket is gone already, reading says so.
    drop(socket.set_nodelay(true));
    let within = Duration::from_millis(shared.config.handshake_timeout_ms);
    let greeted = tokio::select! {
        greeted = timeout(within, greet(&shared.config, shared.tls.as_ref(), &shared.peers, socket, address)) => greeted,
        () = shared.ending.cancelled() => Ok(Err(Refused::Gone)),
    };
    match greeted.unwrap_or(Err(Refused::Timeout)) {
        Ok(greeted) => {
            let peer = greeted.peer.address;
            let ended = speak(&shared, greeted).await;
            debug!(service = shared.name, %peer, why = ended.as_str(), "connection ended");
            shared.metrics.ended(ended);
        }
        Err(refused) => {
            debug!(service = shared.name, peer = %address, why = refused.as_str(), "connection refused");
            shared.metrics.refused(refused);
        }
    }
    drop(counted);
}

/// HTTP, in the version that the peer speaks.
async fn speak<S>(shared: &Shared<S>, greeted: Greeted) -> Ended
where
    S: Service<Request<Body>, Response = Response<Body>, Error = std::convert::Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let Greeted { peer, version, stream, place: _place } = greeted;
    let config = &shared.config;
    let calls = Arc::new(Calls::new(peer, config, shared.metrics.unread.clone()));
    let service = calls::service(shared.service.clone(), calls.clone());
    match version {
        Version::Http1 => {
            let connection = http1_builder(config).serve_connection(TokioIo::new(stream), service);
            live(shared, &calls, connection).await
        }
        Version::Http2 => {
            let stream = Metered::of(stream, config.control_frames_per_second_max, calls.clone());
            let connection = http2_builder(config).serve_connection(TokioIo::new(stream), service);
            live(shared, &calls, connection).await
        }
    }
}

fn http1_builder(config: &ServerConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.header_read_timeout_ms))
        .max_header_size(config.header_bytes_max as usize)
        .max_buf_size(HTTP1_BUFFER_BYTES.max(config.header_bytes_max as usize));
    builder
}

/// What is read of a body in one go; headers must fit too.
const HTTP1_BUFFER_BYTES: usize = 64 * 1_024;

fn http2_builder(config: &ServerConfig) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.streams_per_connection_max)
        .max_header_list_size(config.header_bytes_max)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .max_send_buf_size(config.send_buffer_bytes_max)
        .max_pending_accept_reset_streams(config.pending_resets_max)
        .max_local_error_reset_streams(config.local_resets_max)
        .keep_alive_interval(Duration::from_millis(config.keepalive_interval_ms))
        .keep_alive_timeout(Duration::from_millis(config.keepalive_timeout_ms));
    builder
}

/// Drives the connection, says goodbye when it is time, and cuts it when it does not go.
async fn live<S, C>(shared: &Shared<S>, calls: &Calls, connection: C) -> Ended
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let why = tokio::select! {
        biased;
        result = connection.as_mut() => return by_itself(calls, result, Ended::Peer),
        why = aside(time_to_go(shared, calls)) => why,
    };
    if why == Ended::Unread {
        return why;
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        result = connection => by_itself(calls, result, why),
        cut = aside(time_is_up(shared, calls, why)) => cut,
    }
}

fn by_itself<E: std::fmt::Display>(calls: &Calls, result: Result<(), E>, why: Ended) -> Ended {
    match result {
        Ok(()) => why,
        Err(_) if calls.is_flooded() => Ended::Flood,
        Err(error) => {
            debug!(%error, "connection broke");
            Ended::Error
        }
    }
}

/// `future`, looked at only when it has been woken itself: the connection beside it is woken for every packet.
async fn aside<T>(future: impl Future<Output = T>) -> T {
    let mut alone: FuturesUnordered<_> = std::iter::once(future).collect();
    match alone.next().await {
        Some(output) => output,
        None => std::future::pending().await,
    }
}

/// When the connection should end, and why.
async fn time_to_go<S>(shared: &Shared<S>, calls: &Calls) -> Ended {
    let config = &shared.config;
    // Connections that came together, as after a restart, do not go together.
    let age = Duration::from_millis(config.connection_age_max_ms).mul_f64(0.9 + shared.ids.random_fraction() / 5.0);
    tokio::select! {
        () = shared.ending.cancelled() => Ended::Shutdown,
        () = calls.too_much_unread() => Ended::Unread,
        () = sleep(age) => Ended::Age,
        () = rest(calls, Duration::from_millis(config.connection_idle_max_ms)) => Ended::Idle,
    }
}

/// When a connection that has been told to go is cut.
async fn time_is_up<S>(shared: &Shared<S>, calls: &Calls, why: Ended) -> Ended {
    let config = &shared.config;
    let grace = async {
        match why {
            Ended::Shutdown => std::future::pending().await,
            _ => sleep(Duration::from_millis(config.connection_age_grace_ms)).await,
        }
    };
    let drain = async {
        shared.ending.cancelled().await;
        sleep(Duration::from_millis(config.drain_timeout_ms)).await;
    };
    tokio::select! {
        () = grace => Ended::Cut,
        () = drain => Ended::Cut,
        () = calls.too_much_unread() => Ended::Unread,
        // It waits for the answer to a PING, so that no call that is under way is lost; not for ever.
        () = rest(calls, Duration::from_millis(config.goodbye_timeout_ms)) => why,
    }
}

/// Until nothing has gone on for so long.
async fn rest(calls: &Calls, period: Duration) {
    let mut before = None;
    loop {
        let progress = calls.progress();
        if before == Some(progress) && calls.is_at_rest() {
            return;
        }
        before = calls.is_at_rest().then_some(progress);
        sleep(period).await;
    }
}
