//! The admin server: metrics and health over plain HTTP, for operators and orchestrators.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tracing::error;

use crate::kernel::Kernel;

/// Where operators look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// The address of `/metrics`, `/healthz` and `/readyz`.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)) }
    }
}

/// Serves until the process ends.
///
/// - `GET /metrics`: the metrics, in OpenMetrics' text form.
/// - `GET /healthz`: 200 while the process runs: restart it when this fails.
/// - `GET /readyz`: 200 if it can serve, else 503; a JSON object with the state of each check.
pub fn serve(kernel: &Kernel, listener: TcpListener) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(kernel.clone());
    let ended = kernel.tasks.shutdown().clone().cancelled_owned();
    kernel.tasks.spawn("admin server", async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(ended).await {
            error!(%error, "admin server failed");
        }
    });
}

async fn metrics(State(kernel): State<Kernel>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], kernel.metrics.encode())
}

async fn readyz(State(kernel): State<Kernel>) -> impl IntoResponse {
    let ready = kernel.readiness.is_ready() && !kernel.tasks.shutdown().is_cancelled();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(kernel.readiness.checks()))
}
