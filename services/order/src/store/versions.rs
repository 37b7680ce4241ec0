//! Orders as they are told: their versions, as encoded messages.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use souk_db::{Error, Many, Tx, many, sql};
use uuid::Uuid;

use super::orders::state;
use crate::domain::commands::Position;
use crate::domain::{ListOrders, OrderId, OrderState, UserId};

/// An order as it stood at one version, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Which.
    pub order_id: OrderId,
    /// From 1, without gaps.
    pub version: i64,
    /// `souk.order.v1.Order`
    pub snapshot: Vec<u8>,
    /// When it came to be.
    pub created_at: DateTime<Utc>,
}

/// Stores versions, in the transaction of the changes that they are of. Whoever has it done asks [`all_touched`](souk_db::all_touched) whether
/// somebody else has stored one of them.
pub fn insert_versions(versions: &[Version]) -> Many<'static> {
    let text = "INSERT INTO order_versions (order_id, version, snapshot, created_at) VALUES {rows}
         ON CONFLICT DO NOTHING";
    many(text, versions, |row, version| {
        row.bind(version.order_id.0).bind(version.version).bind(version.snapshot.as_slice()).bind(version.created_at)
    })
}

/// What decides who may see an order, and whether there is more to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Whose.
    pub owner_id: UserId,
    /// Where it stands.
    pub state: OrderState,
    /// Its last version.
    pub version: i64,
}

/// The head of an order.
pub async fn head(tx: &mut Tx, id: OrderId) -> Result<Option<Head>, Error> {
    let row: Option<(Uuid, String, i64)> =
        sql("SELECT owner_id, state, version FROM orders WHERE order_id = $1").bind(id.0).fetch_optional(tx).await?;
    row.map(|(owner_id, name, version)| Ok(Head { owner_id: UserId(owner_id), state: state(&name)?, version }))
        .transpose()
}

/// The owner of an order, and its last version.
pub async fn latest(tx: &mut Tx, id: OrderId) -> Result<Option<(UserId, Vec<u8>)>, Error> {
    let row: Option<(Uuid, Vec<u8>)> = sql("SELECT o.owner_id, v.snapshot
         FROM orders o JOIN order_versions v ON v.order_id = o.order_id AND v.version = o.version WHERE o.order_id = $1")
    .bind(id.0)
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|(owner_id, snapshot)| (UserId(owner_id), snapshot)))
}

/// Up to `limit` versions of an order after one, in order.
pub async fn versions_after(
    tx: &mut Tx,
    id: OrderId,
    after_version: i64,
    limit: i64,
) -> Result<Vec<(i64, Vec<u8>)>, Error> {
    sql("SELECT version, snapshot FROM order_versions WHERE order_id = $1 AND version > $2 ORDER BY version LIMIT $3")
        .bind(id.0)
        .bind(after_version)
        .bind(limit)
        .fetch_all(tx)
        .await
}

/// The last version of each of `ids`.
pub async fn current_versions(tx: &mut Tx, ids: &[OrderId]) -> Result<Vec<(OrderId, i64)>, Error> {
    let text = "WITH k (order_id) AS (VALUES {rows})
         SELECT o.order_id, o.version FROM k JOIN orders o ON o.order_id = k.order_id";
    let rows: Vec<(Uuid, i64)> = many(text, ids, |row, id| row.bind(id.0)).fetch_all(tx).await?;
    Ok(rows.into_iter().map(|(id, version)| (OrderId(id), version)).collect())
}

/// An order of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it stands in the list.
    pub position: Position,
    /// Its last version.
    pub snapshot: Vec<u8>,
}

/// Up to `limit` orders that `query` asks for, newest first.
pub async fn list_orders(tx: &mut Tx, query: &ListOrders, limit: i64) -> Result<Vec<Listed>, Error> {
    let mut text = "SELECT o.created_at, o.order_id, v.snapshot
         FROM orders o JOIN order_versions v ON v.order_id = o.order_id AND v.version = o.version WHERE 1 = 1"
        .to_owned();
    let mut values: Vec<souk_db::Value> = Vec::new();
    let mut condition = |sql: &str, of: Vec<souk_db::Value>| {
        let first = values.len() + 1;
        let places: Vec<String> = (first..first + of.len()).map(|place| format!("${place}")).collect();
        values.extend(of);
        // Writing to a string cannot fail.
        let _ = write!(text, " AND {}", sql.replace('?', &places.join(", ")));
    };
    if let Some(owner_id) = query.owner_id {
        condition("o.owner_id = ?", vec![owner_id.0.into()]);
    }
    if !query.states.is_empty() {
        condition("o.state IN (?)", query.states.iter().map(|state| state.name().into()).collect());
    }
    if let Some(from) = query.created_from {
        condition("o.created_at >= ?", vec![from.into()]);
    }
    if let Some(before) = query.created_before {
        condition("o.created_at < ?", vec![before.into()]);
    }
    if let Some(after) = query.after {
        condition("(o.created_at, o.order_id) < (?)", vec![after.created_at.into(), after.order_id.0.into()]);
    }
    values.push(limit.into());
    let _ = write!(text, " ORDER BY o.created_at DESC, o.order_id DESC LIMIT ${}", values.len());
    let statement = values.into_iter().fold(sql(text), souk_db::Statement::bind);
    let rows: Vec<(DateTime<Utc>, Uuid, Vec<u8>)> = statement.fetch_all(tx).await?;
    let listed =
        |(created_at, id, snapshot)| Listed { position: Position { created_at, order_id: OrderId(id) }, snapshot };
    Ok(rows.into_iter().map(listed).collect())
}
