//! What the tool can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::dice::Spread;
use crate::load::{Pace, Plan};
use crate::market::Size;
use crate::scenario::Audience;
use crate::souk::Addresses;

/// How fast a Souk is, and whether its answers are right.
#[derive(Debug, Parser)]
#[command(name = "souk-bench", version)]
pub(crate) struct Tool {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure a running Souk.
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
    /// The rates of an open loop: so many calls begin in a second, whatever becomes of them. Several, with commas, are run one after the
    /// other. Without it: a closed loop.
    #[arg(long, value_delimiter = ',')]
    pub(crate) rate: Vec<f64>,
    /// Draw latency over load as SVG into this file.
    #[arg(long)]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Where Souk is. Several addresses of one service stand with commas between them.
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
    /// Admin servers, to be asked for CPU time and memory; with commas between them. 127.0.0.1:9090 is that of one process.
    #[arg(long, value_delimiter = ',')]
    pub(crate) admin: Vec<SocketAddr>,
}

impl At {
    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            user: self.user_address.clone(),
            order: self.order_address.clone(),
            inventory: self.inventory_address.clone(),
        }
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
        let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// How much is called.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// Calls in flight.
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Seconds before, which are not.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// Connections to each service.
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: usize,
    /// The deadline of every call, in seconds.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    timeout: f64,
}

/// From a thousandth of a second to a day.
fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if (0.001..=86_400.0).contains(&value) { Ok(value) } else { Err("must be 0.001 to 86400".to_owned()) }
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
    #[arg(long, default_value_t = 1_000)]
    products: usize,
    /// Customers that are made for the run. Each may make so many calls a second only: `stack.reads` and `stack.writes` of the settings.
    #[arg(long, default_value_t = 16)]
    customers: usize,
    /// How calls spread over products.
    #[arg(long, value_enum, default_value_t = Spread::Uniform)]
    pub(crate) spread: Spread,
    /// Lines of an order.
    #[arg(long, default_value_t = 1)]
    pub(crate) lines: usize,
    /// Streams that watch.
    #[arg(long, default_value_t = 100)]
    pub(crate) streams: usize,
    /// Of these, so many that are not read.
    #[arg(long, default_value_t = 0)]
    pub(crate) slow_streams: usize,
    /// The same number draws the same products.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Shape {
    pub(crate) fn size(&self) -> Size {
        Size { products: self.products.max(1), customers: self.customers.max(1) }
    }

    pub(crate) fn audience(&self) -> Audience {
        Audience { streams: self.streams, slow: self.slow_streams.min(self.streams) }
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
    #[arg(long, default_value_t = 5)]
    pub(crate) pairs: usize,
    /// The folder with the binaries of Souk. Without it: that of this one.
    #[arg(long)]
    pub(crate) binaries: Option<PathBuf>,
    /// Connections to the database, of each service and of the baseline.
    #[arg(long, default_value_t = 8)]
    pub(crate) pool: u32,
    /// A setting of the services, as they know it: `order.group.batch_max=128`. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub(crate) settings: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Whose settings there are.
const SECTIONS: [&str; 5] = ["user", "order", "inventory", "process", "bus"];

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    let (section, rest) = name.split_once('.').unwrap_or((name, ""));
    if !SECTIONS.contains(&section) || rest.is_empty() {
        return Err(format!("{name} is no setting: it begins with one of {}", SECTIONS.join(". ") + "."));
    }
    // The services are found where the benchmark has put them.
    if rest == "server.listen" || name == "process.admin.listen" {
        return Err(format!("{name} is the benchmark's own"));
    }
    Ok((name.to_owned(), value.to_owned()))
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
    /// Our interceptors, on our server: all that a service has.
    Whole,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_a_name_that_a_service_may_know() {
        let group = setting("order.group.batch_max=128").unwrap();
        assert_eq!(group, ("order.group.batch_max".to_owned(), "128".to_owned()));
        assert_eq!(setting("process.telemetry.log=info,souk=debug").unwrap().1, "info,souk=debug");
        for bad in ["order.group", "orders.group=1", "order=1", "order.server.listen=127.0.0.1:1"] {
            setting(bad).unwrap_err();
        }
    }
}
