//! What is measured of a database.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use souk_runtime::Metrics;
use sqlx::{PgPool, SqlitePool};

use crate::error::Kind;
use crate::transaction::Access;

type Labels<const N: usize> = [(&'static str, &'static str); N];

/// Every metric of one database.
#[derive(Debug)]
pub(crate) struct Meters {
    /// The name that all of them have as label.
    pub(crate) database: &'static str,
    metrics: Metrics,
    /// 1: it answers.
    pub(crate) up: Gauge,
    pub(crate) clock_skew_seconds: Gauge<f64, AtomicU64>,
    pub(crate) connections_dropped: Counter,
    acquire_seconds: Histogram,
    acquire_failures: Counter,
    transactions: [[Counter; 3]; 3],
    failures: [Counter; 6],
}

/// What a transaction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed,
    RolledBack,
    /// COMMIT was not answered with success.
    Failed,
}

const ACCESSES: [(Access, &str); 3] = [(Access::Read, "read"), (Access::ReadOne, "read"), (Access::Write, "write")];
const OUTCOMES: [(Outcome, &str); 3] =
    [(Outcome::Committed, "committed"), (Outcome::RolledBack, "rolled_back"), (Outcome::Failed, "failed")];
const KINDS: [(Kind, &str); 6] = [
    (Kind::Unavailable, "unavailable"),
    (Kind::Conflict, "conflict"),
    (Kind::Locked, "locked"),
    (Kind::Timeout, "timeout"),
    (Kind::Deadline, "deadline"),
    (Kind::Bug, "bug"),
];

impl Meters {
    pub(crate) fn new(metrics: &Metrics, database: &'static str) -> Self {
        let label = [("database", database)];
        let acquire_seconds: Family<Labels<1>, Histogram, fn() -> Histogram> =
            metrics.register_with("db_acquire_seconds", "Waits for a connection of the pool", || {
                Family::new_with_constructor(acquire_buckets as fn() -> Histogram)
            });
        let transactions: Family<Labels<3>, Counter> = metrics
            .register("db_transactions", "Transactions by what they came to; reading ones are rolled back, in effect");
        let failures: Family<Labels<2>, Counter> =
            metrics.register("db_errors", "Statements, commits and waits for a connection that failed");
        let counter = |name, help| metrics.register_labelled(name, help, &label);
        let skew = "How far the database's clock is ahead of ours";
        Self {
            database,
            metrics: metrics.clone(),
            up: metrics.register_labelled("db_up", "Whether the database answered when it was last looked at", &label),
            clock_skew_seconds: metrics.register_labelled("db_clock_skew_seconds", skew, &label),
            connections_dropped: counter("db_connections_dropped", "Connections closed since they were of no use"),
            acquire_seconds: acquire_seconds.get_or_create(&label).clone(),
            acquire_failures: counter("db_acquire_failures", "Waits that ended without a connection"),
            transactions: ACCESSES.map(|(_, access)| {
                OUTCOMES.map(|(_, outcome)| {
                    transactions.get_or_create(&[label[0], ("access", access), ("outcome", outcome)]).clone()
                })
            }),
            failures: KINDS.map(|(_, kind)| failures.get_or_create(&[label[0], ("kind", kind)]).clone()),
        }
    }

    /// Shows how full a pool is, from now on.
    pub(crate) fn measure_pool(&self, name: &'static str, pool: Pool, connections_max: u32) {
        let label = [("database", self.database), ("pool", name)];
        let most: Gauge =
            self.metrics.register_labelled("db_connections_max", "Connections that a pool may have", &label);
        most.set(connections_max.into());
        let pools: PoolGauges = self.metrics.register("db_connections", "Connections of a pool, idle or used");
        pools.0.lock().unwrap_or_else(PoisonError::into_inner).push((label, pool));
    }

    pub(crate) fn acquired(&self, waited: Duration, got_one: bool) {
        self.acquire_seconds.observe(waited.as_secs_f64());
        if !got_one {
            self.acquire_failures.inc();
        }
    }

    pub(crate) fn ended(&self, access: Access, outcome: Outcome) {
        self.transactions[access as usize][outcome as usize].inc();
    }

    pub(crate) fn failed(&self, kind: Kind) {
        self.failures[kind as usize].inc();
    }

    /// The meters of a group of this database.
    pub(crate) fn group(&self, group: &'static str) -> GroupMeters {
        let label = [("database", self.database), ("group", group)];
        let counter = |name, help| self.metrics.register_labelled(name, help, &label);
        let sizes: Family<Labels<2>, Histogram, fn() -> Histogram> =
            self.metrics.register_with("db_group_batch_commands", "Commands that shared a transaction", || {
                Family::new_with_constructor(batch_buckets as fn() -> Histogram)
            });
        GroupMeters {
            batches: counter("db_group_batches", "Transactions of a group that were committed"),
            commands: counter("db_group_commands", "Commands in them"),
            dropped: counter("db_group_dropped", "Commands given up before their transaction"),
            refused: counter("db_group_refused", "Commands refused since too many were waiting"),
            sizes: sizes.get_or_create(&label).clone(),
        }
    }
}

/// What is measured of a group commit.
#[derive(Debug)]
pub(crate) struct GroupMeters {
    pub(crate) batches: Counter,
    pub(crate) commands: Counter,
    pub(crate) dropped: Counter,
    pub(crate) refused: Counter,
    pub(crate) sizes: Histogram,
}

/// 50 microseconds to 1.6 seconds, and more.
fn acquire_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 4.0, 8).chain([2.0, 5.0]))
}

/// 1 to 512.
fn batch_buckets() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 10))
}

/// A pool that is looked at whenever the metrics are.
#[derive(Clone, Debug)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl From<SqlitePool> for Pool {
    fn from(pool: SqlitePool) -> Self {
        Self::Sqlite(pool)
    }
}

impl From<PgPool> for Pool {
    fn from(pool: PgPool) -> Self {
        Self::Postgres(pool)
    }
}

impl Pool {
    /// Connections that are open, and those of them that nobody uses.
    fn size(&self) -> (i64, i64) {
        let (size, idle) = match self {
            Self::Sqlite(pool) => (pool.size(), pool.num_idle()),
            Self::Postgres(pool) => (pool.size(), pool.num_idle()),
        };
        (size.into(), i64::try_from(idle).unwrap_or(i64::MAX))
    }
}

#[derive(Clone, Debug, Default)]
struct PoolGauges(Arc<Mutex<Vec<(Labels<2>, Pool)>>>);

impl EncodeMetric for PoolGauges {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ([database, name], pool) in pools.iter() {
            let (size, idle) = pool.size();
            for (state, count) in [("idle", idle), ("used", (size - idle).max(0))] {
                let labels = [*database, *name, ("state", state)];
                ConstGauge::new(count).encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}
