//! The keys that sign access tokens, and their rotation.
//!
//! A key is listed for a while before it signs, so that every verifier knows it by then, and after it has signed until its last token has
//! expired: PUBLISHED -> SIGNING -> RETIRED -> gone. The very first key signs at once: nobody has a list without it yet.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use ed25519_dalek::SigningKey;
use sha2::{Digest, Sha256};

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Listed, does not sign yet.
    Published,
    /// Signs; there is one.
    Signing,
    /// Listed, does not sign any more.
    Retired,
}

impl KeyState {
    /// As it stands in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "PUBLISHED",
            Self::Signing => "SIGNING",
            Self::Retired => "RETIRED",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Published, Self::Signing, Self::Retired].into_iter().find(|state| state.name() == name)
    }
}

/// A key pair. It is the one secret that the tables hold in the clear: whoever reads them can sign.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// Its name: `kid`.
    pub kid: String,
    /// The private half.
    pub seed: [u8; 32],
    /// Where it is in its life.
    pub state: KeyState,
    /// Since when it is there.
    pub since: DateTime<Utc>,
}

impl TokenKey {
    /// A key of these random bytes. It is named by its public half, so that no two keys have one name.
    pub fn new(seed: [u8; 32], state: KeyState, now: DateTime<Utc>) -> Self {
        let digest = Sha256::digest(SigningKey::from_bytes(&seed).verifying_key().as_bytes());
        Self { kid: URL_SAFE_NO_PAD.encode(&digest[..12]), seed, state, since: now }
    }

    /// The public half, as `x` of its JWK.
    pub fn x(&self) -> String {
        URL_SAFE_NO_PAD.encode(SigningKey::from_bytes(&self.seed).verifying_key().as_bytes())
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kid, state, since, .. } = self;
        write!(f, "TokenKey({kid}, {state:?} since {since})")
    }
}

/// How long a key stays in each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRules {
    /// Listed before it signs: longer than any verifier keeps a list.
    pub publish: TimeDelta,
    /// Signs.
    pub sign: TimeDelta,
    /// Listed after it has signed: longer than an access token lives.
    pub retire: TimeDelta,
}

/// A step of the rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new key, in this state.
    Create(KeyState),
    /// The key of that name goes to this state.
    Move(String, KeyState),
    /// The key of that name is gone.
    Drop(String),
}

/// What is due at this moment.
pub fn due(keys: &[TokenKey], rules: &KeyRules, now: DateTime<Utc>) -> Vec<Step> {
    let in_state = |state| keys.iter().filter(move |key| key.state == state);
    let gone = in_state(KeyState::Retired).filter(|key| now >= key.since + rules.retire);
    let mut steps: Vec<Step> = gone.map(|key| Step::Drop(key.kid.clone())).collect();
    let Some(signing) = in_state(KeyState::Signing).next() else {
        steps.push(Step::Create(KeyState::Signing));
        return steps;
    };
    match in_state(KeyState::Published).next() {
        None if now >= signing.since + rules.sign - rules.publish => steps.push(Step::Create(KeyState::Published)),
        Some(next) if now >= signing.since + rules.sign && now >= next.since + rules.publish => {
            steps.push(Step::Move(signing.kid.clone(), KeyState::Retired));
            steps.push(Step::Move(next.kid.clone(), KeyState::Signing));
        }
        _ => {}
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: KeyRules =
        KeyRules { publish: TimeDelta::hours(1), sign: TimeDelta::days(30), retire: TimeDelta::hours(2) };

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    fn apply(keys: &mut Vec<TokenKey>, now: DateTime<Utc>) {
        for step in due(keys, &RULES, now) {
            match step {
                Step::Create(state) => {
                    let seed = [u8::try_from((now - at(0)).num_hours() % 251).unwrap(); 32];
                    keys.push(TokenKey::new(seed, state, now));
                }
                Step::Move(kid, state) => {
                    let key = keys.iter_mut().find(|key| key.kid == kid).unwrap();
                    (key.state, key.since) = (state, now);
                }
                Step::Drop(kid) => keys.retain(|key| key.kid != kid),
            }
        }
    }

    #[test]
    fn one_key_signs_at_any_time_and_was_listed_long_enough_before() {
        let (mut keys, mut listed_at) = (Vec::new(), std::collections::BTreeMap::new());
        let mut signers = std::collections::BTreeSet::new();
        for hour in 0..24 * 100 {
            apply(&mut keys, at(hour));
            for key in &keys {
                listed_at.entry(key.kid.clone()).or_insert(hour);
            }
            let signing: Vec<&TokenKey> = keys.iter().filter(|key| key.state == KeyState::Signing).collect();
            assert_eq!(signing.len(), 1, "hour {hour}");
            let kid = &signing[0].kid;
            assert!(hour == 0 || signers.contains(kid) || hour - listed_at[kid] >= 1, "hour {hour}");
            signers.insert(kid.clone());
            assert!(keys.len() <= 3);
        }
        assert_eq!(signers.len(), 4, "a new one every 30 days");
    }

    #[test]
    fn a_key_stays_listed_until_its_tokens_have_expired() {
        let mut keys = Vec::new();
        apply(&mut keys, at(0));
        let first = keys[0].kid.clone();
        let listed = |keys: &[TokenKey]| keys.iter().any(|key| key.kid == first);
        apply(&mut keys, at(30 * 24 - 1));
        apply(&mut keys, at(30 * 24));
        assert!(listed(&keys) && keys.len() == 2);
        apply(&mut keys, at(30 * 24 + 1));
        assert!(listed(&keys));
        apply(&mut keys, at(30 * 24 + 2));
        assert!(!listed(&keys));
    }

    #[test]
    fn a_rotation_that_was_slept_through_is_caught_up_in_order() {
        let mut keys = Vec::new();
        apply(&mut keys, at(0));
        apply(&mut keys, at(24 * 365));
        assert_eq!(keys.iter().map(|key| key.state).collect::<Vec<_>>(), [KeyState::Signing, KeyState::Published]);
        apply(&mut keys, at(24 * 365 + 1));
        assert_eq!(keys.iter().map(|key| key.state).collect::<Vec<_>>(), [KeyState::Retired, KeyState::Signing]);
    }
}
