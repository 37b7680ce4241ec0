//! Leases: of several replicas, one at a time does a piece of background work.
//!
//! A lease has an epoch that grows whenever the holder changes. Work that must not be done by a holder that has lost its lease without
//! noticing carries the epoch and checks it with [`is_current`] in its own transaction.

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

/// Whether the lease is still that of this epoch; the row stays locked until the transaction ends.
pub async fn is_current(tx: &mut Tx, lease: &Lease) -> Result<bool, Error> {
    let touched = sql("UPDATE leases SET epoch = epoch WHERE name = $1 AND epoch = $2")
        .bind(&lease.name)
        .bind(lease.epoch)
        .execute(tx)
        .await?;
    Ok(touched == 1)
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
