//! A real PostgreSQL that is stopped, killed, held still, made a standby: what callers are told, how soon, and that it heals by itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cancelling;
mod connecting;
mod failing;
mod migrating;
mod starting;

use std::time::{Duration, Instant};

use souk_db::{Db, Error, sql};
use souk_runtime::deadline;

/// A connection past every pool, to look at the server.
async fn observer(url: &str) -> sqlx::PgConnection {
    <sqlx::PgConnection as sqlx::Connection>::connect(url).await.unwrap()
}

/// Statements that run on the server, but for the observer's own.
async fn running(observer: &mut sqlx::PgConnection, text: &str) -> i64 {
    let count =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid()";
    let (count,): (i64,) = sqlx::query_as(count).bind(format!("%{text}%")).fetch_one(observer).await.unwrap();
    count
}

async fn table(db: &Db) {
    let mut tx = db.write().await.unwrap();
    sql("CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, n BIGINT NOT NULL)").execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
}

async fn insert(db: &Db, id: i64) -> Result<(), Error> {
    let mut tx = db.write().await?;
    sql("INSERT INTO t (id, n) VALUES ($1, 0)").bind(id).execute(&mut tx).await?;
    tx.commit().await
}

/// Runs `call` as one that has this long, and says how long it took.
async fn within<T>(time: Duration, call: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let by = tokio::time::Instant::now() + time;
    let result = deadline::scope(Some(by), call).await;
    (result, began.elapsed())
}
