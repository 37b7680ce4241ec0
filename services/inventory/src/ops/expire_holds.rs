//! Ends holds that have run out. Housekeeping: a due hold is in nobody's way, since a Reserve that needs its units ends it itself.

use chrono::{DateTime, Utc};

use super::change_stock::change_by_itself;
use crate::domain::{Command, Reply};
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// Ends every hold that is due at `now`, in goes of `sweep_batch_max`; how many.
pub async fn expire_holds(app: &App, now: DateTime<Utc>) -> Result<usize, Error> {
    let mut total = 0;
    loop {
        let mut tx = app.db.read_one().await?;
        let due = store::due_reservations(&mut tx, now, app.limits.sweep_batch_max).await?;
        drop(tx);
        let last = due.len() < app.limits.sweep_batch_max as usize;
        if !due.is_empty() {
            let Reply::Expired(ended) = change_by_itself(app, Command::Expire(due)).await?.value else {
                return Err(Error::Bug("a count was expected"));
            };
            total += ended;
            if ended == 0 {
                return Ok(total); // others were faster, or the clock stands behind theirs
            }
        }
        if last {
            return Ok(total);
        }
    }
}
