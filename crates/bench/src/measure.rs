//! One run of one scenario, from the first call to the verdict.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::cost::{Meter, Used, used};
use crate::load::{self, Plan};
use crate::progress::Progress;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::stats::ratio;

/// What is read at the beginning and at the end of the window. Where it could not be, it is not known, and the run goes on.
struct Edge {
    used: Option<Used>,
    finished: Option<f64>,
    read_at: Instant,
    remarks: Vec<String>,
}

/// An edge that was read later than this is one that somebody should know of.
const LATE: Duration = Duration::from_millis(200);

impl Edge {
    async fn read<S: Scenario>(scenario: &S, meters: &[Meter], planned: Instant) -> Self {
        let mut remarks = Vec::new();
        let mut unknown = |error: anyhow::Error| remarks.push(format!("not known at an edge of the window: {error:#}"));
        let finished = scenario.finished().await.map_err(&mut unknown).ok().flatten();
        let read_at = Instant::now();
        let used = used(meters).await.map_err(unknown).ok().flatten();
        let late = planned.elapsed();
        if late > LATE {
            remarks.push(format!("an edge of the window was read {:.1} s late", late.as_secs_f64()));
        }
        Self { used, finished, read_at, remarks }
    }
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
    let edge = async |planned| Edge::read(scenario.as_ref(), meters, planned).await;
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
        sent_late: measured.sent_late.summary(),
        window_seconds: measured.window.as_secs_f64(),
        answered: measured.answered,
        per_second: measured.per_second(),
        finished_per_second: finished.and_then(|(first, last)| ratio(last - first, seconds)),
        latency: measured.latencies.summary(),
        cost: before.used.zip(after.used).map(|(before, after)| after.since(&before, measured.answered)),
        failures: measured.failures,
        settled_seconds: verdict.settled_seconds,
        published_seconds: None,
        kinds: verdict.kinds,
        news: verdict.news,
        remarks: [before.remarks, after.remarks].concat(),
        violations,
    })
}
