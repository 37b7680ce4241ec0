//! Deletes what is of no use any more.

use chrono::TimeDelta;
use souk_db::idempotency;

use crate::error::Error;
use crate::ops::App;
use crate::store;

/// A session that has run out is remembered so long, to say so to whoever comes back with its token.
const SESSION_KEEP: TimeDelta = TimeDelta::days(7);

/// Deletes old sessions and idempotency keys, so many of each; whether there may be more.
pub async fn sweep(app: &App) -> Result<bool, Error> {
    let (now, limit) = (app.clock.now(), app.limits.sweep_batch_max);
    let mut tx = app.db.write().await?;
    // A session may have thousands of tokens: it goes when the last of them is gone.
    let tokens = store::delete_ended_tokens(&mut tx, now - SESSION_KEEP, limit).await?;
    let sessions = store::delete_ended_sessions(&mut tx, now - SESSION_KEEP, limit).await?;
    let keys = idempotency::sweep(&mut tx, now, limit).await?;
    tx.commit().await?;
    Ok([tokens, sessions, keys].into_iter().any(|deleted| deleted >= u64::from(limit)))
}
