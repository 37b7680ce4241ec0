//! What a consumer has seen: noted in the transaction of the effect, so that a repeated delivery has none.

use chrono::{DateTime, Utc};
use souk_db::{Error, Tx, sql};
use uuid::Uuid;

/// Notes that `consumer` has seen the event; `false`: it had before.
pub async fn note(tx: &mut Tx, consumer: &str, event_id: Uuid, now: DateTime<Utc>) -> Result<bool, Error> {
    let noted = sql("INSERT INTO inbox (consumer, event_id, seen_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
        .bind(consumer)
        .bind(event_id)
        .bind(now)
        .execute(tx)
        .await?;
    Ok(noted == 1)
}

/// Deletes up to `limit` notes from before `before`; how many.
pub(crate) async fn sweep(tx: &mut Tx, before: DateTime<Utc>, limit: u32) -> Result<u64, Error> {
    sql("DELETE FROM inbox WHERE (consumer, event_id) IN
         (SELECT consumer, event_id FROM inbox WHERE seen_at < $1 ORDER BY seen_at LIMIT $2)")
    .bind(before)
    .bind(limit)
    .execute(tx)
    .await
}
