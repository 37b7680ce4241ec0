//! How far the outbox of a database has come on the bus: on which stream, and the last event that was acknowledged there.

use chrono::{DateTime, Utc};
use souk_db::{Error, Tx, sql};
use uuid::Uuid;

use crate::bus::Place;

/// One outbox a database, one relay.
const RELAY: &str = "outbox relay";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Position {
    stream: String,
    stream_created_us: i64,
    /// The number of the last event, in the stream.
    pub(crate) sequence: i64,
    /// That event.
    pub(crate) event_id: Option<Uuid>,
    /// Nothing that was published before then is to be published again.
    pub(crate) republish_from: Option<DateTime<Utc>>,
}

impl Position {
    /// Whether it is one on that stream.
    pub(crate) fn is_at(&self, place: &Place) -> bool {
        self.stream == place.stream && self.stream_created_us == place.created_us
    }
}

/// The position; `None`: nothing was ever published.
pub(crate) async fn read(tx: &mut Tx) -> Result<Option<Position>, Error> {
    sql("SELECT stream, stream_created_us, sequence, event_id, republish_from FROM outbox_position WHERE relay = $1")
        .bind(RELAY)
        .fetch_optional(tx)
        .await
}

/// Gives the position up: what was published from `from` on, or ever, is to be published again.
pub(crate) async fn lose(tx: &mut Tx, from: Option<DateTime<Utc>>) -> Result<(), Error> {
    sql("INSERT INTO outbox_position (relay, stream, stream_created_us, sequence, republish_from) VALUES ($1, '', 0, 0, $2)
         ON CONFLICT (relay) DO UPDATE SET stream = '', stream_created_us = 0, sequence = 0, event_id = NULL,
             republish_from = excluded.republish_from")
    .bind(RELAY)
    .bind(from)
    .execute(tx)
    .await?;
    Ok(())
}

/// Begins at a place.
pub(crate) async fn begin(tx: &mut Tx, place: &Place) -> Result<(), Error> {
    sql("INSERT INTO outbox_position (relay, stream, stream_created_us, sequence) VALUES ($1, $2, $3, 0)
         ON CONFLICT (relay) DO UPDATE SET stream = excluded.stream, stream_created_us = excluded.stream_created_us,
             sequence = 0, event_id = NULL, republish_from = NULL")
    .bind(RELAY)
    .bind(&place.stream)
    .bind(place.created_us)
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that the place has acknowledged `event` as its number `sequence`; `false`: the position is not there any more, and what was
/// acknowledged there counts for nothing.
pub(crate) async fn advance(tx: &mut Tx, place: &Place, sequence: i64, event: Uuid) -> Result<bool, Error> {
    let updated = sql("UPDATE outbox_position SET
             event_id = CASE WHEN sequence <= $1 THEN $2 ELSE event_id END,
             sequence = CASE WHEN sequence <= $1 THEN $1 ELSE sequence END
         WHERE relay = $3 AND stream = $4 AND stream_created_us = $5")
    .bind(sequence)
    .bind(event)
    .bind(RELAY)
    .bind(&place.stream)
    .bind(place.created_us)
    .execute(tx)
    .await?;
    Ok(updated == 1)
}
