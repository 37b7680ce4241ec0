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

    pub(crate) fn is_sqlite(&self) -> bool {
        self.0.starts_with("sqlite:")
    }

    /// What is wrong with it, as far as that can be seen without a server.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.is_sqlite() {
            return Ok(());
        }
        if !["postgres://", "postgresql://"].iter().any(|scheme| self.0.starts_with(scheme)) {
            return Err("must begin with sqlite: or postgres://");
        }
        for host in self.hosts() {
            let url = Url::parse(&host).map_err(|_| "is no URL")?;
            let mut wanted = url.query_pairs().filter(|(name, _)| name == SESSION_ATTRIBUTES);
            if wanted.any(|(_, wanted)| wanted != READ_WRITE) {
                return Err("must have target_session_attrs=read-write, or none: no other database is of use");
            }
        }
        Ok(())
    }

    /// One URL for each host that it names (`postgres://user@one:5432,two:5432/database`), in that order.
    pub(crate) fn hosts(&self) -> Vec<String> {
        if self.is_sqlite() {
            return vec![self.0.clone()];
        }
        let from = self.0.find("://").map_or(0, |at| at + 3);
        let until = self.0[from..].find(['/', '?']).map_or(self.0.len(), |at| from + at);
        let hosts_from = self.0[from..until].rfind('@').map_or(from, |at| from + at + 1);
        let (before, after) = (&self.0[..hosts_from], &self.0[until..]);
        self.0[hosts_from..until].split(',').map(|host| format!("{before}{host}{after}")).collect()
    }

    fn shown(&self) -> String {
        let shown: Vec<String> = self.hosts().iter().map(|host| hidden(host)).collect();
        shown.join(" or ")
    }
}

const SESSION_ATTRIBUTES: &str = "target_session_attrs";
/// What we look for ourselves: sqlx knows nothing of it.
const READ_WRITE: &str = "read-write";

fn hidden(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        return HIDDEN.to_owned();
    };
    let in_query = url.query_pairs().any(|(name, _)| name.contains("password")); // sslpassword, too
    if url.password().is_none() && !in_query {
        return text.to_owned();
    }
    let hidden = url.password().is_none() || url.set_password(Some(HIDDEN)).is_ok();
    if in_query {
        url.set_query(Some(HIDDEN));
    }
    if hidden { url.into() } else { HIDDEN.to_owned() }
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
        assert_eq!(
            shown("postgres://souk:geheim@one,two:5433/orders"),
            "postgres://souk:********@one/orders or postgres://souk:********@two:5433/orders"
        );
        for url in ["sqlite://souk-data/souk.sqlite", "sqlite:///var/souk.sqlite", "postgres://souk@db/orders"] {
            assert_eq!(shown(url), url);
        }
    }

    #[test]
    fn every_host_has_a_url_of_its_own() {
        let hosts = |url: &str| DbUrl::from(url.to_owned()).hosts();
        assert_eq!(
            hosts("postgres://a:b@one:1,two:2/db?x=y"),
            ["postgres://a:b@one:1/db?x=y", "postgres://a:b@two:2/db?x=y"]
        );
        for url in ["postgres://one", "postgres://a@one?x=a,b@c", "postgres://a@[::1]:5432/a,b", "sqlite://a,b.sqlite"]
        {
            assert_eq!(hosts(url), [url]);
        }
    }
}
