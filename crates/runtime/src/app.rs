//! A binary: what it is, and what it can be told to do.

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Config, Loaded, MS_MAX};
use crate::kernel::Kernel;
use crate::process::{self, ProcessConfig};
use crate::server::{ServerConfig, healthcheck};
use crate::story::story;
use crate::telemetry;

/// The settings of a binary that serves.
pub trait Settings: Config {
    /// What every process has.
    fn process(&self) -> &ProcessConfig;
    /// Its gRPC servers, by the names of their services: those that `healthcheck` asks.
    fn servers(&self) -> Vec<(&'static str, &ServerConfig)>;
}

/// A binary. It serves unless it is told to do something else; it can say how it is (`healthcheck`), and has what other
/// [sub-commands](Subcommand) it is given.
#[derive(Debug)]
pub struct App<C> {
    name: &'static str,
    about: &'static str,
    flags: Vec<Arg>,
    subcommands: Vec<Subcommand<C>>,
}

/// Something that a binary does instead of serving, to its end.
pub struct Subcommand<C> {
    command: Command,
    run: Box<Run<C>>,
}

type Run<C> = dyn FnOnce(C, ArgMatches) -> LocalBoxFuture<'static, anyhow::Result<()>>;

impl<C> Subcommand<C> {
    /// `command` is its name, what it is for, its arguments and its own sub-commands; `run` gets its matches. What it has to show it writes
    /// to standard output; the log is set up, and goes to standard error. SIGINT and SIGTERM drop the future.
    pub fn new<Done>(command: Command, run: impl FnOnce(C, ArgMatches) -> Done + 'static) -> Self
    where
        Done: Future<Output = anyhow::Result<()>> + 'static,
    {
        Self { command, run: Box::new(|config, matches| run(config, matches).boxed_local()) }
    }

    /// `migrate`: brings the databases to the form that this version needs.
    pub fn migrate<Done>(run: impl FnOnce(C) -> Done + 'static) -> Self
    where
        Done: Future<Output = anyhow::Result<()>> + 'static,
    {
        let about = "Bring the database to the form that this version needs, and end";
        let long = "Bring the database to the form that this version needs, and end. `serve` does the same when it starts; any number may do \
                    it at a time.";
        Self::new(Command::new("migrate").about(about).long_about(long), |config, _| {
            let done = run(config);
            async {
                done.await?;
                say("migrated")
            }
        })
    }
}

impl<C> std::fmt::Debug for Subcommand<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subcommand").field("command", &self.command).finish_non_exhaustive()
    }
}

const SERVE: &str = "serve";
const HEALTHCHECK: &str = "healthcheck";
const TIMEOUT_MS: &str = "timeout-ms";
/// The command line made no sense.
const USAGE: u8 = 2;

impl<C: Settings> App<C> {
    /// A binary of that name; `about` says in a sentence what it is.
    pub fn new(name: &'static str, about: &'static str) -> Self {
        Self { name, about, flags: Vec::new(), subcommands: Vec::new() }
    }

    /// With a flag of `serve` beside the settings.
    #[must_use]
    pub fn flag(mut self, flag: Arg) -> Self {
        self.flags.push(flag);
        self
    }

    /// With something else that it can do.
    #[must_use]
    pub fn subcommand(mut self, subcommand: Subcommand<C>) -> Self {
        self.subcommands.push(subcommand);
        self
    }

    /// Does what the command line says. To serve is to run `start` and then wait for SIGINT or SIGTERM, and to end every task in order. A
    /// second signal ends at once.
    ///
    /// `start` brings everything up and returns; what it has spawned goes on. The admin server listens from before `start`, so that a slow
    /// start can be watched.
    pub fn run<Started>(self, start: impl FnOnce(Kernel, C, ArgMatches) -> Started) -> ExitCode
    where
        Started: Future<Output = anyhow::Result<()>>,
    {
        let command = self.command();
        let (config, mut matches) = match config::load::<C>(command.clone(), std::env::args_os()) {
            Ok(Loaded::Run(config, matches)) => (config, matches),
            Ok(Loaded::Print(text)) => return code(&say(text.trim_end())),
            Err(config::Error::Flags(error)) => return usage(&error),
            Err(error) => return code(&Err(error.into())),
        };
        let (name, own) = match matches.remove_subcommand() {
            None => (SERVE.to_owned(), matches),
            Some(chosen) => match self.misplaced(command, &matches) {
                Some(error) => return usage(&error),
                None => chosen,
            },
        };
        match name.as_str() {
            SERVE if let Some(problem) = cut_short(&config) => code(&Err(config::Error::Invalid(vec![problem]).into())),
            SERVE => process::serve(self.name, config, |kernel, config| start(kernel, config, own)),
            HEALTHCHECK => code(&on_small_runtime(check(&config, &own))),
            _ => code(&self.run_subcommand(&name, config, own)),
        }
    }

    fn run_subcommand(self, name: &str, config: C, matches: ArgMatches) -> anyhow::Result<()> {
        let chosen = self.subcommands.into_iter().find(|subcommand| subcommand.command.get_name() == name);
        let chosen = chosen.expect("the command line knows no others");
        telemetry::start_logs(&config.process().telemetry)?;
        on_small_runtime((chosen.run)(config, matches))
    }

    /// A flag of `serve` that stands before a sub-command would be lost.
    fn misplaced(&self, mut command: Command, matches: &ArgMatches) -> Option<clap::Error> {
        let given = |flag: &&Arg| matches.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
        let flag = self.flags.iter().find(given)?;
        let message = format!("--{} is a flag of `{SERVE}`, and stands after it\n", flag.get_id());
        Some(command.error(ErrorKind::ArgumentConflict, message))
    }

    fn command(&self) -> Command {
        let serve = Command::new(SERVE).about("Serve until SIGINT or SIGTERM: what it does if it is told nothing else");
        let subcommands = self.subcommands.iter().map(|subcommand| subcommand.command.clone());
        Command::new(self.name)
            .about(self.about)
            .args(&self.flags)
            .subcommand(serve.args(&self.flags))
            .subcommand(healthcheck_command())
            .subcommands(subcommands)
            .mut_subcommands(|subcommand| subcommand.after_help(NOTES))
            .after_help(format!("{}\n\n{NOTES}", examples(self.name)))
    }
}

/// What the servers are given to drain must fit into what the process is given to end.
fn cut_short<C: Settings>(config: &C) -> Option<String> {
    let process = config.process();
    let left = process.shutdown_timeout_ms.saturating_sub(process.shutdown_delay_ms);
    let (name, _) = config.servers().into_iter().find(|(_, server)| server.drain_timeout_ms > left)?;
    Some(format!(
        "{name}.server.drain_timeout_ms must be at most {left}: what process.shutdown_timeout_ms leaves of its time"
    ))
}

fn examples(name: &str) -> String {
    let rows = [
        ("", "serve with the defaults"),
        (" serve --config souk.toml", "serve with the settings of a file"),
        (" migrate --config souk.toml", "only bring the database to this version's form"),
        (" healthcheck --timeout-ms 1000", "whether the one that runs here serves"),
        (" --print-config", "the settings in effect, as a file"),
        (" --help", "every setting; -h leaves them out"),
    ];
    let rows = rows.map(|(arguments, what)| format!("  {:<46} {what}", format!("{name}{arguments}")));
    format!("Examples:\n{}", rows.join("\n"))
}

const NOTES: &str = "\
A setting a.b can stand in the file, as b under [a]; in the environment, as SOUK_A__B; in a file of its own that SOUK_A__B_FILE names, as \
secrets are handed to containers; or on the command line, as --a.b. The later counts.

Exit codes: 0, done and well; 1, failed or not well, and standard error says why; 2, the command line makes no sense.";

fn healthcheck_command() -> Command {
    let timeout = Arg::new(TIMEOUT_MS).long(TIMEOUT_MS).value_name("MS").default_value("3000");
    let timeout = timeout.value_parser(clap::value_parser!(u64).range(1..=MS_MAX));
    Command::new(HEALTHCHECK)
        .about("Ask the one that runs here with these settings for its gRPC health: exit code 0 if it serves")
        .arg(timeout.help("No answer within so many milliseconds is no health"))
}

async fn check<C: Settings>(config: &C, matches: &ArgMatches) -> anyhow::Result<()> {
    let timeout = Duration::from_millis(*matches.get_one::<u64>(TIMEOUT_MS).context("it has a default")?);
    let mut names = Vec::new();
    for (name, server) in config.servers() {
        let asked = tokio::time::timeout(timeout, healthcheck(server)).await;
        asked.with_context(|| format!("no answer within {timeout:?}")).flatten().context(name)?;
        names.push(name);
    }
    say(&format!("{}: serving", names.join(", ")))
}

/// Runs what needs no threads; a signal drops it.
fn on_small_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = work => result,
            _ = interrupt.recv() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// A line for whoever called, on standard output.
pub fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        // A reader that has gone away has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    drop(error.print());
    ExitCode::from(USAGE)
}

/// What `result` is to whoever called; an error is told.
pub(crate) fn code(result: &anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    drop(writeln!(std::io::stderr(), "error: {}", story(&**error)));
    ExitCode::FAILURE
}
