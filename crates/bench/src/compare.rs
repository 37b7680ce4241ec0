//! `compare`: ours and a baseline in turn, A B A B …, on the same machine and the same disk, so that whatever else goes on there meets both.
//! The ratio is taken pair by pair, and the median decides.

mod get_product;
mod goal;
mod growth;
mod idle;
mod interceptors;
mod overload;
mod place;
mod watch;

use std::sync::Arc;

use procfs::Current;
use serde::Serialize;

use crate::Ended;
use crate::args::{Compare, Comparison};
use crate::cost::Meter;
use crate::load::Plan;
use crate::measure::measure;
use crate::progress::Progress;
use crate::report::{Report, show, write_json};
use crate::rig::{Form, Rig, RigConfig};
use crate::scenario::Scenario;

use self::goal::Goal;

/// What a comparison has shown.
#[derive(Clone, Debug, Serialize)]
struct Compared {
    name: String,
    /// Processes that wanted to run on this machine in the minute before it began. Above its cores, figures are worth little.
    load_before: f32,
    runs: Vec<Pairs>,
    goals: Vec<Goal>,
}

/// Runs in turn.
#[derive(Clone, Debug, Default, Serialize)]
struct Pairs {
    ours: Vec<Report>,
    baseline: Vec<Report>,
}

impl Pairs {
    /// A number of each pair.
    fn each(&self, number: impl Fn(&Report, &Report) -> f64) -> Vec<f64> {
        self.ours.iter().zip(&self.baseline).map(|(ours, baseline)| number(ours, baseline)).collect()
    }
}

impl Compared {
    fn is_right(&self) -> bool {
        self.runs.iter().flat_map(|pairs| pairs.ours.iter().chain(&pairs.baseline)).all(Report::is_right)
    }
}

/// What every comparison needs.
struct Bench<'a> {
    args: &'a Compare,
    progress: Progress,
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
            binaries: args.binaries.clone(),
            pool: args.pool,
            settings: args.settings.clone(),
            connections: load.connections,
            timeout: load.timeout(),
        };
        Rig::start(&config).await
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
        for _ in 0..self.args.pairs.max(1) {
            pairs.ours.push(self.ours(rig, &ours, plan).await?);
            let report = measure(baseline.scenario, plan, baseline.meters, &self.progress).await?;
            self.show(&report)?;
            pairs.baseline.push(report);
        }
        Ok(pairs)
    }

    async fn ours<S: Scenario>(&self, rig: &Rig, side: &Side<'_, S>, plan: &Plan) -> anyhow::Result<Report> {
        let mut report = measure(side.scenario, plan, side.meters, &self.progress).await?;
        report.violations.extend(rig.violations().await?);
        self.show(&report)?;
        Ok(report)
    }

    fn show(&self, report: &Report) -> anyhow::Result<()> {
        self.progress.clear();
        show(&report.table())
    }
}

/// Runs the comparisons that are named, and says which goals are reached.
pub(crate) async fn compare(args: &Compare) -> anyhow::Result<Ended> {
    let bench = Bench { args, progress: Progress::new(args.output.quiet) };
    let mut all = Vec::with_capacity(args.names.len());
    for name in &args.names {
        let load_before = procfs::LoadAverage::current()?.one;
        let (runs, goals) = match name {
            Comparison::GetProduct => get_product::compare(&bench).await?,
            Comparison::PlaceUniformPostgres => place::uniform(&bench, Form::Postgres).await?,
            Comparison::PlaceUniformEmbedded => place::uniform(&bench, Form::Embedded).await?,
            Comparison::PlaceHot => place::hot(&bench).await?,
            Comparison::IdleLatency => idle::compare(&bench).await?,
            Comparison::Interceptors => interceptors::compare(&bench).await?,
            Comparison::Growth => growth::compare(&bench).await?,
            Comparison::Overload => overload::compare(&bench).await?,
            Comparison::Watch => watch::compare(&bench).await?,
        };
        bench.progress.clear();
        let name = clap::ValueEnum::to_possible_value(name).map(|value| value.get_name().to_owned());
        let compared = Compared { name: name.unwrap_or_default(), load_before, runs, goals };
        show(&format!("{}, load of the machine before it: {load_before:.1}", compared.name))?;
        compared.goals.iter().try_for_each(|goal| show(&format!("  {goal}")))?;
        show("")?;
        all.push(compared);
    }
    if let Some(file) = &args.output.json {
        write_json(file, &all)?;
    }
    let well = all.iter().all(|compared| compared.is_right() && compared.goals.iter().all(Goal::is_reached));
    Ok(if well { Ended::Well } else { Ended::Badly })
}
