//! The admin server: metrics and health over plain HTTP, for operators and orchestrators. It answers from before the start to the very end.

mod debug;
mod http;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ::http::{StatusCode, header};
use axum::extract::State as Of;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tracing::warn;

use crate::config::{MS_MAX, check_bounds};
use crate::kernel::Kernel;
use crate::readiness::{Dependency, State};

/// Where operators look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// The address of `/metrics`, `/healthz` and `/readyz`. Whoever reaches it can read them.
    pub listen: SocketAddr,
    /// Also `/debug/profile` and `/debug/tasks`, which cost time and tell more than others should know.
    pub debug: bool,
    /// Connections at a time; more wait.
    pub connections_max: usize,
    /// A request's head comes within so many milliseconds, or the connection is closed; also when it is idle.
    pub header_timeout_ms: u64,
    /// A connection is closed after so many milliseconds, whatever it is at.
    pub connection_age_max_ms: u64,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            debug: false,
            connections_max: 64,
            header_timeout_ms: 5_000,
            connection_age_max_ms: 300_000,
        }
    }
}

impl AdminConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        check_bounds(problems, at, 1..=CONNECTIONS_MAX, &[("connections_max", self.connections_max as u64)]);
        let times =
            [("header_timeout_ms", self.header_timeout_ms), ("connection_age_max_ms", self.connection_age_max_ms)];
        check_bounds(problems, at, 1..=MS_MAX, &times);
    }
}

/// Operators are few.
const CONNECTIONS_MAX: u64 = 10_000;

/// Serves as long as the runtime runs: who drains must be seen to.
///
/// - `GET /metrics`: the metrics, in OpenMetrics' text form.
/// - `GET /healthz`: 200 while the process runs: restart it when this fails.
/// - `GET /readyz`: 200 if it can serve, else 503; a JSON object with the state of everything that it depends on.
///
/// And if `config.debug`:
///
/// - `GET /debug/profile?seconds=10`: what the CPU is spent on, as a flame graph in SVG. One at a time; 409 if there is one.
/// - `GET /debug/tasks`: the background tasks and the calls in flight, as JSON.
pub fn serve(kernel: &Kernel, listener: TcpListener, config: &AdminConfig) {
    let mut router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz));
    if config.debug {
        if !config.listen.ip().is_loopback() {
            warn!(address = %config.listen, "everybody who reaches the admin server can profile this process");
        }
        kernel.calls.keep();
        router = router.merge(debug::routes());
    }
    tokio::spawn(http::serve(listener, router.with_state(kernel.clone()), config.clone()));
}

async fn metrics(Of(kernel): Of<Kernel>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], kernel.metrics.encode())
}

async fn readyz(Of(kernel): Of<Kernel>) -> impl IntoResponse {
    let ending = kernel.tasks.shutdown().is_cancelled();
    let state = if ending { State::NotReady } else { kernel.readiness.state() };
    let status = if state == State::NotReady { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, Json(Readyz { state, ending, dependencies: kernel.readiness.dependencies() }))
}

/// What `/readyz` answers.
#[derive(Serialize)]
struct Readyz {
    state: State,
    /// The process is about to end.
    ending: bool,
    dependencies: BTreeMap<String, Dependency>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_named() {
        type Change = fn(&mut AdminConfig);
        let problems = |change: Change| {
            let (mut config, mut problems) = (AdminConfig::default(), Vec::new());
            change(&mut config);
            config.validate("admin", &mut problems);
            problems
        };
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        let bad: [(&str, Change); 6] = [
            ("admin.connections_max must be 1 to 10000", |config| config.connections_max = 0),
            ("admin.connections_max must be 1 to 10000", |config| config.connections_max = 10_001),
            ("admin.header_timeout_ms must be 1 to 31536000000", |config| config.header_timeout_ms = 0),
            ("admin.header_timeout_ms must be 1 to 31536000000", |config| config.header_timeout_ms = MS_MAX + 1),
            ("admin.connection_age_max_ms must be 1 to 31536000000", |config| config.connection_age_max_ms = 0),
            ("admin.connection_age_max_ms must be 1 to 31536000000", |config| config.connection_age_max_ms = u64::MAX),
        ];
        for (problem, change) in bad {
            assert_eq!(problems(change), [problem]);
        }
    }
}
