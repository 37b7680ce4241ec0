//! Which state of a thing a caller saw, so that whoever changes it can say so.

use std::fmt;

use crate::v1::Reason;
use crate::validation::FieldError;

/// A version, 1 or more, as callers see it: `v42`. They compare it and give it back, and do not look into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Etag(pub i64);

impl Etag {
    /// The etag, if `text` is one that a thing can have.
    pub fn parse(text: &str) -> Option<Self> {
        let version: i64 = text.strip_prefix('v')?.parse().ok()?;
        // One text for each: no sign, no leading zeros.
        (version > 0 && format!("v{version}") == text).then_some(Self(version))
    }

    /// Of a field that may be empty: the change is made whatever the state.
    pub fn parse_if_set(text: &str) -> Result<Option<Self>, FieldError> {
        if text.is_empty() {
            return Ok(None);
        }
        let invalid = || FieldError::new(Reason::InvalidFormat, "must be an etag as this server gave it");
        Self::parse(text).map(Some).ok_or_else(invalid)
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_read_back_in_one_form_only() {
        for version in [1, 12, i64::MAX] {
            assert_eq!(Etag::parse(&Etag(version).to_string()), Some(Etag(version)));
        }
        assert_eq!(Etag(12).to_string(), "v12");
        for bad in ["", "v", "12", "v0", "v-1", "v+1", "v01", "V1", "v1 ", "v99999999999999999999"] {
            assert_eq!(Etag::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_etag_is_no_condition_and_a_bad_one_is_refused() {
        assert_eq!(Etag::parse_if_set(""), Ok(None));
        assert_eq!(Etag::parse_if_set("v1"), Ok(Some(Etag(1))));
        assert_eq!(Etag::parse_if_set("1").map_err(|error| error.reason), Err(Reason::InvalidFormat));
    }
}
