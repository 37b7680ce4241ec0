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
use crate::scenario::{GetProduct, GetUser, Login, PlaceOrder, Scenario};
use crate::souk::Souk;

/// Prepares, measures, checks and shows it.
pub(crate) async fn run(args: &Run) -> anyhow::Result<Ended> {
    let progress = Progress::new(args.output.quiet);
    let souk = Souk::new(&args.at.addresses(), args.load.connections, args.load.timeout())?;
    let (_, admin) = souk.log_in(&args.login.email, &args.login.password()?).await?;
    let souk = souk.with_admin(admin);
    let market = Market::prepare(&souk, args.shape.size(), &progress).await?;
    let (seed, spread) = (args.shape.seed, args.shape.spread);
    let reports = match args.scenario {
        ScenarioName::GetProduct => {
            let dice = Dice::new(seed, spread, market.skus.len());
            measure_all(args, GetProduct { instead: None, souk, market, dice }, &progress).await?
        }
        ScenarioName::GetUser => measure_all(args, GetUser { souk, market }, &progress).await?,
        ScenarioName::Login => measure_all(args, Login { souk, market }, &progress).await?,
        ScenarioName::PlaceOrder => {
            let scenario = PlaceOrder::new(souk, market, seed, spread, args.shape.lines);
            measure_all(args, scenario, &progress).await?
        }
    };
    progress.clear();
    tell(args, &reports)?;
    Ok(if reports.iter().all(Report::is_right) { Ended::Well } else { Ended::Badly })
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
