//! Goals 2 and 3: orders through the whole of Souk, beside the plain transaction that does the same work.
//!
//! Ours counts when the stock is allocated, as that of the transaction is: an order that was acknowledged and is still owed its stock is no
//! work done.

use std::sync::Arc;

use super::goal::{Bound, Goal};
use super::{Bench, Pairs, Side};
use crate::baseline::pgbench;
use crate::baseline::sql::{PlainOrders, Wanted};
use crate::dice::Spread;
use crate::load::Pace;
use crate::market::Market;
use crate::report::{Report, show};
use crate::rig::{Form, Rig};
use crate::scenario::PlaceOrder;
use crate::stats::{median, ratio, ratio_of};

/// Orders for all products alike.
pub(super) async fn uniform(bench: &Bench<'_>, form: Form) -> anyhow::Result<(Vec<Pairs>, Vec<Goal>)> {
    let place = Place::start(bench, form, Spread::Uniform).await?;
    let pairs = place.in_turn(bench, bench.args.load.in_flight).await?;
    let goals = place.goals(&pairs, bench.args.load.in_flight, 3.0);
    place.rig.stop().await?;
    Ok((vec![pairs], goals))
}

/// Orders for one product, with few and with many in flight.
pub(super) async fn hot(bench: &Bench<'_>) -> anyhow::Result<(Vec<Pairs>, Vec<Goal>)> {
    const FEW: usize = 64;
    const MANY: usize = 256;
    let place = Place::start(bench, Form::Postgres, Spread::Hot).await?;
    let few = place.in_turn(bench, FEW).await?;
    let many = place.in_turn(bench, MANY).await?;
    let mut goals = place.goals(&few, FEW, 15.0);
    goals.extend(place.goals(&many, MANY, 15.0));
    let slower = many.ours.iter().zip(&few.ours).map(|(many, few)| ratio_of(finished(many), finished(few))).collect();
    goals.push(Goal::new(format!("{MANY} in flight over {FEW}"), slower, Bound::AtLeast(1.0)));
    place.rig.stop().await?;
    Ok((vec![few, many], goals))
}

/// Souk and the plain transaction, side by side.
struct Place {
    rig: Rig,
    spread: Spread,
    ours: Arc<PlaceOrder>,
    plain: Arc<PlainOrders>,
    form: Form,
}

impl Place {
    async fn start(bench: &Bench<'_>, form: Form, spread: Spread) -> anyhow::Result<Self> {
        let shape = &bench.args.shape;
        let rig = bench.rig(form).await?;
        let market = Market::prepare(&rig.souk, shape.size(), &bench.progress).await?;
        let wanted = wanted(bench, spread);
        let plain = match form {
            Form::Postgres => PlainOrders::on_postgres(&rig.new_database().await?, bench.args.pool, &wanted).await?,
            Form::Embedded => PlainOrders::on_sqlite(&rig.folder()?.join("plain.sqlite"), &wanted).await?,
        };
        let ours = bench.orders(&rig, market, spread);
        Ok(Self { rig, spread, ours, plain: Arc::new(plain), form })
    }

    async fn in_turn(&self, bench: &Bench<'_>, in_flight: usize) -> anyhow::Result<Pairs> {
        let ours = Side { scenario: &self.ours, meters: &self.rig.meters };
        let theirs = Side { scenario: &self.plain, meters: &[] };
        let plan = bench.args.load.plan(Pace::InFlight(in_flight));
        let pairs = bench.in_turn(&self.rig, ours, theirs, &plan).await?;
        if self.form == Form::Postgres && bench.args.shape.lines == 1 {
            self.show_pgbench(bench, in_flight).await?;
        }
        Ok(pairs)
    }

    /// Beside ours and the plain transaction, as a look at what the server can do; the goals do not depend on it.
    async fn show_pgbench(&self, bench: &Bench<'_>, in_flight: usize) -> anyhow::Result<()> {
        let (args, wanted) = (bench.args, wanted(bench, self.spread));
        // In tables of its own: nobody keeps books of its orders.
        let url = self.rig.new_database().await?;
        drop(PlainOrders::on_postgres(&url, 1, &wanted).await?);
        for clients in [usize::try_from(args.pool)?, in_flight] {
            bench.progress.phase("pgbench", 0);
            // The server has 200 connections, of which the services have some.
            let clients = clients.min(150);
            let rate = pgbench::transactions_per_second(&url, self.spread, wanted.products, clients, args.load.seconds)
                .await?;
            bench.progress.clear();
            show(&format!("pgbench, the plain transaction, {clients} clients: {rate:.1}/s\n"))?;
        }
        Ok(())
    }

    fn goals(&self, pairs: &Pairs, in_flight: usize, least: f64) -> Vec<Goal> {
        let spread = format!("{:?}", self.spread).to_lowercase();
        let what = format!("orders over plain transactions, {spread}, {in_flight} in flight");
        let done = pairs.each(|ours, plain| ratio(finished(ours)?, plain.per_second));
        let told = pairs.each(|ours, plain| ratio(ours.per_second, plain.per_second));
        let rates = |reports: &[Report], rate: fn(&Report) -> Option<f64>| {
            median(&reports.iter().map(rate).collect::<Vec<_>>()).unwrap_or(f64::NAN)
        };
        let (ours, plain) = (rates(&pairs.ours, finished), rates(&pairs.baseline, |plain| Some(plain.per_second)));
        vec![
            Goal::new(format!("{what} ({ours:.0}/s over {plain:.0}/s)"), done, Bound::AtLeast(least)),
            Goal::new(format!("{what}, by acknowledgements alone"), told, Bound::None),
        ]
    }
}

fn wanted(bench: &Bench<'_>, spread: Spread) -> Wanted {
    let shape = &bench.args.shape;
    Wanted { products: shape.size().products, spread, lines: shape.lines, seed: shape.seed }
}

/// Orders that were acknowledged and have their stock, a second.
pub(super) fn finished(report: &Report) -> Option<f64> {
    Some(report.finished_per_second?.min(report.per_second))
}
