//! The idempotency key of a mutation: who repeats what is recognised by it.

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Response;
use tonic::metadata::MetadataValue;
use uuid::Uuid;

use crate::validation::{FieldError, uuid};

/// The response header of an answer that was stored before: `souk-idempotent-replay: true`.
pub const REPLAY_HEADER: &str = "souk-idempotent-replay";

/// The key of one mutation, and a fingerprint of what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// The caller's `request_id`.
    pub request_id: Uuid,
    /// SHA-256 over the canonical re-encoding of the request without its `request_id`.
    pub fingerprint: [u8; 32],
}

impl IdempotencyKey {
    /// `request` is the message with `request_id` cleared. It is encoded again, so that two encodings of one request (field
    /// order, explicit defaults, unknown fields) have one fingerprint. Maps are ordered in our generated code.
    pub fn parse(request_id: &str, request: &impl Message) -> Result<Self, FieldError> {
        let request_id = uuid(request_id)?;
        Ok(Self { request_id, fingerprint: Sha256::digest(request.encode_to_vec()).into() })
    }
}

/// The answer to a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What is told.
    pub value: T,
    /// It took effect before this call, and was told then.
    pub replayed: bool,
}

impl<T> Answer<T> {
    /// It took effect now.
    pub fn fresh(value: T) -> Self {
        Self { value, replayed: false }
    }

    /// It took effect before.
    pub fn replayed(value: T) -> Self {
        Self { value, replayed: true }
    }

    /// The response, marked if it is a repetition.
    pub fn into_response<M>(self, message: impl FnOnce(T) -> M) -> Response<M> {
        let mut response = Response::new(message(self.value));
        if self.replayed {
            response.metadata_mut().insert(REPLAY_HEADER, MetadataValue::from_static("true"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Money;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn another_body_has_another_fingerprint() {
        let money = |amount_minor| Money { currency_code: "EUR".into(), amount_minor };
        let key = |amount| IdempotencyKey::parse(ID, &money(amount)).unwrap();
        assert_eq!(key(1), key(1));
        assert_ne!(key(1).fingerprint, key(2).fingerprint);
    }
}
