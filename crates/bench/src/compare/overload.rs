//! Goal 7: orders at half of what can be served, and at ten times as much. A server that works on what nobody waits for any more serves less
//! the more is asked of it; one that refuses in time does not.

use std::sync::Arc;
use std::time::Duration;

use super::goal::{Bound, Goal};
use super::place::finished;
use super::{Bench, Outcome, Runs, Side};
use crate::load::{self, Pace, Plan};
use crate::market::Market;
use crate::report::Report;
use crate::rig::{Form, Rig};
use crate::scenario::PlaceOrder;
use crate::stats::{Summary, as_f64, ratio, ratio_of};

/// Calls in flight, of the closed loops that the capacity is the best of.
const IN_FLIGHT: [usize; 3] = [64, 128, 256];
/// Of the capacity.
const OFFERED: [f64; 6] = [0.5, 0.8, 1.0, 2.0, 5.0, 10.0];
const CALM: f64 = 0.5;
const BUSY: f64 = 0.8;
const MOST: f64 = 10.0;
/// By then all must be as before.
const RECOVERED_AFTER: Duration = Duration::from_secs(5);
/// For so long it is looked whether it is.
const LOOK: Duration = Duration::from_secs(5);
/// As before means: no more than so many times what it was.
const AS_BEFORE: f64 = 2.0;

pub(super) async fn compare(bench: &Bench<'_>) -> anyhow::Result<Outcome> {
    let rig = bench.rig(Form::Postgres).await?;
    let market = Market::prepare(&rig.souk, bench.args.shape.size(), &bench.progress).await?;
    let orders = bench.orders(&rig, market, bench.args.shape.spread);
    let side = Side { scenario: &orders, meters: &rig.meters };
    let mut closed = Vec::with_capacity(IN_FLIGHT.len());
    for in_flight in IN_FLIGHT {
        closed.push(bench.ours(&rig, &side, &bench.args.load.plan(Pace::InFlight(in_flight))).await?);
    }
    let capacity = closed.iter().filter_map(finished).fold(0.0, f64::max);
    anyhow::ensure!(capacity > 0.0, "no order was finished in time: there is no capacity to begin with");
    let mut sweeps = Vec::with_capacity(bench.args.pairs);
    for _ in 0..bench.args.pairs {
        sweeps.push(Sweep::run(bench, &rig, &side, capacity).await?);
    }
    rig.stop().await?;
    let goals = goals(capacity, &sweeps);
    let mut runs = vec![Runs::of("closed loops", closed)];
    for Sweep { offered, after } in sweeps {
        runs.push(Runs::of("offered", offered));
        runs.push(Runs::of("what a storm has left", vec![after.left]));
    }
    Ok(Outcome { runs, goals })
}

/// All that is offered, once.
struct Sweep {
    offered: Vec<Report>,
    after: After,
}

/// Half of what can be served, some seconds after ten times as much.
struct After {
    latency: Option<Summary>,
    failed: u64,
    /// A short run, after which everything is checked.
    left: Report,
}

impl Sweep {
    async fn run(bench: &Bench<'_>, rig: &Rig, side: &Side<'_, PlaceOrder>, capacity: f64) -> anyhow::Result<Self> {
        let mut offered = Vec::with_capacity(OFFERED.len());
        for times in OFFERED {
            let pace = Pace::PerSecond((capacity * times).max(1.0));
            offered.push(bench.ours(rig, side, &bench.args.load.plan(pace)).await?);
        }
        let (latency, failed) = recover(bench, side.scenario, capacity).await?;
        bench.tell(&format!("{} s after {MOST} x: {failed} calls failed", RECOVERED_AFTER.as_secs()))?;
        let plan = Plan { pace: Pace::InFlight(1), warm_up: Duration::ZERO, window: Duration::from_secs(2) };
        let left = bench.ours(rig, side, &plan).await?;
        Ok(Self { offered, after: After { latency, failed, left } })
    }

    /// The run at so many times the capacity.
    fn at(&self, times: f64) -> Option<&Report> {
        OFFERED.iter().zip(&self.offered).find(|(offered, _)| **offered >= times).map(|(_, report)| report)
    }

    fn p99_at(&self, times: f64) -> Option<f64> {
        self.at(times)?.latency(|latency| latency.p99_us)
    }

    /// Of a rate at ten times the capacity, over the most that it has been.
    fn kept(&self, most: f64, rate: fn(&Report) -> Option<f64>) -> Option<f64> {
        let peak = self.offered.iter().filter_map(rate).fold(most, f64::max);
        ratio(rate(self.at(MOST)?)?, peak)
    }
}

/// Ten times as much as can be served, and from its end on half: what is that like, five seconds later? Nothing is waited for in between.
async fn recover(bench: &Bench<'_>, orders: &Arc<PlaceOrder>, capacity: f64) -> anyhow::Result<(Option<Summary>, u64)> {
    let storm = bench.args.load.plan(Pace::PerSecond(capacity * MOST));
    let calm = Plan { pace: Pace::PerSecond(capacity * CALM), warm_up: RECOVERED_AFTER, window: LOOK };
    bench.progress.phase("a storm, and what follows", 0);
    let nothing = async |_| ();
    let (stormed, calmed) = tokio::join!(load::run(&storm, orders.clone(), Arc::default(), nothing), async {
        tokio::time::sleep(storm.warm_up + storm.window).await;
        load::run(&calm, orders.clone(), Arc::default(), nothing).await
    });
    let (stormed, calmed) = (stormed?.measured, calmed?.measured);
    let wrong = [stormed.violations(), calmed.violations()].concat();
    anyhow::ensure!(wrong.is_empty(), "in the storm or after it: {}", wrong.join(", "));
    Ok((calmed.latencies.summary(), calmed.failures.iter().map(|failure| failure.count).sum()))
}

fn goals(capacity: f64, sweeps: &[Sweep]) -> Vec<Goal> {
    let each = |value: &dyn Fn(&Sweep) -> Option<f64>| sweeps.iter().map(value).collect();
    let goodput = each(&|sweep| sweep.kept(capacity, finished));
    let told = each(&|sweep| sweep.kept(0.0, |report| Some(report.per_second)));
    let admitted = each(&|sweep| ratio_of(sweep.p99_at(MOST), sweep.p99_at(BUSY)));
    let recovered = each(&|sweep| ratio_of(sweep.after.latency?.p99_us, sweep.p99_at(CALM)));
    let failed = sweeps.iter().map(|sweep| as_f64(sweep.after.failed)).fold(0.0, f64::max);
    vec![
        Goal::new(
            format!("goodput at 10 x the capacity ({capacity:.0}/s) over its peak"),
            goodput,
            Bound::AtLeast(0.9),
        ),
        Goal::new("the same by acknowledgements alone", told, Bound::None),
        Goal::new("p99 of what is admitted at 10 x over that at 0.8 x", admitted, Bound::AtMost(2.0)),
        Goal::new("5 s after 10 x: p99 at 0.5 x over what it was", recovered, Bound::AtMost(AS_BEFORE)),
        Goal::new("5 s after 10 x: calls that fail at 0.5 x, at most", vec![Some(failed)], Bound::AtMost(0.0)),
    ]
}
