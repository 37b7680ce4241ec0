//! Forgets keys that are older than they need be kept.

use chrono::{DateTime, Utc};
use souk_db::idempotency;

use crate::error::Error;
use crate::ops::App;

/// Forgets every key that is old enough at `now`, in goes of `sweep_batch_max`, each a transaction; how many.
pub async fn forget_keys(app: &App, now: DateTime<Utc>) -> Result<u64, Error> {
    let mut total = 0;
    loop {
        let mut tx = app.db.write().await?;
        let forgotten = idempotency::sweep(&mut tx, now, app.limits.sweep_batch_max).await?;
        tx.commit().await?;
        total += forgotten;
        if forgotten < app.limits.sweep_batch_max.into() {
            return Ok(total);
        }
    }
}
