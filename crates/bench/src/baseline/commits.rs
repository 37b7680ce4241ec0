//! Durable commits and nothing else, one after the other: what an order costs the disk at least.

use std::path::Path;

use tonic::Status;

use super::sql::{EVENT, Pool};
use crate::load::{Call, CallError, Calls};
use crate::scenario::Scenario;

/// See the module. A call is so many commits, each of one row.
pub(crate) struct Commits {
    pool: Pool,
    each: u32,
}

impl Commits {
    /// In an empty database of PostgreSQL.
    pub(crate) async fn on_postgres(url: &str, each: u32) -> anyhow::Result<Self> {
        Self::new(Pool::postgres(url, 1).await?, each).await
    }

    /// In a new file.
    pub(crate) async fn on_sqlite(file: &Path, each: u32) -> anyhow::Result<Self> {
        Self::new(Pool::sqlite(file).await?, each).await
    }

    async fn new(pool: Pool, each: u32) -> anyhow::Result<Self> {
        pool.run("CREATE TABLE plain_rows (payload TEXT NOT NULL)".to_owned()).await?;
        Ok(Self { pool, each })
    }

    async fn commit(&self) -> Result<u64, sqlx::Error> {
        let insert = "INSERT INTO plain_rows (payload) VALUES ($1)";
        Ok(match &self.pool {
            Pool::Postgres(pool) => sqlx::query(insert).bind(EVENT).execute(pool).await?.rows_affected(),
            Pool::Sqlite(pool) => sqlx::query(insert).bind(EVENT).execute(pool).await?.rows_affected(),
        })
    }
}

impl Calls for Commits {
    async fn call(&self, _: Call) -> Result<(), CallError> {
        for _ in 0..self.each {
            self.commit().await.map_err(|error| Status::internal(error.to_string()))?;
        }
        Ok(())
    }
}

impl Scenario for Commits {
    fn name(&self) -> String {
        format!("{} durable commits on {}", self.each, self.pool.engine())
    }
}
