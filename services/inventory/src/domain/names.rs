//! What things are called: products, locations, and the two together. Parsed once, then trusted.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
pub use souk_proto_common::Sku;

/// The longest name of a location, in bytes.
pub const LOCATION_BYTES_MAX: usize = 32;

/// A text is no location's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// It has more bytes than [`LOCATION_BYTES_MAX`].
    #[error("is too long")]
    TooLong,
    /// It has others than a location's name may have.
    #[error("has characters that it must not have")]
    Characters,
}

/// A location's name: 1 to 32 of `a-z 0-9 -`, the first a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location(Arc<str>);

impl Location {
    /// The name of the location that is always there.
    pub const MAIN: &'static str = "main";

    /// The location, if `text` is the name of one; no text is `main`.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let text = if text.is_empty() { Self::MAIN } else { text };
        if text.len() > LOCATION_BYTES_MAX {
            return Err(LocationError::TooLong);
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if text.starts_with('-') || !text.bytes().all(|byte| plain(byte) || byte == b'-') {
            return Err(LocationError::Characters);
        }
        Ok(Self(text.into()))
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

impl TryFrom<String> for Location {
    type Error = LocationError;

    fn try_from(text: String) -> Result<Self, LocationError> {
        Self::parse(&text)
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.0.as_ref().to_owned()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.sku, self.location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_location_is_main() {
        assert_eq!(Location::parse(""), Ok(Location::main()));
        for bad in ["Main", "-a", "a b", "ä", "a\0"] {
            assert_eq!(Location::parse(bad), Err(LocationError::Characters), "{bad:?}");
        }
        assert_eq!(Location::parse("0-a").unwrap().as_str(), "0-a");
        assert_eq!(Location::parse(&"a".repeat(33)), Err(LocationError::TooLong));
    }
}
