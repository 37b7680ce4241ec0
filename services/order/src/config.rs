//! The settings of the order service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_db::{DbConfig, GroupConfig};
use souk_events::{BusConfig, ConsumerConfig, RelayConfig};
use souk_interceptors::client::ClientConfig;
use souk_interceptors::server::StackConfig;
pub use souk_runtime::config::MS_MAX;
use souk_runtime::config::{BATCH, BYTES, check_bounds};
use souk_runtime::server::ServerConfig;
use souk_runtime::{ProcessConfig, Secret, Settings};

/// The settings of the order service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How it listens.
    pub server: ServerConfig,
    /// What a call may take, and how often.
    pub stack: StackConfig,
    /// Where its tables are.
    pub database: DbConfig,
    /// How changes of orders share transactions.
    pub group: GroupConfig,
    /// How events leave.
    pub relay: RelayConfig,
    /// How events of others are taken.
    pub consumer: ConsumerConfig,
    /// The user service, which knows the keys of access tokens and gives us ours.
    pub user: ClientConfig,
    /// The inventory service.
    pub inventory: ClientConfig,
    /// How changes of reservations share calls to it.
    pub lane: LaneConfig,
    /// Whose access tokens it takes, and how it gets its own.
    pub token: TokenConfig,
    /// How what orders owe is done.
    pub saga: SagaConfig,
    /// The bounds of its own work.
    pub limits: Limits,
}

/// Access tokens: whose are taken, and how the service gets its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenConfig {
    /// `iss` of a token.
    pub issuer: String,
    /// `aud` of a token.
    pub audience: String,
    /// What the user service knows us as.
    pub service_name: String,
    /// What we prove ourselves to the user service with.
    pub client_secret: Secret,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            issuer: "souk".to_owned(),
            audience: "souk".to_owned(),
            service_name: "order".to_owned(),
            client_secret: Secret::default(),
        }
    }
}

/// How what orders owe the inventory is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SagaConfig {
    /// Steps that this process does at a time. A new order waits until its first one can be among them.
    pub concurrency_max: usize,
    /// A step that is taken up and not finished is done by another after so many milliseconds. Longer than a call may take.
    pub lease_ms: u64,
    /// A step should be done within so many milliseconds; one that is not is logged and counted, and still tried.
    pub deadline_ms: u64,
    /// The pause after the first try that got no definite answer, in milliseconds; it doubles with each.
    pub backoff_ms: u64,
    /// The longest pause, in milliseconds.
    pub backoff_max_ms: u64,
    /// Steps that nobody was woken for are looked for every so many milliseconds: what another process left behind.
    pub sweep_interval_ms: u64,
}

impl Default for SagaConfig {
    fn default() -> Self {
        Self {
            concurrency_max: 256,
            lease_ms: 15_000,
            deadline_ms: 60_000,
            backoff_ms: 100,
            backoff_max_ms: 30_000,
            sweep_interval_ms: 1_000,
        }
    }
}

/// How changes of reservations share calls to the inventory. There are two lanes: one for new orders, one for what orders owe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LaneConfig {
    /// Changes that wait for the next call; one more is refused at once.
    pub queue_max: usize,
    /// Changes in one call: 1 to 1000, which is what the inventory takes.
    pub batch_max: usize,
    /// Calls that are on their way at a time. With more of them each has less to carry.
    pub calls_max: usize,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self { queue_max: 4_096, batch_max: 256, calls_max: 4 }
    }
}

/// The bounds of the service's own work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Stock is held for so many milliseconds from placing on: 1 s to 31 d.
    pub hold_ttl_ms: u64,
    /// A repeat of a call that is still running waits for it so many milliseconds at most, and half of its own time.
    pub duplicate_wait_ms: u64,
    /// Products whose prices are remembered.
    pub prices_max: usize,
    /// For so many milliseconds, if no event says that they have changed.
    pub price_ttl_ms: u64,
    /// Orders of one PlaceOrders stream.
    pub place_orders_max: usize,
    /// Orders of one stream that are placed at a time.
    pub place_orders_concurrency: usize,
    /// The results of one stream, in bytes; less than the 4 MiB that clients take unless they are told otherwise.
    pub place_orders_result_bytes_max: usize,
    /// Versions that a watcher is sent from one reading.
    pub watch_batch_max: u32,
    /// Watched orders are looked at anew every so many milliseconds, for what other replicas have changed.
    pub watch_poll_ms: u64,
    /// A page of orders ends at about so many bytes, whatever its size.
    pub page_bytes_max: usize,
    /// The database is asked for a sign of life every so many milliseconds.
    pub health_interval_ms: u64,
    /// Old idempotency keys are looked for every so many milliseconds.
    pub sweep_interval_ms: u64,
    /// And so many deleted in one go.
    pub sweep_batch_max: u32,
    /// The largest request, in bytes. Large enough for lists far too long to be told so by name.
    pub message_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hold_ttl_ms: 15 * 60_000,
            duplicate_wait_ms: 2_000,
            prices_max: 10_000,
            price_ttl_ms: 30_000,
            place_orders_max: 10_000,
            place_orders_concurrency: 32,
            place_orders_result_bytes_max: 4_000_000,
            watch_batch_max: 16,
            watch_poll_ms: 1_000,
            page_bytes_max: 2 * 1_024 * 1_024,
            health_interval_ms: 1_000,
            sweep_interval_ms: 60_000,
            sweep_batch_max: 500,
            message_bytes_max: 1_024 * 1_024,
        }
    }
}

/// Orders in flight at which one process does the most of them, and some: more only wait for each other. At ten times the load that it can
/// take, an order that is let in takes 0.5 s in the median with this bound, and 3 s with 2,048; as many are placed.
const CALLS_MAX: usize = 320;

impl Default for Config {
    fn default() -> Self {
        Self {
            server: ServerConfig::on_port(50_052),
            stack: StackConfig { calls_max: CALLS_MAX, ..StackConfig::default() },
            database: DbConfig::at("sqlite://souk-data/order.sqlite"),
            group: GroupConfig::default(),
            relay: RelayConfig::default(),
            consumer: ConsumerConfig::default(),
            user: ClientConfig::to("127.0.0.1:50051"),
            inventory: ClientConfig::to("127.0.0.1:50053"),
            lane: LaneConfig::default(),
            token: TokenConfig::default(),
            saga: SagaConfig::default(),
            limits: Limits::default(),
        }
    }
}

/// The inventory holds stock for 31 days at most.
const HOLD_TTL_MS_MAX: u64 = 31 * 24 * 3_600_000;
/// Prices that are remembered, orders of one stream: more are no setting but a mistake.
const COUNT_MAX: u64 = 10_000_000;
/// Each change that waits takes memory.
const QUEUE_MAX: u64 = 1_000_000;

impl Config {
    /// Notes what cannot be.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let (limits, saga) = (&self.limits, &self.saga);
        let batches = [
            ("saga.concurrency_max", saga.concurrency_max as u64),
            ("limits.place_orders_concurrency", limits.place_orders_concurrency as u64),
            ("limits.watch_batch_max", limits.watch_batch_max.into()),
            ("limits.sweep_batch_max", limits.sweep_batch_max.into()),
        ];
        check_bounds(problems, "order", BATCH, &batches);
        let remembered = [
            ("limits.prices_max", limits.prices_max as u64),
            ("limits.place_orders_max", limits.place_orders_max as u64),
        ];
        check_bounds(problems, "order", 1..=COUNT_MAX, &remembered);
        let lane = &self.lane;
        check_bounds(problems, "order", 1..=1_000, &[("lane.batch_max", lane.batch_max as u64)]);
        let waiting = [("lane.queue_max", lane.queue_max as u64), ("lane.calls_max", lane.calls_max as u64)];
        check_bounds(problems, "order", 1..=QUEUE_MAX, &waiting);
        let bytes = [
            ("limits.place_orders_result_bytes_max", limits.place_orders_result_bytes_max as u64),
            ("limits.page_bytes_max", limits.page_bytes_max as u64),
            ("limits.message_bytes_max", limits.message_bytes_max as u64),
        ];
        check_bounds(problems, "order", BYTES, &bytes);
        let times = [
            ("saga.lease_ms", saga.lease_ms),
            ("saga.deadline_ms", saga.deadline_ms),
            ("saga.backoff_ms", saga.backoff_ms),
            ("saga.backoff_max_ms", saga.backoff_max_ms),
            ("saga.sweep_interval_ms", saga.sweep_interval_ms),
            ("limits.watch_poll_ms", limits.watch_poll_ms),
            ("limits.health_interval_ms", limits.health_interval_ms),
            ("limits.sweep_interval_ms", limits.sweep_interval_ms),
        ];
        check_bounds(problems, "order", 1..=MS_MAX, &times);
        let times_or_none =
            [("limits.duplicate_wait_ms", limits.duplicate_wait_ms), ("limits.price_ttl_ms", limits.price_ttl_ms)];
        check_bounds(problems, "order", 0..=MS_MAX, &times_or_none);
        check_bounds(problems, "order", 1_000..=HOLD_TTL_MS_MAX, &[("limits.hold_ttl_ms", limits.hold_ttl_ms)]);
        if saga.lease_ms <= self.inventory.timeout_ms {
            problems.push("order.saga.lease_ms must be more than order.inventory.timeout_ms".to_owned());
        }
        self.server.validate("order.server", problems);
        self.stack.validate("order.stack", problems);
        self.database.validate("order.database", problems);
        self.group.validate("order.group", problems);
        self.relay.validate("order.relay", problems);
        self.consumer.validate("order.consumer", problems);
        self.user.validate("order.user", problems);
        self.inventory.validate("order.inventory", problems);
    }
}

/// What the binary of this service alone is configured with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// What every process has.
    pub process: ProcessConfig,
    /// Where events go, and where others' come from.
    pub bus: BusConfig,
    /// The service.
    pub order: Config,
}

impl Default for Process {
    fn default() -> Self {
        Self { process: ProcessConfig::default(), bus: BusConfig::unnamed(), order: Config::default() }
    }
}

impl souk_runtime::config::Config for Process {
    fn validate(&self, problems: &mut Vec<String>) {
        self.process.validate("process", problems);
        self.bus.validate("bus", problems);
        self.order.validate(problems);
        if self.order.token.client_secret.is_empty() {
            problems.push("order.token.client_secret must be set: it is how the inventory knows us".to_owned());
        }
    }
}

impl Settings for Process {
    fn process(&self) -> &ProcessConfig {
        &self.process
    }

    fn servers(&self) -> Vec<(&'static str, &ServerConfig)> {
        vec![("order", &self.order.server)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Config);

    #[test]
    fn the_defaults_can_be_used_and_what_cannot_is_named() {
        let mut problems = Vec::new();
        Config::default().validate(&mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let mut bad = Config::default();
        bad.saga.lease_ms = bad.inventory.timeout_ms;
        bad.saga.concurrency_max = 0;
        bad.limits.hold_ttl_ms = 999;
        bad.user.addresses.clear();
        bad.validate(&mut problems);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn no_time_is_past_the_end_of_time() {
        let saga = SagaConfig {
            lease_ms: u64::MAX,
            deadline_ms: u64::MAX,
            backoff_ms: u64::MAX,
            backoff_max_ms: u64::MAX,
            sweep_interval_ms: u64::MAX,
            ..SagaConfig::default()
        };
        let limits = Limits {
            hold_ttl_ms: u64::MAX,
            duplicate_wait_ms: u64::MAX,
            price_ttl_ms: u64::MAX,
            watch_poll_ms: u64::MAX,
            health_interval_ms: u64::MAX,
            sweep_interval_ms: MS_MAX + 1,
            ..Limits::default()
        };
        let mut problems = Vec::new();
        Config { saga, limits, ..Config::default() }.validate(&mut problems);
        assert_eq!(problems.len(), 11, "{problems:?}");
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let bad: [(&str, Change); 31] = [
            ("server.header_bytes_max", |config| config.server.header_bytes_max = 0),
            ("server.drain_timeout_ms", |config| config.server.drain_timeout_ms = 3_600_001),
            ("stack.calls_max", |config| config.stack.calls_max = 0),
            ("database.connections_max", |config| config.database.connections_max = 0),
            ("group.queue_max", |config| config.group.queue_max = 0),
            ("relay.batch_max", |config| config.relay.batch_max = 0),
            ("consumer.tries_max", |config| config.consumer.tries_max = 0),
            ("user.backoff_ms", |config| config.user.backoff_ms = 60_001),
            ("inventory.tries_max", |config| config.inventory.tries_max = 0),
            ("lane.queue_max", |config| config.lane.queue_max = 0),
            ("lane.batch_max", |config| config.lane.batch_max = 1_001),
            ("lane.calls_max", |config| config.lane.calls_max = 0),
            ("saga.concurrency_max", |config| config.saga.concurrency_max = 10_001),
            ("saga.deadline_ms", |config| config.saga.deadline_ms = 0),
            ("saga.backoff_ms", |config| config.saga.backoff_ms = 0),
            ("saga.backoff_max_ms", |config| config.saga.backoff_max_ms = 0),
            ("saga.sweep_interval_ms", |config| config.saga.sweep_interval_ms = 0),
            ("limits.hold_ttl_ms", |config| config.limits.hold_ttl_ms = 999),
            ("limits.duplicate_wait_ms", |config| config.limits.duplicate_wait_ms = MS_MAX + 1),
            ("limits.prices_max", |config| config.limits.prices_max = 0),
            ("limits.price_ttl_ms", |config| config.limits.price_ttl_ms = MS_MAX + 1),
            ("limits.place_orders_max", |config| config.limits.place_orders_max = 10_000_001),
            ("limits.place_orders_concurrency", |config| config.limits.place_orders_concurrency = 10_001),
            ("limits.place_orders_result_bytes_max", |config| config.limits.place_orders_result_bytes_max = 0),
            ("limits.watch_batch_max", |config| config.limits.watch_batch_max = 0),
            ("limits.watch_poll_ms", |config| config.limits.watch_poll_ms = 0),
            ("limits.page_bytes_max", |config| config.limits.page_bytes_max = 0),
            ("limits.health_interval_ms", |config| config.limits.health_interval_ms = 0),
            ("limits.sweep_interval_ms", |config| config.limits.sweep_interval_ms = 0),
            ("limits.sweep_batch_max", |config| config.limits.sweep_batch_max = 10_001),
            ("limits.message_bytes_max", |config| config.limits.message_bytes_max = 0),
        ];
        for (name, change) in bad {
            let mut config = Config::default();
            change(&mut config);
            let mut problems = Vec::new();
            config.validate(&mut problems);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].starts_with(&format!("order.{name} must be ")), "{problems:?}");
        }
    }
}
