//! E-mail addresses.

use std::fmt;

use serde::{Deserialize, Serialize};

/// RFC 5321: a path has 256 octets, two of them brackets.
const BYTES_MAX: usize = 254;
/// RFC 5321, 4.5.3.1.1.
const LOCAL_BYTES_MAX: usize = 64;
/// RFC 1035, 2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// An address, in lower case: two addresses that differ in case only are one account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Email(String);

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmailError {
    /// There is none.
    Empty,
    /// More than 254 characters.
    TooLong,
    /// It is not `name@host.example`.
    Form,
}

impl Email {
    /// An address of ASCII, as `name@host.example`; that it exists is not checked.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        if text.is_empty() {
            return Err(EmailError::Empty);
        }
        if text.len() > BYTES_MAX {
            return Err(EmailError::TooLong);
        }
        let (local, host) = text.rsplit_once('@').ok_or(EmailError::Form)?;
        if !is_local(local) || !is_host(host) {
            return Err(EmailError::Form);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// In lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// RFC 5322 `dot-atom`: quoted names, which nobody has, are refused.
fn is_local(local: &str) -> bool {
    let atom = |atom: &str| {
        !atom.is_empty() && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&b))
    };
    local.len() <= LOCAL_BYTES_MAX && local.split('.').all(atom)
}

/// Two labels at least: an address on a bare host is a typing error on a public shop.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.contains('.') && host.split('.').all(label)
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_make_two_accounts() {
        assert_eq!(Email::parse("Ada.Lovelace+x@Example.ORG").unwrap().as_str(), "ada.lovelace+x@example.org");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert_eq!(Email::parse(""), Err(EmailError::Empty));
        let host = format!("{}.example", ["x"; 130].join("."));
        assert_eq!(Email::parse(&format!("ada@{host}")), Err(EmailError::TooLong));
        for bad in [
            "ada",
            "@x.example",
            "ada@",
            "ada@host",
            "a da@x.example",
            "ada@x..example",
            ".ada@x.example",
            "ada@-x.example",
            "ada\n@x.example",
            "äda@x.example",
            "a@b@x.example",
            &format!("{}@x.example", "a".repeat(65)),
        ] {
            assert_eq!(Email::parse(bad), Err(EmailError::Form), "{bad}");
        }
    }
}
