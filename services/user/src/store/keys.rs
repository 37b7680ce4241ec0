//! The keys that sign access tokens.

use chrono::{DateTime, Utc};
use souk_db::{Error, Tx, all_touched, sql};

use super::{corrupt, hash_of};
use crate::domain::keys::{KeyState, TokenKey};

#[derive(sqlx::FromRow)]
struct Row {
    kid: String,
    seed: Vec<u8>,
    state: String,
    since: DateTime<Utc>,
}

/// Every key that is not gone: a handful.
pub async fn token_keys(tx: &mut Tx) -> Result<Vec<TokenKey>, Error> {
    let rows = sql("SELECT kid, seed, state, since FROM token_keys ORDER BY since, kid").fetch_all::<Row>(tx).await?;
    let read = |row: Row| {
        let state = KeyState::parse(&row.state).ok_or_else(|| corrupt("token_keys", "state"))?;
        Ok(TokenKey { kid: row.kid, seed: hash_of(row.seed, "token_keys")?, state, since: row.since })
    };
    rows.into_iter().map(read).collect()
}

/// Adds a key.
pub async fn insert_key(tx: &mut Tx, key: &TokenKey) -> Result<(), Error> {
    sql("INSERT INTO token_keys (kid, seed, state, since) VALUES ($1, $2, $3, $4)")
        .bind(&key.kid)
        .bind(key.seed)
        .bind(key.state.name())
        .bind(key.since)
        .execute(tx)
        .await?;
    Ok(())
}

/// Brings a key into its next state.
pub async fn move_key(tx: &mut Tx, kid: &str, state: KeyState, now: DateTime<Utc>) -> Result<(), Error> {
    let update = sql("UPDATE token_keys SET state = $1, since = $2 WHERE kid = $3");
    all_touched(update.bind(state.name()).bind(now).bind(kid).execute(tx).await?, 1, "a key")
}

/// A key is gone.
pub async fn delete_key(tx: &mut Tx, kid: &str) -> Result<(), Error> {
    all_touched(sql("DELETE FROM token_keys WHERE kid = $1").bind(kid).execute(tx).await?, 1, "a key")
}
