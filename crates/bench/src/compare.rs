//! `compare`: ours and a baseline in turn, A B A B …, on the same machine and the same disk, so that whatever else goes on there meets both.
//! The ratio is taken pair by pair, and the median decides.

mod circumstances;
mod get_product;
mod goal;
mod growth;
mod idle;
mod interceptors;
mod overload;
mod place;
mod watch;

use std::sync::Arc;

use anyhow::Context;
use procfs::Current;
use serde::Serialize;

use crate::Ended;
use crate::args::{Compare, Comparison};
use crate::cost::Meter;
use crate::dice::Spread;
use crate::load::Plan;
use crate::market::Market;
use crate::measure::measure;
use crate::progress::Progress;
use crate::report::Report;
use crate::rig::{Form, Rig, RigConfig};
use crate::scenario::{PlaceOrder, Scenario};

use self::circumstances::Circumstances;
use self::goal::Goal;

/// What a comparison has shown.
#[derive(Clone, Debug, Serialize)]
struct Compared {
    name: String,
    made_under: Circumstances,
    /// Processes that wanted to run on this machine in the minute before it began. Above its cores, figures are worth little.
    load_before: f32,
    runs: Vec<Runs>,
    goals: Vec<Goal>,
    /// Why the goals prove nothing; none: they do.
    problems: Vec<String>,
}

/// Runs that belong together.
#[derive(Clone, Debug, Serialize)]
struct Runs {
    what: String,
    reports: Vec<Report>,
}

impl Runs {
    fn of(what: &str, reports: Vec<Report>) -> Self {
        Self { what: what.to_owned(), reports }
    }
}

/// What a comparison comes to.
struct Outcome {
    runs: Vec<Runs>,
    goals: Vec<Goal>,
}

/// Runs in turn.
#[derive(Clone, Debug, Default)]
struct Pairs {
    ours: Vec<Report>,
    baseline: Vec<Report>,
}

impl Pairs {
    /// A number of each pair, where it is known.
    fn each(&self, number: impl Fn(&Report, &Report) -> Option<f64>) -> Vec<Option<f64>> {
        self.ours.iter().zip(&self.baseline).map(|(ours, baseline)| number(ours, baseline)).collect()
    }

    /// As they are written.
    fn into_runs(self) -> [Runs; 2] {
        [Runs::of("ours", self.ours), Runs::of("baseline", self.baseline)]
    }
}

/// Of fewer answers, or changes of what is watched, nothing is concluded.
const ANSWERED_MIN: u64 = 30;

/// Why what is compared proves nothing: wrong answers, hardly any, or calls that failed, where nothing was asked that could not be done.
fn problems(name: Comparison, runs: &[Runs]) -> Vec<String> {
    let mut problems = Vec::new();
    for report in runs.iter().flat_map(|runs| &runs.reports) {
        let (scenario, pace) = (&report.scenario, report.pace);
        if !report.is_right() {
            problems.push(format!("{scenario}, {pace}: something was wrong"));
        }
        if report.failed() > 0 && name != Comparison::Overload {
            problems.push(format!("{scenario}, {pace}: {} calls failed", report.failed()));
        }
        let counted = report.latency.map_or(0, |latency| latency.count);
        let known = report.news.map_or(counted, |news| news.known.min(counted));
        if known < ANSWERED_MIN {
            problems.push(format!("{scenario}, {pace}: {known} answers are too few, run for longer"));
        }
    }
    problems
}

/// What every comparison needs.
struct Bench<'a> {
    args: &'a Compare,
    progress: Progress,
    made_under: Circumstances,
}

/// Something that is measured, and what it costs.
struct Side<'a, S> {
    scenario: &'a Arc<S>,
    meters: &'a [Meter],
}

impl Bench<'_> {
    async fn rig(&self, form: Form) -> anyhow::Result<Rig> {
        self.progress.phase("starting Souk", 0);
        let (args, load) = (self.args, &self.args.load);
        let config = RigConfig {
            form,
            binaries: args.binaries()?,
            pool: args.pool,
            settings: args.settings.clone(),
            connections: load.connections,
            timeout: load.timeout(),
        };
        Rig::start(&config).await
    }

    /// Orders at a Souk of one's own, of which it is read in the tables how many are done: by then a server may have no answer to spare.
    fn orders(&self, rig: &Rig, market: Market, spread: Spread) -> Arc<PlaceOrder> {
        let shape = &self.args.shape;
        let orders = PlaceOrder::new(rig.souk.clone(), market, shape.seed, spread, shape.lines);
        Arc::new(orders.counted_in(rig.inventory().clone()))
    }

    /// Runs both sides in turn. What is in our tables is checked after each run of ours.
    async fn in_turn<A: Scenario, B: Scenario>(
        &self,
        rig: &Rig,
        ours: Side<'_, A>,
        baseline: Side<'_, B>,
        plan: &Plan,
    ) -> anyhow::Result<Pairs> {
        let mut pairs = Pairs::default();
        for _ in 0..self.args.pairs {
            pairs.ours.push(self.ours(rig, &ours, plan).await?);
            pairs.baseline.push(self.baseline(&baseline, plan).await?);
        }
        Ok(pairs)
    }

    async fn ours<S: Scenario>(&self, rig: &Rig, side: &Side<'_, S>, plan: &Plan) -> anyhow::Result<Report> {
        let mut report = measure(side.scenario, plan, side.meters, &self.progress).await?;
        let backlog = rig.published().await?;
        report.published_seconds = Some(backlog.seconds);
        if backlog.left > 0 {
            report.violations.push(format!("{} events are not published, and get no fewer", backlog.left));
        }
        report.violations.extend(rig.violations().await?);
        self.tell(&report.table())?;
        Ok(report)
    }

    /// A run of something that is not ours.
    async fn baseline<S: Scenario>(&self, side: &Side<'_, S>, plan: &Plan) -> anyhow::Result<Report> {
        let report = measure(side.scenario, plan, side.meters, &self.progress).await?;
        self.tell(&report.table())?;
        Ok(report)
    }

    /// Says something to people.
    fn tell(&self, text: &str) -> anyhow::Result<()> {
        self.progress.clear();
        self.args.output.tell(text)
    }
}

/// Runs the comparisons that are named, and says which goals are reached.
pub(crate) async fn compare(args: &Compare) -> anyhow::Result<Ended> {
    args.output.prepare()?;
    let bench = Bench { args, progress: Progress::new(args.output.quiet), made_under: Circumstances::of(args)? };
    let mut all = Vec::with_capacity(args.names.len());
    let ended = bench.compare_each(&mut all).await;
    bench.progress.clear();
    // Also where a later one has failed.
    args.output.finish(&all)?;
    ended?;
    let well = all.iter().all(|compared| compared.problems.is_empty() && compared.goals.iter().all(Goal::is_reached));
    Ok(if well { Ended::Well } else { Ended::Badly })
}

impl Bench<'_> {
    async fn compare_each(&self, all: &mut Vec<Compared>) -> anyhow::Result<()> {
        for name in &self.args.names {
            let compared = self.compare(*name).await.with_context(|| format!("{} has failed", name.name()))?;
            let Compared { name, load_before, goals, problems, .. } = &compared;
            self.tell(&format!("{name}, load of the machine before it: {load_before:.1}"))?;
            goals.iter().try_for_each(|goal| self.tell(&format!("  {goal}")))?;
            problems.iter().try_for_each(|problem| self.tell(&format!("  FAILED: {problem}")))?;
            self.tell("")?;
            all.push(compared);
            self.args.output.save(all)?;
        }
        Ok(())
    }

    async fn compare(&self, name: Comparison) -> anyhow::Result<Compared> {
        let load_before = procfs::LoadAverage::current()?.one;
        let Outcome { runs, goals } = match name {
            Comparison::GetProduct => get_product::compare(self).await?,
            Comparison::PlaceUniformPostgres => place::uniform(self, Form::Postgres).await?,
            Comparison::PlaceUniformEmbedded => place::uniform(self, Form::Embedded).await?,
            Comparison::PlaceHot => place::hot(self).await?,
            Comparison::IdleLatency => idle::compare(self).await?,
            Comparison::Interceptors => interceptors::compare(self).await?,
            Comparison::Growth => growth::compare(self).await?,
            Comparison::Overload => overload::compare(self).await?,
            Comparison::Watch => watch::compare(self).await?,
        };
        let problems = problems(name, &runs);
        Ok(Compared { name: name.name(), made_under: self.made_under.clone(), load_before, runs, goals, problems })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Failures, Pace};
    use crate::stats::Summary;

    fn report(count: u64, failed: u64, violations: &[&str]) -> Report {
        let failure = Failures { code: "UNAVAILABLE".to_owned(), reason: String::new(), count: failed };
        let latency = Summary { count, ..Summary::default() };
        Report {
            failures: vec![failure],
            violations: violations.iter().map(|&violation| violation.to_owned()).collect(),
            ..Report::bare("place-order", Pace::InFlight(64), latency)
        }
    }

    #[test]
    fn a_comparison_fails_by_wrong_answers_by_failed_calls_and_by_too_few() {
        let of = |name, report| problems(name, &[Runs { what: String::new(), reports: vec![report] }]).len();
        assert_eq!(of(Comparison::PlaceHot, report(100, 0, &[])), 0);
        assert_eq!(of(Comparison::PlaceHot, report(100, 1, &[])), 1);
        assert_eq!(of(Comparison::Overload, report(100, 1, &[])), 0);
        assert_eq!(of(Comparison::Overload, report(100, 1, &["a unit is lost"])), 1);
        assert_eq!(of(Comparison::GetProduct, report(ANSWERED_MIN - 1, 0, &[])), 1);
    }
}
