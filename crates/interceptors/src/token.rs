//! Access tokens: what they say, and how they are verified.
//!
//! A token is a JWT signed with EdDSA (Ed25519), header `typ: at+jwt` (RFC 9068), and nothing else is looked at: no other algorithm, no
//! key that the token itself brings. Verified tokens are remembered, since a verification costs as much as all the rest of a call.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use souk_proto_common::Failure;
use souk_runtime::{Clock, trace};
use tokio::sync::Mutex;
use tracing::{Instrument, warn};
use uuid::Uuid;

use crate::caller::Caller;

/// The `typ` of an access token.
pub const TYPE: &str = "at+jwt";
/// Clocks of two machines may differ by so much.
const LEEWAY: TimeDelta = TimeDelta::seconds(10);
/// Longer tokens are not looked at.
const TOKEN_BYTES_MAX: usize = 4_096;
/// Verified tokens that are remembered.
const VERIFIED_MAX: usize = 10_000;
/// The source is asked for keys no more often than that, whatever tokens come.
const REFRESH_INTERVAL: TimeDelta = TimeDelta::seconds(5);
/// After a failure it is asked again so soon.
const RETRY_INTERVAL: TimeDelta = TimeDelta::seconds(1);
/// Keys are asked for no less often than that, so that a retired one is forgotten.
const KEYS_MAX_AGE: TimeDelta = TimeDelta::minutes(5);
/// The source has so long to answer.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(2);

/// The claims of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who signed it.
    pub iss: String,
    /// For whom it is.
    pub aud: String,
    /// A user's id, or `service:<name>`.
    pub sub: String,
    /// The login of a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<Uuid>,
    /// The token's own id.
    pub jti: Uuid,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// Scopes, separated by spaces.
    pub scope: String,
    /// A user's roles.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// The claims, and one that our own tokens do not have, but that means the same for whoever else signs with our key (RFC 7519, 4.1.5).
#[derive(Deserialize)]
struct Signed {
    #[serde(flatten)]
    claims: Claims,
    /// Not before, in seconds since 1970.
    nbf: Option<i64>,
}

/// A public key that tokens are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Its name: `kid` of the token's header.
    pub kid: String,
    /// The Ed25519 key, base64url without padding: `x` of its JWK (RFC 8037).
    pub x: String,
}

/// Asks for the public keys that are in use now.
pub type KeySource = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<PublicKey>, Failure>> + Send + Sync>;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not one of ours, or was changed.
    Invalid,
    /// It was good once.
    Expired,
    /// There is no knowing: the keys cannot be had.
    Unverifiable,
}

/// Verifies access tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    clock: Clock,
    validation: Validation,
    source: KeySource,
    keys: RwLock<Keys>,
    refreshes: Arc<Mutex<Refreshes>>,
    verified: Cache<String, Verified>,
}

/// The source's last answer.
#[derive(Default)]
struct Keys {
    by_kid: HashMap<String, DecodingKey>,
    /// They are old by then; none: there was no answer yet.
    stale_at: Option<DateTime<Utc>>,
}

/// When the source may be asked again.
#[derive(Default)]
struct Refreshes {
    /// Not before; none: at once.
    again_at: Option<DateTime<Utc>>,
    /// The last answer was a failure.
    failed: bool,
}

/// A token that was verified, until when it is good, and with which key: a key that is gone takes its tokens along.
#[derive(Clone)]
struct Verified {
    caller: Caller,
    expires_at: DateTime<Utc>,
    kid: Arc<str>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    /// Takes tokens that `issuer` signed for `audience` with a key of `source`.
    pub fn new(clock: Clock, issuer: &str, audience: &str, source: KeySource) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Time is checked here, on the process's clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Self(Arc::new(Inner {
            clock,
            validation,
            source,
            keys: RwLock::default(),
            refreshes: Arc::default(),
            verified: Cache::new(VERIFIED_MAX),
        }))
    }

    /// Who the token proves the caller to be.
    pub async fn verify(&self, token: &str) -> Result<Caller, Refused> {
        let now = self.0.clock.now();
        if let Some(verified) = self.0.verified.get(token)
            && self.0.still_has(&verified.kid, now).await
        {
            return if now < verified.expires_at + LEEWAY { Ok(verified.caller) } else { Err(Refused::Expired) };
        }
        let verified = self.0.verify(token, now).await?;
        self.0.verified.insert(token.to_owned(), verified.clone());
        Ok(verified.caller)
    }
}

impl Inner {
    async fn verify(self: &Arc<Self>, token: &str, now: DateTime<Utc>) -> Result<Verified, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Invalid)?;
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(TYPE) {
            return Err(Refused::Invalid);
        }
        let kid = header.kid.ok_or(Refused::Invalid)?;
        let key = self.key(&kid, now).await?;
        let signed = jsonwebtoken::decode(token, &key, &self.validation).map_err(|_| Refused::Invalid)?.claims;
        let Signed { claims, nbf } = signed;
        let time = |seconds| DateTime::from_timestamp(seconds, 0).ok_or(Refused::Invalid);
        let expires_at = time(claims.exp)?;
        if time(claims.iat.max(nbf.unwrap_or(claims.iat)))? > now + LEEWAY {
            return Err(Refused::Invalid);
        }
        if now >= expires_at + LEEWAY {
            return Err(Refused::Expired);
        }
        let scopes: BTreeSet<String> = claims.scope.split_ascii_whitespace().map(str::to_owned).collect();
        Ok(Verified { caller: Caller::proven(claims.sub, scopes, claims.sid), expires_at, kid: kid.into() })
    }

    /// Whether the key of a remembered token is still in use: at once, unless it is time to ask.
    async fn still_has(self: &Arc<Self>, kid: &str, now: DateTime<Utc>) -> bool {
        let fresh = {
            let keys = self.keys();
            keys.by_kid.contains_key(kid) && keys.stale_at.is_some_and(|at| now < at)
        };
        fresh || self.key(kid, now).await.is_ok()
    }

    /// The key of that name. One that we do not know may be new, so the source is asked; by one call at a time, and whoever has a key
    /// does not wait for that.
    async fn key(self: &Arc<Self>, kid: &str, now: DateTime<Utc>) -> Result<DecodingKey, Refused> {
        let mut refreshes = match (self.refreshes.clone().try_lock_owned(), self.known_key(kid)) {
            (Ok(refreshes), _) => refreshes,
            (Err(_), Some(known)) => return Ok(known),
            (Err(_), None) => self.refreshes.clone().lock_owned().await,
        };
        let wanted = self.known_key(kid).is_none() || self.is_stale(now);
        if wanted && refreshes.again_at.is_none_or(|at| now >= at) {
            // In a task of its own: this call may be dropped, and whoever wants to could have the source asked at every call.
            let inner = self.clone();
            let refreshing = async move {
                *refreshes = inner.refresh(now).await;
                refreshes
            };
            let refreshing = tokio::spawn(trace::carried(refreshing.in_current_span()));
            refreshes = refreshing.await.map_err(|_| Refused::Unverifiable)?;
        }
        self.known_key(kid).ok_or(if refreshes.failed { Refused::Unverifiable } else { Refused::Invalid })
    }

    /// Asks for the keys. If they cannot be had, those that we have stay good: a user service that is down must not take the others along.
    async fn refresh(&self, now: DateTime<Utc>) -> Refreshes {
        let answer = tokio::time::timeout(SOURCE_TIMEOUT, (self.source)()).await;
        let failed = match answer {
            Ok(Ok(keys)) => {
                let keys =
                    keys.into_iter().filter_map(|key| Some((key.kid, DecodingKey::from_ed_components(&key.x).ok()?)));
                let keys = Keys { by_kid: keys.collect(), stale_at: Some(now + KEYS_MAX_AGE) };
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
                return Refreshes { again_at: Some(now + REFRESH_INTERVAL), failed: false };
            }
            Ok(Err(failure)) => failure.reason().wire_name(),
            Err(_) => "TIMEOUT",
        };
        warn!(reason = failed, "keys could not be refreshed");
        Refreshes { again_at: Some(now + RETRY_INTERVAL), failed: true }
    }

    fn known_key(&self, kid: &str) -> Option<DecodingKey> {
        self.keys().by_kid.get(kid).cloned()
    }

    fn is_stale(&self, now: DateTime<Utc>) -> bool {
        self.keys().stale_at.is_none_or(|at| now >= at)
    }

    fn keys(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }
}
