//! How fast a Souk is: load that does not hide what callers wait for, a look at whether the answers were right, and baselines beside which
//! a figure means something. `docs/performance.md` says how it is used and what is compared.
//!
//! It calls Souk as anyone would, over gRPC. Only where it has started the databases itself, it reads them too, to check them.

mod args;
mod baseline;
mod compare;
mod cost;
mod dice;
mod load;
mod market;
mod measure;
mod plot;
mod progress;
mod report;
mod rig;
mod run;
mod scenario;
mod souk;
mod stats;

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Command, Tool};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whether every answer was right and every goal reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Well,
    Badly,
}

fn main() -> anyhow::Result<ExitCode> {
    let tool = Tool::told();
    // The same runtime as that of the services, also where it serves as a baseline.
    let runtime = souk_runtime::runtime(0)?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        // Whatever was started ends with the future that has started it.
        tokio::select! {
            ended = run(tool.command) => ended,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
            _ = hang_up.recv() => anyhow::bail!("the terminal is gone"),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(if ended? == Ended::Well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(command: Command) -> anyhow::Result<Ended> {
    match command {
        Command::Run(run) => run::run(&run).await,
        Command::Compare(compare) => compare::compare(&compare).await,
        Command::Echo(echo) => baseline::echo::serve(&echo).await,
    }
}
