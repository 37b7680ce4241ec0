//! Idempotency keys: the answer of a mutation, kept in the transaction of its effect. No effect, no key.
//!
//! A concurrent duplicate: on PostgreSQL its [`keep`] waits until the first transaction ends, then reports a conflict
//! (or fails with `Kind::Locked` after `lock_timeout_ms`); on SQLite there is one writer, so its [`find_many`] sees the key already.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::error::Error;
use crate::rows::{Many, all_touched, many};
use crate::statement::sql;
use crate::transaction::Tx;

/// So long a key is kept at least.
pub const KEEP: TimeDelta = TimeDelta::hours(72);

/// One call: whose, of which RPC, under which key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The subject of the caller's token, or what an anonymous caller has proved.
    pub caller: String,
    /// The path of the RPC.
    pub method: String,
    /// The caller's `request_id`.
    pub request_id: Uuid,
}

impl Key {
    /// The call of `method` by `caller` under this key.
    pub fn new(caller: &str, method: &str, request_id: Uuid) -> Self {
        Self { caller: caller.to_owned(), method: method.to_owned(), request_id }
    }
}

/// What was answered under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The call.
    pub key: Key,
    /// What it asked for.
    pub fingerprint: [u8; 32],
    /// The encoded response.
    pub response: Vec<u8>,
}

/// What is known of a call before it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    New,
    /// It was made: its encoded response.
    Replay(Vec<u8>),
    /// The key was used for something else.
    Reused,
}

#[derive(sqlx::FromRow)]
struct StoredRow {
    caller: String,
    method: String,
    request_id: Uuid,
    fingerprint: Vec<u8>,
    response: Vec<u8>,
}

/// What is known of a call.
pub async fn find(tx: &mut Tx, key: &Key, fingerprint: &[u8; 32]) -> Result<Seen, Error> {
    let stored = find_many(tx, std::slice::from_ref(key)).await?.pop();
    Ok(match stored {
        None => Seen::New,
        Some(stored) if stored.fingerprint == *fingerprint => Seen::Replay(stored.response),
        Some(_) => Seen::Reused,
    })
}

/// What was answered under those of `keys` that are known.
pub async fn find_many(tx: &mut Tx, keys: &[Key]) -> Result<Vec<Stored>, Error> {
    let look_up = many(
        "WITH k (caller, method, request_id) AS (VALUES {rows})
         SELECT i.caller, i.method, i.request_id, i.fingerprint, i.response
         FROM k JOIN idempotency_keys i ON i.caller = k.caller AND i.method = k.method AND i.request_id = k.request_id",
        keys,
        |row, key| row.bind(&key.caller).bind(&key.method).bind(key.request_id),
    );
    let stored = |row: StoredRow| {
        Ok(Stored {
            key: Key { caller: row.caller, method: row.method, request_id: row.request_id },
            fingerprint: row.fingerprint.try_into().map_err(|_| Error::bug("a fingerprint has 32 bytes"))?,
            response: row.response,
        })
    };
    look_up.fetch_all(tx).await?.into_iter().map(stored).collect()
}

/// Keeps answers; a conflict, if another transaction has taken one of the keys since.
pub async fn keep(tx: &mut Tx, stored: &[Stored], now: DateTime<Utc>) -> Result<(), Error> {
    let kept = insert(stored, now).execute(tx).await?;
    all_touched(kept, stored.len(), "a key")
}

/// What [`keep`] writes, to be written together with something else; then [`all_touched`] is to be asked.
pub fn insert(stored: &[Stored], now: DateTime<Utc>) -> Many<'static> {
    many(
        "INSERT INTO idempotency_keys (caller, method, request_id, fingerprint, response, created_at) VALUES {rows}
         ON CONFLICT DO NOTHING",
        stored,
        |row, stored| {
            row.bind(&stored.key.caller)
                .bind(&stored.key.method)
                .bind(stored.key.request_id)
                .bind(stored.fingerprint)
                .bind(stored.response.as_slice())
                .bind(now)
        },
    )
}

/// Deletes up to `limit` keys that are older than [`KEEP`]; how many.
pub async fn sweep(tx: &mut Tx, now: DateTime<Utc>, limit: u32) -> Result<u64, Error> {
    sql("DELETE FROM idempotency_keys WHERE (caller, method, request_id) IN
         (SELECT caller, method, request_id FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2)")
    .bind(now - KEEP)
    .bind(limit)
    .execute(tx)
    .await
}
