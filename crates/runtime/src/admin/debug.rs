//! What a developer asks of a process that misbehaves.

use std::sync::Arc;
use std::time::Duration;

use ::http::{StatusCode, Uri, header};
use anyhow::Context;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use pprof::ProfilerGuardBuilder;
use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::calls::InFlight;
use crate::kernel::Kernel;
use crate::story::story;
use crate::tasks::Running;

/// A signal so many times in a second of CPU time. Not 100: it would beat with whatever happens a hundred times a second.
const FREQUENCY_HZ: i32 = 99;
/// Nobody waits longer.
const SECONDS_MAX: u64 = 60;
const SECONDS: u64 = 10;

pub(super) fn routes() -> Router<Kernel> {
    let one = Arc::new(Semaphore::new(1));
    Router::new()
        .route("/debug/profile", get(move |asked| profile(asked, one.clone())))
        .route("/debug/tasks", get(tasks))
}

/// What `/debug/tasks` answers.
#[derive(Serialize)]
struct Dump {
    /// The background tasks that run.
    tasks: Vec<Running>,
    /// The calls that are being served, oldest first.
    calls: Vec<InFlight>,
}

async fn tasks(State(kernel): State<Kernel>) -> impl IntoResponse {
    Json(Dump { tasks: kernel.tasks.running(), calls: kernel.calls.in_flight() })
}

async fn profile(asked: Uri, one: Arc<Semaphore>) -> Response {
    let seconds = asked.query().map_or(Some(SECONDS), |query| query.strip_prefix("seconds=")?.parse().ok());
    let Some(seconds) = seconds.filter(|seconds| (1..=SECONDS_MAX).contains(seconds)) else {
        return (StatusCode::BAD_REQUEST, format!("seconds must be 1 to {SECONDS_MAX}\n")).into_response();
    };
    let Ok(_one) = one.try_acquire() else {
        return (StatusCode::CONFLICT, "there is a profile being taken already\n").into_response();
    };
    info!(seconds, "profile begins");
    match flame_graph(Duration::from_secs(seconds)).await {
        Ok(svg) => ([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response(),
        Err(error) => {
            warn!(error = story(&*error), "no profile could be taken");
            (StatusCode::INTERNAL_SERVER_ERROR, "no profile could be taken: the log says why\n").into_response()
        }
    }
}

async fn flame_graph(duration: Duration) -> anyhow::Result<Vec<u8>> {
    // Unwinding from a signal that came inside of these may wait for a lock that the interrupted code holds.
    let without = ["libc", "libgcc", "pthread", "vdso"];
    let profiler = ProfilerGuardBuilder::default().frequency(FREQUENCY_HZ).blocklist(&without).build()?;
    tokio::time::sleep(duration).await;
    let drawing = tokio::task::spawn_blocking(move || {
        let report = profiler.report().build()?;
        let mut svg = Vec::new();
        report.flamegraph(&mut svg)?;
        anyhow::Ok(svg)
    });
    drawing.await.context("the drawing panicked")?
}
