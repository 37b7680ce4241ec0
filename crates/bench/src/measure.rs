//! One run of one scenario, from the first call to the verdict.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;

use crate::cost::{Meter, Used, used};
use crate::load::{self, Plan};
use crate::progress::Progress;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::stats::ratio;

/// What is read at the beginning and at the end of the window.
struct Edge {
    used: Option<Used>,
    finished: Option<f64>,
    read_at: Instant,
}

/// Runs the plan, and checks what is left of it. `meters` are the servers whose cost is read.
pub(crate) async fn measure<S: Scenario>(
    scenario: &Arc<S>,
    plan: &Plan,
    meters: &[Meter],
    progress: &Progress,
) -> anyhow::Result<Report> {
    let live = Arc::default();
    let following = progress.follow(&scenario.name(), plan, Arc::clone(&live));
    let edge = async || {
        let used = used(meters).await?;
        anyhow::Ok(Edge { used, finished: scenario.finished().await?, read_at: Instant::now() })
    };
    let ran = load::run(plan, scenario.clone(), live, edge).await?;
    drop(following);
    progress.phase("waiting for what the calls have begun, and checking it", 0);
    let verdict = scenario.check().await.context("the result cannot be checked")?;
    let [before, after] = ran.edges;
    let measured = ran.measured;
    let mut violations = measured.violations();
    violations.extend(verdict.violations);
    let finished = before.finished.zip(after.finished);
    let seconds = (after.read_at - before.read_at).as_secs_f64();
    Ok(Report {
        scenario: scenario.name(),
        pace: plan.pace,
        window_seconds: measured.window.as_secs_f64(),
        answered: measured.answered,
        per_second: measured.per_second(),
        finished_per_second: finished.and_then(|(first, last)| ratio(last - first, seconds)),
        latency: measured.latencies.summary(),
        cost: before.used.zip(after.used).map(|(before, after)| after.since(&before, measured.answered)),
        failures: measured.failures,
        settled_seconds: verdict.settled_seconds,
        news: verdict.news,
        violations,
    })
}
