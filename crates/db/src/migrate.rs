//! Migrations: each crate and each service owns its tables, and a history of its own.
//!
//! A rolling upgrade has processes of two versions on one schema. So a migration only adds, or takes away what the version before it no
//! longer uses; a process finds migrations that it does not know to be none of its business, and starts.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::migrate::{AppliedMigration, Migrate, MigrateError, Migration, Migrator};
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::connect::{Db, Pools};
use crate::error::{Error, Kind};
use crate::postgres::Server;

/// The migrations of one owner: the same names for both engines, only the DDL differs.
#[derive(Debug)]
pub struct MigrationSet {
    /// The owner; its history is the table `_migrations_<name>`.
    pub name: &'static str,
    /// `sqlx::migrate!("migrations/sqlite")`
    pub sqlite: &'static Migrator,
    /// `sqlx::migrate!("migrations/postgres")`
    pub postgres: &'static Migrator,
}

/// The advisory lock of whoever migrates a database of Souk: "souk".
const LOCK: i64 = 0x736f_756b;
/// Between two tries to get a lock that somebody else has.
const PAUSE: Duration = Duration::from_millis(200);

impl Db {
    /// Brings the tables of `sets` up to date, in that order. Several processes may do so at once: on PostgreSQL one migrates under an
    /// advisory lock while the others wait, no longer than `migrate_timeout_ms` in all.
    pub async fn migrate(&self, sets: &[&MigrationSet]) -> Result<(), Error> {
        match &self.pools {
            Pools::Sqlite { writer, .. } => {
                for set in sets {
                    with_history(set.name, set.sqlite).run(writer).await?;
                }
                Ok(())
            }
            Pools::Postgres(server) => migrate_postgres(server, sets).await,
        }
    }
}

impl Db {
    /// Whether the tables of `sets` are as this process needs them, or newer. Changes nothing.
    pub async fn is_migrated(&self, sets: &[&MigrationSet]) -> Result<bool, Error> {
        match &self.pools {
            Pools::Sqlite { writer, .. } => is_current_sqlite(&mut *writer.acquire().await?, sets).await,
            Pools::Postgres(server) => {
                let mut connection =
                    server.connect(Duration::from_millis(server.config().statement_timeout_ms)).await?;
                let current = is_current(&mut connection, sets).await?;
                connection.close().await?;
                Ok(current)
            }
        }
    }
}

async fn is_current_sqlite(connection: &mut SqliteConnection, sets: &[&MigrationSet]) -> Result<bool, Error> {
    for set in sets {
        let text = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1)";
        let (exists,): (bool,) = sqlx::query_as(text).bind(history(set.name)).fetch_one(&mut *connection).await?;
        if !exists || !has_all(connection, set.name, set.sqlite).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn with_history(name: &str, migrator: &Migrator) -> Migrator {
    let migrations: Vec<Migration> = migrator.iter().cloned().collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(history(name));
    migrator.set_ignore_missing(true);
    migrator
}

fn history(name: &str) -> String {
    format!("_migrations_{name}")
}

/// On a connection of its own, since a migration may take longer than any statement of a call.
async fn migrate_postgres(server: &Server, sets: &[&MigrationSet]) -> Result<(), Error> {
    let limit = Duration::from_millis(server.config().migrate_timeout_ms);
    let mut connection = server.connect(limit).await?;
    let migrated = timeout(limit, bring_up(&mut connection, sets)).await;
    // The lock ends with the connection.
    let closed = connection.close().await;
    migrated.map_err(|_| Error::unanswered("the migrations have taken too long, or another process has"))??;
    Ok(closed?)
}

async fn bring_up(connection: &mut PgConnection, sets: &[&MigrationSet]) -> Result<(), Error> {
    if is_current(connection, sets).await? {
        return Ok(()); // without a lock, and without the right to change tables
    }
    lock(connection).await?;
    for set in sets {
        apply(connection, set).await?;
    }
    Ok(())
}

/// Whether nothing is to be done. That there are newer migrations is told.
async fn is_current(connection: &mut PgConnection, sets: &[&MigrationSet]) -> Result<bool, Error> {
    for set in sets {
        let table = history(set.name);
        let (exists,): (bool,) =
            sqlx::query_as("SELECT to_regclass($1) IS NOT NULL").bind(&table).fetch_one(&mut *connection).await?;
        if !exists || !has_all(connection, set.name, set.postgres).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether every migration is in the history of its owner.
async fn has_all(connection: &mut impl Migrate, owner: &str, migrator: &Migrator) -> Result<bool, Error> {
    let applied: HashMap<i64, AppliedMigration> = connection
        .list_applied_migrations(&history(owner))
        .await?
        .into_iter()
        .map(|migration| (migration.version, migration))
        .collect();
    for migration in migrator.iter() {
        match applied.get(&migration.version) {
            None => return Ok(false),
            Some(applied) if applied.checksum != migration.checksum => {
                return Err(MigrateError::VersionMismatch(migration.version).into());
            }
            Some(_) => {}
        }
    }
    let newer = applied.keys().filter(|version| !migrator.version_exists(**version)).count();
    if newer > 0 {
        info!(owner, newer, "schema is newer than this process");
    }
    Ok(true)
}

/// Polls, since PostgreSQL would count the wait as one for a lock, which ends after `lock_timeout_ms`.
async fn lock(connection: &mut PgConnection) -> Result<(), Error> {
    let mut waits = false;
    loop {
        let (got,): (bool,) =
            sqlx::query_as("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut *connection).await?;
        if got {
            return Ok(());
        }
        if !waits {
            info!("another process migrates the database");
            waits = true;
        }
        sleep(PAUSE).await;
    }
}

/// A migration that waits for a table keeps everybody else from it. So it waits no longer than any statement, gives way, and tries again.
async fn apply(connection: &mut PgConnection, set: &MigrationSet) -> Result<(), Error> {
    let mut migrator = with_history(set.name, set.postgres);
    migrator.set_locking(false);
    loop {
        match migrator.run_direct(None, connection, false).await.map_err(Error::from) {
            Err(error) if matches!(error.kind(), Kind::Locked | Kind::Conflict) => {
                warn!(owner = set.name, "a migration waits for a table that is in use");
            }
            result => return result,
        }
        sleep(PAUSE).await;
    }
}
