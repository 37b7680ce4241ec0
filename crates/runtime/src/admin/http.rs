//! HTTP/1 with bounds: whoever is slow or many costs the admin server nothing but their own places.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::AdminConfig;

/// After the system had no socket for us, it is asked again so much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(listener: TcpListener, router: Router, config: AdminConfig) {
    let places = Arc::new(Semaphore::new(config.connections_max));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, _)) => {
                let connection = connection(socket, router.clone(), config.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "the admin server cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(socket: TcpStream, router: Router, config: AdminConfig) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.header_timeout_ms))
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    let age_max = Duration::from_millis(config.connection_age_max_ms);
    match tokio::time::timeout(age_max, serving).await {
        Ok(Ok(())) => {}
        // Whoever has gone away, or was too slow, has learnt it already.
        Ok(Err(error)) => debug!(%error, "an admin connection failed"),
        Err(_) => debug!("an admin connection was too old"),
    }
}
