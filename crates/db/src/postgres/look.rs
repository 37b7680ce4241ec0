//! What a server must be before it is used: reached, writable, durable, and of our time.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use souk_runtime::Clock;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, FromRow, PgConnection};
use tokio::time::timeout;
use tracing::debug;

use super::Server;
use crate::config::{DbConfig, Durability};
use crate::error::{Error, breaks_connection};
use crate::transaction::Access;

/// Why a server is not used; of several hosts, the one of the greatest rank is told.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It is not there, or does not answer.
    Unreachable(Error),
    /// It is there, and lets us in no further: no connection is left, or it does not know us.
    Refused(Error),
    /// It takes no writes.
    ReadOnly(Error),
    /// It would lose what it has acknowledged.
    Unsafe(Error),
    /// Its clock is another than ours.
    Skewed(Error),
}

impl Unfit {
    pub(super) fn error(&self) -> &Error {
        let (Self::Unreachable(error)
        | Self::Refused(error)
        | Self::ReadOnly(error)
        | Self::Unsafe(error)
        | Self::Skewed(error)) = self;
        error
    }

    pub(super) fn into_error(self) -> Error {
        self.error().clone()
    }

    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Unreachable(_) => 0,
            Self::Refused(_) => 1,
            Self::ReadOnly(_) => 2,
            Self::Unsafe(_) => 3,
            Self::Skewed(_) => 4,
        }
    }
}

/// What a look may take.
const LOOK: Duration = Duration::from_secs(1);

#[derive(FromRow)]
struct Seen {
    fsync: String,
    synchronous_commit: String,
    full_page_writes: String,
    read_only: String,
    now: DateTime<Utc>,
}

/// As our session has it: a role or a database may have settings of its own.
const SEE: &str =
    "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('full_page_writes') AS full_page_writes, current_setting('transaction_read_only') AS read_only,
    clock_timestamp() AS now";

impl Server {
    /// Whether the host can be used.
    pub(super) async fn look_at(&self, host: &PgConnectOptions) -> Result<(), Unfit> {
        let seen = timeout(LOOK, see(host)).await;
        let late = || Unfit::Unreachable(Error::unanswered("the database does not answer"));
        let (seen, skew) = seen.map_err(|_| late())?.map_err(refused_or_unreachable)?;
        self.meters.clock_skew_seconds.set(skew.seen.as_seconds_f64());
        if seen.read_only == "on" {
            return Err(Unfit::ReadOnly(Error::unanswered("the database takes no writes")));
        }
        check_durability(&seen, &self.config).map_err(Unfit::Unsafe)?;
        check_skew(&skew, &self.config).map_err(Unfit::Skewed)
    }

    /// Whether the server in use is what it must be, asked on a connection of the pool.
    pub(crate) async fn is_well(self: &Arc<Self>) -> bool {
        let asked = async {
            let mut session = self.begin(Access::Write).await?;
            let (connection, exchange) = session.parts();
            let query = sqlx::query_as(SEE).persistent(false).fetch_one(connection);
            let before = Clock::system().now();
            let seen: Seen = exchange.watch(query).await?;
            self.meters.clock_skew_seconds.set(Skew::of(before, seen.now).seen.as_seconds_f64());
            session.rollback().await?;
            Ok::<bool, Error>(seen.read_only != "on")
        };
        let began = Instant::now();
        match asked.await {
            Ok(true) => true,
            Ok(false) => {
                self.suspect(None);
                false
            }
            // A pool that is busy with others, who get their answers, is no reason to be sent no more calls at all.
            Err(_) => self.health.has_answered_since(began),
        }
    }
}

async fn see(host: &PgConnectOptions) -> Result<(Seen, Skew), sqlx::Error> {
    let mut connection: PgConnection = host.connect().await?;
    let before = Clock::system().now();
    let seen: Seen = sqlx::query_as(SEE).persistent(false).fetch_one(&mut connection).await?;
    let skew = Skew::of(before, seen.now);
    if let Err(error) = connection.close().await {
        debug!(%error, "a connection was not closed in good order");
    }
    Ok((seen, skew))
}

fn refused_or_unreachable(error: sqlx::Error) -> Unfit {
    // 57: it is starting, or ending.
    let code = error.as_database_error().and_then(|error| error.code().map(Cow::into_owned));
    match code {
        Some(code) if !code.starts_with("57") => Unfit::Refused(Error::no_connection(error)),
        None if !breaks_connection(&error) => Unfit::Refused(Error::no_connection(error)),
        _ => Unfit::Unreachable(Error::no_connection(error)),
    }
}

fn check_durability(seen: &Seen, config: &DbConfig) -> Result<(), Error> {
    let value = |setting| match setting {
        Durability::Fsync => &seen.fsync,
        Durability::SynchronousCommit => &seen.synchronous_commit,
        Durability::FullPageWrites => &seen.full_page_writes,
    };
    let off: Vec<&str> = Durability::ALL
        .into_iter()
        .filter(|setting| value(*setting) == "off" && !config.unsafe_allow.contains(setting))
        .map(Durability::name)
        .collect();
    if off.is_empty() {
        return Ok(());
    }
    let off = off.join(", ");
    Err(Error::config(format!(
        "off on this PostgreSQL, for our role and database at least: {off}. What is acknowledged would be lost when the machine fails: \
         turn that on, or name it in unsafe_allow if the data may be lost"
    )))
}

/// How far the server's clock is ahead of ours.
struct Skew {
    seen: TimeDelta,
    /// By so much that may be wrong: the way there and back.
    doubt: TimeDelta,
}

impl Skew {
    /// From when the server was asked for its time, and what it said, just now.
    fn of(before: DateTime<Utc>, theirs: DateTime<Utc>) -> Self {
        let doubt = (Clock::system().now() - before) / 2;
        Self { seen: theirs - (before + doubt), doubt }
    }
}

fn check_skew(skew: &Skew, config: &DbConfig) -> Result<(), Error> {
    let most = TimeDelta::milliseconds(i64::try_from(config.clock_skew_max_ms).unwrap_or(i64::MAX));
    if skew.seen.abs() - skew.doubt.abs() <= most {
        return Ok(());
    }
    Err(Error::config(format!(
        "the database's clock differs from ours by {:.3} s: holds and leases would end at the wrong time. Set the clocks by one source \
         (NTP), or raise clock_skew_max_ms",
        skew.seen.as_seconds_f64()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(fsync: &str, synchronous_commit: &str, full_page_writes: &str) -> Seen {
        let own = str::to_owned;
        let now = DateTime::UNIX_EPOCH;
        Seen {
            fsync: own(fsync),
            synchronous_commit: own(synchronous_commit),
            full_page_writes: own(full_page_writes),
            read_only: own("off"),
            now,
        }
    }

    #[test]
    fn every_setting_that_is_off_is_named_unless_it_was_allowed() {
        let allow = |allowed: &[Durability]| DbConfig { unsafe_allow: allowed.to_vec(), ..DbConfig::default() };
        let table = [
            (seen("on", "on", "on"), allow(&[]), None),
            (seen("on", "local", "on"), allow(&[]), None),
            (seen("off", "off", "off"), allow(&[]), Some("fsync, synchronous_commit, full_page_writes.")),
            (seen("off", "off", "off"), allow(&[Durability::Fsync]), Some("synchronous_commit, full_page_writes.")),
            (seen("off", "on", "on"), allow(&[Durability::FullPageWrites]), Some("fsync.")),
            (seen("off", "off", "off"), allow(&Durability::ALL), None),
        ];
        for (seen, config, named) in table {
            let problem = check_durability(&seen, &config).err().map(|error| souk_runtime::story(&error));
            assert_eq!(problem.is_some(), named.is_some(), "{problem:?}");
            assert!(problem.unwrap_or_default().contains(named.unwrap_or_default()));
        }
    }

    #[test]
    fn a_clock_that_may_be_right_is_let_pass() {
        let config = DbConfig { clock_skew_max_ms: 1_000, ..DbConfig::default() };
        let skew = |seen, doubt| Skew { seen: TimeDelta::milliseconds(seen), doubt: TimeDelta::milliseconds(doubt) };
        for (seen, doubt, fits) in [(1_000, 0, true), (1_001, 0, false), (-1_500, 400, false), (-1_500, 600, true)] {
            assert_eq!(check_skew(&skew(seen, doubt), &config).is_ok(), fits, "{seen} {doubt}");
        }
    }
}
