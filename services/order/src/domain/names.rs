//! What things are called. Parsed once, then trusted.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// The longest sku, in bytes.
pub const SKU_BYTES_MAX: usize = 64;

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderId(pub Uuid);

/// A user: who owns an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub Uuid);

/// A product's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sku(Arc<str>);

/// A text is no sku.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkuError {
    /// It has no characters.
    Empty,
    /// It has more than [`SKU_BYTES_MAX`].
    TooLong,
    /// It has others than a sku may have.
    Characters,
}

impl Sku {
    /// The sku, if `text` is one.
    pub fn parse(text: &str) -> Result<Self, SkuError> {
        if text.is_empty() {
            return Err(SkuError::Empty);
        }
        if text.len() > SKU_BYTES_MAX {
            return Err(SkuError::TooLong);
        }
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) || !text.bytes().all(inner) {
            return Err(SkuError::Characters);
        }
        Ok(Self(text.into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names a state of an order, so that whoever changes it can say which they saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etag(pub i64);

impl Etag {
    /// The etag, if `text` is one that an order can have.
    pub fn parse(text: &str) -> Option<Self> {
        let version: i64 = text.strip_prefix('v')?.parse().ok()?;
        // One text for each: no sign, no leading zeros.
        (version > 0 && format!("v{version}") == text).then_some(Self(version))
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_is_short_and_plain() {
        assert_eq!(Sku::parse("Tea.green_1-a").unwrap().as_str(), "Tea.green_1-a");
        assert_eq!(Sku::parse(""), Err(SkuError::Empty));
        assert!(Sku::parse(&"a".repeat(64)).is_ok());
        assert_eq!(Sku::parse(&"a".repeat(65)), Err(SkuError::TooLong));
        for bad in ["a b", "ä", "a/b", "a\0", ".a", "-"] {
            assert_eq!(Sku::parse(bad), Err(SkuError::Characters), "{bad:?}");
        }
    }

    #[test]
    fn an_etag_has_one_text() {
        assert_eq!(Etag::parse("v12"), Some(Etag(12)));
        assert_eq!(Etag(12).to_string(), "v12");
        for bad in ["", "v", "12", "v0", "v-1", "v+1", "v01", "v99999999999999999999"] {
            assert_eq!(Etag::parse(bad), None, "{bad}");
        }
    }
}
