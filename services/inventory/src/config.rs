//! The settings of the inventory service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_db::{DbConfig, GroupConfig};
use souk_events::{BusConfig, RelayConfig};
use souk_interceptors::client::ClientConfig;
use souk_interceptors::server::StackConfig;
use souk_runtime::config::{BATCH, BYTES, MS_MAX, check_bounds};
use souk_runtime::server::ServerConfig;
use souk_runtime::{ProcessConfig, Settings};

/// The settings of the inventory service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How it listens.
    pub server: ServerConfig,
    /// What a call may take, and how often.
    pub stack: StackConfig,
    /// Where its tables are.
    pub database: DbConfig,
    /// How changes of stock share transactions.
    pub group: GroupConfig,
    /// How events leave.
    pub relay: RelayConfig,
    /// The user service, which knows the keys of access tokens.
    pub user: ClientConfig,
    /// Whose access tokens it takes.
    pub token: TokenConfig,
    /// The bounds of its own work.
    pub limits: Limits,
}

/// Whose access tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenConfig {
    /// `iss` of a token.
    pub issuer: String,
    /// `aud` of a token.
    pub audience: String,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self { issuer: "souk".to_owned(), audience: "souk".to_owned() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: ServerConfig::on_port(50_053),
            stack: StackConfig::default(),
            database: DbConfig::at("sqlite://souk-data/inventory.sqlite"),
            group: GroupConfig::default(),
            relay: RelayConfig::default(),
            user: ClientConfig::to("127.0.0.1:50051"),
            token: TokenConfig::default(),
            limits: Limits::default(),
        }
    }
}

/// Rows of one stream, or what is remembered: more are no setting but a mistake.
const COUNT_MAX: u64 = 10_000_000;

impl Config {
    /// Notes what cannot be.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let limits = &self.limits;
        let batches = [
            ("sweep_batch_max", limits.sweep_batch_max.into()),
            ("due_holds_max", limits.due_holds_max.into()),
            ("sync_batch_max", limits.sync_batch_max as u64),
            ("import_batch_max", limits.import_batch_max as u64),
        ];
        check_bounds(problems, "inventory.limits", BATCH, &batches);
        let counts = [
            ("import_rows_max", limits.import_rows_max.into()),
            ("products_remembered_max", limits.products_remembered_max as u64),
        ];
        check_bounds(problems, "inventory.limits", 1..=COUNT_MAX, &counts);
        let bytes = [
            ("page_bytes_max", limits.page_bytes_max as u64),
            ("catalog_message_bytes_max", limits.catalog_message_bytes_max as u64),
            ("stock_message_bytes_max", limits.stock_message_bytes_max as u64),
        ];
        check_bounds(problems, "inventory.limits", BYTES, &bytes);
        let times = [
            ("sweep_interval_ms", limits.sweep_interval_ms),
            ("watch_poll_ms", limits.watch_poll_ms),
            ("health_interval_ms", limits.health_interval_ms),
            ("duplicate_wait_ms", limits.duplicate_wait_ms),
        ];
        check_bounds(problems, "inventory.limits", 1..=MS_MAX, &times);
        check_bounds(problems, "inventory.limits", 0..=MS_MAX, &[("product_ttl_ms", limits.product_ttl_ms)]);
        self.database.validate("inventory.database", problems);
        self.group.validate("inventory.group", problems);
        self.relay.validate("inventory.relay", problems);
        self.server.validate("inventory.server", problems);
        self.stack.validate("inventory.stack", problems);
        self.user.validate("inventory.user", problems);
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
    pub inventory: Config,
}

impl Default for Process {
    fn default() -> Self {
        Self { process: ProcessConfig::default(), bus: BusConfig::unnamed(), inventory: Config::default() }
    }
}

impl souk_runtime::config::Config for Process {
    fn validate(&self, problems: &mut Vec<String>) {
        self.process.validate("process", problems);
        self.bus.validate("bus", problems);
        self.inventory.validate(problems);
    }
}

impl Settings for Process {
    fn process(&self) -> &ProcessConfig {
        &self.process
    }

    fn servers(&self) -> Vec<(&'static str, &ServerConfig)> {
        vec![("inventory", &self.inventory.server)]
    }
}

/// The bounds of the service's own work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Holds that have run out are ended every so many milliseconds. Sooner, if somebody needs their units.
    pub sweep_interval_ms: u64,
    /// So many holds in one go, and so many old idempotency keys.
    pub sweep_batch_max: u32,
    /// Due holds that are loaded with one batch of commands; with more there are several goes.
    pub due_holds_max: u32,
    /// Watched levels are read anew every so many milliseconds, for what other replicas have changed.
    pub watch_poll_ms: u64,
    /// The database is asked for a sign of life every so many milliseconds.
    pub health_interval_ms: u64,
    /// A change of the catalogue waits at most so many milliseconds for another with the same key.
    pub duplicate_wait_ms: u64,
    /// Products that are remembered, each with up to 20 KiB.
    pub products_remembered_max: usize,
    /// Products are remembered for so many milliseconds, if no event says that they have changed.
    pub product_ttl_ms: u64,
    /// Movements of one scanner that are handed in together.
    pub sync_batch_max: usize,
    /// Rows of one ImportProducts stream.
    pub import_rows_max: u32,
    /// Rows of an import in one transaction.
    pub import_batch_max: usize,
    /// A page of products ends at about so many bytes, whatever its size.
    pub page_bytes_max: usize,
    /// The largest request to CatalogService, in bytes.
    pub catalog_message_bytes_max: usize,
    /// The largest request to StockService, in bytes. Large enough for lists far too long to be told so by name.
    pub stock_message_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sweep_interval_ms: 10_000,
            sweep_batch_max: 500,
            due_holds_max: 1_000,
            watch_poll_ms: 1_000,
            health_interval_ms: 1_000,
            duplicate_wait_ms: 2_000,
            products_remembered_max: 10_000,
            product_ttl_ms: 30_000,
            sync_batch_max: 16,
            import_rows_max: 100_000,
            import_batch_max: 200,
            page_bytes_max: 2 * 1_024 * 1_024,
            catalog_message_bytes_max: 256 * 1_024,
            stock_message_bytes_max: 512 * 1_024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Config);

    #[test]
    fn what_cannot_be_is_named() {
        let mut problems = Vec::new();
        Config::default().validate(&mut problems);
        assert_eq!(problems, Vec::<String>::new());
        let mut bad = Config { database: DbConfig::at("file"), ..Config::default() };
        bad.limits.sync_batch_max = 0;
        bad.limits.duplicate_wait_ms = u64::MAX;
        bad.group.batch_max = 0;
        bad.validate(&mut problems);
        let named = ["limits.sync_batch_max", "limits.duplicate_wait_ms", "database.url", "group.batch_max"];
        assert_eq!(problems.len(), named.len(), "{problems:?}");
        for (name, problem) in named.iter().zip(&problems) {
            assert!(problem.starts_with(&format!("inventory.{name} ")), "{problem}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let bad: [(&str, Change); 21] = [
            ("server.header_bytes_max", |config| config.server.header_bytes_max = 0),
            ("server.drain_timeout_ms", |config| config.server.drain_timeout_ms = 3_600_001),
            ("stack.calls_max", |config| config.stack.calls_max = 0),
            ("database.connections_max", |config| config.database.connections_max = 0),
            ("group.queue_max", |config| config.group.queue_max = 0),
            ("relay.batch_max", |config| config.relay.batch_max = 0),
            ("user.backoff_ms", |config| config.user.backoff_ms = 60_001),
            ("limits.sweep_interval_ms", |config| config.limits.sweep_interval_ms = 0),
            ("limits.sweep_batch_max", |config| config.limits.sweep_batch_max = 10_001),
            ("limits.due_holds_max", |config| config.limits.due_holds_max = 0),
            ("limits.watch_poll_ms", |config| config.limits.watch_poll_ms = MS_MAX + 1),
            ("limits.health_interval_ms", |config| config.limits.health_interval_ms = 0),
            ("limits.duplicate_wait_ms", |config| config.limits.duplicate_wait_ms = 0),
            ("limits.sync_batch_max", |config| config.limits.sync_batch_max = 10_001),
            ("limits.import_rows_max", |config| config.limits.import_rows_max = 0),
            ("limits.products_remembered_max", |config| config.limits.products_remembered_max = 0),
            ("limits.product_ttl_ms", |config| config.limits.product_ttl_ms = MS_MAX + 1),
            ("limits.import_batch_max", |config| config.limits.import_batch_max = 10_001),
            ("limits.page_bytes_max", |config| config.limits.page_bytes_max = 0),
            ("limits.catalog_message_bytes_max", |config| config.limits.catalog_message_bytes_max = 0),
            ("limits.stock_message_bytes_max", |config| config.limits.stock_message_bytes_max = 16 * 1_024 * 1_024 + 1),
        ];
        for (name, change) in bad {
            let mut config = Config::default();
            change(&mut config);
            let mut problems = Vec::new();
            config.validate(&mut problems);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].starts_with(&format!("inventory.{name} must be ")), "{problems:?}");
        }
    }
}
