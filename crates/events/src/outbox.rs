//! Events on their way out. A row is written in the transaction of the change that it tells of: no change, no event, and the reverse.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use souk_db::{Error, Statement, Tx, many, sql};

use crate::event::Event;

/// Adds events to the transaction of their change. Wake the relay after the commit.
pub async fn append(tx: &mut Tx, events: &[Event]) -> Result<(), Error> {
    let statements = many(
        "INSERT INTO outbox (id, source, kind, subject, aggregate, version, occurred_at, traceparent, data) VALUES {rows}",
        events,
        |row, event| {
            row.bind(event.id)
                .bind(&event.source)
                .bind(&event.kind)
                .bind(&event.subject)
                .bind(&event.aggregate)
                .bind(event.version)
                .bind(event.occurred_at)
                .bind(event.traceparent.clone())
                .bind(event.data.as_slice())
        },
    );
    for statement in statements {
        statement.execute(tx).await?;
    }
    Ok(())
}

/// Up to `limit` events that wait, those of one aggregate together and in order, without those of the aggregates in `but`.
///
/// What waits is asked for, never "what came after the last": PostgreSQL commits rows out of the order of their ids.
pub(crate) async fn waiting(tx: &mut Tx, but: &BTreeSet<String>, limit: usize) -> Result<Vec<Event>, Error> {
    // Few aggregates are held back at a time; each is left out by name.
    let named: Vec<String> = (2..but.len() + 2).map(|index| format!(" AND aggregate <> ${index}")).collect();
    let text = format!(
        "SELECT id, source, kind, subject, aggregate, version, occurred_at, traceparent, data FROM outbox
         WHERE published_at IS NULL{} ORDER BY aggregate, version LIMIT $1",
        named.concat()
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    but.iter().fold(sql(text).bind(limit), Statement::bind).fetch_all(tx).await
}

/// Notes that the bus has acknowledged `events`.
pub(crate) async fn mark_published(tx: &mut Tx, events: &[Event], now: DateTime<Utc>) -> Result<(), Error> {
    let statements = many(
        "WITH v (id, published_at) AS (VALUES {rows}) UPDATE outbox SET published_at = v.published_at FROM v WHERE outbox.id = v.id",
        events,
        |row, event| row.bind(event.id).bind(now),
    );
    for statement in statements {
        statement.execute(tx).await?;
    }
    Ok(())
}

/// How many events wait.
pub async fn count_waiting(tx: &mut Tx) -> Result<i64, Error> {
    let (count,): (i64,) = sql("SELECT COUNT(*) FROM outbox WHERE published_at IS NULL").fetch_one(tx).await?;
    Ok(count)
}

/// Sends everything that was published since `since` out again: a bus that has lost its store is refilled so. Consumers notice what
/// they have seen. The number of events.
pub async fn republish_since(tx: &mut Tx, since: DateTime<Utc>) -> Result<u64, Error> {
    sql("UPDATE outbox SET published_at = NULL WHERE published_at >= $1").bind(since).execute(tx).await
}

/// Deletes up to `limit` events that were published before `before`; how many.
pub(crate) async fn sweep(tx: &mut Tx, before: DateTime<Utc>, limit: u32) -> Result<u64, Error> {
    sql("DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE published_at < $1 ORDER BY published_at LIMIT $2)")
        .bind(before)
        .bind(limit)
        .execute(tx)
        .await
}
