//! Leases: of several replicas, one at a time does a piece of background work.
//!
//! A lease is for economy, and for order among those who keep it. It does not fence: a holder that has slept may act after another has
//! taken over, so what it does must be safe to do twice. The epoch grows whenever the holder changes.
//!
//! Its times are of the processes' clocks, of which none is further from the database's than `clock_skew_max_ms` when it starts.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::error::Error;
use crate::statement::sql;
use crate::transaction::Tx;

/// A lease that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// Grows with every change of the holder.
    pub epoch: i64,
    /// Until then nobody else can have it.
    pub expires_at: DateTime<Utc>,
}

/// Takes the lease if it is free or has run out, or extends it if `holder` has it; `None`: another has it.
pub async fn acquire(
    tx: &mut Tx,
    name: &str,
    holder: Uuid,
    now: DateTime<Utc>,
    ttl: TimeDelta,
) -> Result<Option<Lease>, Error> {
    let expires_at = now + ttl;
    let epoch: Option<(i64,)> = sql("INSERT INTO leases (name, holder, epoch, expires_at) VALUES ($1, $2, 1, $3)
         ON CONFLICT (name) DO UPDATE SET
             epoch = CASE WHEN leases.holder = excluded.holder THEN leases.epoch ELSE leases.epoch + 1 END,
             holder = excluded.holder, expires_at = excluded.expires_at
         WHERE leases.holder = excluded.holder OR leases.expires_at <= $4
         RETURNING epoch")
    .bind(name)
    .bind(holder)
    .bind(expires_at)
    .bind(now)
    .fetch_optional(tx)
    .await?;
    Ok(epoch.map(|(epoch,)| Lease { name: name.to_owned(), epoch, expires_at }))
}

/// Gives the lease up, so that another need not wait for it to run out.
pub async fn release(tx: &mut Tx, lease: &Lease, holder: Uuid, now: DateTime<Utc>) -> Result<(), Error> {
    sql("UPDATE leases SET expires_at = $1 WHERE name = $2 AND holder = $3 AND epoch = $4")
        .bind(now)
        .bind(&lease.name)
        .bind(holder)
        .bind(lease.epoch)
        .execute(tx)
        .await?;
    Ok(())
}
