//! The book of a batch: loaded with a few set-based statements, saved with a few more.
//!
//! Two replicas on one PostgreSQL never decide on the same record at once: every record that a batch can change is locked, in the order
//! (sku, location), then every reservation, before a command is decided. What to lock is read before that, without locks, and may
//! have changed by then: a reservation that was not there yet is left out (see [`Book::open`](crate::domain::Book::open)), a due hold
//! that another replica has ended meanwhile is not due any more. Only a backlog of due holds is ended in several goes, each with
//! locks of its own: the order holds within each, and a deadlock between two of them starts one replica anew. What has no row to lock
//! yet (a record's first movement, a new reservation, a new key) is inserted with ON CONFLICT DO NOTHING, and whoever comes second
//! starts anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use souk_db::idempotency::{self, Key, Stored};
use souk_db::{Engine, Error, Many, Statement, Tx, all_touched, many, together};
use uuid::Uuid;

use super::stock::stock_key;
use super::{corrupt, movements, stock};
use crate::domain::book::{AnswerKey, Changed, Changes, Given, Kept, Loaded, Origin};
use crate::domain::reservation::{Line, State};
use crate::domain::{Command, Location, Reservation, Sku, StockKey, StockLevel};

/// Up to `limit` due holds that have units of a record that one of `commands` names.
pub async fn due_among(
    tx: &mut Tx,
    commands: &[&Command],
    now: DateTime<Utc>,
    limit: u32,
) -> Result<BTreeSet<Uuid>, Error> {
    let keys: BTreeSet<&StockKey> = commands.iter().flat_map(|command| command.keys()).collect();
    let keys: Vec<&StockKey> = keys.into_iter().collect();
    // `now` and the limit go with every record, so that the statement has values in rows only.
    let text = format!(
        "WITH v (sku, location, now) AS (VALUES {{rows}})
         SELECT DISTINCT l.reservation_id FROM v JOIN reservation_lines l ON l.sku = v.sku AND l.location = v.location
         WHERE l.held > 0 AND l.expires_at <= v.now LIMIT {limit}"
    );
    let bind = |row: Statement, key: &&StockKey| row.bind(key.sku.as_str()).bind(key.location.as_str()).bind(now);
    let due: Vec<(Uuid,)> = many(&text, &keys, bind).fetch_all(tx).await?;
    Ok(due.into_iter().map(|(id,)| id).collect())
}

/// Everything that `commands` and the holds `due` touch, locked.
pub async fn load(
    tx: &mut Tx,
    commands: &[&Command],
    due: &BTreeSet<Uuid>,
    answers: &[AnswerKey],
) -> Result<Loaded, Error> {
    let named = commands.iter().flat_map(|command| command.reservation_ids()).copied();
    let ids: Vec<Uuid> = named.chain(due.iter().copied()).collect::<BTreeSet<Uuid>>().into_iter().collect();
    let mut keys: BTreeSet<StockKey> = commands.iter().flat_map(|command| command.keys()).cloned().collect();
    keys.extend(keys_of_lines(tx, &ids).await?);
    let keys: Vec<StockKey> = keys.into_iter().collect();
    let (stocks, unknown_locations) = lock_stocks(tx, &keys).await?;
    Ok(Loaded {
        stocks,
        unknown_locations,
        // Under the locks of their records: nobody takes a step of these until this transaction ends.
        reservations: reservations(tx, &ids).await?,
        answers: given_answers(tx, answers).await?,
    })
}

async fn keys_of_lines(tx: &mut Tx, ids: &[Uuid]) -> Result<Vec<StockKey>, Error> {
    let text = "WITH v (id) AS (VALUES {rows})
         SELECT DISTINCT l.sku, l.location FROM v JOIN reservation_lines l ON l.reservation_id = v.id";
    let keys: Vec<(String, String)> = many(text, ids, |row, id| row.bind(*id)).fetch_all(tx).await?;
    keys.iter().map(|(sku, location)| stock_key(sku, location)).collect()
}

/// The records, those without a row as zeros; those of unknown products or locations are left out, and the unknown locations named.
async fn lock_stocks(tx: &mut Tx, keys: &[StockKey]) -> Result<(Vec<StockLevel>, BTreeSet<Location>), Error> {
    let lock = match tx.engine() {
        Engine::Sqlite => "", // one writer at a time
        Engine::Postgres => "ORDER BY s.sku, s.location FOR NO KEY UPDATE OF s",
    };
    let mut rows = stock::rows(tx, keys, lock).await?;
    let without_row: Vec<&StockKey> = keys.iter().filter(|key| !rows.contains_key(key)).collect();
    let skus: BTreeSet<Sku> = without_row.iter().map(|key| key.sku.clone()).collect();
    let known = stock::known_skus(tx, &Vec::from_iter(skus)).await?;
    let locations = without_row.iter().map(|key| key.location.clone()).collect();
    let unknown = stock::unknown_locations(tx, &locations).await?;
    for key in without_row.into_iter().filter(|key| known.contains(&key.sku) && !unknown.contains(&key.location)) {
        rows.insert(key.clone(), crate::domain::Stock::default());
    }
    Ok((rows.into_iter().map(|(key, stock)| StockLevel { key, stock }).collect(), unknown))
}

#[derive(sqlx::FromRow)]
struct ReservationRow {
    id: Uuid,
    state: String,
    expires_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    version: i64,
    caller: String,
    request_id: Uuid,
    fingerprint: Vec<u8>,
}

impl ReservationRow {
    fn parse(self, lines: Vec<Line>) -> Result<Kept, Error> {
        let reservation = Reservation {
            id: self.id,
            state: State::from_name(&self.state).ok_or_else(|| corrupt("reservations", "state"))?,
            lines,
            expires_at: self.expires_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
            version: self.version,
        };
        let fingerprint = self.fingerprint.try_into().map_err(|_| corrupt("reservations", "fingerprint"))?;
        Ok(Kept { reservation, origin: Origin { caller: self.caller, request_id: self.request_id, fingerprint } })
    }
}

#[derive(sqlx::FromRow)]
struct LineRow {
    reservation_id: Uuid,
    sku: String,
    location: String,
    requested: i64,
    held: i64,
    committed: i64,
    released: i64,
    expired: i64,
}

/// First the rows, then their lines: each statement sees what was committed before it, so a row that is seen has all its lines.
async fn reservations(tx: &mut Tx, ids: &[Uuid]) -> Result<Vec<Kept>, Error> {
    let lock = match tx.engine() {
        Engine::Sqlite => "", // one writer at a time
        Engine::Postgres => "ORDER BY r.id FOR NO KEY UPDATE OF r",
    };
    let text = format!(
        "WITH v (id) AS (VALUES {{rows}})
         SELECT r.id, r.state, r.expires_at, r.created_at, r.updated_at, r.version, r.caller, r.request_id, r.fingerprint
         FROM v JOIN reservations r ON r.id = v.id {lock}"
    );
    let rows: Vec<ReservationRow> = many(&text, ids, |row, id| row.bind(*id)).fetch_all(tx).await?;
    let found: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut lines = lines(tx, &found).await?;
    rows.into_iter()
        .map(|row| {
            let lines = lines.remove(&row.id).unwrap_or_default();
            row.parse(lines)
        })
        .collect()
}

async fn lines(tx: &mut Tx, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<Line>>, Error> {
    let text = "WITH v (id) AS (VALUES {rows})
         SELECT l.reservation_id, l.sku, l.location, l.requested, l.held, l.committed, l.released, l.expired
         FROM v JOIN reservation_lines l ON l.reservation_id = v.id ORDER BY l.reservation_id, l.sku, l.location";
    let mut lines: HashMap<Uuid, Vec<Line>> = HashMap::new();
    for row in many(text, ids, |row, id| row.bind(*id)).fetch_all::<LineRow>(tx).await? {
        let line = Line {
            key: stock_key(&row.sku, &row.location)?,
            requested: row.requested,
            held: row.held,
            committed: row.committed,
            released: row.released,
            expired: row.expired,
        };
        lines.entry(row.reservation_id).or_default().push(line);
    }
    Ok(lines)
}

async fn given_answers(tx: &mut Tx, answers: &[AnswerKey]) -> Result<Vec<(AnswerKey, Given)>, Error> {
    let asked: BTreeMap<Key, &AnswerKey> = answers.iter().map(|answer| (stored_key(answer), answer)).collect();
    let keys: Vec<Key> = asked.keys().cloned().collect();
    let mut given = Vec::new();
    for stored in idempotency::find_many(tx, &keys).await? {
        let Some(key) = asked.get(&stored.key) else { continue };
        let reply = serde_json::from_slice(&stored.response).map_err(|error| corrupt("idempotency_keys", error))?;
        given.push(((*key).clone(), Given { fingerprint: stored.fingerprint, reply }));
    }
    Ok(given)
}

fn stored_key(answer: &AnswerKey) -> Key {
    Key::new(&answer.caller, answer.method, answer.request_id)
}

/// Writes what a batch did, and its events. A conflict: a concurrent transaction was faster, start anew.
pub async fn save(tx: &mut Tx, changes: &Changes, events: Many<'static>, now: DateTime<Utc>) -> Result<(), Error> {
    let (new_stocks, stocks) = parted(&changes.stocks);
    let (new_reservations, reservations) = parted(&changes.reservations);
    let (new_lines, lines) = (lines_of(&new_reservations), lines_of(&reservations));
    let answers = stored_answers(&changes.answers);
    let writes = [
        insert_stocks(&new_stocks),
        update_stocks(&stocks),
        insert_reservations(&new_reservations),
        update_reservations(&reservations),
        insert_lines(&new_lines),
        update_lines(&lines),
        idempotency::insert(&answers, now),
        movements::insert(&changes.movements),
        events,
    ];
    let touched = together(tx, writes).await?;
    let records = [
        (new_stocks.len(), "a stock record"),
        (stocks.len(), "a stock record"),
        (new_reservations.len(), "a reservation"),
        (reservations.len(), "a reservation"),
        (new_lines.len(), "a line"),
        (lines.len(), "a line"),
        (answers.len(), "a key"),
        (changes.movements.len(), "a stock record"),
    ];
    let mut checked = touched.into_iter().zip(records);
    checked.try_for_each(|(touched, (given, what))| all_touched(touched, given, what))
}

fn stored_answers(answers: &[(AnswerKey, Given)]) -> Vec<Stored> {
    let stored = |(key, given): &(AnswerKey, Given)| Stored {
        key: stored_key(key),
        fingerprint: given.fingerprint,
        response: serde_json::to_vec(&given.reply).expect("a reply is JSON"),
    };
    answers.iter().map(stored).collect()
}

/// The new ones, and those that were there.
fn parted<T>(changed: &[Changed<T>]) -> (Vec<&Changed<T>>, Vec<&Changed<T>>) {
    changed.iter().partition(|changed| changed.version_before == 0)
}

fn insert_stocks(new: &[&Changed<StockLevel>]) -> Many<'static> {
    let text = "INSERT INTO stock (sku, location, on_hand, held, allocated, safety, incoming, version, on_hand_version, updated_at)
         VALUES {rows} ON CONFLICT DO NOTHING";
    many(text, new, |row, changed| bind_stock(row, changed))
}

fn update_stocks(known: &[&Changed<StockLevel>]) -> Many<'static> {
    let text = "WITH v (sku, location, on_hand, held, allocated, safety, incoming, version, on_hand_version, updated_at,
             version_before) AS (VALUES {rows})
         UPDATE stock SET on_hand = v.on_hand, held = v.held, allocated = v.allocated, safety = v.safety, incoming = v.incoming,
             version = v.version, on_hand_version = v.on_hand_version, updated_at = v.updated_at
         FROM v WHERE stock.sku = v.sku AND stock.location = v.location AND stock.version = v.version_before";
    many(text, known, |row, changed| bind_stock(row, changed).bind(changed.version_before))
}

fn bind_stock(row: Statement, changed: &Changed<StockLevel>) -> Statement {
    let StockLevel { key, stock } = &changed.now;
    row.bind(key.sku.as_str())
        .bind(key.location.as_str())
        .bind(stock.on_hand)
        .bind(stock.held)
        .bind(stock.allocated)
        .bind(stock.safety)
        .bind(stock.incoming)
        .bind(stock.version)
        .bind(stock.on_hand_version)
        .bind(stock.updated_at)
}

fn insert_reservations(new: &[&Changed<Kept>]) -> Many<'static> {
    let text = "INSERT INTO reservations (id, state, expires_at, created_at, updated_at, version, caller, request_id, fingerprint)
         VALUES {rows} ON CONFLICT DO NOTHING";
    many(text, new, |row, changed| {
        let Kept { reservation, origin } = &changed.now;
        row.bind(reservation.id)
            .bind(reservation.state.as_str())
            .bind(reservation.expires_at)
            .bind(reservation.created_at)
            .bind(reservation.updated_at)
            .bind(reservation.version)
            .bind(&origin.caller)
            .bind(origin.request_id)
            .bind(origin.fingerprint)
    })
}

fn update_reservations(known: &[&Changed<Kept>]) -> Many<'static> {
    let text = "WITH v (id, state, updated_at, version, version_before) AS (VALUES {rows})
         UPDATE reservations SET state = v.state, updated_at = v.updated_at, version = v.version
         FROM v WHERE reservations.id = v.id AND reservations.version = v.version_before";
    many(text, known, |row, changed| {
        let reservation = &changed.now.reservation;
        row.bind(reservation.id)
            .bind(reservation.state.as_str())
            .bind(reservation.updated_at)
            .bind(reservation.version)
            .bind(changed.version_before)
    })
}

fn insert_lines(lines: &[(&Reservation, &Line)]) -> Many<'static> {
    let text = "INSERT INTO reservation_lines (reservation_id, sku, location, requested, expires_at, held, committed, released, expired)
         VALUES {rows} ON CONFLICT DO NOTHING";
    many(text, lines, |row, (reservation, line)| {
        let named = bind_name(row, reservation, line).bind(line.requested).bind(reservation.expires_at);
        bind_parts(named, line)
    })
}

fn update_lines(lines: &[(&Reservation, &Line)]) -> Many<'static> {
    let text = "WITH v (reservation_id, sku, location, held, committed, released, expired) AS (VALUES {rows})
         UPDATE reservation_lines SET held = v.held, committed = v.committed, released = v.released, expired = v.expired
         FROM v WHERE reservation_lines.reservation_id = v.reservation_id AND reservation_lines.sku = v.sku
             AND reservation_lines.location = v.location";
    many(text, lines, |row, (reservation, line)| bind_parts(bind_name(row, reservation, line), line))
}

fn bind_name(row: Statement, reservation: &Reservation, line: &Line) -> Statement {
    row.bind(reservation.id).bind(line.key.sku.as_str()).bind(line.key.location.as_str())
}

fn bind_parts(row: Statement, line: &Line) -> Statement {
    row.bind(line.held).bind(line.committed).bind(line.released).bind(line.expired)
}

fn lines_of<'c>(changed: &[&'c Changed<Kept>]) -> Vec<(&'c Reservation, &'c Line)> {
    let reservations = changed.iter().map(|changed| &changed.now.reservation);
    reservations.flat_map(|reservation| reservation.lines.iter().map(move |line| (reservation, line))).collect()
}
