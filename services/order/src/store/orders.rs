//! Orders and their lines.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use souk_db::{Engine, Error, Many, Statement, Tx, many};
use souk_proto_common::{Currency, IdempotencyKey, Money};
use uuid::Uuid;

use super::corrupt;
use crate::domain::{Order, OrderId, OrderLine, OrderState, Sku, UserId};

/// An order that is to be stored, and the key that it is placed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    /// Version 1 of it.
    pub order: Order,
    /// Its owner's key.
    pub key: IdempotencyKey,
}

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The order.
    pub order_id: OrderId,
    /// Whose.
    pub owner_id: UserId,
    /// The key and what was asked for.
    pub key: IdempotencyKey,
    /// The stock of the order.
    pub reservation_id: Uuid,
    /// The answer: version 1.
    pub snapshot: Vec<u8>,
}

/// Stores those of `orders` whose key is free, but for their lines; which. A key that another transaction is just taking is waited for.
pub async fn insert_orders(tx: &mut Tx, orders: &[&NewOrder]) -> Result<HashSet<OrderId>, Error> {
    // In the order of keys, so that two replicas with the same keys wait for each other and not in a circle.
    let mut sorted = orders.to_vec();
    sorted.sort_by_key(|new| (new.order.owner_id, new.key.request_id));
    let text = "INSERT INTO orders (order_id, owner_id, request_id, fingerprint, reservation_id, state, state_reason, currency,
             total_minor, version, created_at, updated_at) VALUES {rows}
         ON CONFLICT (owner_id, request_id) DO NOTHING RETURNING order_id";
    let ids: Vec<(Uuid,)> = many(text, &sorted, |row, new| bind_order(row, new)).fetch_all(tx).await?;
    Ok(ids.into_iter().map(|(id,)| OrderId(id)).collect())
}

fn bind_order(row: Statement, new: &NewOrder) -> Statement {
    let order = &new.order;
    row.bind(order.id.0)
        .bind(order.owner_id.0)
        .bind(new.key.request_id)
        .bind(new.key.fingerprint)
        .bind(order.reservation_id)
        .bind(order.state.name())
        .bind(&order.state_reason)
        .bind(order.total.currency.code())
        .bind(order.total.amount_minor)
        .bind(order.version)
        .bind(order.created_at)
        .bind(order.updated_at)
}

/// Stores the lines of orders that were stored, in the same transaction.
pub fn insert_lines<'o>(orders: impl Iterator<Item = &'o Order>) -> Many<'static> {
    let lines_of = |order: &'o Order| order.lines.iter().enumerate().map(|(index, line)| (order.id, index, line));
    let lines: Vec<(OrderId, usize, &OrderLine)> = orders.flat_map(lines_of).collect();
    let text =
        "INSERT INTO order_lines (order_id, line, sku, name, quantity, unit_price_minor, tax_basis_points, tax_minor,
             total_minor) VALUES {rows}";
    many(text, &lines, |row, (order_id, index, line)| {
        row.bind(order_id.0)
            .bind(i64::try_from(*index).unwrap_or(i64::MAX))
            .bind(line.sku.as_str())
            .bind(&line.name)
            .bind(line.quantity)
            .bind(line.unit_price.amount_minor)
            .bind(line.tax_basis_points)
            .bind(line.tax.amount_minor)
            .bind(line.total.amount_minor)
    })
}

#[derive(sqlx::FromRow)]
struct PlacedRow {
    order_id: Uuid,
    owner_id: Uuid,
    request_id: Uuid,
    fingerprint: Vec<u8>,
    reservation_id: Uuid,
    snapshot: Vec<u8>,
}

/// What is stored under those of `keys` that are taken.
pub async fn orders_by_key(tx: &mut Tx, keys: &[(UserId, Uuid)]) -> Result<Vec<Placed>, Error> {
    let text = "WITH k (owner_id, request_id) AS (VALUES {rows})
         SELECT o.order_id, o.owner_id, o.request_id, o.fingerprint, o.reservation_id, v.snapshot
         FROM k JOIN orders o ON o.owner_id = k.owner_id AND o.request_id = k.request_id
         JOIN order_versions v ON v.order_id = o.order_id AND v.version = 1";
    let placed = |row: PlacedRow| {
        let fingerprint = row.fingerprint.try_into().map_err(|_| corrupt("orders", "fingerprint"))?;
        Ok(Placed {
            order_id: OrderId(row.order_id),
            owner_id: UserId(row.owner_id),
            key: IdempotencyKey { request_id: row.request_id, fingerprint },
            reservation_id: row.reservation_id,
            snapshot: row.snapshot,
        })
    };
    let look_up = many(text, keys, |row, (owner_id, request_id)| row.bind(owner_id.0).bind(*request_id));
    look_up.fetch_all(tx).await?.into_iter().map(placed).collect()
}

#[derive(sqlx::FromRow)]
struct OrderRow {
    order_id: Uuid,
    owner_id: Uuid,
    reservation_id: Uuid,
    state: String,
    state_reason: String,
    currency: String,
    total_minor: i64,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct LineRow {
    order_id: Uuid,
    sku: String,
    name: String,
    quantity: i64,
    unit_price_minor: i64,
    tax_basis_points: i64,
    tax_minor: i64,
    total_minor: i64,
}

/// Those of `ids` that exist, locked until the transaction ends.
pub async fn orders_for_update(tx: &mut Tx, ids: &[OrderId]) -> Result<Vec<Order>, Error> {
    let lock = match tx.engine() {
        Engine::Sqlite => "", // one writer at a time
        Engine::Postgres => "ORDER BY o.order_id FOR UPDATE OF o",
    };
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let text = format!(
        "WITH k (order_id) AS (VALUES {{rows}})
         SELECT o.order_id, o.owner_id, o.reservation_id, o.state, o.state_reason, o.currency, o.total_minor, o.version,
             o.created_at, o.updated_at
         FROM k JOIN orders o ON o.order_id = k.order_id {lock}"
    );
    let rows: Vec<OrderRow> = many(&text, &sorted, |row, id| row.bind(id.0)).fetch_all(tx).await?;
    let mut lines = lines(tx, &sorted).await?;
    let mut own_lines = |row: &OrderRow| lines.remove(&row.order_id).unwrap_or_default();
    rows.into_iter()
        .map(|row| {
            let lines = own_lines(&row);
            row.parse(lines)
        })
        .collect()
}

async fn lines(tx: &mut Tx, ids: &[OrderId]) -> Result<HashMap<Uuid, Vec<LineRow>>, Error> {
    let text = "WITH k (order_id) AS (VALUES {rows})
         SELECT l.order_id, l.sku, l.name, l.quantity, l.unit_price_minor, l.tax_basis_points, l.tax_minor, l.total_minor
         FROM k JOIN order_lines l ON l.order_id = k.order_id ORDER BY l.order_id, l.line";
    let mut lines: HashMap<Uuid, Vec<LineRow>> = HashMap::new();
    for row in many(text, ids, |row, id| row.bind(id.0)).fetch_all::<LineRow>(tx).await? {
        lines.entry(row.order_id).or_default().push(row);
    }
    Ok(lines)
}

impl OrderRow {
    fn parse(self, lines: Vec<LineRow>) -> Result<Order, Error> {
        let currency = Currency::parse(&self.currency).map_err(|_| corrupt("orders", "currency"))?;
        let lines = lines.into_iter().map(|line| line.parse(currency)).collect::<Result<_, _>>()?;
        Ok(Order {
            id: OrderId(self.order_id),
            owner_id: UserId(self.owner_id),
            reservation_id: self.reservation_id,
            state: state(&self.state)?,
            state_reason: self.state_reason,
            lines,
            total: Money { currency, amount_minor: self.total_minor },
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

impl LineRow {
    fn parse(self, currency: Currency) -> Result<OrderLine, Error> {
        let money = |amount_minor| Money { currency, amount_minor };
        Ok(OrderLine {
            sku: Sku::parse(&self.sku).map_err(|_| corrupt("order_lines", "sku"))?,
            name: self.name,
            quantity: self.quantity,
            unit_price: money(self.unit_price_minor),
            tax_basis_points: i32::try_from(self.tax_basis_points).map_err(|_| corrupt("order_lines", "tax rate"))?,
            tax: money(self.tax_minor),
            total: money(self.total_minor),
        })
    }
}

pub(super) fn state(name: &str) -> Result<OrderState, Error> {
    OrderState::from_name(name).ok_or_else(|| corrupt("orders", "state"))
}

/// Stores the next version of each. Whoever has it done asks [`all_touched`](souk_db::all_touched) whether one of them has moved on.
pub fn update_orders(orders: &[Order]) -> Many<'static> {
    let text = "WITH v (order_id, state, state_reason, version, updated_at) AS (VALUES {rows})
         UPDATE orders SET state = v.state, state_reason = v.state_reason, version = v.version, updated_at = v.updated_at
         FROM v WHERE orders.order_id = v.order_id AND orders.version = v.version - 1";
    many(text, orders, |row, order| {
        row.bind(order.id.0)
            .bind(order.state.name())
            .bind(&order.state_reason)
            .bind(order.version)
            .bind(order.updated_at)
    })
}
