//! The settings of a database.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_runtime::config::{MS_MAX, check_bounds};

use crate::url::DbUrl;

/// Where the data lies, and how it is reached. What is said to be of PostgreSQL means nothing to SQLite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DbConfig {
    /// `sqlite://folder/file.sqlite`, made if missing, or `postgres://user:password@host:5432/database`. Of several hosts
    /// (`…@one:5432,two:5432/…`) the one that takes writes is used. TLS: `?sslmode=verify-full&sslrootcert=/path/ca.pem`.
    pub url: DbUrl,
    /// At most so many connections: of PostgreSQL (one more looks from time to time whether it is back), or of SQLite's readers (it has
    /// one writer).
    pub connections_max: u32,
    /// So many connections are kept open to PostgreSQL, used or not.
    pub connections_min: u32,
    /// How long the start of a process waits for PostgreSQL to answer, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a call waits for a connection before it is told UNAVAILABLE, in milliseconds. The call's own deadline may be nearer.
    pub acquire_timeout_ms: u64,
    /// A connection to PostgreSQL that nobody has used for so long is closed, in milliseconds.
    pub idle_timeout_ms: u64,
    /// A connection to PostgreSQL is not used for longer, in milliseconds. They are replaced one after the other, from nine tenths of it on.
    pub lifetime_max_ms: u64,
    /// How long one statement may run on PostgreSQL, in milliseconds. The call's own deadline may be nearer.
    pub statement_timeout_ms: u64,
    /// How long a statement waits for a row or a table that another transaction has locked, in milliseconds.
    pub lock_timeout_ms: u64,
    /// How long a transaction may rest between two statements, in milliseconds: what a process that hangs has locked is free after that.
    pub idle_transaction_timeout_ms: u64,
    /// How long migrations of PostgreSQL may take, the wait for another replica's included, in milliseconds.
    pub migrate_timeout_ms: u64,
    /// How often PostgreSQL looks, while a statement runs, whether its client is still there, in milliseconds; 0 leaves that to the
    /// server's settings (it must be 0 for a server that does not know `client_connection_check_interval`, or behind a pooler).
    pub client_check_interval_ms: u64,
    /// Statements that a connection keeps prepared; 0 prepares none, as poolers need it that share connections between transactions.
    pub statement_cache_max: u32,
    /// How far the clock of this machine may differ from that of PostgreSQL's, in milliseconds, for the process to start.
    pub clock_skew_max_ms: u64,
    /// What of PostgreSQL may be off though acknowledged changes are lost with it when a machine fails.
    pub unsafe_allow: Vec<Durability>,
}

/// A setting of PostgreSQL without which a commit that was acknowledged may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// `fsync`: what is committed is on the disk.
    Fsync,
    /// `synchronous_commit`: COMMIT is answered when it is.
    SynchronousCommit,
    /// `full_page_writes`: a page that was half written is mended. Off is sound only on a file system that never writes half a page.
    FullPageWrites,
}

impl Durability {
    pub(crate) const ALL: [Self; 3] = [Self::Fsync, Self::SynchronousCommit, Self::FullPageWrites];

    /// PostgreSQL's name for it, and ours.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::SynchronousCommit => "synchronous_commit",
            Self::FullPageWrites => "full_page_writes",
        }
    }
}

impl Default for DbConfig {
    fn default() -> Self {
        Self {
            url: "sqlite://souk-data/souk.sqlite".to_owned().into(),
            connections_max: 8,
            connections_min: 0,
            connect_timeout_ms: 30_000,
            acquire_timeout_ms: 2_000,
            idle_timeout_ms: 600_000,
            lifetime_max_ms: 1_800_000,
            statement_timeout_ms: 10_000,
            lock_timeout_ms: 2_000,
            idle_transaction_timeout_ms: 3_000,
            migrate_timeout_ms: 600_000,
            client_check_interval_ms: 250,
            statement_cache_max: 500,
            clock_skew_max_ms: 1_000,
            unsafe_allow: Vec::new(),
        }
    }
}

/// More connections than any server has.
const CONNECTIONS_MAX: u64 = 10_000;
/// More statements than Souk has, by far.
const STATEMENTS_MAX: u64 = 10_000;

impl DbConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        if let Err(problem) = self.url.check() {
            problems.push(format!("{at}.url {problem}"));
        }
        let times = [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("acquire_timeout_ms", self.acquire_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("lifetime_max_ms", self.lifetime_max_ms),
            ("clock_skew_max_ms", self.clock_skew_max_ms),
        ];
        check_bounds(problems, at, 1..=MS_MAX, &times);
        // PostgreSQL counts these in an integer of 32 bits.
        let of_the_server = [
            ("statement_timeout_ms", self.statement_timeout_ms),
            ("lock_timeout_ms", self.lock_timeout_ms),
            ("idle_transaction_timeout_ms", self.idle_transaction_timeout_ms),
            ("migrate_timeout_ms", self.migrate_timeout_ms),
        ];
        check_bounds(problems, at, 1..=i32::MAX as u64, &of_the_server);
        check_bounds(problems, at, 0..=i32::MAX as u64, &[("client_check_interval_ms", self.client_check_interval_ms)]);
        check_bounds(problems, at, 1..=CONNECTIONS_MAX, &[("connections_max", self.connections_max.into())]);
        let most = self.connections_max.into();
        check_bounds(problems, at, 0..=most, &[("connections_min", self.connections_min.into())]);
        check_bounds(problems, at, 0..=STATEMENTS_MAX, &[("statement_cache_max", self.statement_cache_max.into())]);
    }

    /// The defaults, with another URL.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into().into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let usual = DbConfig::default();
        let at = |url: &str| DbConfig::at(url);
        let bad = [
            ("url", at("file")),
            ("url", at("postgres://[bad")),
            ("url", at("postgres://souk@one,two/db?target_session_attrs=standby")),
            ("connections_max", DbConfig { connections_max: 0, ..usual.clone() }),
            ("connections_min", DbConfig { connections_min: 9, ..usual.clone() }),
            ("connect_timeout_ms", DbConfig { connect_timeout_ms: 0, ..usual.clone() }),
            ("acquire_timeout_ms", DbConfig { acquire_timeout_ms: 0, ..usual.clone() }),
            ("idle_timeout_ms", DbConfig { idle_timeout_ms: 0, ..usual.clone() }),
            ("lifetime_max_ms", DbConfig { lifetime_max_ms: MS_MAX + 1, ..usual.clone() }),
            ("statement_timeout_ms", DbConfig { statement_timeout_ms: 1 << 31, ..usual.clone() }),
            ("idle_transaction_timeout_ms", DbConfig { idle_transaction_timeout_ms: 0, ..usual.clone() }),
            ("lock_timeout_ms", DbConfig { lock_timeout_ms: 0, ..usual.clone() }),
            ("migrate_timeout_ms", DbConfig { migrate_timeout_ms: 0, ..usual.clone() }),
            ("client_check_interval_ms", DbConfig { client_check_interval_ms: 1 << 31, ..usual.clone() }),
            ("statement_cache_max", DbConfig { statement_cache_max: 10_001, ..usual.clone() }),
            ("clock_skew_max_ms", DbConfig { clock_skew_max_ms: 0, ..usual.clone() }),
        ];
        for (name, config) in bad {
            let mut problems = Vec::new();
            config.validate("database", &mut problems);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].starts_with(&format!("database.{name} ")), "{problems:?}");
        }
        let mut problems = Vec::new();
        usual.validate("database", &mut problems);
        at("postgres://souk:secret@one:5432,two:5433/db?target_session_attrs=read-write").validate("", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }
}
