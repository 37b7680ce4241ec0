//! The settings of the inventory service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_db::{DbConfig, GroupConfig};
use souk_events::RelayConfig;
use souk_interceptors::client::ClientConfig;
use souk_interceptors::server::StackConfig;
use souk_runtime::ProcessConfig;
use souk_runtime::server::ServerConfig;

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

/// A year: nothing here is longer, so that no time that is reckoned with it lies past the end of time.
const MS_MAX: u64 = 365 * 24 * 3_600_000;

impl Config {
    /// Notes what cannot be.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let limits = &self.limits;
        let mut positive = |name: &str, value: u64| {
            if value == 0 {
                problems.push(format!("inventory.limits.{name} must be more than 0"));
            }
        };
        positive("sweep_interval_ms", limits.sweep_interval_ms);
        positive("sweep_batch_max", limits.sweep_batch_max.into());
        positive("due_holds_max", limits.due_holds_max.into());
        positive("watch_poll_ms", limits.watch_poll_ms);
        positive("health_interval_ms", limits.health_interval_ms);
        positive("duplicate_wait_ms", limits.duplicate_wait_ms);
        positive("sync_batch_max", limits.sync_batch_max as u64);
        positive("import_batch_max", limits.import_batch_max as u64);
        for (name, value) in [
            ("sweep_interval_ms", limits.sweep_interval_ms),
            ("watch_poll_ms", limits.watch_poll_ms),
            ("health_interval_ms", limits.health_interval_ms),
            ("duplicate_wait_ms", limits.duplicate_wait_ms),
        ] {
            if value > MS_MAX {
                problems.push(format!("inventory.limits.{name} must be at most {MS_MAX}"));
            }
        }
        self.database.validate("inventory.database", problems);
        self.group.validate("inventory.group", problems);
        self.server.validate("inventory.server", problems);
        self.stack.validate("inventory.stack", problems);
        self.user.validate("inventory.user", problems);
    }
}

/// What the binary of this service alone is configured with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// What every process has.
    pub process: ProcessConfig,
    /// The service.
    pub inventory: Config,
}

impl souk_runtime::config::Config for Process {
    fn validate(&self, problems: &mut Vec<String>) {
        self.inventory.validate(problems);
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
}
