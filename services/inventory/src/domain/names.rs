//! What things are called: products, locations, and the two together. Parsed once, then trusted.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest sku, in bytes.
pub const SKU_BYTES_MAX: usize = 64;
/// The longest name of a location, in bytes.
pub const LOCATION_BYTES_MAX: usize = 32;

/// A text is not such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no characters.
    #[error("must be set")]
    Empty,
    /// It has more bytes than such a name may have.
    #[error("is too long")]
    TooLong,
    /// It has other characters than such a name may have.
    #[error("has characters that it must not have")]
    Characters,
}

/// A product's name: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sku(Arc<str>);

impl Sku {
    /// The sku, if `text` is one.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        name(text, SKU_BYTES_MAX, |byte| byte.is_ascii_alphanumeric(), inner).map(Self)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A location's name: 1 to 32 of `a-z 0-9 -`, the first a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location(Arc<str>);

impl Location {
    /// The name of the location that is always there.
    pub const MAIN: &'static str = "main";

    /// The location, if `text` is the name of one; no text is `main`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = if text.is_empty() { Self::MAIN } else { text };
        let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        name(text, LOCATION_BYTES_MAX, first, |byte| first(byte) || byte == b'-').map(Self)
    }

    /// `main`
    pub fn main() -> Self {
        Self(Arc::from(Self::MAIN))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn name(
    text: &str,
    bytes_max: usize,
    first: impl Fn(u8) -> bool,
    inner: impl Fn(u8) -> bool,
) -> Result<Arc<str>, NameError> {
    match text.as_bytes() {
        [] => Err(NameError::Empty),
        bytes if bytes.len() > bytes_max => Err(NameError::TooLong),
        [head, tail @ ..] if first(*head) && tail.iter().all(|byte| inner(*byte)) => Ok(Arc::from(text)),
        _ => Err(NameError::Characters),
    }
}

/// One stock record. Ordered by sku, then location: the order in which rows are locked.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StockKey {
    /// The product.
    pub sku: Sku,
    /// Where it is.
    pub location: Location,
}

impl StockKey {
    /// `sku` at `location`.
    pub fn new(sku: Sku, location: Location) -> Self {
        Self { sku, location }
    }
}

macro_rules! text_forms {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_forms!(Sku);
text_forms!(Location);

impl fmt::Debug for StockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.sku, self.location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sku_has_its_characters_and_its_length() {
        for good in ["A", "tea-green.250_g", "0", &"x".repeat(64)] {
            assert!(Sku::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", NameError::Empty),
            (&*"x".repeat(65), NameError::TooLong),
            ("-a", NameError::Characters),
            ("a/b", NameError::Characters),
            ("a b", NameError::Characters),
            ("täa", NameError::Characters),
            ("a\0", NameError::Characters),
        ] {
            assert_eq!(Sku::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn no_location_is_main() {
        assert_eq!(Location::parse(""), Ok(Location::main()));
        assert_eq!(Location::parse("Main"), Err(NameError::Characters));
        assert_eq!(Location::parse(&"a".repeat(33)), Err(NameError::TooLong));
    }
}
