//! Stock records, read.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use souk_db::{Error, Tx, many, sql};
use uuid::Uuid;

use super::corrupt;
use crate::domain::{Location, Sku, Stock, StockKey};

#[derive(sqlx::FromRow)]
struct StockRow {
    sku: String,
    location: String,
    on_hand: i64,
    held: i64,
    allocated: i64,
    safety: i64,
    incoming: i64,
    version: i64,
    on_hand_version: i64,
    updated_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "s.sku, s.location, s.on_hand, s.held, s.allocated, s.safety, s.incoming, s.version, \
                                  s.on_hand_version, s.updated_at";

impl StockRow {
    fn parse(self) -> Result<(StockKey, Stock), Error> {
        let stock = Stock {
            on_hand: self.on_hand,
            held: self.held,
            allocated: self.allocated,
            safety: self.safety,
            incoming: self.incoming,
            version: self.version,
            on_hand_version: self.on_hand_version,
            updated_at: self.updated_at,
        };
        Ok((stock_key(&self.sku, &self.location)?, stock))
    }
}

pub(super) fn stock_key(sku: &str, location: &str) -> Result<StockKey, Error> {
    let sku = Sku::parse(sku).map_err(|error| corrupt("sku", error))?;
    let location = Location::parse(location).map_err(|error| corrupt("location", error))?;
    Ok(StockKey::new(sku, location))
}

/// Those of the records that have a row.
pub async fn levels(tx: &mut Tx, keys: &[StockKey]) -> Result<HashMap<StockKey, Stock>, Error> {
    rows(tx, keys, "").await
}

/// The records, with `lock` at the end of the statement.
pub(super) async fn rows(tx: &mut Tx, keys: &[StockKey], lock: &str) -> Result<HashMap<StockKey, Stock>, Error> {
    let text = format!(
        "WITH v (sku, location) AS (VALUES {{rows}})
         SELECT {COLUMNS} FROM v JOIN stock s ON s.sku = v.sku AND s.location = v.location {lock}"
    );
    let look_up = many(&text, keys, |row, key| row.bind(key.sku.as_str()).bind(key.location.as_str()));
    look_up.fetch_all(tx).await?.into_iter().map(StockRow::parse).collect()
}

/// Those of the skus that are products.
pub async fn known_skus(tx: &mut Tx, skus: &[Sku]) -> Result<BTreeSet<Sku>, Error> {
    let text = "WITH v (sku) AS (VALUES {rows}) SELECT p.sku FROM v JOIN products p ON p.sku = v.sku";
    let known: Vec<(String,)> = many(text, skus, |row, sku| row.bind(sku.as_str())).fetch_all(tx).await?;
    known.iter().map(|(sku,)| Sku::parse(sku).map_err(|error| corrupt("sku", error))).collect()
}

/// Those of the locations that do not exist.
pub async fn unknown_locations(tx: &mut Tx, locations: &BTreeSet<Location>) -> Result<BTreeSet<Location>, Error> {
    let asked: Vec<&Location> = locations.iter().collect();
    let text = "WITH v (name) AS (VALUES {rows}) SELECT l.name FROM v JOIN locations l ON l.name = v.name";
    let known: Vec<(String,)> = many(text, &asked, |row, location| row.bind(location.as_str())).fetch_all(tx).await?;
    let is_known = |location: &&Location| known.iter().any(|(name,)| location.as_str() == name);
    Ok(locations.iter().filter(|location| !is_known(location)).cloned().collect())
}

/// Up to `limit` holds that are due, the longest due first.
pub async fn due_reservations(tx: &mut Tx, now: DateTime<Utc>, limit: u32) -> Result<Vec<Uuid>, Error> {
    let text = "SELECT id FROM reservations WHERE state = 'HELD' AND expires_at <= $1 ORDER BY expires_at, id LIMIT $2";
    let due: Vec<(Uuid,)> = sql(text).bind(now).bind(limit).fetch_all(tx).await?;
    Ok(due.into_iter().map(|(id,)| id).collect())
}
