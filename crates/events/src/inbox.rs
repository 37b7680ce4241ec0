//! The inbox: what a consumer has handled, written in the transaction of the effect.

use chrono::{DateTime, Utc};
use souk_db::{Error, Tx, sql};
use uuid::Uuid;

/// Takes an event for a consumer; `false`: it was handled before. A concurrent taker waits until this transaction ends.
pub(crate) async fn claim(tx: &mut Tx, consumer: &str, event_id: Uuid, now: DateTime<Utc>) -> Result<bool, Error> {
    let inserted = sql("INSERT INTO inbox (consumer, event_id, handled_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(consumer)
        .bind(event_id)
        .bind(now)
        .execute(tx)
        .await?;
    Ok(inserted == 1)
}

/// Forgets up to `limit` events that were handled before `before`; how many.
pub(crate) async fn sweep(tx: &mut Tx, consumer: &str, before: DateTime<Utc>, limit: u32) -> Result<u64, Error> {
    sql("DELETE FROM inbox WHERE consumer = $1 AND event_id IN
         (SELECT event_id FROM inbox WHERE consumer = $1 AND handled_at < $2 ORDER BY handled_at LIMIT $3)")
    .bind(consumer)
    .bind(before)
    .bind(limit)
    .execute(tx)
    .await
}
