//! The ledger.

use chrono::{DateTime, Utc};
use souk_db::{Error, Many, Statement, Tx, many, sql};
use uuid::Uuid;

use super::corrupt;
use super::stock::stock_key;
use crate::domain::StockKey;
use crate::domain::movement::{Movement, Operation, Reason};
use crate::domain::stock::Delta;

#[derive(sqlx::FromRow)]
struct MovementRow {
    sku: String,
    location: String,
    seq: i64,
    operation: String,
    on_hand_delta: i64,
    held_delta: i64,
    allocated_delta: i64,
    safety_delta: i64,
    incoming_delta: i64,
    reason: Option<String>,
    reference: String,
    actor: String,
    request_id: Option<Uuid>,
    reservation_id: Option<Uuid>,
    created_at: DateTime<Utc>,
}

impl TryFrom<MovementRow> for Movement {
    type Error = Error;

    fn try_from(row: MovementRow) -> Result<Self, Error> {
        let reason = row.reason.map(|name| Reason::from_name(&name).ok_or_else(|| corrupt("movements", "reason")));
        Ok(Self {
            key: stock_key(&row.sku, &row.location)?,
            seq: row.seq,
            operation: Operation::from_name(&row.operation).ok_or_else(|| corrupt("movements", "operation"))?,
            delta: Delta {
                on_hand: row.on_hand_delta,
                held: row.held_delta,
                allocated: row.allocated_delta,
                safety: row.safety_delta,
                incoming: row.incoming_delta,
            },
            reason: reason.transpose()?,
            reference: row.reference,
            actor: row.actor,
            request_id: row.request_id,
            reservation_id: row.reservation_id,
            created_at: row.created_at,
        })
    }
}

/// Up to `limit` movements of the record before `before`, newest first.
pub async fn list_movements(
    tx: &mut Tx,
    key: &StockKey,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Movement>, Error> {
    let rows: Vec<MovementRow> =
        sql("SELECT sku, location, seq, operation, on_hand_delta, held_delta, allocated_delta,
             safety_delta, incoming_delta, reason, reference, actor, request_id, reservation_id, created_at
         FROM movements WHERE sku = $1 AND location = $2 AND seq < $3 ORDER BY seq DESC LIMIT $4")
        .bind(key.sku.as_str())
        .bind(key.location.as_str())
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(tx)
        .await?;
    rows.into_iter().map(Movement::try_from).collect()
}

pub(super) fn insert(movements: &[Movement]) -> Many<'static> {
    let text = "INSERT INTO movements (sku, location, seq, operation, on_hand_delta, held_delta, allocated_delta, safety_delta,
             incoming_delta, reason, reference, actor, request_id, reservation_id, created_at) VALUES {rows} ON CONFLICT DO NOTHING";
    many(text, movements, bind)
}

fn bind(row: Statement, movement: &Movement) -> Statement {
    let delta = movement.delta;
    row.bind(movement.key.sku.as_str())
        .bind(movement.key.location.as_str())
        .bind(movement.seq)
        .bind(movement.operation.as_str())
        .bind(delta.on_hand)
        .bind(delta.held)
        .bind(delta.allocated)
        .bind(delta.safety)
        .bind(delta.incoming)
        .bind(movement.reason.map(Reason::as_str))
        .bind(&movement.reference)
        .bind(&movement.actor)
        .bind(movement.request_id)
        .bind(movement.reservation_id)
        .bind(movement.created_at)
}
