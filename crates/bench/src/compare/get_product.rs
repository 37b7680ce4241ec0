//! Goal 1: a cached product through the whole stack, beside a bare tonic server that always says the same.

use std::sync::Arc;

use super::goal::{Bound, Goal};
use super::{Bench, Outcome, Side};
use crate::args::Dress;
use crate::baseline::echo;
use crate::dice::Dice;
use crate::market::Market;
use crate::report::Report;
use crate::rig::Form;
use crate::scenario::GetProduct;
use crate::stats::{ratio, ratio_of};

pub(super) async fn compare(bench: &Bench<'_>) -> anyhow::Result<Outcome> {
    let (shape, load) = (&bench.args.shape, &bench.args.load);
    let rig = bench.rig(Form::Postgres).await?;
    let market = Market::prepare(&rig.souk, shape.size(), &bench.progress).await?;
    let echo = echo::Process::start(&market.sample(&rig.souk).await?, Dress::Bare, "").await?;
    let dice = Dice::new(shape.seed, shape.spread, market.skus.len());
    let bare = Arc::new(GetProduct {
        instead: Some("bare tonic"),
        souk: echo.souk(load.connections, load.timeout())?,
        market: market.clone(),
        dice: dice.clone(),
    });
    let ours = Arc::new(GetProduct { instead: None, souk: rig.souk.clone(), market, dice });
    let (ours, bare_meter) = (Side { scenario: &ours, meters: &rig.meters }, [echo.meter()?]);
    let bare = Side { scenario: &bare, meters: &bare_meter };
    let pairs = bench.in_turn(&rig, ours, bare, &load.closed()).await?;
    rig.stop().await?;
    let throughput = pairs.each(|ours, bare| ratio(ours.per_second, bare.per_second));
    let p99 = pairs.each(|ours, bare| ratio_of(p99(ours), p99(bare)));
    let in_flight = load.in_flight;
    let goals = vec![
        Goal::new(
            format!("GetProduct over bare tonic, {in_flight} in flight, throughput"),
            throughput,
            Bound::AtLeast(0.85),
        ),
        Goal::new(format!("GetProduct over bare tonic, {in_flight} in flight, p99"), p99, Bound::AtMost(1.5)),
    ];
    Ok(Outcome { runs: pairs.into_runs().into(), goals })
}

fn p99(report: &Report) -> Option<f64> {
    report.latency(|latency| latency.p99_us)
}
