//! Between protobuf and domain. Parsing is validation: what comes out of here is trusted, and every bad field of a request is named.

mod catalog;
mod stock;

use souk_proto_common::v1::Reason;
use souk_proto_common::{Check, FieldError, IdempotencyKey, InvalidRequest};

pub use catalog::{ImportHead, import_head, import_row, product_page_token, text_too_long};
pub use stock::{movement_page_token, reservation_changes};

use crate::domain::names::LocationError;
use crate::domain::product::Etag;
use crate::domain::{Location, Sku};

fn sku(text: &str) -> Result<Sku, FieldError> {
    Ok(Sku::parse(text)?)
}

fn location(text: &str) -> Result<Location, FieldError> {
    let shape = "must be 1 to 32 characters of a-z 0-9 -, the first a letter or digit; or empty for main";
    Location::parse(text).map_err(|error| match error {
        LocationError::TooLong => FieldError::new(Reason::TooLong, shape),
        LocationError::Characters => FieldError::new(Reason::InvalidFormat, shape),
    })
}

fn etag(text: &str) -> Result<Etag, FieldError> {
    if text.is_empty() {
        return Err(FieldError::required());
    }
    Etag::parse(text).ok_or_else(|| FieldError::new(Reason::InvalidFormat, "must be an etag as this server gave it"))
}

fn etag_if_set(text: &str) -> Result<Option<Etag>, FieldError> {
    if text.is_empty() { Ok(None) } else { etag(text).map(Some) }
}

/// Distinct skus, in the order of asking.
fn skus(check: &mut Check, texts: &[String], max: usize) -> Option<Vec<Sku>> {
    if texts.is_empty() {
        check.bad("skus", FieldError::required());
        return None;
    }
    if texts.len() > max {
        check.bad("skus", FieldError::new(Reason::TooMany, format!("must have at most {max} entries")));
        return None;
    }
    let parsed: Vec<Option<Sku>> =
        texts.iter().enumerate().map(|(index, text)| check.field(&format!("skus[{index}]"), sku(text))).collect();
    let mut distinct: Vec<Sku> = Vec::with_capacity(parsed.len());
    for sku in parsed {
        let sku = sku?;
        if !distinct.contains(&sku) {
            distinct.push(sku);
        }
    }
    Some(distinct)
}

/// The key of a request whose `request_id` was taken out of it.
fn key(check: &mut Check, request_id: &str, request: &impl prost::Message) -> Option<IdempotencyKey> {
    check.field("request_id", IdempotencyKey::parse(request_id, request))
}

/// For a request of one field.
fn only<T>(field: &str, parsed: Result<T, FieldError>) -> Result<T, InvalidRequest> {
    parsed.map_err(|error| InvalidRequest::one(field, error))
}
