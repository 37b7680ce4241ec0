//! An access token for a service.

use std::collections::BTreeSet;
use std::hint::black_box;

use sha2::{Digest, Sha256};

use crate::domain::command::IssueServiceToken;
use crate::error::Error;
use crate::issuer::AccessToken;
use crate::ops::App;

/// The token. An unknown service and a wrong secret answer alike, after the same work.
pub fn issue_service_token(app: &App, asked: &IssueServiceToken) -> Result<AccessToken, Error> {
    let account = app.service_accounts.get(&asked.service);
    let secret = account.map_or("", |account| account.secret.expose());
    let right = same(secret, asked.secret.expose());
    // An account whose secret was left empty is closed.
    let account = account.filter(|account| right && !account.secret.is_empty()).ok_or(Error::InvalidCredentials)?;
    let scopes: BTreeSet<&str> = account.scopes.iter().map(String::as_str).collect();
    app.issuer.service_token(&asked.service, &scopes, app.clock.now())
}

/// In constant time: digests are compared, all of them, so that the time tells nothing of the texts.
fn same(one: &str, other: &str) -> bool {
    let (one, other) = (Sha256::digest(one), Sha256::digest(other));
    let differing = one.iter().zip(other.iter()).fold(0, |differing, (a, b)| black_box(differing | (a ^ b)));
    differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_is_the_same() {
        assert!(same("secret", "secret"));
        for other in ["", "secre", "secrets", "Secret"] {
            assert!(!same("secret", other));
        }
    }
}
