//! Access tokens: the keys in memory, and signing with them. The tables have the keys; `ops::maintain_keys` brings them here.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, TimeDelta, Utc};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use futures::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use souk_interceptors::token::{Claims, KeySource, PublicKey, TYPE};
use souk_runtime::Ids;
use uuid::Uuid;

use crate::config::Config;
use crate::domain::User;
use crate::domain::keys::{KeyState, TokenKey};
use crate::domain::role::Role;
use crate::error::Error;

/// Signs access tokens. Cheap to clone.
#[derive(Clone)]
pub struct Issuer(Arc<Inner>);

struct Inner {
    ids: Ids,
    issuer: String,
    audience: String,
    lifetime: TimeDelta,
    keys: RwLock<Keys>,
}

#[derive(Default)]
struct Keys {
    signing: Option<Arc<Signer>>,
    listed: Vec<PublicKey>,
}

struct Signer {
    header: Header,
    key: EncodingKey,
}

/// A signed token.
#[derive(Clone)]
pub struct AccessToken {
    /// The JWT.
    pub token: String,
    /// Until then it is good; whole seconds, as the token has it.
    pub expires_at: DateTime<Utc>,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken(… until {})", self.expires_at)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer")
    }
}

impl Issuer {
    /// Without keys yet: see [`set_keys`](Self::set_keys).
    pub fn new(config: &Config, ids: Ids) -> Self {
        Self(Arc::new(Inner {
            ids,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            lifetime: config.tokens.access_lifetime(),
            keys: RwLock::default(),
        }))
    }

    /// The keys as the tables have them now.
    pub fn set_keys(&self, keys: &[TokenKey]) -> Result<(), Error> {
        let signing = keys.iter().find(|key| key.state == KeyState::Signing).map(signer).transpose()?;
        let listed = keys.iter().map(|key| PublicKey { kid: key.kid.clone(), x: key.x() }).collect();
        *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = Keys { signing: signing.map(Arc::new), listed };
        Ok(())
    }

    /// Every key that a good token may be signed with, and those that are about to be used.
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.0.keys.read().unwrap_or_else(PoisonError::into_inner).listed.clone()
    }

    /// For the verifier of this process.
    pub fn key_source(&self) -> KeySource {
        let issuer = self.clone();
        Arc::new(move || std::future::ready(Ok(issuer.public_keys())).boxed())
    }

    /// A token of a user's session, with the scopes of the user's roles.
    pub fn user_token(&self, user: &User, session_id: Uuid, now: DateTime<Utc>) -> Result<AccessToken, Error> {
        let roles = user.roles.iter().map(|role: Role| role.name().to_owned()).collect();
        self.sign(user.id.to_string(), Some(session_id), &user.roles.scopes(), roles, now)
    }

    /// A token of a service.
    pub fn service_token(&self, name: &str, scopes: &BTreeSet<&str>, now: DateTime<Utc>) -> Result<AccessToken, Error> {
        self.sign(format!("service:{name}"), None, scopes, Vec::new(), now)
    }

    fn sign(
        &self,
        sub: String,
        sid: Option<Uuid>,
        scopes: &BTreeSet<&str>,
        roles: Vec<String>,
        now: DateTime<Utc>,
    ) -> Result<AccessToken, Error> {
        let exp = (now + self.0.lifetime).timestamp();
        let claims = Claims {
            iss: self.0.issuer.clone(),
            aud: self.0.audience.clone(),
            sub,
            sid,
            jti: self.0.ids.new_id(),
            iat: now.timestamp(),
            exp,
            scope: scopes.iter().copied().collect::<Vec<_>>().join(" "),
            roles,
        };
        let signing = self.0.keys.read().unwrap_or_else(PoisonError::into_inner).signing.clone();
        let signer = signing.ok_or(Error::Bug("no key signs"))?;
        let token = jsonwebtoken::encode(&signer.header, &claims, &signer.key)
            .map_err(|_| Error::Bug("a token cannot be signed"))?;
        let expires_at = DateTime::from_timestamp(exp, 0).ok_or(Error::Bug("the end of time"))?;
        Ok(AccessToken { token, expires_at })
    }
}

fn signer(key: &TokenKey) -> Result<Signer, Error> {
    let pair = SigningKey::from_bytes(&key.seed);
    let der = pair.to_pkcs8_der().map_err(|_| Error::Bug("a key cannot be encoded"))?;
    let header = Header { typ: Some(TYPE.into()), kid: Some(key.kid.clone()), ..Header::new(Algorithm::EdDSA) };
    Ok(Signer { header, key: EncodingKey::from_ed_der(der.as_bytes()) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use souk_interceptors::token::{Refused, Verifier};
    use souk_runtime::Clock;

    use super::*;
    use crate::domain::{Email, Roles};

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn issuer(keys: &[TokenKey]) -> Issuer {
        let issuer = Issuer::new(&Config::default(), Ids::system(Clock::system()));
        issuer.set_keys(keys).unwrap();
        issuer
    }

    fn user() -> User {
        let email = Email::parse("ada@x.example").unwrap();
        User::new(Uuid::from_u128(7), email, String::new(), Roles::only(Role::Customer), start())
    }

    #[tokio::test]
    async fn a_token_is_verified_by_the_listed_keys_until_it_expires() {
        let clock = Clock::fake(start());
        let issuer = issuer(&[TokenKey::new([1; 32], KeyState::Signing, start())]);
        let verifier = Verifier::new(clock.clone(), "souk", "souk", issuer.key_source());
        let token = issuer.user_token(&user(), Uuid::from_u128(9), clock.now()).unwrap();
        let caller = verifier.verify(&token.token).await.unwrap();
        assert_eq!((caller.user_id(), caller.session_id()), (Some(Uuid::from_u128(7)), Some(Uuid::from_u128(9))));
        assert!(caller.has_scope("orders.place") && !caller.has_scope("users.read"));
        assert_eq!(token.expires_at, start() + TimeDelta::minutes(10));
        clock.advance(Duration::from_secs(631));
        assert_eq!(verifier.verify(&token.token).await, Err(Refused::Expired));
    }

    #[tokio::test]
    async fn a_rotation_fails_no_verification() {
        let clock = Clock::fake(start());
        let (old, new) = ([1; 32], [2; 32]);
        let key = |seed, state| TokenKey::new(seed, state, start());
        let issuer = issuer(&[key(old, KeyState::Signing), key(new, KeyState::Published)]);
        let verifier = Verifier::new(clock.clone(), "souk", "souk", issuer.key_source());
        let before = issuer.user_token(&user(), Uuid::from_u128(9), clock.now()).unwrap();
        verifier.verify(&before.token).await.unwrap();
        issuer.set_keys(&[key(old, KeyState::Retired), key(new, KeyState::Signing)]).unwrap();
        let after = issuer.user_token(&user(), Uuid::from_u128(9), clock.now()).unwrap();
        verifier.verify(&after.token).await.unwrap();
        verifier.verify(&before.token).await.unwrap();
    }

    #[test]
    fn without_a_key_nothing_is_signed() {
        assert!(matches!(issuer(&[]).user_token(&user(), Uuid::nil(), start()), Err(Error::Bug(_))));
        let published = TokenKey::new([1; 32], KeyState::Published, start());
        assert!(issuer(&[published]).user_token(&user(), Uuid::nil(), start()).is_err());
    }

    #[test]
    fn a_token_is_never_shown() {
        let issuer = issuer(&[TokenKey::new([1; 32], KeyState::Signing, start())]);
        let token = issuer.service_token("order", &BTreeSet::from(["stock.reserve"]), start()).unwrap();
        assert!(!format!("{token:?}").contains(&token.token[..8]));
    }
}
