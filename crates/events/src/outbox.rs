//! The outbox: events written in the transaction of what they tell.
//!
//! Nothing here depends on the order in which transactions commit across aggregates (PostgreSQL's readers see a later id before an
//! earlier one). Within an aggregate the versions are written one after the other, so whoever sees one sees all before it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use souk_db::{Error, Many, Tx, many, sql};
use uuid::Uuid;

use crate::event::Event;
use crate::position;

/// Writes events in the caller's transaction, which is that of what they tell. After its commit: [`crate::RelayHandle::wake`].
pub async fn append(tx: &mut Tx, events: &[Event]) -> Result<(), Error> {
    insert(events).execute(tx).await.map(drop)
}

/// What [`append`] writes, to be written together with something else.
pub fn insert(events: &[Event]) -> Many<'static> {
    many(
        "INSERT INTO outbox (event_id, aggregate, version, subject, kind, source, time, traceparent, data) VALUES {rows}",
        events,
        |row, event| {
            row.bind(event.id)
                .bind(&event.aggregate)
                .bind(event.version)
                .bind(&event.subject)
                .bind(&event.kind)
                .bind(&event.source)
                .bind(event.time)
                .bind(event.traceparent.clone())
                .bind(event.data.as_slice())
        },
    )
}

/// Has everything published again that was published from `from` on, or ever, and is still kept: the relay does it, before it publishes
/// anything else. For a bus that has lost events without anybody's noticing, and for a consumer that has missed some. Consumers that have
/// seen them know them.
pub async fn republish(tx: &mut Tx, from: Option<DateTime<Utc>>) -> Result<(), Error> {
    position::lose(tx, from).await
}

/// Lets up to `limit` events that were published from `from` on, or ever, be published again; how many.
pub(crate) async fn unmark(tx: &mut Tx, from: Option<DateTime<Utc>>, limit: u32) -> Result<u64, Error> {
    // A text for each: one for both would have PostgreSQL read everything that is kept, for each portion.
    let which = match from {
        None => "published_at IS NOT NULL LIMIT $1",
        Some(_) => "published_at >= $2 ORDER BY published_at LIMIT $1",
    };
    let text =
        format!("UPDATE outbox SET published_at = NULL WHERE event_id IN (SELECT event_id FROM outbox WHERE {which})");
    let statement = sql(text).bind(limit);
    match from {
        None => statement,
        Some(from) => statement.bind(from),
    }
    .execute(tx)
    .await
}

/// What a reading of the outbox may bring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// At most so many aggregates.
    pub(crate) aggregates: usize,
    /// At most so many events of one aggregate.
    pub(crate) chain: u32,
    /// At most so many events.
    pub(crate) events: u32,
    /// Only aggregates with an event from then on; `None`: any.
    pub(crate) since: Option<DateTime<Utc>>,
}

/// What a reading of the outbox has brought.
#[derive(Debug)]
pub(crate) struct Unpublished {
    /// Events by aggregate, in the order of their versions.
    pub(crate) chains: BTreeMap<String, Vec<Event>>,
    /// A bound was reached, so there may be more of other aggregates.
    pub(crate) may_be_more: bool,
}

/// Unpublished events of the aggregates that wait longest, but for those of `busy`. Of each aggregate it is the first ones, in
/// the order of their versions.
///
/// The times of an aggregate's events need not rise with its versions (clocks of replicas differ), so the aggregates are chosen by
/// time, and their events by version.
pub(crate) async fn unpublished(tx: &mut Tx, busy: &[&str], bounds: Bounds) -> Result<Unpublished, Error> {
    let excluded = busy.len().next_power_of_two(); // few texts, which stay prepared
    let list: Vec<String> = (5..5 + excluded).map(|index| format!("${index}")).collect();
    let text = format!(
        "WITH due AS (
             SELECT DISTINCT aggregate FROM (
                 SELECT aggregate FROM outbox WHERE published_at IS NULL AND time >= $4 AND aggregate NOT IN ({})
                 ORDER BY time, event_id LIMIT $1
             ) AS oldest
         ), placed AS (
             SELECT o.event_id, ROW_NUMBER() OVER (PARTITION BY o.aggregate ORDER BY o.version, o.event_id) AS place
             FROM due JOIN outbox o ON o.aggregate = due.aggregate AND o.published_at IS NULL
         )
         SELECT o.event_id, o.aggregate, o.version, o.subject, o.kind, o.source, o.time, o.traceparent, o.data
         FROM placed JOIN outbox o ON o.event_id = placed.event_id
         WHERE placed.place <= $2 ORDER BY placed.place, o.time LIMIT $3",
        list.join(", ")
    );
    let mut statement =
        sql(text).bind(i64::try_from(bounds.aggregates).unwrap_or(i64::MAX)).bind(bounds.chain).bind(bounds.events);
    statement = statement.bind(bounds.since.unwrap_or(DateTime::UNIX_EPOCH));
    for index in 0..excluded {
        statement = statement.bind(busy.get(index).copied().unwrap_or("")); // no aggregate has no name
    }
    let events: Vec<Event> = statement.fetch_all(tx).await?;
    Ok(by_aggregate(events, bounds))
}

fn by_aggregate(events: Vec<Event>, bounds: Bounds) -> Unpublished {
    let many = events.len() >= bounds.aggregates.min(bounds.events as usize);
    let mut chains: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for event in events {
        chains.entry(event.aggregate.clone()).or_default().push(event);
    }
    // The oldest rows may all be those of one aggregate with a long chain.
    let long = chains.values().any(|chain| chain.len() >= bounds.chain as usize);
    Unpublished { chains, may_be_more: many || long }
}

/// Marks events as published.
pub(crate) async fn mark_published(tx: &mut Tx, events: &[Uuid], now: DateTime<Utc>) -> Result<(), Error> {
    let text = "WITH v (event_id, published_at) AS (VALUES {rows})
                UPDATE outbox SET published_at = v.published_at FROM v WHERE outbox.event_id = v.event_id";
    many(text, events, |row, id| row.bind(*id).bind(now)).execute(tx).await.map(drop)
}

/// Deletes up to `limit` events that were published before `before`; how many.
pub(crate) async fn sweep(tx: &mut Tx, before: DateTime<Utc>, limit: u32) -> Result<u64, Error> {
    sql("DELETE FROM outbox WHERE event_id IN
         (SELECT event_id FROM outbox WHERE published_at < $1 ORDER BY published_at LIMIT $2)")
    .bind(before)
    .bind(limit)
    .execute(tx)
    .await
}

/// How far behind the relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Backlog {
    /// Unpublished events, counted no further than [`BACKLOG_COUNTED_MAX`].
    pub(crate) events: i64,
    /// The time of the oldest of them.
    pub(crate) oldest: Option<DateTime<Utc>>,
}

/// Counting a backlog must not cost as much as the backlog.
pub(crate) const BACKLOG_COUNTED_MAX: u32 = 10_000;

pub(crate) async fn backlog(tx: &mut Tx) -> Result<Backlog, Error> {
    sql("SELECT (SELECT COUNT(*) FROM (SELECT event_id FROM outbox WHERE published_at IS NULL LIMIT $1) AS counted) AS events,
                (SELECT MIN(time) FROM outbox WHERE published_at IS NULL) AS oldest")
    .bind(BACKLOG_COUNTED_MAX)
    .fetch_one(tx)
    .await
}
