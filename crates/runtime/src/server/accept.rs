//! The loop that takes connections in.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::Service;
use tracing::warn;

use super::connection::{self, Counted, Shared};
use super::metrics::Refused;

/// Accepts until the server ends; then waits for what is open.
pub(super) async fn run<S>(shared: Arc<Shared<S>>, listener: TcpListener)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let connections = TaskTracker::new();
    tokio::select! {
        () = shared.ending.cancelled() => {}
        never = accept(&shared, &listener, &connections) => match never {},
    }
    drop(listener);
    connections.close();
    let drain_timeout = Duration::from_millis(shared.config.drain_timeout_ms);
    if tokio::time::timeout(drain_timeout, connections.wait()).await.is_err() {
        warn!(service = shared.name, connections = connections.len(), "calls in flight are cut");
        connections.wait().await;
    }
}

async fn accept<S>(shared: &Arc<Shared<S>>, listener: &TcpListener, connections: &TaskTracker) -> Infallible
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let mut pause = PAUSE_MIN;
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                pause = PAUSE_MIN;
                shared.metrics.accepted.inc();
                match Counted::new(&shared.metrics.open, shared.config.connections_max) {
                    Some(counted) => {
                        connections.spawn(connection::serve(shared.clone(), socket, address, counted));
                    }
                    None => shared.metrics.refused(Refused::Total),
                }
            }
            Err(error) => {
                shared.metrics.accept_errors.inc();
                if !is_of_one_connection(&error) {
                    // Out of files or memory. It does not pass by asking again at once, and the connection stays in the queue.
                    warn!(service = shared.name, %error, "cannot accept connections");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The connection that was next is gone; the one after it may be well.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
