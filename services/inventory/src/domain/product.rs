//! Products and what may be changed of them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use souk_proto_common::Money;

use super::names::Sku;

/// The most bytes that description and attributes may have together, so that a call that reads a hundred products has a small answer.
pub const TEXT_BYTES_MAX: usize = 16 * 1_024;

/// What a product is, without its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// What people read.
    pub name: String,
    /// More of that.
    pub description: String,
    /// Of one unit, without tax.
    #[serde(with = "price_form")]
    pub price: Money,
    /// Hundredths of a percent.
    pub tax_basis_points: i64,
    /// Whatever else.
    pub attributes: BTreeMap<String, String>,
}

/// Something that the shop sells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Its name, for ever.
    pub sku: Sku,
    /// What it is.
    pub details: Details,
    /// 1 at first, one more with every change. The etag says it.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// The state of a product or of a stock record that a caller saw. Opaque to callers.
///
/// Not the shared `Etag`: a stock record begins with version 0, and these are written in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Etag(pub i64);

impl Etag {
    /// Its text: `"v2a"` is version 42.
    pub fn text(self) -> String {
        format!("v{:x}", self.0)
    }

    /// The etag of that text, if it is the text of one.
    pub fn parse(text: &str) -> Option<Self> {
        let version = i64::from_str_radix(text.strip_prefix('v')?, 16).ok()?;
        Some(Self(version)).filter(|etag| version >= 0 && etag.text() == text)
    }
}

/// New values for some fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// A new name.
    pub name: Option<String>,
    /// A new description.
    pub description: Option<String>,
    /// A new price.
    pub price: Option<Money>,
    /// A new tax rate.
    pub tax_basis_points: Option<i64>,
    /// New attributes, all of them.
    pub attributes: Option<BTreeMap<String, String>>,
}

/// With which field description and attributes pass [`TEXT_BYTES_MAX`], if they do.
pub fn overlong(description: &str, attributes: &BTreeMap<String, String>) -> Option<&'static str> {
    let attributes: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    match description.len() {
        bytes if bytes > TEXT_BYTES_MAX => Some("description"),
        bytes if bytes + attributes > TEXT_BYTES_MAX => Some("attributes"),
        _ => None,
    }
}

impl Patch {
    /// Which of its fields makes `after`, the details with the new values, [`overlong`], if one does.
    pub fn overlong(&self, after: &Details) -> Option<&'static str> {
        let field = overlong(&after.description, &after.attributes)?;
        match (&self.description, &self.attributes) {
            (None, None) => None,
            (Some(_), None) => Some("description"),
            (None, Some(_)) => Some("attributes"),
            (Some(_), Some(_)) => Some(field),
        }
    }

    /// `details` with the new values.
    pub fn apply(&self, details: &Details) -> Details {
        Details {
            name: self.name.clone().unwrap_or_else(|| details.name.clone()),
            description: self.description.clone().unwrap_or_else(|| details.description.clone()),
            price: self.price.unwrap_or(details.price),
            tax_basis_points: self.tax_basis_points.unwrap_or(details.tax_basis_points),
            attributes: self.attributes.clone().unwrap_or_else(|| details.attributes.clone()),
        }
    }
}

impl Product {
    /// A new one.
    pub fn new(sku: Sku, details: Details, now: DateTime<Utc>) -> Self {
        Self { sku, details, version: 1, created_at: now, updated_at: now }
    }

    /// Its etag.
    pub fn etag(&self) -> Etag {
        Etag(self.version)
    }

    /// The product with other details; `None` if they are what it has.
    pub fn with(&self, details: Details, now: DateTime<Utc>) -> Option<Self> {
        if details == self.details {
            return None;
        }
        Some(Self { details, version: self.version + 1, updated_at: now, ..self.clone() })
    }
}

/// A price as it is stored in an answer: `["EUR", 1999]`.
mod price_form {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use souk_proto_common::{Currency, Money};

    pub(super) fn serialize<S: Serializer>(price: &Money, to: S) -> Result<S::Ok, S::Error> {
        (price.currency.code(), price.amount_minor).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Money, D::Error> {
        let (code, amount_minor) = <(String, i64)>::deserialize(from)?;
        let currency = Currency::parse(&code).map_err(|_| serde::de::Error::custom("unknown currency"))?;
        Ok(Money { currency, amount_minor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_read_back_in_one_form_only() {
        for version in [0, 1, 42, i64::MAX] {
            assert_eq!(Etag::parse(&Etag(version).text()), Some(Etag(version)));
        }
        for bad in ["", "v", "2a", "v-1", "v+1", "v01", "V1", "v1 ", "vffffffffffffffffff"] {
            assert_eq!(Etag::parse(bad), None, "{bad}");
        }
    }
}
