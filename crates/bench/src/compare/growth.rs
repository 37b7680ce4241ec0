//! Goal 6: the same calls with ten times the products, then with ten times the orders in the tables, then beside ten thousand idle streams.
//! What costs as much as the work does not notice.
//!
//! Here nothing can be run in turn: tables do not shrink. Each stage is run as often as pairs are asked for, and compared with the first.

use std::sync::Arc;
use std::time::Duration;

use super::goal::{Bound, Goal};
use super::place::finished;
use super::{Bench, Pairs, Side};
use crate::cost::used;
use crate::dice::{Dice, as_f64};
use crate::load::{self, Plan};
use crate::market::{Market, Size};
use crate::report::Report;
use crate::rig::{Form, Rig};
use crate::scenario::{GetProduct, IdleStreams, PlaceOrder};
use crate::stats::{median, ratio_of};

const TIMES: usize = 10;
/// Idle connections, each of which has one stream.
const CONNECTIONS: usize = 500;
/// Streams that are opened on these, twice.
const STREAMS: usize = 4_750;
/// Of the throughput of the first stage.
const AS_FAST: f64 = 0.9;
/// The second half of the streams over the first.
const LINEAR: f64 = 1.25;

pub(super) async fn compare(bench: &Bench<'_>) -> anyhow::Result<(Vec<Pairs>, Vec<Goal>)> {
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

    let orders = first.orders.count() + calls.orders.count();
    place(bench, &calls, orders * (TIMES - 1), &with_products).await?;
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
        let orders = ratios(&stage.ours, &before.ours, finished);
        let reads = ratios(&stage.baseline, &before.baseline, |report| Some(report.per_second));
        goals.push(Goal::new(format!("orders with {what}, over before"), orders, Bound::AtLeast(AS_FAST)));
        goals.push(Goal::new(format!("GetProduct with {what}, over before"), reads, Bound::AtLeast(AS_FAST)));
    }
    goals.extend(memory);
    Ok((vec![before, with_products, with_orders, with_streams], goals))
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

    /// Orders as ours, reads as the other.
    async fn stage(&self, bench: &Bench<'_>, rig: &Rig) -> anyhow::Result<Pairs> {
        let orders = Side { scenario: &self.orders, meters: &rig.meters };
        let reads = Side { scenario: &self.reads, meters: &rig.meters };
        bench.in_turn(rig, orders, reads, &bench.args.load.closed()).await
    }
}

/// Places so many orders more; how long that takes is guessed from the stage before.
async fn place(bench: &Bench<'_>, calls: &Calls, many: usize, stage: &Pairs) -> anyhow::Result<()> {
    let rate = median(&stage.ours.iter().map(finished).collect::<Vec<_>>()).unwrap_or_default().max(1.0);
    let window = Duration::from_secs_f64(as_f64(many) / rate);
    let plan = Plan { warm_up: Duration::ZERO, window, ..bench.args.load.closed() };
    let live = Arc::default();
    let _following = bench.progress.follow("placing ten times the orders", &plan, Arc::clone(&live));
    let ran = load::run(&plan, calls.orders.clone(), live, async |_| ()).await?;
    let violations = ran.measured.violations();
    anyhow::ensure!(violations.is_empty(), "while ten times the orders were placed: {}", violations.join(", "));
    Ok(())
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
