//! Goal 5: the same fixed answer on bare tonic, under our interceptors, and under them on our own server: what a call costs more. Callers
//! have tokens that are known; limits are looked up; calls are not logged one by one. Once, traces go nowhere; once, there is a collector,
//! and every trace is sampled out.

use std::sync::Arc;

use super::goal::{Bound, Goal};
use super::{Bench, Outcome, Runs, Side};
use crate::args::Dress;
use crate::baseline::echo;
use crate::dice::Dice;
use crate::market::Market;
use crate::report::Report;
use crate::rig::Form;
use crate::scenario::GetProduct;

pub(super) async fn compare(bench: &Bench<'_>) -> anyhow::Result<Outcome> {
    // For customers, their tokens and the keys.
    let rig = bench.rig(Form::Embedded).await?;
    let market = Market::prepare(&rig.souk, bench.args.shape.size(), &bench.progress).await?;
    let bare = Dressed::start(bench, &rig, &market, Dress::Bare, "bare tonic").await?;
    let sampled = Dressed::start(bench, &rig, &market, Dress::Sampled, "our interceptors, traces sampled out").await?;
    let stack = Dressed::start(bench, &rig, &market, Dress::Stack, "our interceptors, no traces").await?;
    let whole = Dressed::start(bench, &rig, &market, Dress::Whole, "our interceptors and server, no traces").await?;
    let all = [&bare, &sampled, &stack, &whole];
    let mut reports = all.map(|_| Vec::new());
    for _ in 0..bench.args.pairs {
        for (dressed, reports) in all.iter().zip(&mut reports) {
            reports.push(dressed.measure(bench).await?);
        }
    }
    drop((bare, sampled, stack, whole)); // they would miss the keys
    rig.stop().await?;
    let [of_bare, of_sampled, of_stack, of_whole] = &reports;
    let more = |of: &[Report]| {
        let pairs = of.iter().zip(of_bare);
        pairs.map(|(ours, bare)| Some(cpu_micros(ours)? - cpu_micros(bare)?)).collect()
    };
    let over = "over bare tonic, µs a call";
    let goals = vec![
        Goal::new(
            format!("CPU of the interceptors, traces sampled out, {over}"),
            more(of_sampled),
            Bound::AtMost(10.0),
        ),
        Goal::new(format!("CPU of the interceptors, no traces, {over}"), more(of_stack), Bound::AtMost(10.0)),
        Goal::new(format!("CPU of interceptors and server, no traces, {over}"), more(of_whole), Bound::None),
        Goal::new("CPU of bare tonic, µs a call", of_bare.iter().map(cpu_micros).collect(), Bound::None),
    ];
    let names = ["bare", "sampled", "stack", "whole"];
    let runs = names.into_iter().zip(reports).map(|(what, reports)| Runs::of(what, reports)).collect();
    Ok(Outcome { runs, goals })
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
        bench.baseline(&Side { scenario: &self.calls, meters: &meters }, &bench.args.load.closed()).await
    }
}

fn cpu_micros(report: &Report) -> Option<f64> {
    Some(report.cost?.cpu_seconds_per_1000? * 1_000.0)
}
