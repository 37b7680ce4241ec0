//! Goal 4: one order at a time, beside as many durable commits as stand between the call and its answer. Whoever waits for company before a
//! commit is found out here.

use std::sync::Arc;

use super::goal::{Bound, Goal};
use super::{Bench, Outcome, Pairs, Side};
use crate::baseline::commits::Commits;
use crate::load::Pace;
use crate::market::Market;
use crate::report::Report;
use crate::rig::{Form, Rig};
use crate::stats::ratio_of;

/// The hold of the stock, and the order. What follows the answer is nobody's wait.
const COMMITS: u32 = 2;

pub(super) async fn compare(bench: &Bench<'_>) -> anyhow::Result<Outcome> {
    let (mut runs, mut goals) = (Vec::new(), Vec::new());
    for form in [Form::Postgres, Form::Embedded] {
        let rig = bench.rig(form).await?;
        let pairs = on(bench, &rig, form).await?;
        rig.stop().await?;
        let ratios = pairs.each(|ours, commits| ratio_of(p50(ours), p50(commits)));
        let what = format!("one order at a time over its {COMMITS} durable commits, {form:?}, p50");
        goals.push(Goal::new(what, ratios, Bound::AtMost(1.3)));
        runs.extend(pairs.into_runs());
    }
    Ok(Outcome { runs, goals })
}

fn p50(report: &Report) -> Option<f64> {
    report.latency(|latency| latency.p50_us)
}

async fn on(bench: &Bench<'_>, rig: &Rig, form: Form) -> anyhow::Result<Pairs> {
    let shape = &bench.args.shape;
    let market = Market::prepare(&rig.souk, shape.size(), &bench.progress).await?;
    let commits = Arc::new(match form {
        Form::Postgres => Commits::on_postgres(&rig.new_database().await?, COMMITS).await?,
        Form::Embedded => Commits::on_sqlite(&rig.folder()?.join("plain.sqlite"), COMMITS).await?,
    });
    let ours = bench.orders(rig, market, shape.spread);
    let ours = Side { scenario: &ours, meters: &rig.meters };
    let plan = bench.args.load.plan(Pace::InFlight(1));
    bench.in_turn(rig, ours, Side { scenario: &commits, meters: &[] }, &plan).await
}
