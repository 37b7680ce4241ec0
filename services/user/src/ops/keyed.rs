//! Idempotency keys, in the transaction of each change.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use souk_db::idempotency::{self, Key, Seen, Stored};
use souk_db::{Error as DbError, Kind, Tx};
use souk_proto_common::IdempotencyKey;

use crate::error::Error;

/// A change that meets concurrent ones is tried so often.
const CONFLICT_TRIES: usize = 3;

/// Tries again, in a new transaction, what a concurrent one was in the way of.
pub(super) async fn retrying<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(error) if error.is_conflict() && tries < CONFLICT_TRIES => tries += 1,
            result => return result,
        }
    }
}

/// The key of a call of `caller`: a subject, or what an anonymous caller has proved.
pub(super) fn call(caller: &str, method: &str, key: &IdempotencyKey) -> Key {
    Key { caller: caller.to_owned(), method: method.to_owned(), request_id: key.request_id }
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

/// Keeps the answer; a conflict, if the key was taken meanwhile.
pub(super) async fn keep<T: Serialize>(
    tx: &mut Tx,
    call: Key,
    key: &IdempotencyKey,
    answer: &T,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    let response = serde_json::to_vec(answer).map_err(|_| Error::Bug("an answer is JSON"))?;
    let stored = Stored { key: call, fingerprint: key.fingerprint, response };
    match idempotency::store(tx, &stored, now).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(DbError::conflict("a key was taken").into()),
        Err(error) if error.kind() == Kind::Locked => Err(Error::InProgress),
        Err(error) => Err(error.into()),
    }
}
