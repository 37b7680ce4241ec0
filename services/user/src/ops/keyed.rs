//! Idempotency keys, in the transaction of each change.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use souk_db::idempotency::{self, Key, Seen, Stored};
use souk_db::{Kind, Tx};
use souk_interceptors::context;
use souk_proto_common::IdempotencyKey;
use uuid::Uuid;

use crate::domain::{Etag, User};
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// Runs a keyed change when no other of the same key runs in this process, and tells a caller who has waited long enough to come again.
pub(super) async fn in_turn<T>(
    app: &App,
    call: &Key,
    change: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let until = context::patience(Duration::from_millis(app.limits.duplicate_wait_ms));
    let _turn = app.in_flight.enter(call.clone(), until).await.ok_or(Error::InProgress)?;
    match change.await {
        // Another replica has a row that this call needs, most likely for the same call.
        Err(Error::Database(error)) if error.kind() == Kind::Locked => Err(Error::InProgress),
        result => result,
    }
}

/// What was answered under the key, if it was used for the same.
pub(super) async fn given<T: DeserializeOwned>(
    tx: &mut Tx,
    call: &Key,
    key: &IdempotencyKey,
) -> Result<Option<T>, Error> {
    match idempotency::find(tx, call, &key.fingerprint).await? {
        Seen::New => Ok(None),
        Seen::Replay(response) => {
            let value = serde_json::from_slice(&response).map_err(|_| Error::Bug("a stored answer cannot be read"))?;
            Ok(Some(value))
        }
        Seen::Reused => Err(Error::KeyReused),
    }
}

/// The user that a keyed change is about.
pub(super) enum Found {
    /// The change was made before: the user as answered then.
    Given(User),
    /// The user now, as the caller last saw it, locked until the transaction ends.
    Locked(User),
}

/// The lock comes first: a duplicate that waits for it finds what the first has answered then, and not that the user has changed.
pub(super) async fn find_user(
    tx: &mut Tx,
    call: &Key,
    key: &IdempotencyKey,
    id: Uuid,
    etag: Option<Etag>,
) -> Result<Found, Error> {
    let user = store::user_to_change(tx, id).await?;
    if let Some(user) = given(tx, call, key).await? {
        return Ok(Found::Given(user));
    }
    let user = user.ok_or_else(|| Error::UserNotFound(id.to_string()))?;
    if etag.is_some_and(|etag| etag != user.etag()) {
        return Err(Error::UserChanged { id, current: user.etag() });
    }
    Ok(Found::Locked(user))
}

/// Keeps the answer; a conflict, if the key was taken meanwhile.
pub(super) async fn keep<T: Serialize>(
    tx: &mut Tx,
    call: &Key,
    key: &IdempotencyKey,
    answer: &T,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let response = serde_json::to_vec(answer).map_err(|_| Error::Bug("an answer is JSON"))?;
    let stored = Stored { key: call.clone(), fingerprint: key.fingerprint, response };
    Ok(idempotency::keep(tx, &[stored], now).await?)
}
