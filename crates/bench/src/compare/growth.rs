//! Goal 6: the same calls with ten times the products, then with ten times the orders in the tables, then beside ten thousand idle streams.
//! What costs as much as the work does not notice.
//!
//! Here nothing can be run in turn: tables do not shrink. Each stage is run as often as pairs are asked for, and compared with the first.

use std::sync::Arc;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};

use super::goal::{Bound, Goal};
use super::place::finished;
use super::{Bench, Outcome, Runs, Side};
use crate::cost::used;
use crate::dice::Dice;
use crate::load::{Call, Calls as _};
use crate::market::{Market, Size};
use crate::report::Report;
use crate::rig::{Form, Rig};
use crate::scenario::{GetProduct, IdleStreams, PlaceOrder};
use crate::stats::{as_f64, ratio_of};

const TIMES: usize = 10;
/// Idle connections, each of which has one stream.
const CONNECTIONS: usize = 500;
/// Streams that are opened on these, twice.
const STREAMS: usize = 4_750;
/// Of the throughput of the first stage.
const AS_FAST: f64 = 0.9;
/// The second half of the streams over the first.
const LINEAR: f64 = 1.25;

pub(super) async fn compare(bench: &Bench<'_>) -> anyhow::Result<Outcome> {
    let size = bench.args.shape.size();
    let rig = bench.rig(Form::Postgres).await?;
    let few = Market::prepare(&rig.souk, size, &bench.progress).await?;
    let idle_sku = few.skus[0].clone();
    let first = Calls::of(bench, &rig, few);
    let before = first.stage(bench, &rig).await?;

    // Those of the first stage stay in the tables, and are not ordered any more.
    let more = Size { products: size.products * (TIMES - 1), ..size };
    let calls = Calls::of(bench, &rig, Market::prepare(&rig.souk, more, &bench.progress).await?);
    let with_products = calls.stage(bench, &rig).await?;

    let target = (first.orders.count() + calls.orders.count()) * TIMES;
    calls.place(bench, target - first.orders.count()).await?;
    let with_orders = calls.stage(bench, &rig).await?;

    let (idle, memory) = open(bench, &rig, &idle_sku).await?;
    let with_streams = calls.stage(bench, &rig).await?;
    drop(idle);
    rig.stop().await?;

    let mut goals = Vec::new();
    for (what, stage) in [
        ("10 x the products", &with_products),
        ("10 x the orders as well", &with_orders),
        ("10,000 idle streams as well", &with_streams),
    ] {
        let orders = ratios(&stage.orders, &before.orders, finished);
        let reads = ratios(&stage.reads, &before.reads, |report| Some(report.per_second));
        goals.push(Goal::new(format!("orders with {what}, over before"), orders, Bound::AtLeast(AS_FAST)));
        goals.push(Goal::new(format!("GetProduct with {what}, over before"), reads, Bound::AtLeast(AS_FAST)));
    }
    goals.extend(memory);
    let stages = [before, with_products, with_orders, with_streams].into_iter();
    Ok(Outcome { runs: stages.flat_map(Stage::into_runs).collect(), goals })
}

fn ratios(after: &[Report], before: &[Report], number: fn(&Report) -> Option<f64>) -> Vec<Option<f64>> {
    after.iter().zip(before).map(|(after, before)| ratio_of(number(after), number(before))).collect()
}

/// What each stage is measured by.
struct Calls {
    orders: Arc<PlaceOrder>,
    reads: Arc<GetProduct>,
}

impl Calls {
    fn of(bench: &Bench<'_>, rig: &Rig, market: Market) -> Self {
        let shape = &bench.args.shape;
        let dice = Dice::new(shape.seed, shape.spread, market.skus.len());
        let reads = GetProduct { instead: None, souk: rig.souk.clone(), market: market.clone(), dice };
        let orders = bench.orders(rig, market, shape.spread);
        Self { orders, reads: Arc::new(reads) }
    }

    /// Each run begins with everything remembered: how long it takes to learn that grows with the products, and is no cost of a call.
    async fn stage(&self, bench: &Bench<'_>, rig: &Rig) -> anyhow::Result<Stage> {
        let orders = Side { scenario: &self.orders, meters: &rig.meters };
        let reads = Side { scenario: &self.reads, meters: &rig.meters };
        let plan = bench.args.load.closed();
        let mut stage = Stage::default();
        for _ in 0..bench.args.pairs {
            bench.progress.phase("asking for everything once", 0);
            self.orders.warm_up().await?;
            stage.orders.push(bench.ours(rig, &orders, &plan).await?);
            self.reads.warm_up().await?;
            stage.reads.push(bench.baseline(&reads, &plan).await?);
        }
        Ok(stage)
    }

    /// Places orders until there are so many.
    async fn place(&self, bench: &Bench<'_>, target: usize) -> anyhow::Result<()> {
        let there = self.orders.count();
        bench.progress.phase("placing ten times the orders", target.saturating_sub(there));
        // The numbers that follow draw as those before.
        let calls = (there..target).map(|nth| (self.orders.clone(), u64::try_from(nth).unwrap_or_default()));
        let place = async |(orders, nth): (Arc<PlaceOrder>, u64)| {
            bench.progress.step();
            tokio::spawn(async move { orders.call(Call::uncounted(nth)).await })
                .await?
                .context("an order cannot be placed")
        };
        stream::iter(calls).map(place).buffer_unordered(bench.args.load.in_flight).try_collect::<()>().await?;
        anyhow::ensure!(self.orders.count() >= target, "{} orders of {target}", self.orders.count());
        Ok(())
    }
}

/// What a stage has come to.
#[derive(Default)]
struct Stage {
    orders: Vec<Report>,
    reads: Vec<Report>,
}

impl Stage {
    fn into_runs(self) -> [Runs; 2] {
        [Runs::of("orders", self.orders), Runs::of("reads", self.reads)]
    }
}

/// Connections and streams that nothing happens on, and what they take of the servers' memory.
async fn open(bench: &Bench<'_>, rig: &Rig, sku: &str) -> anyhow::Result<(Vec<IdleStreams>, Vec<Goal>)> {
    bench.progress.phase("opening idle streams", 0);
    let souk = rig.souk.by(CONNECTIONS, None)?;
    let (mut idle, mut grown) = (Vec::new(), Vec::new());
    for many in [CONNECTIONS, STREAMS, STREAMS] {
        let before = used(&rig.meters).await?;
        idle.push(IdleStreams::open(&souk, sku, many).await?);
        let after = used(&rig.meters).await?;
        let bytes = before.zip(after).map(|(before, after)| after.since(&before, 0).grown_bytes);
        grown.push(bytes.map(|bytes| bytes / 1_024.0 / as_f64(many)));
    }
    let goals = vec![
        Goal::new(
            "memory of an idle stream, the second half over the first",
            vec![ratio_of(grown[2], grown[1])],
            Bound::AtMost(LINEAR),
        ),
        Goal::new("memory of an idle connection with a stream, KiB", vec![grown[0]], Bound::None),
        Goal::new("memory of an idle stream, KiB", vec![grown[1], grown[2]], Bound::None),
    ];
    Ok((idle, goals))
}
