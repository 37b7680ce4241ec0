//! Goal 5: the same fixed answer on bare tonic, under our interceptors, and under them on our own server: what a call costs more. Callers
//! have tokens that are known; limits are looked up; traces are not recorded; calls are not logged one by one.

use std::sync::Arc;

use super::goal::{Bound, Goal};
use super::{Bench, Pairs, Side};
use crate::args::Dress;
use crate::baseline::echo;
use crate::dice::Dice;
use crate::market::Market;
use crate::measure::measure;
use crate::report::Report;
use crate::rig::Form;
use crate::scenario::GetProduct;

pub(super) async fn compare(bench: &Bench<'_>) -> anyhow::Result<(Vec<Pairs>, Vec<Goal>)> {
    // For customers, their tokens and the keys.
    let rig = bench.rig(Form::Embedded).await?;
    let market = Market::prepare(&rig.souk, bench.args.shape.size(), &bench.progress).await?;
    let bare = Dressed::start(bench, &rig, &market, Dress::Bare, "bare tonic").await?;
    let stack = Dressed::start(bench, &rig, &market, Dress::Stack, "bare tonic under our interceptors").await?;
    let whole = Dressed::start(bench, &rig, &market, Dress::Whole, "our server under our interceptors").await?;
    let (mut of_stack, mut of_whole) = (Pairs::default(), Pairs::default());
    for _ in 0..bench.args.pairs.max(1) {
        let baseline = bare.measure(bench).await?;
        of_stack.ours.push(stack.measure(bench).await?);
        of_stack.baseline.push(baseline.clone());
        of_whole.ours.push(whole.measure(bench).await?);
        of_whole.baseline.push(baseline);
    }
    drop((bare, stack, whole)); // they would miss the keys
    rig.stop().await?;
    let more = |pairs: &Pairs| pairs.each(|ours, bare| Some(cpu_micros(ours)? - cpu_micros(bare)?));
    let goals = vec![
        Goal::new("CPU of the interceptors over bare tonic, µs a call", more(&of_stack), Bound::AtMost(10.0)),
        Goal::new("CPU of interceptors and server over bare tonic, µs a call", more(&of_whole), Bound::None),
        Goal::new("CPU of bare tonic, µs a call", of_stack.baseline.iter().map(cpu_micros).collect(), Bound::None),
    ];
    Ok((vec![of_stack, of_whole], goals))
}

/// A server, and the calls that it is measured by.
struct Dressed {
    echo: echo::Process,
    calls: Arc<GetProduct>,
}

impl Dressed {
    async fn start(
        bench: &Bench<'_>,
        rig: &crate::rig::Rig,
        market: &Market,
        dress: Dress,
        name: &'static str,
    ) -> anyhow::Result<Self> {
        let (shape, load) = (&bench.args.shape, &bench.args.load);
        let answer = market.sample(&rig.souk).await?;
        let echo = echo::Process::start(&answer, dress, &rig.addresses.user).await?;
        let souk = echo.souk(load.connections, load.timeout())?;
        let dice = Dice::new(shape.seed, shape.spread, market.skus.len());
        let calls = Arc::new(GetProduct { instead: Some(name), souk, market: market.clone(), dice });
        Ok(Self { echo, calls })
    }

    async fn measure(&self, bench: &Bench<'_>) -> anyhow::Result<Report> {
        let meters = [self.echo.meter()?];
        let side = Side { scenario: &self.calls, meters: &meters };
        let report = measure(side.scenario, &bench.args.load.closed(), side.meters, &bench.progress).await?;
        bench.show(&report)?;
        Ok(report)
    }
}

fn cpu_micros(report: &Report) -> Option<f64> {
    Some(report.cost?.cpu_seconds_per_1000? * 1_000.0)
}
