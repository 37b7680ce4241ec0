//! What every change of the catalogue does around its transaction, and idempotency keys in it.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use souk_db::Tx;
use souk_db::idempotency::{self, Key, Seen, Stored};
use souk_interceptors::context;
use souk_proto_common::IdempotencyKey;

use crate::domain::Sku;
use crate::error::Error;
use crate::ops::App;

/// Runs a keyed change when no other of the same key runs in this process, and tells a caller who has waited long enough to come again.
pub(super) async fn in_turn<T>(
    app: &App,
    key: &Key,
    change: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let until = context::patience(Duration::from_millis(app.limits.duplicate_wait_ms));
    let _turn = app.in_flight.enter(key.clone(), until).await.ok_or(Error::InProgress)?;
    change.await.map_err(Error::of_keyed)
}

/// Forgets what is remembered of the products that a change is of when the change is over, and nobody has been answered yet.
///
/// Whatever came of it: after an error it may be committed as well, and what a repeat finds done, another replica may have done just now. A
/// caller who goes away during the commit leaves this too early; then the event does it.
pub(super) struct Forgetting<'c> {
    pub(super) app: &'c App,
    pub(super) skus: &'c [Sku],
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        self.skus.iter().for_each(|sku| self.app.products.forget(sku));
    }
}

/// What was answered under the key, if it was used for the same.
pub(super) async fn given<T: DeserializeOwned>(
    tx: &mut Tx,
    stored: &Key,
    key: &IdempotencyKey,
) -> Result<Option<T>, Error> {
    match idempotency::find(tx, stored, &key.fingerprint).await? {
        Seen::New => Ok(None),
        Seen::Replay(response) => Ok(Some(parse(&response)?)),
        Seen::Reused => Err(Error::KeyReused),
    }
}

pub(super) fn answer<T: Serialize>(key: Key, fingerprint: [u8; 32], value: &T) -> Result<Stored, Error> {
    let response = serde_json::to_vec(value).map_err(|_| Error::Bug("an answer is JSON"))?;
    Ok(Stored { key, fingerprint, response })
}

pub(super) fn parse<T: DeserializeOwned>(response: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(response).map_err(|_| Error::Bug("a stored answer cannot be read"))
}
