//! The catalogue on the wire.

use std::collections::BTreeMap;

use souk_proto_common::failure::echo;
use souk_proto_common::time::timestamp;
use souk_proto_common::v1::Reason;
use souk_proto_common::validation::{page_size, required, text, within};
use souk_proto_common::{Check, FieldError, IdempotencyKey, InvalidRequest, Money, PageToken};
use souk_proto_inventory::v1 as pb;
use uuid::Uuid;

use super::{etag_if_set, key, only, sku, skus};
use crate::domain::command::Keyed;
use crate::domain::product::{Details, Etag, Patch, TEXT_BYTES_MAX, overlong};
use crate::domain::query::{
    BATCH_MAX, BatchGetProducts, CreateProduct, GetProduct, ImportRow, ListProducts, UpdateProduct,
};
use crate::domain::{Product, Sku};

const NAME_CHARS_MAX: usize = 200;
const DESCRIPTION_CHARS_MAX: usize = 5_000;
const TAX_BASIS_POINTS_MAX: i32 = 10_000;
const ATTRIBUTES_MAX: usize = 50;
const ATTRIBUTE_KEY_CHARS_MAX: usize = 64;
const ATTRIBUTE_VALUE_CHARS_MAX: usize = 250;
/// Paths of `update_mask` that exist and cannot be changed.
const MUTABLE_PATHS: [&str; 5] = ["name", "description", "price", "tax_basis_points", "attributes"];
const IMMUTABLE_PATHS: [&str; 4] = ["sku", "etag", "create_time", "update_time"];

impl TryFrom<pb::CreateProductRequest> for Keyed<CreateProduct> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::CreateProductRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let mut check = Check::new();
        let key = key(&mut check, &request_id, &request);
        let product = check.field("product", required(request.product));
        let product = product.and_then(|product| {
            check.inside("product", |check| {
                let sku = check.field("sku", sku(&product.sku));
                let details = details(check, &product);
                Some((sku?, details?))
            })
        });
        check.finish(|| {
            let (sku, details) = product?;
            Some(Self { key: key?, command: CreateProduct { sku, details } })
        })
    }
}

impl TryFrom<pb::GetProductRequest> for GetProduct {
    type Error = InvalidRequest;

    fn try_from(request: pb::GetProductRequest) -> Result<Self, InvalidRequest> {
        only("sku", sku(&request.sku)).map(|sku| Self { sku })
    }
}

impl TryFrom<pb::BatchGetProductsRequest> for BatchGetProducts {
    type Error = InvalidRequest;

    fn try_from(request: pb::BatchGetProductsRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let skus = skus(&mut check, &request.skus, BATCH_MAX);
        check.finish(|| Some(Self { skus: skus?, fresh: request.fresh }))
    }
}

impl TryFrom<pb::ListProductsRequest> for ListProducts {
    type Error = InvalidRequest;

    fn try_from(request: pb::ListProductsRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let size = check.field("page_size", page_size(request.page_size));
        let after = check.field("page_token", after(&request.page_token));
        check.finish(|| Some(Self { size: size?, after: after? }))
    }
}

fn after(token: &str) -> Result<Option<Sku>, FieldError> {
    let Some(token) = PageToken::parse(token, &pb::ListProductsRequest::default())? else { return Ok(None) };
    let invalid = || FieldError::new(Reason::InvalidPageToken, "must be a next_page_token of this list");
    Sku::parse(&token.after).map(Some).map_err(|_| invalid())
}

/// The token of the page after `last`.
pub fn product_page_token(last: &Sku) -> String {
    PageToken { after: last.as_str().to_owned() }.encode(&pb::ListProductsRequest::default())
}

impl TryFrom<pb::UpdateProductRequest> for Keyed<UpdateProduct> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::UpdateProductRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let mut check = Check::new();
        let key = key(&mut check, &request_id, &request);
        let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        check.mask(&paths, &MUTABLE_PATHS, &IMMUTABLE_PATHS);
        let product = check.field("product", required(request.product));
        let command = product.and_then(|product| {
            check.inside("product", |check| {
                let sku = check.field("sku", sku(&product.sku));
                let etag = check.field("etag", etag_if_set(&product.etag));
                let patch = patch(check, &product, &paths);
                Some(UpdateProduct { sku: sku?, etag: etag?, patch: patch? })
            })
        });
        check.finish(|| Some(Self { key: key?, command: command? }))
    }
}

/// The fields that the mask names; the others are not looked at.
fn patch(check: &mut Check, product: &pb::Product, paths: &[String]) -> Option<Patch> {
    let named = |path: &str| paths.iter().any(|named| named == path);
    let name = named("name").then(|| check.field("name", name(product)));
    let description = named("description").then(|| check.field("description", description(product)));
    let price = named("price").then(|| price(check, product));
    let tax = named("tax_basis_points").then(|| check.field("tax_basis_points", tax_basis_points(product)));
    let attributes = named("attributes").then(|| attributes(check, &product.attributes));
    text_bytes(check, description.as_ref().and_then(Option::as_ref), attributes.as_ref().and_then(Option::as_ref));
    Some(Patch {
        name: all(name)?,
        description: all(description)?,
        price: all(price)?,
        tax_basis_points: all(tax)?,
        attributes: all(attributes)?,
    })
}

/// Not named is well; named and bad is not.
#[expect(clippy::option_option, reason = "the outer says whether the field is named, the inner whether it is good")]
fn all<T>(field: Option<Option<T>>) -> Option<Option<T>> {
    match field {
        None => Some(None),
        Some(parsed) => parsed.map(Some),
    }
}

/// What the first message of an import says of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportHead {
    /// The name of the import.
    pub request_id: Uuid,
    /// Answer only the rows that failed.
    pub failures_only: bool,
}

/// The head of an import.
pub fn import_head(first: &pb::ImportProductsRequest) -> Result<ImportHead, InvalidRequest> {
    let request_id = only("request_id", souk_proto_common::validation::uuid(&first.request_id))?;
    Ok(ImportHead { request_id, failures_only: first.failures_only })
}

/// One row of an import, under a key made of the import's name and its place.
pub fn import_row(
    head: ImportHead,
    index: u32,
    request: &pb::ImportProductsRequest,
) -> Result<Keyed<ImportRow>, InvalidRequest> {
    let mut check = Check::new();
    if !request.request_id.is_empty() && request.request_id.parse() != Ok(head.request_id) {
        check.bad("request_id", FieldError::new(Reason::InvalidFormat, "must be empty, or that of the first row"));
    }
    let product = check.field("product", required(request.product.as_ref()));
    let key = product.and_then(|product| {
        let row_id = Uuid::new_v5(&head.request_id, &index.to_be_bytes());
        check.field("request_id", IdempotencyKey::parse(&row_id.to_string(), product))
    });
    let command = product.and_then(|product| {
        check.inside("product", |check| {
            let sku = check.field("sku", sku(&product.sku));
            let etag = check.field("etag", etag_if_set(&product.etag));
            let details = details(check, product);
            Some(ImportRow { sku: sku?, etag: etag?, details: details? })
        })
    });
    check.finish(|| Some(Keyed { key: key?, command: command? }))
}

fn details(check: &mut Check, product: &pb::Product) -> Option<Details> {
    let name = check.field("name", name(product));
    let description = check.field("description", description(product));
    let price = price(check, product);
    let tax_basis_points = check.field("tax_basis_points", tax_basis_points(product));
    let attributes = attributes(check, &product.attributes);
    text_bytes(check, description.as_ref(), attributes.as_ref());
    Some(Details {
        name: name?,
        description: description?,
        price: price?,
        tax_basis_points: tax_basis_points?,
        attributes: attributes?,
    })
}

fn name(product: &pb::Product) -> Result<String, FieldError> {
    text(&product.name, 1..=NAME_CHARS_MAX)
}

fn description(product: &pb::Product) -> Result<String, FieldError> {
    text(&product.description, 0..=DESCRIPTION_CHARS_MAX)
}

fn price(check: &mut Check, product: &pb::Product) -> Option<Money> {
    let price = check.field("price", required(product.price.as_ref()))?;
    check.inside("price", |check| Money::parse(check, price))
}

fn tax_basis_points(product: &pb::Product) -> Result<i64, FieldError> {
    within(product.tax_basis_points, 0..=TAX_BASIS_POINTS_MAX).map(i64::from)
}

fn attributes(check: &mut Check, map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    if map.len() > ATTRIBUTES_MAX {
        let most = format!("must have at most {ATTRIBUTES_MAX} entries");
        check.bad("attributes", FieldError::new(Reason::TooMany, most));
        return None;
    }
    let mut good = true;
    for (key, value) in map {
        let parsed = attribute_key(key).and_then(|()| text(value, 0..=ATTRIBUTE_VALUE_CHARS_MAX));
        good &= check.field(&format!("attributes[{}]", echo(key)), parsed).is_some();
    }
    good.then(|| map.clone())
}

/// Of what is named and good.
fn text_bytes(check: &mut Check, description: Option<&String>, attributes: Option<&BTreeMap<String, String>>) {
    let none = BTreeMap::new();
    if let Some(field) = overlong(description.map_or("", String::as_str), attributes.unwrap_or(&none)) {
        check.bad(field, text_too_long());
    }
}

/// Description and attributes have too many bytes.
pub fn text_too_long() -> FieldError {
    let most = format!("description and attributes must have at most {TEXT_BYTES_MAX} bytes together");
    FieldError::new(Reason::TooLong, most)
}

fn attribute_key(key: &str) -> Result<(), FieldError> {
    if key.is_empty() {
        return Err(FieldError::required());
    }
    if key.chars().count() > ATTRIBUTE_KEY_CHARS_MAX {
        let most = format!("the key must be at most {ATTRIBUTE_KEY_CHARS_MAX} characters");
        return Err(FieldError::new(Reason::TooLong, most));
    }
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if key.bytes().all(fits) {
        return Ok(());
    }
    Err(FieldError::new(Reason::InvalidFormat, "the key must be of a-z 0-9 . _ -"))
}

impl From<&Product> for pb::Product {
    fn from(product: &Product) -> Self {
        let details = &product.details;
        Self {
            sku: product.sku.as_str().to_owned(),
            name: details.name.clone(),
            description: details.description.clone(),
            price: Some(details.price.into()),
            tax_basis_points: i32::try_from(details.tax_basis_points).unwrap_or(TAX_BASIS_POINTS_MAX),
            attributes: details.attributes.clone(),
            etag: product.etag().text(),
            create_time: Some(timestamp(product.created_at)),
            update_time: Some(timestamp(product.updated_at)),
        }
    }
}

impl From<Etag> for pb::import_result::Outcome {
    fn from(etag: Etag) -> Self {
        Self::Etag(etag.text())
    }
}
