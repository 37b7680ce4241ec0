//! Sessions and refresh tokens.

use chrono::{DateTime, Utc};
use souk_db::{Engine, Error, Tx, all_touched, sql};
use uuid::Uuid;

use super::hash_of;
use crate::domain::Session;
use crate::domain::session::{StoredToken, TokenHash, Used};

#[derive(sqlx::FromRow)]
struct Row {
    session_id: Uuid,
    user_id: Uuid,
    created_at: DateTime<Utc>,
    session_expires_at: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
    token_hash: Vec<u8>,
    expires_at: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
    successor_hash: Option<Vec<u8>>,
}

const SELECT: &str = "SELECT s.session_id, s.user_id, s.created_at, s.expires_at AS session_expires_at, s.revoked_at,
         t.token_hash, t.expires_at, t.used_at, t.successor_hash
     FROM refresh_tokens t JOIN sessions s ON s.session_id = t.session_id WHERE t.token_hash = $1";

fn read(row: Row) -> Result<(Session, StoredToken), Error> {
    let successor = row.successor_hash.map(|hash| hash_of(hash, "refresh_tokens")).transpose()?;
    let token = StoredToken {
        hash: hash_of(row.token_hash, "refresh_tokens")?,
        session_id: row.session_id,
        expires_at: row.expires_at,
        used: row.used_at.zip(successor).map(|(at, successor)| Used { at, successor }),
    };
    let session = Session {
        id: row.session_id,
        user_id: row.user_id,
        created_at: row.created_at,
        expires_at: row.session_expires_at,
        revoked_at: row.revoked_at,
    };
    Ok((session, token))
}

/// The token and its session.
pub async fn session_of(tx: &mut Tx, hash: &TokenHash) -> Result<Option<(Session, StoredToken)>, Error> {
    sql(SELECT).bind(*hash).fetch_optional::<Row>(tx).await?.map(read).transpose()
}

/// The token and its session, which is locked until the transaction ends: of two exchanges at once, the second sees the first.
pub async fn session_to_change(tx: &mut Tx, hash: &TokenHash) -> Result<Option<(Session, StoredToken)>, Error> {
    if tx.engine() == Engine::Postgres {
        // By itself, before the rows are read: a row that a join waited for is read again, the one joined to it is not.
        let lock = "SELECT s.session_id FROM sessions s
             WHERE s.session_id = (SELECT t.session_id FROM refresh_tokens t WHERE t.token_hash = $1) FOR UPDATE";
        sql(lock).bind(*hash).fetch_optional::<(Uuid,)>(tx).await?;
    }
    session_of(tx, hash).await
}

/// Whether the token was used.
pub async fn token_used(tx: &mut Tx, hash: &TokenHash) -> Result<bool, Error> {
    let row = sql("SELECT used_at FROM refresh_tokens WHERE token_hash = $1").bind(*hash);
    let row = row.fetch_optional::<(Option<DateTime<Utc>>,)>(tx).await?;
    Ok(row.is_some_and(|(used_at,)| used_at.is_some()))
}

/// A session begins.
pub async fn insert_session(tx: &mut Tx, session: &Session) -> Result<(), Error> {
    sql("INSERT INTO sessions (session_id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)")
        .bind(session.id)
        .bind(session.user_id)
        .bind(session.created_at)
        .bind(session.expires_at)
        .execute(tx)
        .await?;
    Ok(())
}

/// A token is issued.
pub async fn insert_token(tx: &mut Tx, token: &StoredToken) -> Result<(), Error> {
    sql("INSERT INTO refresh_tokens (token_hash, session_id, expires_at) VALUES ($1, $2, $3)")
        .bind(token.hash)
        .bind(token.session_id)
        .bind(token.expires_at)
        .execute(tx)
        .await?;
    Ok(())
}

/// A token is exchanged.
pub async fn mark_used(tx: &mut Tx, hash: &TokenHash, used: &Used) -> Result<(), Error> {
    let rows = sql("UPDATE refresh_tokens SET used_at = $1, successor_hash = $2 WHERE token_hash = $3")
        .bind(used.at)
        .bind(used.successor)
        .bind(*hash)
        .execute(tx)
        .await?;
    all_touched(rows, 1, "a refresh token")
}

/// Ends a session before its time; `false`: it had ended.
pub async fn revoke_session(tx: &mut Tx, id: Uuid, now: DateTime<Utc>) -> Result<bool, Error> {
    let revoke = sql("UPDATE sessions SET revoked_at = $1 WHERE session_id = $2 AND revoked_at IS NULL");
    Ok(revoke.bind(now).bind(id).execute(tx).await? == 1)
}

/// Deletes up to `limit` tokens of sessions that ran out before `before`; how many.
pub async fn delete_ended_tokens(tx: &mut Tx, before: DateTime<Utc>, limit: u32) -> Result<u64, Error> {
    sql("DELETE FROM refresh_tokens WHERE token_hash IN
         (SELECT t.token_hash FROM sessions s JOIN refresh_tokens t ON t.session_id = s.session_id
          WHERE s.expires_at < $1 ORDER BY s.expires_at LIMIT $2)")
    .bind(before)
    .bind(limit)
    .execute(tx)
    .await
}

/// Deletes up to `limit` sessions that ran out before `before` and have no tokens any more; how many.
pub async fn delete_ended_sessions(tx: &mut Tx, before: DateTime<Utc>, limit: u32) -> Result<u64, Error> {
    sql("DELETE FROM sessions WHERE session_id IN
         (SELECT s.session_id FROM sessions s WHERE s.expires_at < $1
          AND NOT EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.session_id = s.session_id)
          ORDER BY s.expires_at LIMIT $2)")
    .bind(before)
    .bind(limit)
    .execute(tx)
    .await
}
