//! `run`: one scenario against a Souk that is running already.

use std::sync::Arc;

use crate::Ended;
use crate::args::{Run, ScenarioName};
use crate::cost::Meter;
use crate::dice::Dice;
use crate::load::{Pace, Plan};
use crate::market::Market;
use crate::measure::measure;
use crate::plot;
use crate::progress::Progress;
use crate::report::{Report, show, write_json};
use crate::scenario::{GetProduct, GetUser, ListOrders, Login, PlaceOrder, Scenario, Shop, Watch};
use crate::souk::Souk;

/// Prepares, measures, checks and shows it.
pub(crate) async fn run(args: &Run) -> anyhow::Result<Ended> {
    let progress = Progress::new(args.output.quiet);
    let souk = Souk::new(&args.at.addresses(), args.load.connections, args.load.timeout())?;
    let (_, admin) = souk.log_in(&args.login.email, &args.login.password()?).await?;
    let souk = souk.with_admin(admin);
    let market = Market::prepare(&souk, args.shape.size(), &progress).await?;
    let reports = match args.scenario {
        ScenarioName::GetProduct => measure_all(args, get_product(args, souk, market), &progress).await?,
        ScenarioName::GetUser => measure_all(args, GetUser { souk, market }, &progress).await?,
        ScenarioName::ListOrders => {
            let orders = Arc::new(place_order(args, souk, market));
            measure_all(args, ListOrders::prepare(orders, &progress).await?, &progress).await?
        }
        ScenarioName::Login => measure_all(args, Login { souk, market }, &progress).await?,
        ScenarioName::PlaceOrder => measure_all(args, place_order(args, souk, market), &progress).await?,
        ScenarioName::Watch => {
            let sku = market.skus[0].clone();
            let watch = Watch::start(souk, sku, args.streams.audience(), &progress).await?;
            measure_all(args, watch, &progress).await?
        }
        ScenarioName::Shop => measure_all(args, shop(args, souk, market, &progress).await?, &progress).await?,
    };
    progress.clear();
    tell(args, &reports)?;
    Ok(if reports.iter().all(Report::is_right) { Ended::Well } else { Ended::Badly })
}

fn get_product(args: &Run, souk: Souk, market: Market) -> GetProduct {
    let dice = Dice::new(args.shape.seed, args.shape.spread, market.skus.len());
    GetProduct { instead: None, souk, market, dice }
}

fn place_order(args: &Run, souk: Souk, market: Market) -> PlaceOrder {
    PlaceOrder::new(souk, market, args.shape.seed, args.shape.spread, args.shape.lines)
}

async fn shop(args: &Run, souk: Souk, market: Market, progress: &Progress) -> anyhow::Result<Shop> {
    let buy = Arc::new(place_order(args, souk.clone(), market.clone()));
    let my_orders = ListOrders::prepare(buy.clone(), progress).await?;
    let who_am_i = GetUser { souk: souk.clone(), market: market.clone() };
    Ok(Shop::new(get_product(args, souk, market), who_am_i, my_orders, buy, args.shape.seed))
}

/// One run, or one for each rate.
async fn measure_all<S: Scenario>(args: &Run, scenario: S, progress: &Progress) -> anyhow::Result<Vec<Report>> {
    let meters: Vec<Meter> = args.at.admin.iter().copied().map(Meter::Admin).collect();
    let plans: Vec<Plan> = if args.rate.is_empty() {
        vec![args.load.closed()]
    } else {
        args.rate.iter().map(|rate| args.load.plan(Pace::PerSecond(*rate))).collect()
    };
    let scenario = Arc::new(scenario);
    let mut reports = Vec::with_capacity(plans.len());
    for plan in plans {
        reports.push(measure(&scenario, &plan, &meters, progress).await?);
    }
    Ok(reports)
}

fn tell(args: &Run, reports: &[Report]) -> anyhow::Result<()> {
    if let Some(file) = &args.plot {
        plot::latency_over_load(file, reports)?;
    }
    if let Some(file) = &args.output.json {
        write_json(file, &reports)?;
    }
    if args.output.json.as_deref() == Some("-".as_ref()) {
        return Ok(()); // nothing beside it, for whoever reads it
    }
    reports.iter().try_for_each(|report| show(&report.table()))
}
