//! What products are called, everywhere. Parsed once, then trusted.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::v1::Reason;
use crate::validation::FieldError;

/// The longest sku, in bytes.
pub const SKU_BYTES_MAX: usize = 64;

/// A product's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sku(Arc<str>);

/// A text is no sku.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkuError {
    /// It has no characters.
    #[error("must be set")]
    Empty,
    /// It has more bytes than [`SKU_BYTES_MAX`].
    #[error("is too long")]
    TooLong,
    /// It has others than a sku may have.
    #[error("has characters that it must not have")]
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

impl From<SkuError> for FieldError {
    fn from(error: SkuError) -> Self {
        let shape = "must be 1 to 64 characters of A-Z a-z 0-9 . _ -, the first a letter or digit";
        match error {
            SkuError::Empty => Self::required(),
            SkuError::TooLong => Self::new(Reason::TooLong, shape),
            SkuError::Characters => Self::new(Reason::InvalidFormat, shape),
        }
    }
}

impl TryFrom<String> for Sku {
    type Error = SkuError;

    fn try_from(text: String) -> Result<Self, SkuError> {
        Self::parse(&text)
    }
}

impl From<Sku> for String {
    fn from(sku: Sku) -> Self {
        sku.0.as_ref().to_owned()
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
    fn a_sku_has_its_characters_and_its_length() {
        for good in ["A", "Tea.green_1-a", "tea-green.250_g", "0", &"x".repeat(64)] {
            assert_eq!(Sku::parse(good).map(|sku| sku.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", SkuError::Empty),
            (&*"x".repeat(65), SkuError::TooLong),
            (".a", SkuError::Characters),
            ("-", SkuError::Characters),
            ("a/b", SkuError::Characters),
            ("a b", SkuError::Characters),
            ("täa", SkuError::Characters),
            ("ä", SkuError::Characters),
            ("a\0", SkuError::Characters),
        ] {
            assert_eq!(Sku::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_field_that_is_no_sku_is_told_what_one_is() {
        assert_eq!(FieldError::from(SkuError::Empty), FieldError::required());
        let (long, odd) = (FieldError::from(SkuError::TooLong), FieldError::from(SkuError::Characters));
        assert_eq!((long.reason, odd.reason), (Reason::TooLong, Reason::InvalidFormat));
        assert_eq!(long.message, odd.message);
        assert!(long.message.starts_with(&format!("must be 1 to {SKU_BYTES_MAX} characters of ")), "{}", long.message);
    }
}
