//! Goals 2 and 3: orders through the whole of Souk, beside the plain transaction that does the same work.
//!
//! Ours counts when the stock is allocated, as that of the transaction is: an order that was acknowledged and is still owed its stock is no
//! work done.

use std::sync::Arc;

use super::goal::{Bound, Goal};
use super::{Bench, Outcome, Pairs, Side};
use crate::baseline::pgbench;
use crate::baseline::sql::{PlainOrders, Wanted};
use crate::dice::Spread;
use crate::load::Pace;
use crate::market::Market;
use crate::report::Report;
use crate::rig::{Form, Rig};
use crate::scenario::PlaceOrder;
use crate::stats::{median, ratio, ratio_of};

/// Orders for all products alike.
pub(super) async fn uniform(bench: &Bench<'_>, form: Form) -> anyhow::Result<Outcome> {
    let place = Place::start(bench, form, Spread::Uniform).await?;
    let in_flight = bench.args.load.in_flight;
    let mut pairs = Pairs::default();
    for _ in 0..bench.args.pairs {
        place.pair(bench, in_flight, &mut pairs).await?;
    }
    let mut goals = place.goals(&pairs, in_flight, 3.0);
    goals.extend(place.pgbench(bench, in_flight).await?);
    place.rig.stop().await?;
    Ok(Outcome { runs: pairs.into_runs().into(), goals })
}

/// Orders for one product, with few and with many in flight, in turn.
pub(super) async fn hot(bench: &Bench<'_>) -> anyhow::Result<Outcome> {
    const FEW: usize = 64;
    const MANY: usize = 256;
    let place = Place::start(bench, Form::Postgres, Spread::Hot).await?;
    let (mut few, mut many) = (Pairs::default(), Pairs::default());
    for _ in 0..bench.args.pairs {
        place.pair(bench, FEW, &mut few).await?;
        place.pair(bench, MANY, &mut many).await?;
    }
    let mut goals = place.goals(&few, FEW, 15.0);
    goals.extend(place.goals(&many, MANY, 15.0));
    let more = many.ours.iter().zip(&few.ours).map(|(many, few)| ratio_of(finished(many), finished(few))).collect();
    goals.push(Goal::new(format!("{MANY} in flight over {FEW}"), more, Bound::AtLeast(1.0)));
    goals.extend(place.pgbench(bench, FEW).await?);
    place.rig.stop().await?;
    Ok(Outcome { runs: few.into_runs().into_iter().chain(many.into_runs()).collect(), goals })
}

/// Clients of pgbench: the server has 200 connections, of which the services have some.
const CLIENTS_MAX: usize = 150;

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

    /// Ours, and the plain transaction after it.
    async fn pair(&self, bench: &Bench<'_>, in_flight: usize, pairs: &mut Pairs) -> anyhow::Result<()> {
        let plan = bench.args.load.plan(Pace::InFlight(in_flight));
        let ours = Side { scenario: &self.ours, meters: &self.rig.meters };
        pairs.ours.push(bench.ours(&self.rig, &ours, &plan).await?);
        pairs.baseline.push(bench.baseline(&Side { scenario: &self.plain, meters: &[] }, &plan).await?);
        Ok(())
    }

    /// The plain transaction by pgbench, as a look at what the server can do; nothing depends on it.
    async fn pgbench(&self, bench: &Bench<'_>, in_flight: usize) -> anyhow::Result<Vec<Goal>> {
        let (args, wanted) = (bench.args, wanted(bench, self.spread));
        if self.form != Form::Postgres || wanted.lines > 1 {
            return Ok(Vec::new());
        }
        // In tables of its own: nobody keeps books of its orders.
        let url = self.rig.new_database().await?;
        drop(PlainOrders::on_postgres(&url, 1, &wanted).await?);
        let mut shown = Vec::new();
        for clients in [usize::try_from(args.pool)?, in_flight] {
            bench.progress.phase("pgbench", 0);
            let clients = clients.min(CLIENTS_MAX);
            let rate = pgbench::transactions_per_second(&url, self.spread, wanted.products, clients, args.load.seconds);
            let rate = match rate.await {
                Ok(rate) => Some(rate),
                Err(error) => {
                    bench.tell(&format!("no figures of pgbench: {error:#}"))?;
                    None
                }
            };
            shown.push(Goal::new(
                format!("pgbench, the plain transaction, {clients} clients, a second"),
                vec![rate],
                Bound::None,
            ));
        }
        Ok(shown)
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
