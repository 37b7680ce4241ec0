//! Sessions and their refresh tokens.
//!
//! A login begins a session. Its refresh tokens form a chain: each is good for one exchange, which names its successor. A second use
//! means that two parties have the token, and ends the session, unless it looks like an answer that was lost.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Says what the text is, to people and to scanners for leaked secrets.
const PREFIX: &str = "srt_";

/// A refresh token: 256 random bits. Only its hash is ever stored.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken([u8; 32]);

/// SHA-256 of a refresh token. A slow hash would add nothing: the token cannot be guessed.
pub type TokenHash = [u8; 32];

impl RefreshToken {
    /// A token of these random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// What a client sends; `None` if it cannot be one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        // Longer texts are not decoded.
        let encoded = text.strip_prefix(PREFIX).filter(|encoded| encoded.len() == 43)?;
        URL_SAFE_NO_PAD.decode(encoded).ok()?.try_into().ok().map(Self)
    }

    /// What the client keeps.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// What we keep.
    pub fn hash(&self) -> TokenHash {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

/// How long sessions and tokens are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// A session ends after so long without an exchange.
    pub idle: TimeDelta,
    /// And so long after its login, whatever happens.
    pub absolute: TimeDelta,
    /// A lost answer may be asked for again for so long.
    pub replay: TimeDelta,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The `sid` of its access tokens.
    pub id: Uuid,
    /// Whose.
    pub user_id: Uuid,
    /// The login.
    pub created_at: DateTime<Utc>,
    /// The end, at the latest.
    pub expires_at: DateTime<Utc>,
    /// When it was ended before its time.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A refresh token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// Its hash.
    pub hash: TokenHash,
    /// Its session.
    pub session_id: Uuid,
    /// Until then it is good.
    pub expires_at: DateTime<Utc>,
    /// Its exchange.
    pub used: Option<Used>,
}

/// The exchange of a token. One that was re-issued is void: it is its own successor, which nobody else's can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// When.
    pub at: DateTime<Utc>,
    /// For which token.
    pub successor: TokenHash,
}

/// What becomes of a token that is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// A new token for it.
    Rotate,
    /// The answer was lost: a new token in place of its successor, which is void from now on.
    Reissue {
        /// The successor that nobody has used.
        void: TokenHash,
    },
    /// Two parties have it: the session ends.
    Reused,
    /// The session was ended before.
    Revoked,
    /// The token or the session has run out.
    Expired,
}

impl Session {
    /// A login at this moment.
    pub fn begin(id: Uuid, user_id: Uuid, rules: &SessionRules, now: DateTime<Utc>) -> Self {
        Self { id, user_id, created_at: now, expires_at: now + rules.absolute, revoked_at: None }
    }

    /// A token of this session, issued now.
    pub fn issue(&self, token: &RefreshToken, rules: &SessionRules, now: DateTime<Utc>) -> StoredToken {
        let expires_at = self.expires_at.min(now + rules.idle);
        StoredToken { hash: token.hash(), session_id: self.id, expires_at, used: None }
    }

    /// What becomes of `token`. `successor_used`: whether the token that it was exchanged for was used in turn.
    pub fn exchange(
        &self,
        token: &StoredToken,
        successor_used: bool,
        rules: &SessionRules,
        now: DateTime<Utc>,
    ) -> Exchange {
        if self.revoked_at.is_some() {
            return Exchange::Revoked;
        }
        if now >= self.expires_at {
            return Exchange::Expired;
        }
        match token.used {
            Some(used) if used.successor == token.hash => Exchange::Reused,
            Some(used) if successor_used || now >= used.at + rules.replay => Exchange::Reused,
            Some(used) => Exchange::Reissue { void: used.successor },
            None if now >= token.expires_at => Exchange::Expired,
            None => Exchange::Rotate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: SessionRules =
        SessionRules { idle: TimeDelta::days(14), absolute: TimeDelta::days(90), replay: TimeDelta::seconds(30) };

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn session() -> (Session, StoredToken) {
        let session = Session::begin(Uuid::from_u128(1), Uuid::from_u128(2), &RULES, at(0));
        let token = session.issue(&RefreshToken::new([1; 32]), &RULES, at(0));
        (session, token)
    }

    fn used(token: &StoredToken, seconds: i64) -> StoredToken {
        StoredToken { used: Some(Used { at: at(seconds), successor: [2; 32] }), ..token.clone() }
    }

    #[test]
    fn a_token_is_good_for_one_exchange() {
        let (session, token) = session();
        assert_eq!(session.exchange(&token, false, &RULES, at(1)), Exchange::Rotate);
        assert_eq!(session.exchange(&used(&token, 1), false, &RULES, at(31)), Exchange::Reused);
    }

    #[test]
    fn a_lost_answer_is_given_again_while_its_token_is_unused() {
        let (session, token) = session();
        let used = used(&token, 1);
        assert_eq!(session.exchange(&used, false, &RULES, at(30)), Exchange::Reissue { void: [2; 32] });
        assert_eq!(session.exchange(&used, true, &RULES, at(2)), Exchange::Reused);
    }

    #[test]
    fn a_void_token_is_never_exchanged_again() {
        let (session, token) = session();
        let void = StoredToken { used: Some(Used { at: at(1), successor: token.hash }), ..token };
        assert_eq!(session.exchange(&void, false, &RULES, at(1)), Exchange::Reused);
    }

    #[test]
    fn a_session_ends_when_idle_and_at_the_latest_after_its_time() {
        const DAY: i64 = 86_400;
        let (session, token) = session();
        assert_eq!(session.exchange(&token, false, &RULES, at(14 * DAY - 1)), Exchange::Rotate);
        assert_eq!(session.exchange(&token, false, &RULES, at(14 * DAY)), Exchange::Expired);
        let late = session.issue(&RefreshToken::new([3; 32]), &RULES, at(89 * DAY));
        assert_eq!(late.expires_at, at(90 * DAY));
        assert_eq!(session.exchange(&late, false, &RULES, at(90 * DAY)), Exchange::Expired);
    }

    #[test]
    fn an_ended_session_says_so_whatever_the_token() {
        let (session, token) = session();
        let session = Session { revoked_at: Some(at(1)), ..session };
        assert_eq!(session.exchange(&token, false, &RULES, at(2)), Exchange::Revoked);
        assert_eq!(session.exchange(&used(&token, 1), true, &RULES, at(2)), Exchange::Revoked);
    }

    #[test]
    fn a_token_is_read_back_and_never_shown() {
        let token = RefreshToken::new([7; 32]);
        assert_eq!(RefreshToken::parse(&token.expose()), Some(token.clone()));
        assert_eq!(format!("{token:?}"), "RefreshToken(…)");
        for bad in ["", "srt_", "srt_abc", &token.expose()[1..], &format!("{}A", token.expose())] {
            assert_eq!(RefreshToken::parse(bad), None);
        }
    }
}
