//! What the tool can be told.

mod values;

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use tonic::transport::Certificate;

use self::values::{count, rate, seconds, seconds_or_none, setting};
use crate::dice::Spread;
use crate::load::{Pace, Plan};
use crate::market::Size;
use crate::scenario::Audience;
use crate::souk::Addresses;
use crate::stats::as_f64;

/// How fast a Souk is, and whether its answers are right.
///
/// Runs make products and customers of their own, under names that tell one run from another, and leave them: do not point it at a shop that
/// sells.
#[derive(Debug, Parser)]
#[command(name = "souk-bench", version)]
pub(crate) struct Tool {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Tool {
    /// What it was told. Ends the process where that cannot be done.
    pub(crate) fn told() -> Self {
        Self::of(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    fn of<Word: Into<OsString> + Clone>(words: impl IntoIterator<Item = Word>) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let tool = Self::from_arg_matches(&matches)?;
        let refused = match (&tool.command, matches.subcommand()) {
            (Command::Run(run), _) => {
                run.outlasts_tokens().or_else(|| run.shape.contradicts()).or_else(|| run.streams.contradicts())
            }
            (Command::Compare(compare), Some((_, flags))) => {
                compare.ignores(flags).or_else(|| compare.outlasts_tokens()).or_else(|| compare.shape.contradicts())
            }
            _ => None,
        };
        refused.map_or(Ok(tool), |reason| Err(Self::command().error(ErrorKind::ArgumentConflict, reason)))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure a running Souk. The products and customers that are made for it stay.
    Run(Box<Run>),
    /// Start what is needed, run Souk and a baseline in turn, and say which goals are reached.
    Compare(Box<Compare>),
    /// Serve as a baseline.
    #[command(hide = true)]
    Echo(Echo),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScenarioName {
    /// Read products, as customers who are logged in.
    GetProduct,
    /// Read users: everybody themselves.
    GetUser,
    /// List orders: everybody their newest.
    ListOrders,
    /// Place orders; --spread and --lines say for what.
    PlaceOrder,
    /// A mixture of all of these, as shops have it.
    Shop,
    /// Log in.
    Login,
    /// Watch the stock of one product; a call is a change of it.
    Watch,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// What is called.
    pub(crate) scenario: ScenarioName,
    #[command(flatten)]
    pub(crate) at: At,
    #[command(flatten)]
    pub(crate) login: Login,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) shape: Shape,
    #[command(flatten)]
    pub(crate) streams: Streams,
    /// The rates of an open loop: so many calls begin in a second, whatever becomes of them. Several, with commas, are run one after the
    /// other. Without it: a closed loop.
    #[arg(long, value_delimiter = ',', value_parser = rate)]
    pub(crate) rate: Vec<f64>,
    /// Draw latency over load as SVG into this file.
    #[arg(long)]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Tokens of a Souk that is running live for ten minutes.
const TOKENS_LIVE: f64 = 480.0;
/// Those of a Souk of one's own live for an hour.
const OWN_TOKENS_LIVE: f64 = 3_000.0;

impl Run {
    /// Why it is too long, if it is.
    fn outlasts_tokens(&self) -> Option<String> {
        let runs = as_f64(self.rate.len().max(1));
        let seconds = runs * (self.load.seconds + self.load.warm_up);
        let reason = format!(
            "{seconds} s of load outlast the tokens of customers: {TOKENS_LIVE} at most, of all rates together"
        );
        (seconds > TOKENS_LIVE).then_some(reason)
    }
}

/// Where Souk is. Several addresses of one service stand with commas between them; by TLS, each as https://HOST:PORT.
#[derive(Debug, Args)]
pub(crate) struct At {
    /// The user service.
    #[arg(long, default_value = "127.0.0.1:50051")]
    user_address: String,
    /// The order service.
    #[arg(long, default_value = "127.0.0.1:50052")]
    order_address: String,
    /// The inventory service.
    #[arg(long, default_value = "127.0.0.1:50053")]
    inventory_address: String,
    /// The certificates that vouch for the services, a PEM file. Needed for https.
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// Admin servers, to be asked for CPU time and memory; with commas between them. 127.0.0.1:9090 is that of one process.
    #[arg(long, value_delimiter = ',')]
    pub(crate) admin: Vec<SocketAddr>,
}

impl At {
    pub(crate) fn addresses(&self) -> anyhow::Result<Addresses> {
        let read = |file: &PathBuf| fs::read(file).with_context(|| format!("{} cannot be read", file.display()));
        Ok(Addresses {
            user: self.user_address.clone(),
            order: self.order_address.clone(),
            inventory: self.inventory_address.clone(),
            authority: self.ca_file.as_ref().map(read).transpose()?.map(Certificate::from_pem),
        })
    }
}

/// An administrator, who makes what a run stands on.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The administrator's address.
    #[arg(long, default_value = "admin@souk.example")]
    pub(crate) email: String,
    /// A file with the administrator's password; without it, the password is that of the environment variable SOUK_BENCH_PASSWORD.
    #[arg(long)]
    password_file: Option<PathBuf>,
}

/// Where the password is, if it is not in a file.
const PASSWORD: &str = "SOUK_BENCH_PASSWORD";

impl Login {
    pub(crate) fn password(&self) -> anyhow::Result<String> {
        let Some(file) = &self.password_file else {
            return std::env::var(PASSWORD).with_context(|| format!("neither --password-file nor {PASSWORD} is set"));
        };
        let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// How much is called.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// Calls in flight.
    #[arg(long, default_value_t = 64, value_parser = count::<1, 20_000>)]
    pub(crate) in_flight: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Seconds before, which are not.
    #[arg(long, default_value_t = 2.0, value_parser = seconds_or_none)]
    pub(crate) warm_up: f64,
    /// Connections to each service.
    #[arg(long, default_value_t = 4, value_parser = count::<1, 1_000>)]
    pub(crate) connections: usize,
    /// The deadline of every call, in seconds.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    timeout: f64,
}

impl LoadArgs {
    pub(crate) fn plan(&self, pace: Pace) -> Plan {
        Plan { pace, warm_up: Duration::from_secs_f64(self.warm_up), window: Duration::from_secs_f64(self.seconds) }
    }

    /// A closed loop with as many calls in flight as was said.
    pub(crate) fn closed(&self) -> Plan {
        self.plan(Pace::InFlight(self.in_flight))
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout)
    }
}

/// What is called for.
#[derive(Clone, Debug, Args)]
pub(crate) struct Shape {
    /// Products that are made for the run.
    #[arg(long, default_value_t = 1_000, value_parser = count::<1, 100_000>)]
    products: usize,
    /// Customers that are made for the run. Each may make so many calls a second only: `stack.reads` and `stack.writes` of the settings.
    #[arg(long, default_value_t = 16, value_parser = count::<1, 10_000>)]
    customers: usize,
    /// How calls spread over products.
    #[arg(long, value_enum, default_value_t = Spread::Uniform)]
    pub(crate) spread: Spread,
    /// Lines of an order.
    #[arg(long, default_value_t = 1, value_parser = count::<1, 100>)]
    pub(crate) lines: usize,
    /// The same number draws the same products.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Who watches.
#[derive(Clone, Debug, Args)]
pub(crate) struct Streams {
    /// Streams that watch.
    #[arg(long, default_value_t = 100, value_parser = count::<1, 100_000>)]
    streams: usize,
    /// Of these, so many that are not read.
    #[arg(long, default_value_t = 0, value_parser = count::<0, 100_000>)]
    slow_streams: usize,
}

impl Shape {
    /// Why it cannot be, if so.
    fn contradicts(&self) -> Option<String> {
        let too_many = self.lines > self.products;
        too_many.then(|| format!("{} --lines are more than {} --products", self.lines, self.products))
    }

    pub(crate) fn size(&self) -> Size {
        Size { products: self.products, customers: self.customers }
    }
}

impl Streams {
    /// Why they cannot be, if so.
    fn contradicts(&self) -> Option<String> {
        let too_many = self.slow_streams > self.streams;
        too_many.then(|| format!("{} --slow-streams are more than {} --streams", self.slow_streams, self.streams))
    }

    pub(crate) fn audience(&self) -> Audience {
        Audience { streams: self.streams, slow: self.slow_streams }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Write everything as JSON into this file, or to the terminal: `-`.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// No progress bar.
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Comparison {
    /// Goal 1: GetProduct and a bare tonic server.
    GetProduct,
    /// Goal 2: orders for many products and plain transactions, on PostgreSQL.
    PlaceUniformPostgres,
    /// Goal 2: the same in one process, on SQLite.
    PlaceUniformEmbedded,
    /// Goal 3: orders for one product and plain transactions that lock its row, on PostgreSQL.
    PlaceHot,
    /// Goal 4: one order at a time and as many durable commits as it takes, on PostgreSQL and on SQLite.
    IdleLatency,
    /// Goal 5: what the interceptors cost over bare tonic.
    Interceptors,
    /// Goal 6: ten times the products, ten times the orders, ten thousand idle streams.
    Growth,
    /// Goal 7: orders at 0.5 to 10 times the rate that can be served.
    Overload,
    /// Goal 8: thousands of streams that watch one product.
    Watch,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// What is compared; several are run one after the other.
    #[arg(required = true)]
    pub(crate) names: Vec<Comparison>,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) shape: Shape,
    /// How often ours and the baseline are run in turn.
    #[arg(long, default_value_t = 5, value_parser = count::<1, 100>)]
    pub(crate) pairs: usize,
    /// The folder with the binaries of Souk. Without it: that of this one.
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Take binaries that are not optimised as well: to see that things work. Their figures mean nothing.
    #[arg(long)]
    debug_binaries: bool,
    /// Connections to the database, of each service and of the baseline.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) pool: u32,
    /// A setting of the services, as they know it: `order.group.batch_max=128`. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub(crate) settings: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Comparison {
    /// What stands fixed in it. Ids of flags.
    fn fixed(self) -> &'static [&'static str] {
        match self {
            Self::GetProduct | Self::Interceptors => &["lines"],
            Self::PlaceUniformPostgres | Self::PlaceUniformEmbedded => &["spread"],
            Self::PlaceHot => &["in_flight", "spread"],
            Self::IdleLatency | Self::Overload => &["in_flight"],
            Self::Growth => &[],
            Self::Watch => &["in_flight", "products", "customers", "spread", "lines", "seed"],
        }
    }

    /// Runs of one pair, on one Souk.
    fn runs(self) -> usize {
        match self {
            Self::GetProduct
            | Self::PlaceUniformPostgres
            | Self::PlaceUniformEmbedded
            | Self::IdleLatency
            | Self::Watch => 2,
            Self::PlaceHot => 4,
            Self::Interceptors => 5,
            Self::Growth => 8,
            Self::Overload => 12,
        }
    }

    /// As it is called on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Compare {
    /// The folder that the services' binaries lie in.
    pub(crate) fn binaries(&self) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe()?;
        let beside = own.parent().context("a program lies in a folder")?;
        let folder = self.binaries.as_deref().unwrap_or(beside);
        // They are started in folders of their own.
        let folder = folder.canonicalize().with_context(|| format!("{} is not there", folder.display()))?;
        let are_debug = folder.ends_with("debug");
        anyhow::ensure!(
            !are_debug || self.debug_binaries,
            "the binaries in {} are not optimised: cargo build --release --workspace --bins, or --debug-binaries",
            folder.display()
        );
        Ok(folder)
    }

    /// A flag that was said to a comparison which would not read it.
    fn ignores(&self, flags: &ArgMatches) -> Option<String> {
        let said = |flag: &&&str| flags.value_source(flag) == Some(ValueSource::CommandLine);
        let ignored = |name: &Comparison| Some((name.name(), *name.fixed().iter().find(said)?));
        let (name, flag) = self.names.iter().find_map(ignored)?;
        Some(format!("{name} does not read --{}", flag.replace('_', "-")))
    }

    /// Why it is too long, if it is.
    fn outlasts_tokens(&self) -> Option<String> {
        let one = self.load.seconds + self.load.warm_up;
        let all = |name: &&Comparison| as_f64(name.runs() * self.pairs) * one > OWN_TOKENS_LIVE;
        let name = self.names.iter().find(all)?.name();
        Some(format!("{name} would outlast the tokens of customers: fewer --pairs or --seconds"))
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Echo {
    /// The answer to GetProduct, as hexadecimal digits.
    #[arg(long)]
    pub(crate) answer: String,
    /// What stands around it.
    #[arg(long, value_enum, default_value_t = Dress::Bare)]
    pub(crate) dress: Dress,
    /// The user service, which knows the keys of the tokens that calls bring.
    #[arg(long, default_value = "127.0.0.1:50051")]
    pub(crate) user_address: String,
}

/// What stands around the echo server's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dress {
    /// Nothing: tonic's own server.
    Bare,
    /// Our interceptors, on tonic's own server.
    Stack,
    /// The same, with a collector of traces which none is sent to.
    Sampled,
    /// Our interceptors, on our server: all that a service has.
    Whole,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: &str) -> Result<Tool, String> {
        Tool::of(words.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for good in ["run get-product --warm-up 0", "run shop --rate 1,20000", "compare growth --lines 100 --pairs 1"] {
            told(&format!("bench {good}")).unwrap();
        }
        for (bad, why) in [
            ("run shop --in-flight 0", "must be 1 to 20000"),
            ("run shop --rate 0", "must be 0.1 to 1000000"),
            ("run shop --rate nan", "must be 0.1 to 1000000"),
            ("run shop --rate inf", "must be 0.1 to 1000000"),
            ("run place-order --lines 101", "must be 1 to 100"),
            ("run place-order --products 0", "must be 1 to 100000"),
            ("run place-order --connections 0", "must be 1 to 1000"),
            ("run place-order --seconds 481", "must be 0.001 to 480"),
            ("run place-order --seconds 200 --rate 1,2,3", "outlast the tokens of customers: 480 at most"),
            ("run place-order --lines 5 --products 4", "5 --lines are more than 4 --products"),
            ("run watch --slow-streams 3 --streams 2", "3 --slow-streams are more than 2 --streams"),
            ("compare growth --pairs 0", "must be 1 to 100"),
            ("compare growth --seconds 480", "growth would outlast the tokens"),
            ("compare growth --set orders.group.batch_max=1", "orders.group.batch_max is no setting"),
        ] {
            let error = told(&format!("bench {bad}")).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_comparison_refuses_what_it_would_not_read() {
        assert!(told("bench compare get-product --lines 3").unwrap_err().contains("get-product does not read --lines"));
        let hot = told("bench compare growth place-hot --in-flight 3").unwrap_err();
        assert!(hot.contains("place-hot does not read --in-flight"), "{hot}");
        assert!(told("bench compare watch --streams 3").unwrap_err().contains("unexpected argument"));
    }

    #[test]
    fn every_flag_that_a_comparison_does_not_read_is_one() {
        let command = Tool::command();
        let compare = command.find_subcommand("compare").unwrap();
        for flag in Comparison::value_variants().iter().flat_map(|name| name.fixed()) {
            assert!(compare.get_arguments().any(|argument| argument.get_id() == flag), "{flag}");
        }
    }
}
