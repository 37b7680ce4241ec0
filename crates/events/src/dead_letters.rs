//! Dead letters: events that a consumer has given up on, in its own database, to be listed and shown. To be replayed:
//! [`crate::Subscription::replay`].

use chrono::{DateTime, Utc};
use souk_db::{Error, Tx, sql};
use uuid::Uuid;

use crate::event::Event;

/// An event that a consumer has given up on.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct DeadLetter {
    /// The consumer.
    pub consumer: String,
    /// The event, as it came.
    #[sqlx(flatten)]
    pub event: Event,
    /// Why the last try failed: for an operator, not for a client.
    pub error: String,
    /// How often it was tried, replays included.
    pub tries: i64,
    /// When it was given up on.
    pub parked_at: DateTime<Utc>,
    /// When a replay succeeded.
    pub replayed_at: Option<DateTime<Utc>>,
}

/// Where a page of the list begins: after this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// Its `parked_at`.
    pub parked_at: DateTime<Utc>,
    /// Its event.
    pub event_id: Uuid,
    /// Its consumer.
    pub consumer: String,
}

impl From<&DeadLetter> for After {
    fn from(letter: &DeadLetter) -> Self {
        Self { parked_at: letter.parked_at, event_id: letter.event.id, consumer: letter.consumer.clone() }
    }
}

/// An error's text is cut to so many bytes.
const ERROR_BYTES_MAX: usize = 2_048;

/// Those that wait, of one consumer or of all in this database, oldest first, without the payloads of their events.
pub async fn list(
    tx: &mut Tx,
    consumer: Option<&str>,
    after: Option<&After>,
    limit: u32,
) -> Result<Vec<DeadLetter>, Error> {
    let statement = match after {
        None => sql("SELECT consumer, event_id, aggregate, version, subject, kind, source, time, traceparent, substr(data, 1, 0) AS data,
                 error, tries, parked_at, replayed_at
             FROM dead_letters WHERE replayed_at IS NULL AND ($1 IS NULL OR consumer = $1)
             ORDER BY parked_at, event_id, consumer LIMIT $2")
        .bind(consumer)
        .bind(limit),
        Some(after) => sql("SELECT consumer, event_id, aggregate, version, subject, kind, source, time, traceparent, substr(data, 1, 0) AS data,
                 error, tries, parked_at, replayed_at
             FROM dead_letters WHERE replayed_at IS NULL AND ($1 IS NULL OR consumer = $1)
                 AND (parked_at, event_id, consumer) > ($3, $4, $5)
             ORDER BY parked_at, event_id, consumer LIMIT $2")
        .bind(consumer)
        .bind(limit)
        .bind(after.parked_at)
        .bind(after.event_id)
        .bind(&after.consumer),
    };
    statement.fetch_all(tx).await
}

/// One, replayed or not.
pub async fn show(tx: &mut Tx, consumer: &str, event_id: Uuid) -> Result<Option<DeadLetter>, Error> {
    sql("SELECT * FROM dead_letters WHERE consumer = $1 AND event_id = $2")
        .bind(consumer)
        .bind(event_id)
        .fetch_optional(tx)
        .await
}

/// Gives up on an event.
pub(crate) async fn park(
    tx: &mut Tx,
    consumer: &str,
    event: &Event,
    error: &str,
    tries: u32,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    sql("INSERT INTO dead_letters (consumer, event_id, aggregate, version, subject, kind, source, time, traceparent, data,
                                   error, tries, parked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT DO NOTHING")
    .bind(consumer)
    .bind(event.id)
    .bind(&event.aggregate)
    .bind(event.version)
    .bind(&event.subject)
    .bind(&event.kind)
    .bind(&event.source)
    .bind(event.time)
    .bind(event.traceparent.clone())
    .bind(event.data.as_slice())
    .bind(cut(error))
    .bind(tries)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes one for a replay; `false`: it was replayed before. A concurrent taker waits until this transaction ends.
pub(crate) async fn claim(tx: &mut Tx, consumer: &str, event_id: Uuid, now: DateTime<Utc>) -> Result<bool, Error> {
    let text = "UPDATE dead_letters SET replayed_at = $1, tries = tries + 1
                WHERE consumer = $2 AND event_id = $3 AND replayed_at IS NULL";
    Ok(sql(text).bind(now).bind(consumer).bind(event_id).execute(tx).await? == 1)
}

/// Notes that a replay failed.
pub(crate) async fn note_failure(tx: &mut Tx, consumer: &str, event_id: Uuid, error: &str) -> Result<(), Error> {
    let text = "UPDATE dead_letters SET error = $1, tries = tries + 1
                WHERE consumer = $2 AND event_id = $3 AND replayed_at IS NULL";
    sql(text).bind(cut(error)).bind(consumer).bind(event_id).execute(tx).await?;
    Ok(())
}

/// Text that both engines take: bounded, and without the NUL that PostgreSQL refuses.
fn cut(error: &str) -> String {
    error[..error.floor_char_boundary(ERROR_BYTES_MAX)].replace('\0', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_cut_between_characters() {
        let cut = cut(&format!("\0{}", "ä".repeat(ERROR_BYTES_MAX)));
        assert_eq!(cut, "ä".repeat(ERROR_BYTES_MAX / 2 - 1));
    }
}
