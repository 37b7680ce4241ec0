//! Events that a consumer could not handle: parked in its own database, until an operator has them replayed.

use chrono::{DateTime, Utc};
use souk_db::{Error, Tx, sql};
use uuid::Uuid;

use crate::event::Event;

/// A parked event.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct DeadLetter {
    /// The event.
    #[sqlx(flatten)]
    pub event: Event,
    /// Who could not handle it.
    pub consumer: String,
    /// Why, for people.
    pub error: String,
    /// How often it was tried.
    pub tries: i64,
    /// When it was given up.
    pub parked_at: DateTime<Utc>,
    /// When a replay of it succeeded.
    pub replayed_at: Option<DateTime<Utc>>,
}

const SELECT: &str = "SELECT event_id AS id, source, kind, subject, aggregate, version, occurred_at, traceparent, data,
    consumer, error, tries, parked_at, replayed_at FROM dead_letters";

/// Parks an event.
pub(crate) async fn park(
    tx: &mut Tx,
    consumer: &str,
    event: &Event,
    error: &str,
    tries: u32,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sql("INSERT INTO dead_letters (consumer, event_id, source, kind, subject, aggregate, version, occurred_at, traceparent, data,
             error, tries, parked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING")
    .bind(consumer)
    .bind(event.id)
    .bind(&event.source)
    .bind(&event.kind)
    .bind(&event.subject)
    .bind(&event.aggregate)
    .bind(event.version)
    .bind(event.occurred_at)
    .bind(event.traceparent.clone())
    .bind(event.data.as_slice())
    .bind(error)
    .bind(tries)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(())
}

/// Up to `limit` events that wait for a replay, the oldest first.
pub async fn list(tx: &mut Tx, limit: u32) -> Result<Vec<DeadLetter>, Error> {
    sql(format!("{SELECT} WHERE replayed_at IS NULL ORDER BY parked_at, event_id LIMIT $1"))
        .bind(limit)
        .fetch_all(tx)
        .await
}

/// One parked event.
pub async fn find(tx: &mut Tx, consumer: &str, event_id: Uuid) -> Result<Option<DeadLetter>, Error> {
    sql(format!("{SELECT} WHERE consumer = $1 AND event_id = $2"))
        .bind(consumer)
        .bind(event_id)
        .fetch_optional(tx)
        .await
}

/// Notes that a replay has succeeded; `false`: it had before.
pub(crate) async fn mark_replayed(
    tx: &mut Tx,
    consumer: &str,
    event_id: Uuid,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let marked =
        sql("UPDATE dead_letters SET replayed_at = $1 WHERE consumer = $2 AND event_id = $3 AND replayed_at IS NULL")
            .bind(now)
            .bind(consumer)
            .bind(event_id)
            .execute(tx)
            .await?;
    Ok(marked == 1)
}
