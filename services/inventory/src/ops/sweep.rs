//! Housekeeping, by one replica at a time: ends holds that ran out, then forgets old keys.

use chrono::TimeDelta;
use souk_db::lease;
use uuid::Uuid;

use super::{expire_holds, forget_keys};
use crate::error::Error;
use crate::ops::App;

const SWEEPER: &str = "inventory.sweeper";

/// One sweep by `holder`, unless another has swept within the interval; how many holds were ended.
pub async fn sweep(app: &App, holder: Uuid) -> Result<usize, Error> {
    let now = app.clock.now();
    // The lease only saves work, since what is due is decided under locks. It lasts for one interval: if its holder was killed,
    // holds that ran out wait no longer than for the next sweep.
    let ttl = TimeDelta::milliseconds(app.limits.sweep_interval_ms.try_into().unwrap_or(i64::MAX));
    let mut tx = app.db.write().await?;
    let lease = lease::acquire(&mut tx, SWEEPER, holder, now, ttl).await?;
    tx.commit().await?;
    if lease.is_none() {
        return Ok(0);
    }
    // Holds first: that keys cannot be forgotten must not keep anybody from units.
    let ended = expire_holds(app, now).await?;
    forget_keys(app, now).await?;
    Ok(ended)
}
