//! A process that serves, from start to end: logs and traces, the tokio runtime, signals.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::admin::{self, AdminConfig};
use crate::app::{Settings, code};
use crate::clock::Clock;
use crate::config::check_bounds;
use crate::kernel::Kernel;
use crate::open_files;
use crate::readiness::Check;
use crate::server;
use crate::story::story;
use crate::telemetry::{Telemetry, TelemetryConfig};

/// What every process has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// The admin server.
    pub admin: AdminConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// Threads that run calls; 0: one for each core.
    pub worker_threads: usize,
    /// From the signal to the end no more than so many milliseconds.
    pub shutdown_timeout_ms: u64,
    /// Of these, the first so many all goes on as before, but for readiness and gRPC health, which say that the process is going: the time
    /// that load balancers take to notice.
    pub shutdown_delay_ms: u64,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            admin: AdminConfig::default(),
            telemetry: TelemetryConfig::default(),
            worker_threads: 0,
            shutdown_timeout_ms: 15_000,
            shutdown_delay_ms: 0,
        }
    }
}

impl ProcessConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        check_bounds(problems, at, 0..=WORKER_THREADS_MAX, &[("worker_threads", self.worker_threads as u64)]);
        let timeout = [("shutdown_timeout_ms", self.shutdown_timeout_ms)];
        check_bounds(problems, at, 1..=server::DRAIN_TIMEOUT_MS_MAX, &timeout);
        self.admin.validate(&format!("{at}.admin"), problems);
        if self.shutdown_delay_ms > 0 && self.shutdown_delay_ms >= self.shutdown_timeout_ms {
            problems.push(format!("{at}.shutdown_delay_ms must be less than {at}.shutdown_timeout_ms"));
        }
        self.telemetry.validate(&format!("{at}.telemetry"), problems);
    }
}

/// No machine that we know has more cores.
const WORKER_THREADS_MAX: u64 = 1_024;

/// Runs `start`, and waits for SIGINT or SIGTERM; then ends every task in order. Metrics and traces are those of `binary`.
pub(crate) fn serve<C, Started>(binary: &'static str, config: C, start: impl FnOnce(Kernel, C) -> Started) -> ExitCode
where
    C: Settings,
    Started: Future<Output = anyhow::Result<()>>,
{
    let process = config.process().clone();
    let runtime = match runtime(process.worker_threads) {
        Ok(runtime) => runtime,
        Err(error) => return code(&Err(error)), // there is no log yet
    };
    let ended = runtime.block_on(async {
        let mut kernel = Kernel::new(Clock::system());
        let telemetry = match Telemetry::start(&process.telemetry, binary, &kernel) {
            Ok(telemetry) => telemetry,
            Err(error) => return code(&Err(error)),
        };
        kernel.tracer = telemetry.tracer.clone();
        kernel.metrics.register_process(binary, &kernel.readiness);
        let ended = match run(&process, kernel, |kernel| start(kernel, config)).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                error!(error = story(&*error), "ended by an error");
                ExitCode::FAILURE
            }
        };
        telemetry.close().await;
        ended
    });
    // Nothing is owed any more; a thread that hangs in a system call must not hold the end up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// The check that is red until everything is up.
const START: &str = "start";

async fn run<Started>(
    process: &ProcessConfig,
    kernel: Kernel,
    start: impl FnOnce(Kernel) -> Started,
) -> anyhow::Result<()>
where
    Started: Future<Output = anyhow::Result<()>>,
{
    open_files::raise_limit();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    kernel.readiness.set(START, Check::NotReady("starting".to_owned()));
    let admin = server::bind(process.admin.listen).await?;
    info!(address = %admin.local_addr()?, "admin listens");
    admin::serve(&kernel, admin, &process.admin);
    tokio::select! {
        started = start(kernel.clone()) => started?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    }
    kernel.readiness.set(START, Check::Ready);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = kernel.tasks.broken().cancelled() => {}
    }
    info!("shutting down");
    tokio::select! {
        ended = end(process, &kernel) => ended?,
        _ = interrupt.recv() => anyhow::bail!("interrupted while shutting down"),
        _ = terminate.recv() => anyhow::bail!("terminated while shutting down"),
    }
    anyhow::ensure!(!kernel.tasks.broken().is_cancelled(), "a background task panicked");
    info!("stopped");
    Ok(())
}

/// Says that the process is going, gives others the time to hear it, and ends every task.
async fn end(process: &ProcessConfig, kernel: &Kernel) -> anyhow::Result<()> {
    kernel.leave();
    let (delay, whole) = (process.shutdown_delay_ms, process.shutdown_timeout_ms);
    tokio::time::sleep(Duration::from_millis(delay)).await;
    let within = Duration::from_millis(whole.saturating_sub(delay));
    anyhow::ensure!(kernel.tasks.stop(within).await, "some tasks did not end within {whole} ms");
    Ok(())
}

/// tokio's LIFO slot makes every reply of tonic leave by a system call of its own; without it replies leave together, and a core serves
/// about half as many calls again (docs/decisions/0001-runtime.md). 0 threads: one for each core.
pub fn runtime(worker_threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if worker_threads > 0 {
        builder.worker_threads(worker_threads);
    }
    #[cfg(tokio_unstable)]
    builder.disable_lifo_slot();
    builder.enable_all().build().context("the runtime cannot be started")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let problems = |config: ProcessConfig| {
            let mut problems = Vec::new();
            config.validate("process", &mut problems);
            problems
        };
        let (usual, hour) = (ProcessConfig::default(), 3_600_000);
        assert_eq!(problems(usual.clone()), Vec::<String>::new());
        assert_eq!(
            problems(ProcessConfig { worker_threads: 1_024, shutdown_timeout_ms: hour, ..usual.clone() }),
            Vec::<String>::new()
        );
        for shutdown_timeout_ms in [0, hour + 1] {
            assert_eq!(
                problems(ProcessConfig { worker_threads: 1_025, shutdown_timeout_ms, ..usual.clone() }),
                ["process.worker_threads must be 0 to 1024", "process.shutdown_timeout_ms must be 1 to 3600000"]
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_says_so_first_and_ends_within_the_time() {
        let kernel = Kernel::new(Clock::system());
        kernel.readiness.set("start", Check::Ready);
        let process = ProcessConfig { shutdown_delay_ms: 2_000, shutdown_timeout_ms: 5_000, ..Default::default() };
        kernel.tasks.spawn("deaf", std::future::pending());
        let began = tokio::time::Instant::now();
        let (of_end, config) = (kernel.clone(), process.clone());
        let ending = tokio::spawn(async move { end(&config, &of_end).await });
        tokio::time::sleep(Duration::from_millis(1_999)).await;
        assert!(!kernel.readiness.is_ready() && kernel.leaving.is_cancelled());
        assert!(!kernel.tasks.shutdown().is_cancelled());
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(kernel.tasks.shutdown().is_cancelled());
        ending.await.unwrap().unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    #[test]
    fn the_delay_is_part_of_the_time() {
        let mut problems = Vec::new();
        let process = ProcessConfig { shutdown_delay_ms: 5_000, shutdown_timeout_ms: 5_000, ..Default::default() };
        process.validate("process", &mut problems);
        assert_eq!(problems, ["process.shutdown_delay_ms must be less than process.shutdown_timeout_ms"]);
    }
}
