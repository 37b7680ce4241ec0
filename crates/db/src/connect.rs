//! Opening a database: which engine, how many connections, how durable.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use souk_runtime::Metrics;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqlitePool};
use tracing::Instrument;

use crate::config::DbConfig;
use crate::error::Error;
use crate::meters::Meters;
use crate::postgres::Server;
use crate::span;
use crate::transaction::{Access, Inner, OnSqlite, Tx};

/// Which database answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A file beside the process.
    Sqlite,
    /// A server.
    Postgres,
}

/// An open database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pub(crate) pools: Pools,
    pub(crate) meters: Arc<Meters>,
}

#[derive(Clone, Debug)]
pub(crate) enum Pools {
    /// SQLite has one writer at a time: one connection writes, so that writers queue here and never meet SQLITE_BUSY.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres(Arc<Server>),
}

impl Db {
    /// Connects, and is measured by nobody: for tests and tools. See [`open_measured`](Self::open_measured).
    pub async fn open(config: &DbConfig) -> Result<Self, Error> {
        Self::open_measured(config, "souk", &Metrics::default()).await
    }

    /// Connects. A file is made if it is missing, readable by its owner alone; PostgreSQL is waited for, no longer than
    /// `connect_timeout_ms`. `name` is the database's in metrics and spans, and the service's in PostgreSQL's `application_name`.
    pub async fn open_measured(config: &DbConfig, name: &'static str, metrics: &Metrics) -> Result<Self, Error> {
        let meters = Arc::new(Meters::new(metrics, name));
        let pools = if config.url.is_sqlite() {
            open_sqlite(config, &meters).await?
        } else {
            Pools::Postgres(Server::open(config, meters.clone()).await?)
        };
        meters.up.set(1);
        Ok(Self { pools, meters })
    }

    /// Which engine it is.
    pub fn engine(&self) -> Engine {
        match self.pools {
            Pools::Sqlite { .. } => Engine::Sqlite,
            Pools::Postgres(_) => Engine::Postgres,
        }
    }

    /// A transaction that sees one state of the database, however long it reads.
    pub async fn read(&self) -> Result<Tx, Error> {
        self.begin(Access::Read).await
    }

    /// A read of one statement, or of one [`many`](crate::many), in no transaction: neither BEGIN nor ROLLBACK is a way to the server and
    /// back. It sees one state of the database, as any statement does. A second one is refused as a bug, and so is a commit.
    ///
    /// PostgreSQL can be told of the caller's deadline in a transaction only. Here our own watch ends the wait at the deadline; the server
    /// ends the statement when it finds its client gone, or after `statement_timeout_ms`. Whether the statement only reads, the server does
    /// not look at either: SQLite does, and the tests of both engines with it.
    pub async fn read_one(&self) -> Result<Tx, Error> {
        self.begin(Access::ReadOne).await
    }

    /// A transaction that writes. On SQLite it is the only one until it ends.
    pub async fn write(&self) -> Result<Tx, Error> {
        self.begin(Access::Write).await
    }

    async fn begin(&self, access: Access) -> Result<Tx, Error> {
        let span = span::transaction(self.engine(), self.meters.database, access);
        let beginning = async {
            match &self.pools {
                Pools::Sqlite { writer, readers } => {
                    let since = Instant::now();
                    let began = match access {
                        Access::Read => readers.begin_with("BEGIN").await.map(OnSqlite::Transaction),
                        Access::ReadOne => readers.acquire().await.map(OnSqlite::Connection),
                        Access::Write => writer.begin_with("BEGIN IMMEDIATE").await.map(OnSqlite::Transaction),
                    };
                    self.meters.acquired(since.elapsed(), began.is_ok());
                    Ok(Inner::Sqlite(began?))
                }
                Pools::Postgres(server) => server.begin(access).await.map(Inner::Postgres),
            }
        };
        let began = beginning.instrument(span.clone()).await;
        let inner = began.inspect_err(|error| self.meters.failed(error.kind()))?;
        Ok(Tx::new(inner, access, self.meters.clone(), span))
    }

    /// Fails where it is known that no transaction can begin. Asks nobody.
    pub fn check(&self) -> Result<(), Error> {
        match &self.pools {
            Pools::Sqlite { writer, .. } if writer.is_closed() => Err(sqlx::Error::PoolClosed.into()),
            Pools::Postgres(server) if server.is_known_to_be_down() => Err(Error::down()),
            Pools::Sqlite { .. } | Pools::Postgres(_) => Ok(()),
        }
    }

    /// Whether the database answers, and takes writes.
    pub async fn is_well(self) -> bool {
        if let Pools::Postgres(server) = &self.pools {
            return server.is_well().await;
        }
        let ask = async { crate::sql("SELECT 1").execute(&mut self.read_one().await?).await };
        ask.await.is_ok()
    }

    /// Waits for the connections to come home and closes them.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(server) => server.pool.close().await,
        }
    }
}

/// Leaves out a connection whose transaction did not end: a disk that is full fails the ROLLBACK too.
fn is_at_rest<C: Connection>(connection: &mut C) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
    let at_rest = !connection.is_in_transaction();
    Box::pin(std::future::ready(Ok(at_rest)))
}

async fn open_sqlite(config: &DbConfig, meters: &Meters) -> Result<Pools, Error> {
    let options = SqliteConnectOptions::from_str(config.url.expose())?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A commit that was answered is on the disk: FULL syncs the log at every commit.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_millis(config.lock_timeout_ms))
        // None at all would make every statement a new one, and gain nothing here: no pooler is in between.
        .statement_cache_capacity(config.statement_cache_max.max(1) as usize);
    create_private(options.get_filename().to_owned()).await?;
    let acquire = Duration::from_millis(config.acquire_timeout_ms);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(acquire)
        .test_before_acquire(false)
        .before_acquire(|connection, _| is_at_rest(connection))
        .connect_with(options.clone())
        .await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(config.connections_max)
        .acquire_timeout(acquire)
        .test_before_acquire(false)
        .before_acquire(|connection, _| is_at_rest(connection))
        .connect_lazy_with(options.read_only(true).create_if_missing(false));
    meters.measure_pool("writer", writer.clone().into(), 1);
    meters.measure_pool("readers", readers.clone().into(), config.connections_max);
    Ok(Pools::Sqlite { writer, readers })
}

/// SQLite gives its log files the mode of the database file, so that the mode of that one decides.
async fn create_private(file: PathBuf) -> Result<(), Error> {
    if let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) {
        tokio::fs::create_dir_all(folder).await.map_err(sqlx::Error::Io)?;
    }
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options.open(&file).await.map_err(sqlx::Error::Io)?;
    Ok(())
}
