//! Page tokens: where the next page of a list begins, opaque to the caller and bound to the filters of the list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::v1::Reason;
use crate::validation::FieldError;

/// Longer ones are not looked at.
const TOKEN_BYTES_MAX: usize = 1024;
const FILTER_BYTES: usize = 8;

/// The last row of a page, by its sort key: the next page holds what comes after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// The sort key of the last row, in the list's own form.
    pub after: String,
}

impl PageToken {
    /// `filters` is the request with `page_size` and `page_token` cleared. No token (an empty one): the first page.
    pub fn parse(token: &str, filters: &impl Message) -> Result<Option<Self>, FieldError> {
        if token.is_empty() {
            return Ok(None);
        }
        let invalid =
            || FieldError::new(Reason::InvalidPageToken, "must be a next_page_token of this list with these filters");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid());
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        let (bound, after) = bytes.split_at_checked(FILTER_BYTES).ok_or_else(invalid)?;
        if bound != digest(filters) {
            return Err(invalid());
        }
        let after = String::from_utf8(after.to_vec()).map_err(|_| invalid())?;
        Ok(Some(Self { after }))
    }

    /// The `next_page_token` of a list with these `filters`.
    pub fn encode(&self, filters: &impl Message) -> String {
        URL_SAFE_NO_PAD.encode([digest(filters).as_slice(), self.after.as_bytes()].concat())
    }
}

fn digest(filters: &impl Message) -> [u8; FILTER_BYTES] {
    let mut short = [0; FILTER_BYTES];
    short.copy_from_slice(&Sha256::digest(filters.encode_to_vec())[..FILTER_BYTES]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Money;

    #[test]
    fn a_token_is_good_for_the_filters_it_was_made_with_and_no_others() {
        let filters = |amount_minor| Money { currency_code: String::new(), amount_minor };
        let token = PageToken { after: "TEA-GREEN".into() };
        let encoded = token.encode(&filters(1));
        assert_eq!(PageToken::parse(&encoded, &filters(1)), Ok(Some(token)));
        assert_eq!(PageToken::parse(&encoded, &filters(2)).unwrap_err().reason, Reason::InvalidPageToken);
        assert_eq!(PageToken::parse("", &filters(1)), Ok(None));
        for bad in ["x", "!!!!", "AAAA", &"A".repeat(2000)] {
            assert_eq!(PageToken::parse(bad, &filters(1)).unwrap_err().reason, Reason::InvalidPageToken);
        }
    }
}
