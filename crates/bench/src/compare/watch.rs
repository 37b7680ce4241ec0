//! Goal 8: thousands of streams on one product whose stock changes a hundred times a second; and the same, when every twentieth is not read.
//! The baseline is ours without these: what they cost the others.

use std::sync::Arc;

use super::goal::{Bound, Goal};
use super::{Bench, Outcome, Pairs, Side};
use crate::cost::used;
use crate::load::Pace;
use crate::market::{Market, Size};
use crate::report::Report;
use crate::rig::{Form, Rig};
use crate::scenario::{Audience, Watch};
use crate::stats::{as_f64, ratio, ratio_of};

const STREAMS: usize = 5_000;
const SLOW: usize = STREAMS / 20;
const CHANGES_PER_SECOND: f64 = 100.0;
/// Of what was offered.
const ACKNOWLEDGED: f64 = 0.99;
/// A reader is slowed if news come so many times as late.
const SLOWED: f64 = 1.5;
/// Memory with readers who do not read, over that without.
const MEMORY: f64 = 1.25;

pub(super) async fn compare(bench: &Bench<'_>) -> anyhow::Result<Outcome> {
    let mut rig = bench.rig(Form::Postgres).await?;
    let (mut pairs, mut kibibytes) = (Pairs::default(), Vec::new());
    for _ in 0..bench.args.pairs {
        pairs.ours.push(watch(bench, &mut rig, SLOW).await?.0);
        let (report, grown) = watch(bench, &mut rig, 0).await?;
        kibibytes.push(grown);
        pairs.baseline.push(report);
    }
    rig.stop().await?;
    let rates = pairs.each(|with, _| ratio(with.per_second, CHANGES_PER_SECOND));
    let slowed = pairs.each(|with, without| ratio_of(news_p99(with), news_p99(without)));
    let memory = pairs.each(|with, without| ratio_of(resident(with), resident(without)));
    let known = pairs.baseline.iter().map(|report| Some(news_p99(report)? / 1_000.0)).collect();
    let goals = vec![
        Goal::new("changes acknowledged, of 100 a second", rates, Bound::AtLeast(ACKNOWLEDGED)),
        Goal::new("p99 of news, with readers who do not read over without", slowed, Bound::AtMost(SLOWED)),
        Goal::new(
            "memory of the inventory service, with readers who do not read over without",
            memory,
            Bound::AtMost(MEMORY),
        ),
        Goal::new(format!("p99 of news to {STREAMS} streams, ms"), known, Bound::None),
        Goal::new("memory of a stream when it is opened, KiB", kibibytes, Bound::None),
    ];
    Ok(Outcome { runs: pairs.into_runs().into(), goals })
}

/// Opens the streams, changes the stock, closes them; at an inventory service that has not done anything before. What the streams have taken
/// of its memory, in KiB for each.
async fn watch(bench: &Bench<'_>, rig: &mut Rig, slow: usize) -> anyhow::Result<(Report, Option<f64>)> {
    rig.renew_inventory().await?;
    let market = Market::prepare(&rig.souk, Size { products: 1, customers: 0 }, &bench.progress).await?;
    let meters = rig.inventory_meters();
    let before = used(&meters).await?;
    let audience = Audience { streams: STREAMS, slow };
    let watch = Arc::new(Watch::start(rig.souk.clone(), market.skus[0].clone(), audience, &bench.progress).await?);
    let opened = before.zip(used(&meters).await?).map(|(before, now)| now.since(&before, 0).grown_bytes);
    let plan = bench.args.load.plan(Pace::PerSecond(CHANGES_PER_SECOND));
    let report = bench.ours(rig, &Side { scenario: &watch, meters: &meters }, &plan).await?;
    Ok((report, opened.map(|bytes| bytes / 1_024.0 / as_f64(STREAMS))))
}

fn news_p99(report: &Report) -> Option<f64> {
    report.news?.latency?.p99_us
}

fn resident(report: &Report) -> Option<f64> {
    Some(report.cost?.resident_bytes)
}
