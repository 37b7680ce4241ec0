//! Migrations: each crate and each service owns its tables, and a history of its own.

use sqlx::migrate::{Migration, Migrator};

use crate::connect::{Db, Pools};
use crate::error::Error;

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

impl Db {
    /// Brings the tables of `sets` up to date, in that order. Several processes may do so at once: on PostgreSQL one migrates under an
    /// advisory lock while the others wait.
    pub async fn migrate(&self, sets: &[&MigrationSet]) -> Result<(), Error> {
        for set in sets {
            match &self.0 {
                Pools::Sqlite { writer, .. } => with_history(set.name, set.sqlite).run(writer).await?,
                Pools::Postgres(pool) => with_history(set.name, set.postgres).run(pool).await?,
            }
        }
        Ok(())
    }
}

fn with_history(name: &str, migrator: &Migrator) -> Migrator {
    let migrations: Vec<Migration> = migrator.iter().cloned().collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(format!("_migrations_{name}"));
    migrator
}
