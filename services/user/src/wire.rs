//! Between protobuf and domain. Parsing is validation: what comes out of here is trusted, and every bad field of a request is named.

mod auth;
mod user;

use souk_proto_common::v1::Reason;
use souk_proto_common::{Check, FieldError, IdempotencyKey};

pub use auth::{jwks, service_token, token_pair};
pub use user::{roles_on_wire, user_page_token};

use crate::domain::Email;
use crate::domain::email::EmailError;

const DISPLAY_NAME_CHARS_MAX: usize = 100;

fn email(text: &str) -> Result<Email, FieldError> {
    Email::parse(text).map_err(|error| match error {
        EmailError::Empty => FieldError::required(),
        EmailError::TooLong => FieldError::new(Reason::TooLong, "must be at most 254 characters"),
        EmailError::Form => FieldError::new(Reason::InvalidFormat, "must be an address, as name@host.example"),
    })
}

fn display_name(text: &str) -> Result<String, FieldError> {
    if text.contains(['\n', '\t']) {
        return Err(FieldError::new(Reason::InvalidFormat, "must be one line"));
    }
    souk_proto_common::validation::text(text, 0..=DISPLAY_NAME_CHARS_MAX)
}

/// The key of a request whose `request_id` was taken out of it.
fn key(check: &mut Check, request_id: &str, request: &impl prost::Message) -> Option<IdempotencyKey> {
    check.field("request_id", IdempotencyKey::parse(request_id, request))
}
