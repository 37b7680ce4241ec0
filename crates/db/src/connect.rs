//! Opening a database: which engine, how many connections, how durable.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_runtime::config::check_bounds;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, PgPool, SqlitePool};

use crate::error::Error;
use crate::transaction::Tx;
use crate::url::DbUrl;

/// Where the data lies, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DbConfig {
    /// `sqlite://folder/file.sqlite`, made if missing, or `postgres://user:password@host:5432/database`.
    pub url: DbUrl,
    /// At most so many connections: of PostgreSQL, or of SQLite's readers (it has one writer).
    pub connections_max: u32,
    /// How long a call waits for a connection before it is told UNAVAILABLE, in milliseconds.
    pub acquire_timeout_ms: u64,
    /// How long one statement may run on PostgreSQL, in milliseconds.
    pub statement_timeout_ms: u64,
    /// How long a statement waits for a row or a table that another transaction has locked, in milliseconds.
    pub lock_timeout_ms: u64,
}

impl Default for DbConfig {
    fn default() -> Self {
        Self {
            url: "sqlite://souk-data/souk.sqlite".to_owned().into(),
            connections_max: 8,
            acquire_timeout_ms: 2_000,
            statement_timeout_ms: 10_000,
            lock_timeout_ms: 2_000,
        }
    }
}

impl DbConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        let url = self.url.expose();
        if !["sqlite:", "postgres:", "postgresql:"].iter().any(|scheme| url.starts_with(scheme)) {
            problems.push(format!("{at}.url must begin with sqlite: or postgres:"));
        }
        let positive = [
            ("connections_max", self.connections_max.into()),
            ("acquire_timeout_ms", self.acquire_timeout_ms),
            ("statement_timeout_ms", self.statement_timeout_ms),
            ("lock_timeout_ms", self.lock_timeout_ms),
        ];
        check_bounds(problems, at, 1..=i32::MAX as u64, &positive);
    }

    /// The defaults, with another URL.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into().into(), ..Self::default() }
    }
}

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
pub struct Db(pub(crate) Pools);

#[derive(Clone, Debug)]
pub(crate) enum Pools {
    /// SQLite has one writer at a time: one connection writes, so that writers queue here and never meet SQLITE_BUSY.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres(PgPool),
}

impl Db {
    /// Connects. A file is made if it is missing, readable by its owner alone.
    pub async fn open(config: &DbConfig) -> Result<Self, Error> {
        if config.url.expose().starts_with("sqlite:") {
            return open_sqlite(config).await;
        }
        if config.url.expose().starts_with("postgres:") || config.url.expose().starts_with("postgresql:") {
            return open_postgres(config).await;
        }
        Err(Error::config("database url must begin with sqlite: or postgres:"))
    }

    /// Which engine it is.
    pub fn engine(&self) -> Engine {
        match self.0 {
            Pools::Sqlite { .. } => Engine::Sqlite,
            Pools::Postgres(_) => Engine::Postgres,
        }
    }

    /// A transaction that sees one state of the database, however long it reads.
    pub async fn read(&self) -> Result<Tx, Error> {
        match &self.0 {
            Pools::Sqlite { readers, .. } => Ok(Tx::sqlite(readers.begin().await?)),
            Pools::Postgres(pool) => {
                begin_postgres(pool.clone(), "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
            }
        }
    }

    /// A transaction that writes. On SQLite it is the only one until it ends.
    pub async fn write(&self) -> Result<Tx, Error> {
        match &self.0 {
            Pools::Sqlite { writer, .. } => Ok(Tx::sqlite(writer.begin_with("BEGIN IMMEDIATE").await?)),
            Pools::Postgres(pool) => begin_postgres(pool.clone(), "BEGIN").await,
        }
    }

    /// Whether the database answers.
    pub async fn is_well(self) -> bool {
        let ask = async {
            let mut tx = self.read().await?;
            crate::sql("SELECT 1").execute(&mut tx).await?;
            tx.rollback().await
        };
        ask.await.is_ok()
    }

    /// Waits for the connections to come home and closes them.
    pub async fn close(&self) {
        match &self.0 {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}

/// In a task of its own, so that a caller who goes away meanwhile leaves no transaction open: sqlx undoes one that it knows of, and it
/// knows only when PostgreSQL has answered.
async fn begin_postgres(pool: PgPool, begin: &'static str) -> Result<Tx, Error> {
    let beginning = tokio::spawn(async move { pool.begin_with(begin).await });
    Ok(Tx::postgres(beginning.await.map_err(|_| sqlx::Error::WorkerCrashed)??))
}

/// Leaves out a connection whose transaction did not end: a disk that is full fails the ROLLBACK too.
fn is_at_rest<C: Connection>(connection: &mut C) -> BoxFuture<'_, Result<bool, sqlx::Error>> {
    let at_rest = !connection.is_in_transaction();
    Box::pin(std::future::ready(Ok(at_rest)))
}

async fn open_sqlite(config: &DbConfig) -> Result<Db, Error> {
    let options = SqliteConnectOptions::from_str(config.url.expose())?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A commit that was answered is on the disk: FULL syncs the log at every commit.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_millis(config.lock_timeout_ms))
        .statement_cache_capacity(STATEMENTS_CACHED);
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
    Ok(Db(Pools::Sqlite { writer, readers }))
}

/// Statements that a connection keeps prepared: ours are few hundreds at most, see [`crate::many`].
const STATEMENTS_CACHED: usize = 500;

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

async fn open_postgres(config: &DbConfig) -> Result<Db, Error> {
    let timeout = |ms: u64| format!("{ms}ms");
    let options = PgConnectOptions::from_str(config.url.expose())?
        .application_name("souk")
        .statement_cache_capacity(STATEMENTS_CACHED)
        .options([
            ("statement_timeout", timeout(config.statement_timeout_ms)),
            ("lock_timeout", timeout(config.lock_timeout_ms)),
            ("idle_in_transaction_session_timeout", timeout(config.statement_timeout_ms)),
        ]);
    let pool = PgPoolOptions::new()
        .max_connections(config.connections_max)
        .acquire_timeout(Duration::from_millis(config.acquire_timeout_ms))
        .before_acquire(|connection, _| is_at_rest(connection))
        .connect_with(options)
        .await?;
    Ok(Db(Pools::Postgres(pool)))
}
