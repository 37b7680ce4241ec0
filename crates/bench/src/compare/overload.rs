//! Goal 7: orders at half of what can be served, and at ten times as much. A server that works on what nobody waits for any more serves less
//! the more is asked of it; one that refuses in time does not.

use std::sync::Arc;
use std::time::Duration;

use super::goal::{Bound, Goal};
use super::place::finished;
use super::{Bench, Pairs, Side};
use crate::load::{self, Pace, Plan};
use crate::market::Market;
use crate::report::{Report, show};
use crate::rig::{Form, Rig};
use crate::scenario::PlaceOrder;
use crate::stats::{Summary, ratio, ratio_of};

/// Of the capacity.
const OFFERED: [f64; 6] = [0.5, 0.8, 1.0, 2.0, 5.0, 10.0];
const CALM: f64 = 0.5;
const BUSY: f64 = 0.8;
const MOST: f64 = 10.0;
/// By then all must be as before.
const RECOVERED_AFTER: Duration = Duration::from_secs(5);
/// For so long it is looked whether it is.
const LOOK: Duration = Duration::from_secs(3);
/// As before means: no more than so many times what it was.
const AS_BEFORE: f64 = 2.0;

pub(super) async fn compare(bench: &Bench<'_>) -> anyhow::Result<(Vec<Pairs>, Vec<Goal>)> {
    let shape = &bench.args.shape;
    let rig = bench.rig(Form::Postgres).await?;
    let market = Market::prepare(&rig.souk, shape.size(), &bench.progress).await?;
    let orders = bench.orders(&rig, market, shape.spread);
    let side = Side { scenario: &orders, meters: &rig.meters };
    let capacity = bench.ours(&rig, &side, &bench.args.load.closed()).await?;
    let mut sweep = Vec::with_capacity(OFFERED.len());
    for times in OFFERED {
        let pace = Pace::PerSecond((capacity.per_second * times).max(1.0));
        sweep.push(bench.ours(&rig, &side, &bench.args.load.plan(pace)).await?);
    }
    let (after, failed) = recover(bench, &orders, capacity.per_second).await?;
    let after_all = check(bench, &rig, &side).await?;
    rig.stop().await?;
    let goals = goals(&sweep, &after, failed);
    show(&format!("after {MOST} x for {:.0} s: {failed} failed", bench.args.load.seconds))?;
    let baseline = vec![capacity];
    Ok((vec![Pairs { ours: sweep, baseline }, Pairs { ours: vec![after_all], baseline: Vec::new() }], goals))
}

/// Ten times as much as can be served, and from its end on half: what is that like, five seconds later? Nothing is waited for in between.
async fn recover(bench: &Bench<'_>, orders: &Arc<PlaceOrder>, capacity: f64) -> anyhow::Result<(Summary, u64)> {
    let storm = bench.args.load.plan(Pace::PerSecond(capacity * MOST));
    let calm = Plan { pace: Pace::PerSecond(capacity * CALM), warm_up: RECOVERED_AFTER, window: LOOK };
    bench.progress.phase("a storm, and what follows", 0);
    let nothing = async |_: std::time::Instant| ();
    let (stormed, calmed) = tokio::join!(load::run(&storm, orders.clone(), Arc::default(), nothing), async {
        tokio::time::sleep(storm.warm_up + storm.window).await;
        load::run(&calm, orders.clone(), Arc::default(), nothing).await
    });
    stormed?;
    let measured = calmed?.measured;
    anyhow::ensure!(measured.violations().is_empty(), "after the storm: {}", measured.violations().join(", "));
    let summary = measured.latencies.summary().unwrap_or_default();
    Ok((summary, measured.failures.iter().map(|failure| failure.count).sum()))
}

/// What the storm has left is checked as after any run: by a short one.
async fn check(bench: &Bench<'_>, rig: &Rig, side: &Side<'_, PlaceOrder>) -> anyhow::Result<Report> {
    let plan = Plan { pace: Pace::InFlight(1), warm_up: Duration::ZERO, window: Duration::from_secs(1) };
    bench.ours(rig, side, &plan).await
}

fn goals(sweep: &[Report], after: &Summary, failed: u64) -> Vec<Goal> {
    let at = |times: f64| OFFERED.iter().zip(sweep).find(|(offered, _)| **offered >= times).map(|(_, report)| report);
    let of_peak = |rate: fn(&Report) -> Option<f64>| {
        let peak = sweep.iter().filter_map(rate).fold(0.0, f64::max);
        at(MOST).and_then(|report| ratio(rate(report)?, peak))
    };
    let (goodput, told) = (of_peak(finished), of_peak(|report| Some(report.per_second)));
    let p99 = |times| at(times)?.latency(|latency| latency.p99_us);
    let admitted = ratio_of(p99(MOST), p99(BUSY));
    let recovered = ratio_of(after.p99_us, p99(CALM));
    #[expect(clippy::cast_precision_loss, reason = "a run has far less than 2^52 calls")]
    let failed = failed as f64;
    vec![
        Goal::new("goodput at 10 x the capacity over its peak", vec![goodput], Bound::AtLeast(0.9)),
        Goal::new("the same by acknowledgements alone", vec![told], Bound::None),
        Goal::new("p99 of what is admitted at 10 x over that at 0.8 x", vec![admitted], Bound::AtMost(2.0)),
        Goal::new("5 s after 10 x: p99 at 0.5 x over what it was", vec![recovered], Bound::AtMost(AS_BEFORE)),
        Goal::new("5 s after 10 x: calls that fail at 0.5 x", vec![Some(failed)], Bound::AtMost(0.0)),
    ]
}
