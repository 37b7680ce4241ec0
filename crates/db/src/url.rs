//! The address of a database, which may hold a password.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

/// The URL of a database. Wherever it is shown, asterisks stand for its password.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DbUrl(String);

const HIDDEN: &str = "********";

impl DbUrl {
    /// The whole of it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn shown(&self) -> String {
        let Ok(mut url) = Url::parse(&self.0) else {
            return HIDDEN.to_owned();
        };
        let in_query = url.query_pairs().any(|(name, _)| name == "password");
        if url.password().is_none() && !in_query {
            return self.0.clone();
        }
        let hidden = url.password().is_none() || url.set_password(Some(HIDDEN)).is_ok();
        if in_query {
            url.set_query(Some(HIDDEN));
        }
        if hidden { url.into() } else { HIDDEN.to_owned() }
    }
}

impl From<String> for DbUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Debug for DbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for DbUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let shown = |url: &str| format!("{:?}", DbUrl::from(url.to_owned()));
        assert_eq!(shown("postgres://souk:geheim@db:5432/orders"), "postgres://souk:********@db:5432/orders");
        assert_eq!(shown("postgres://db/orders?user=souk&password=geheim"), "postgres://db/orders?********");
        assert_eq!(shown("postgres://souk:geheim@[bad"), HIDDEN);
        for url in ["sqlite://souk-data/souk.sqlite", "sqlite:///var/souk.sqlite", "postgres://souk@db/orders"] {
            assert_eq!(shown(url), url);
        }
    }
}
