//! The rotation of the keys that sign access tokens.

use chrono::TimeDelta;
use souk_db::{Tx, lease};
use tracing::info;

use super::audit::{self, Action};
use crate::domain::keys::{Step, TokenKey, due};
use crate::error::Error;
use crate::ops::App;
use crate::store;

const LEASE: &str = "user-token-keys";
/// The lease is given back by the transaction that takes it, and only orders the replicas: whoever comes second waits for its row.
const LEASE_TTL: TimeDelta = TimeDelta::seconds(30);

/// Does what is due, unless another replica has, and takes the keys as they are then: one of them signs.
pub async fn maintain_keys(app: &App) -> Result<(), Error> {
    let keys = store::token_keys(&mut app.db.read_one().await?).await?;
    let keys = if due(&keys, &app.key_rules, app.clock.now()).is_empty() { keys } else { rotate(app).await? };
    app.issuer.set_keys(&keys)
}

async fn rotate(app: &App) -> Result<Vec<TokenKey>, Error> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let held = lease::acquire(&mut tx, LEASE, app.replica, now, LEASE_TTL).await?;
    // Read under the lease: another may have done it while we waited.
    let keys = store::token_keys(&mut tx).await?;
    let Some(held) = held else { return Ok(keys) };
    for step in due(&keys, &app.key_rules, now) {
        take(app, &mut tx, step).await?;
    }
    let keys = store::token_keys(&mut tx).await?;
    lease::release(&mut tx, &held, app.replica, now).await?;
    tx.commit().await?;
    Ok(keys)
}

async fn take(app: &App, tx: &mut Tx, step: Step) -> Result<(), Error> {
    let now = app.clock.now();
    let (action, kid, detail) = match step {
        Step::Create(state) => {
            let key = TokenKey::new(app.ids.random_bytes(), state, now);
            store::insert_key(tx, &key).await?;
            (Action::KeyCreated, key.kid, state.name())
        }
        Step::Move(kid, state) => {
            store::move_key(tx, &kid, state, now).await?;
            (Action::KeyMoved, kid, state.name())
        }
        Step::Drop(kid) => {
            store::delete_key(tx, &kid).await?;
            (Action::KeyDropped, kid, "")
        }
    };
    info!(kid, ?action, state = detail, "token key");
    let audited = audit::by_system(app, action, format!("key/{kid}"), detail.to_owned());
    Ok(store::append_audit(tx, &audited).await?)
}
