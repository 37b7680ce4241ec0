//! `run`: one scenario against a Souk that is running already.

use std::sync::Arc;

use crate::Ended;
use crate::args::{Run, ScenarioName};
use crate::cost::{Meter, used};
use crate::dice::Dice;
use crate::load::{Pace, Plan};
use crate::market::{Market, Size};
use crate::measure::measure;
use crate::plot;
use crate::progress::Progress;
use crate::report::{Report, must_be_writable};
use crate::scenario::{GetProduct, GetUser, ListOrders, Login, PlaceOrder, Scenario, Shop, Watch};
use crate::souk::Souk;

/// Prepares, measures, checks and shows it.
pub(crate) async fn run(args: &Run) -> anyhow::Result<Ended> {
    args.output.prepare()?;
    args.plot.as_deref().map_or(Ok(()), must_be_writable)?;
    let mut run = Running { args, progress: Progress::new(args.output.quiet), reports: Vec::new() };
    let ended = run.scenario().await;
    run.progress.clear();
    // Also where a later one has failed.
    args.output.finish(&run.reports)?;
    ended?;
    if let Some(file) = &args.plot {
        plot::latency_over_load(file, &run.reports)?;
    }
    Ok(if run.reports.iter().all(Report::is_right) { Ended::Well } else { Ended::Badly })
}

/// Runs that are going on.
struct Running<'a> {
    args: &'a Run,
    progress: Progress,
    reports: Vec<Report>,
}

impl Running<'_> {
    async fn scenario(&mut self) -> anyhow::Result<()> {
        let (args, progress) = (self.args, self.progress.clone());
        used(&self.meters()).await?;
        let souk = Souk::new(&args.at.addresses()?, args.load.connections, args.load.timeout())?;
        souk.must_answer().await?;
        let (_, admin) = souk.log_in(&args.login.email, &args.login.password()?).await?;
        let souk = souk.with_admin(admin);
        let market = Market::prepare(&souk, size(args), &progress).await?;
        match args.scenario {
            ScenarioName::GetProduct => self.measure(get_product(args, souk, market)).await,
            ScenarioName::GetUser => self.measure(GetUser { souk, market }).await,
            ScenarioName::ListOrders => {
                let orders = Arc::new(place_order(args, souk, market));
                self.measure(ListOrders::prepare(orders, &progress).await?).await
            }
            ScenarioName::Login => self.measure(Login { souk, market }).await,
            ScenarioName::PlaceOrder => self.measure(place_order(args, souk, market)).await,
            ScenarioName::Watch => {
                let sku = market.skus[0].clone();
                self.measure(Watch::start(souk, sku, args.streams.audience(), &progress).await?).await
            }
            ScenarioName::Shop => self.measure(shop(args, souk, market, &progress).await?).await,
        }
    }

    fn meters(&self) -> Vec<Meter> {
        self.args.at.admin.iter().copied().map(Meter::Admin).collect()
    }

    /// One run, or one for each rate.
    async fn measure<S: Scenario>(&mut self, scenario: S) -> anyhow::Result<()> {
        let (args, scenario, meters) = (self.args, Arc::new(scenario), self.meters());
        let plans: Vec<Plan> = if args.rate.is_empty() {
            vec![args.load.closed()]
        } else {
            args.rate.iter().map(|rate| args.load.plan(Pace::PerSecond(*rate))).collect()
        };
        for plan in plans {
            let report = measure(&scenario, &plan, &meters, &self.progress).await?;
            self.progress.clear();
            args.output.tell(&report.table())?;
            self.reports.push(report);
            args.output.save(&self.reports)?;
        }
        Ok(())
    }
}

/// No more than the scenario needs.
fn size(args: &Run) -> Size {
    let all = args.shape.size();
    match args.scenario {
        ScenarioName::GetUser | ScenarioName::Login => Size { products: 0, ..all },
        ScenarioName::Watch => Size { products: 1, customers: 0 },
        ScenarioName::GetProduct | ScenarioName::ListOrders | ScenarioName::PlaceOrder | ScenarioName::Shop => all,
    }
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
