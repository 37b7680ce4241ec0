//! The settings of the user service.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_db::DbConfig;
use souk_events::{BusConfig, RelayConfig};
use souk_interceptors::server::StackConfig;
use souk_runtime::config::{BATCH, BYTES, check_bounds};
use souk_runtime::server::ServerConfig;
use souk_runtime::{ProcessConfig, Secret, Settings};

use crate::domain::keys::KeyRules;
use crate::domain::password::Cost;
use crate::domain::{Email, SessionRules};

/// The port that it listens on if nothing is said.
const PORT: u16 = 50_051;
/// Verifiers keep a list of keys for five minutes, and a replica learns of a new key within `keys.check_interval_ms`.
const PUBLISH_MS_MIN: u64 = 6 * MINUTE_MS;
/// Ten years. With these upper bounds no time that is computed from now is one that cannot be.
const HOURS_MAX: u32 = 10 * 365 * 24;
/// It must be listed for less time than it signs.
const PUBLISH_MS_MAX: u64 = HOURS_MAX as u64 * HOUR_MS;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const YEAR_MS: u64 = 365 * DAY_MS;
/// Shorter secrets of services could be guessed.
const SECRET_BYTES_MIN: usize = 32;

/// The settings of the user service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How it listens.
    pub server: ServerConfig,
    /// What a call may take, and how often.
    pub stack: StackConfig,
    /// Where its tables are.
    pub database: DbConfig,
    /// How events leave.
    pub relay: RelayConfig,
    /// `iss` of the access tokens; the other services must expect the same.
    pub issuer: String,
    /// `aud` of the access tokens; the other services must expect the same.
    pub audience: String,
    /// The address of the administrator that is created when there is none.
    pub admin_email: String,
    /// Services that may ask for tokens, by name.
    pub service_accounts: BTreeMap<String, ServiceAccount>,
    /// How long tokens and sessions are good.
    pub tokens: TokensConfig,
    /// How the keys that sign access tokens change.
    pub keys: KeysConfig,
    /// What a hash of a password costs.
    pub passwords: PasswordsConfig,
    /// How failed logins slow down.
    pub throttle: ThrottleConfig,
    /// The bounds of the service's own work.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: ServerConfig::on_port(PORT),
            stack: StackConfig::default(),
            database: DbConfig::at("sqlite://souk-data/user.sqlite"),
            relay: RelayConfig::default(),
            issuer: "souk".into(),
            audience: "souk".into(),
            admin_email: "admin@souk.example".into(),
            service_accounts: BTreeMap::new(),
            tokens: TokensConfig::default(),
            keys: KeysConfig::default(),
            passwords: PasswordsConfig::default(),
            throttle: ThrottleConfig::default(),
            limits: Limits::default(),
        }
    }
}

/// A service that may ask for tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceAccount {
    /// What it proves itself with: 32 bytes at least, random.
    pub secret: Secret,
    /// What its tokens allow.
    pub scopes: Vec<String>,
}

/// How long tokens and sessions are good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokensConfig {
    /// An access token is good for so many milliseconds.
    pub access_ms: u64,
    /// A session ends after so many hours without an exchange.
    pub idle_hours: u32,
    /// And so many hours after its login.
    pub absolute_hours: u32,
    /// An answer that was lost may be asked for again for so many milliseconds.
    pub replay_ms: u64,
}

impl Default for TokensConfig {
    fn default() -> Self {
        Self { access_ms: 10 * 60_000, idle_hours: 14 * 24, absolute_hours: 90 * 24, replay_ms: 30_000 }
    }
}

/// How the keys that sign access tokens change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// A key is listed so many milliseconds before it signs. Six minutes at least: verifiers keep lists for five.
    pub publish_ms: u64,
    /// It signs for so many hours.
    pub sign_hours: u32,
    /// And is listed so many milliseconds longer.
    pub retire_ms: u64,
    /// Every so many milliseconds it is seen what is due, and what other replicas have done.
    pub check_interval_ms: u64,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self { publish_ms: 15 * 60_000, sign_hours: 30 * 24, retire_ms: 60 * 60_000, check_interval_ms: 30_000 }
    }
}

/// What a hash of a password costs: Argon2id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordsConfig {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Hashes that are computed at a time; 0: one for each core.
    pub concurrency: usize,
    /// Hashes that may wait for their turn; more are refused with UNAVAILABLE, LOAD_SHED.
    pub waiting_max: usize,
}

impl Default for PasswordsConfig {
    fn default() -> Self {
        let Cost { memory_kib, passes } = Cost::FLOOR;
        Self { memory_kib, passes, concurrency: 0, waiting_max: 64 }
    }
}

/// How failed logins slow down, for each address and account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottleConfig {
    /// So many failures are free; after each more one must wait, 1 second, 2, 4, …
    pub free_failures: u32,
    /// At most so many milliseconds.
    pub wait_max_ms: u64,
    /// After so many milliseconds without a failure all is forgotten.
    pub forget_ms: u64,
    /// So many pairs of address and account are remembered.
    pub pairs_max: usize,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self { free_failures: 5, wait_max_ms: 5 * 60_000, forget_ms: 60 * 60_000, pairs_max: 100_000 }
    }
}

/// The bounds of the service's own work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest request, in bytes.
    pub message_bytes_max: usize,
    /// So many milliseconds a repeat waits for the first call of its key, or half of its own time if that is less.
    pub duplicate_wait_ms: u64,
    /// Users that StreamUsers reads at a time.
    pub stream_batch_max: u32,
    /// Old sessions and idempotency keys are deleted every so many milliseconds.
    pub sweep_interval_ms: u64,
    /// So many in one go.
    pub sweep_batch_max: u32,
    /// The database is asked for a sign of life every so many milliseconds.
    pub health_interval_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * 1_024,
            duplicate_wait_ms: 2_000,
            stream_batch_max: 200,
            sweep_interval_ms: 10 * 60_000,
            sweep_batch_max: 500,
            health_interval_ms: 2_000,
        }
    }
}

/// The settings of the user service as a process of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// The process.
    pub process: ProcessConfig,
    /// Where events go, and where others' come from.
    pub bus: BusConfig,
    /// The service.
    pub user: Config,
}

impl Default for Process {
    fn default() -> Self {
        Self { process: ProcessConfig::default(), bus: BusConfig::unnamed(), user: Config::default() }
    }
}

impl souk_runtime::config::Config for Process {
    fn validate(&self, problems: &mut Vec<String>) {
        self.process.validate("process", problems);
        self.bus.validate("bus", problems);
        self.user.validate(problems);
    }
}

impl Settings for Process {
    fn process(&self) -> &ProcessConfig {
        &self.process
    }

    fn servers(&self) -> Vec<(&'static str, &ServerConfig)> {
        vec![("user", &self.user.server)]
    }
}

impl Config {
    /// Notes what cannot be.
    pub fn validate(&self, problems: &mut Vec<String>) {
        let mut must = |holds: bool, problem: &str| {
            if !holds {
                problems.push(format!("user.{problem}"));
            }
        };
        must(!self.issuer.is_empty(), "issuer must be set");
        must(!self.audience.is_empty(), "audience must be set");
        must(Email::parse(&self.admin_email).is_ok(), "admin_email must be an address");
        self.validate_tokens_and_keys(problems);
        self.validate_work(problems);
        self.server.validate("user.server", problems);
        self.stack.validate("user.stack", problems);
        self.database.validate("user.database", problems);
        self.relay.validate("user.relay", problems);
        for (name, account) in &self.service_accounts {
            validate_account(name, account, problems);
        }
    }
}

impl Config {
    fn validate_tokens_and_keys(&self, problems: &mut Vec<String>) {
        let (tokens, keys) = (&self.tokens, &self.keys);
        let hours = [
            ("tokens.idle_hours", tokens.idle_hours.into()),
            ("tokens.absolute_hours", tokens.absolute_hours.into()),
            ("keys.sign_hours", keys.sign_hours.into()),
        ];
        check_bounds(problems, "user", 1..=HOURS_MAX.into(), &hours);
        check_bounds(problems, "user", 1_000..=HOUR_MS, &[("tokens.access_ms", tokens.access_ms)]);
        check_bounds(problems, "user", 0..=MINUTE_MS, &[("tokens.replay_ms", tokens.replay_ms)]);
        check_bounds(problems, "user", 1..=MINUTE_MS, &[("keys.check_interval_ms", keys.check_interval_ms)]);
        check_bounds(problems, "user", PUBLISH_MS_MIN..=PUBLISH_MS_MAX, &[("keys.publish_ms", keys.publish_ms)]);
        check_bounds(problems, "user", 0..=YEAR_MS, &[("keys.retire_ms", keys.retire_ms)]);
        if tokens.absolute_hours < tokens.idle_hours {
            problems.push("user.tokens.absolute_hours must be user.tokens.idle_hours or more".to_owned());
        }
        if u64::from(keys.sign_hours) * HOUR_MS <= keys.publish_ms {
            problems.push("user.keys.sign_hours must be longer than user.keys.publish_ms".to_owned());
        }
        let two_checks = keys.check_interval_ms.saturating_mul(2);
        if keys.retire_ms < tokens.access_ms.saturating_add(two_checks).saturating_add(MINUTE_MS) {
            let least = "user.tokens.access_ms, two checks and a minute";
            problems.push(format!("user.keys.retire_ms must be longer than {least}"));
        }
    }

    fn validate_work(&self, problems: &mut Vec<String>) {
        let (cost, throttle, limits) = (&self.passwords, &self.throttle, &self.limits);
        let memory = Cost::FLOOR.memory_kib.into()..=1_048_576;
        check_bounds(problems, "user", memory, &[("passwords.memory_kib", cost.memory_kib.into())]);
        let passes = Cost::FLOOR.passes.into()..=100;
        check_bounds(problems, "user", passes, &[("passwords.passes", cost.passes.into())]);
        check_bounds(problems, "user", 0..=1_024, &[("passwords.concurrency", cost.concurrency as u64)]);
        check_bounds(problems, "user", 0..=100_000, &[("passwords.waiting_max", cost.waiting_max as u64)]);
        check_bounds(problems, "user", 0..=1_000, &[("throttle.free_failures", throttle.free_failures.into())]);
        check_bounds(problems, "user", 0..=DAY_MS, &[("throttle.wait_max_ms", throttle.wait_max_ms)]);
        check_bounds(problems, "user", 0..=YEAR_MS, &[("throttle.forget_ms", throttle.forget_ms)]);
        check_bounds(problems, "user", 1..=10_000_000, &[("throttle.pairs_max", throttle.pairs_max as u64)]);
        check_bounds(problems, "user", BYTES, &[("limits.message_bytes_max", limits.message_bytes_max as u64)]);
        check_bounds(problems, "user", 0..=MINUTE_MS, &[("limits.duplicate_wait_ms", limits.duplicate_wait_ms)]);
        let batches = [
            ("limits.stream_batch_max", limits.stream_batch_max.into()),
            ("limits.sweep_batch_max", limits.sweep_batch_max.into()),
        ];
        check_bounds(problems, "user", BATCH, &batches);
        let intervals = [
            ("limits.sweep_interval_ms", limits.sweep_interval_ms),
            ("limits.health_interval_ms", limits.health_interval_ms),
        ];
        check_bounds(problems, "user", 1..=DAY_MS, &intervals);
    }
}

fn validate_account(name: &str, account: &ServiceAccount, problems: &mut Vec<String>) {
    let at = format!("user.service_accounts.{name}");
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        problems.push(format!("{at}: the name must be a-z, 0-9 and -"));
    }
    if account.secret.expose().len() < SECRET_BYTES_MIN {
        problems.push(format!("{at}.secret must have {SECRET_BYTES_MIN} bytes at least"));
    }
    if account.scopes.iter().any(|scope| scope.is_empty() || scope.contains(char::is_whitespace)) {
        problems.push(format!("{at}.scopes must be names without white space"));
    }
}

impl TokensConfig {
    /// As the domain has it.
    pub fn session_rules(&self) -> SessionRules {
        SessionRules {
            idle: TimeDelta::hours(i64::from(self.idle_hours)),
            absolute: TimeDelta::hours(i64::from(self.absolute_hours)),
            replay: millis(self.replay_ms),
        }
    }

    /// How long an access token is good.
    pub fn access_lifetime(&self) -> TimeDelta {
        millis(self.access_ms)
    }
}

impl KeysConfig {
    /// As the domain has it.
    pub fn rules(&self) -> KeyRules {
        KeyRules {
            publish: millis(self.publish_ms),
            sign: TimeDelta::hours(i64::from(self.sign_hours)),
            retire: millis(self.retire_ms),
        }
    }
}

/// [`Config::validate`] keeps it far below the bound.
pub(crate) fn millis(milliseconds: u64) -> TimeDelta {
    TimeDelta::milliseconds(i64::try_from(milliseconds.min(10 * YEAR_MS)).expect("ten years are few milliseconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Config);

    fn problems(config: &Config) -> Vec<String> {
        let mut problems = Vec::new();
        config.validate(&mut problems);
        problems
    }

    #[test]
    fn the_defaults_can_be_used() {
        assert_eq!(problems(&Config::default()), Vec::<String>::new());
    }

    #[test]
    fn no_bound_is_open_at_the_top() {
        let tokens =
            TokensConfig { access_ms: u64::MAX, idle_hours: u32::MAX, absolute_hours: u32::MAX, replay_ms: u64::MAX };
        let keys =
            KeysConfig { publish_ms: u64::MAX, sign_hours: u32::MAX, retire_ms: u64::MAX, check_interval_ms: u64::MAX };
        let passwords = PasswordsConfig {
            memory_kib: u32::MAX,
            passes: u32::MAX,
            concurrency: usize::MAX,
            waiting_max: usize::MAX,
        };
        let throttle = ThrottleConfig {
            free_failures: u32::MAX,
            wait_max_ms: u64::MAX,
            forget_ms: u64::MAX,
            pairs_max: usize::MAX,
        };
        let limits = Limits {
            message_bytes_max: usize::MAX,
            duplicate_wait_ms: u64::MAX,
            stream_batch_max: u32::MAX,
            sweep_interval_ms: u64::MAX,
            sweep_batch_max: u32::MAX,
            health_interval_ms: u64::MAX,
        };
        let config = Config { tokens, keys, passwords, throttle, limits, ..Config::default() };
        let problems = problems(&config);
        // One for each, and sign_hours is shorter than publish_ms.
        assert_eq!(problems.len(), 23, "{problems:#?}");
    }

    #[test]
    fn the_longest_times_can_be_computed_with() {
        let longest =
            TokensConfig { idle_hours: HOURS_MAX, absolute_hours: HOURS_MAX, replay_ms: 60_000, access_ms: HOUR_MS };
        let keys =
            KeysConfig { publish_ms: YEAR_MS, sign_hours: HOURS_MAX, retire_ms: YEAR_MS, ..KeysConfig::default() };
        let config = Config { tokens: longest, keys, ..Config::default() };
        assert_eq!(problems(&config), Vec::<String>::new());
        let (now, rules) = (chrono::DateTime::UNIX_EPOCH, config.tokens.session_rules());
        let keys = config.keys.rules();
        let _ = [rules.idle, rules.absolute, keys.publish, keys.sign, keys.retire].map(|time| now + time + time);
        assert_eq!(millis(u64::MAX), TimeDelta::days(3_650));
    }

    #[test]
    fn everything_that_cannot_be_is_named_at_once() {
        let mut config = Config { admin_email: "nobody".into(), ..Config::default() };
        config.passwords.passes = 1;
        config.keys.retire_ms = config.tokens.access_ms;
        config.limits.sweep_batch_max = 0;
        let account = ServiceAccount { secret: Secret::new("short"), scopes: vec!["a b".into()] };
        config.service_accounts.insert("Order".into(), account);
        let problems = problems(&config);
        assert_eq!(problems.len(), 7, "{problems:?}");
        assert!(!problems.concat().contains("short"), "a secret is not told");
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let bad: [(&str, Change); 25] = [
            ("server.header_bytes_max", |config| config.server.header_bytes_max = 0),
            ("server.drain_timeout_ms", |config| config.server.drain_timeout_ms = 3_600_001),
            ("stack.calls_max", |config| config.stack.calls_max = 0),
            ("database.connections_max", |config| config.database.connections_max = 0),
            ("relay.batch_max", |config| config.relay.batch_max = 0),
            ("tokens.access_ms", |config| config.tokens.access_ms = 999),
            ("tokens.idle_hours", |config| config.tokens.idle_hours = 0),
            ("tokens.replay_ms", |config| config.tokens.replay_ms = 60_001),
            ("keys.publish_ms", |config| config.keys.publish_ms = PUBLISH_MS_MIN - 1),
            ("keys.check_interval_ms", |config| config.keys.check_interval_ms = 0),
            ("keys.retire_ms", |config| config.keys.retire_ms = YEAR_MS + 1),
            ("passwords.memory_kib", |config| config.passwords.memory_kib = 19_455),
            ("passwords.passes", |config| config.passwords.passes = 1),
            ("passwords.concurrency", |config| config.passwords.concurrency = 1_025),
            ("passwords.waiting_max", |config| config.passwords.waiting_max = 100_001),
            ("throttle.free_failures", |config| config.throttle.free_failures = 1_001),
            ("throttle.wait_max_ms", |config| config.throttle.wait_max_ms = DAY_MS + 1),
            ("throttle.forget_ms", |config| config.throttle.forget_ms = YEAR_MS + 1),
            ("throttle.pairs_max", |config| config.throttle.pairs_max = 0),
            ("limits.message_bytes_max", |config| config.limits.message_bytes_max = 0),
            ("limits.duplicate_wait_ms", |config| config.limits.duplicate_wait_ms = 60_001),
            ("limits.stream_batch_max", |config| config.limits.stream_batch_max = 0),
            ("limits.sweep_interval_ms", |config| config.limits.sweep_interval_ms = 0),
            ("limits.sweep_batch_max", |config| config.limits.sweep_batch_max = 10_001),
            ("limits.health_interval_ms", |config| config.limits.health_interval_ms = 0),
        ];
        for (name, change) in bad {
            let mut config = Config::default();
            change(&mut config);
            let problems = problems(&config);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].starts_with(&format!("user.{name} must be ")), "{problems:?}");
        }
    }
}
