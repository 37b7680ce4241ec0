//! Under which circumstances a comparison was made: what somebody needs to know to make it again.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::args::Compare;

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Circumstances {
    /// Of the folder that the binaries lie in, if that is a work tree.
    commit: Option<String>,
    binaries: PathBuf,
    /// The profile that they were built with, by the name of their folder.
    profile: String,
    /// Those that were said, besides the benchmark's own.
    settings: Vec<String>,
    /// Connections to the database, of each service and of the baseline.
    pool: u32,
    cores: usize,
    in_flight: usize,
    seconds: f64,
    warm_up: f64,
    pairs: usize,
}

impl Circumstances {
    /// Those that are said, and those that are there.
    pub(super) fn of(args: &Compare) -> anyhow::Result<Self> {
        let binaries = args.binaries()?;
        Ok(Self {
            commit: commit(&binaries),
            profile: binaries.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            binaries,
            settings: args.settings.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            pool: args.pool,
            cores: std::thread::available_parallelism().map_or(1, NonZero::get),
            in_flight: args.load.in_flight,
            seconds: args.load.seconds,
            warm_up: args.load.warm_up,
            pairs: args.pairs,
        })
    }
}

fn commit(folder: &Path) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
