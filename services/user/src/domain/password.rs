//! Passwords: which are taken, and how they are hashed.

use std::fmt;
use std::sync::LazyLock;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, PasswordVerifier, Version};

const CHARS_MIN: usize = 8;
const CHARS_MAX: usize = 128;

/// Some thousands of the most common passwords, of published lists of leaks: in lower case, of eight characters and more, sorted. Most are
/// Django's, under its licence (BSD-3-Clause): see `common_passwords.LICENSE`.
static COMMON: LazyLock<Vec<&str>> = LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// A password as a user typed it. Cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a text is no password for a new account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// There is none.
    Empty,
    /// Fewer than 8 characters.
    TooShort,
    /// More than 128 characters.
    TooLong,
    /// One of the most common ones.
    Weak,
}

impl Password {
    /// For a new account.
    pub fn choose(text: &str) -> Result<Self, PasswordError> {
        match text.chars().count() {
            0 => Err(PasswordError::Empty),
            1..CHARS_MIN => Err(PasswordError::TooShort),
            CHARS_MIN..=CHARS_MAX if is_common(text) => Err(PasswordError::Weak),
            CHARS_MIN..=CHARS_MAX => Ok(Self(text.to_owned())),
            _ => Err(PasswordError::TooLong),
        }
    }

    /// For a login: what was never taken cannot match, so only the length is bounded.
    pub fn attempt(text: &str) -> Result<Self, PasswordError> {
        match text.chars().take(CHARS_MAX + 1).count() {
            0 => Err(PasswordError::Empty),
            1..=CHARS_MAX => Ok(Self(text.to_owned())),
            _ => Err(PasswordError::TooLong),
        }
    }
}

/// In any case, and with or without digits and marks at the end: `Password123!` is `password`.
fn is_common(text: &str) -> bool {
    let lower = text.to_lowercase();
    let stem = lower.trim_end_matches(|c: char| !c.is_alphabetic());
    let listed = |text: &str| COMMON.binary_search(&text).is_ok();
    // What is listed has eight characters at least, so a short stem is not.
    listed(&lower) || listed(stem) || lower.chars().all(|c| lower.starts_with(c))
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A hash in PHC form: algorithm, parameters, salt and hash in one text.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

/// What a hash costs: Argon2id (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

/// A hash that cannot be made or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a password hash cannot be made or read")]
pub struct HashError;

impl Cost {
    /// The floor of OWASP's Password Storage Cheat Sheet.
    pub const FLOOR: Self = Self { memory_kib: 19_456, passes: 2 };

    fn hasher(self) -> Result<Argon2<'static>, HashError> {
        let params = Params::new(self.memory_kib, self.passes, 1, None).map_err(|_| HashError)?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

impl PasswordHash {
    /// A hash of `password`; takes tens of milliseconds of a core.
    pub fn of(password: &Password, salt: &[u8; 16], cost: Cost) -> Result<Self, HashError> {
        let hash = cost.hasher()?.hash_password_with_salt(password.0.as_bytes(), salt);
        hash.map(|hash| Self(hash.to_string())).map_err(|_| HashError)
    }

    /// A hash as it was stored.
    pub fn stored(phc: String) -> Self {
        Self(phc)
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is that of `password`; costs what the hash cost.
    pub fn matches(&self, password: &Password) -> Result<bool, HashError> {
        let parsed = phc::PasswordHash::new(&self.0).map_err(|_| HashError)?;
        Ok(Argon2::default().verify_password(password.0.as_bytes(), &parsed).is_ok())
    }

    /// Whether it cost less than hashes cost now.
    pub fn is_below(&self, cost: Cost) -> bool {
        let parsed = phc::PasswordHash::new(&self.0).ok();
        let params = parsed.and_then(|parsed| Params::try_from(&parsed).ok());
        params.is_none_or(|params| params.m_cost() < cost.memory_kib || params.t_cost() < cost.passes)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    #[test]
    fn characters_are_counted_not_bytes() {
        assert!(Password::choose("äöüäöüßx").is_ok());
        assert_eq!(Password::choose(""), Err(PasswordError::Empty));
        assert_eq!(Password::choose("äöüäöü7"), Err(PasswordError::TooShort));
        let long = "ü-x4".repeat(32);
        assert!(Password::choose(&long).is_ok());
        assert_eq!(Password::choose(&format!("{long}y")), Err(PasswordError::TooLong));
        assert_eq!(Password::attempt(&format!("{long}y")), Err(PasswordError::TooLong));
        assert!(Password::attempt("short").is_ok());
    }

    #[test]
    fn common_passwords_are_refused_however_they_are_dressed() {
        for weak in
            ["password", "PASSWORD", "Password123!", "12345678", "AAaaaaaa", "qwertyuiop", "Butterfly1", "trustno1"]
        {
            assert_eq!(Password::choose(weak), Err(PasswordError::Weak), "{weak}");
        }
        assert!(Password::choose("correct horse battery staple").is_ok());
    }

    #[test]
    fn the_common_passwords_can_be_searched() {
        assert!(COMMON.is_sorted() && COMMON.len() > 8_000);
        assert!(COMMON.iter().all(|common| common.chars().count() >= CHARS_MIN && common.to_lowercase() == *common));
    }

    #[test]
    fn a_hash_matches_its_password_only_to_the_last_character() {
        let long = "x4-ü".repeat(32);
        let hash = PasswordHash::of(&Password::choose(&long).unwrap(), &[1; 16], CHEAP).unwrap();
        assert!(hash.matches(&Password::attempt(&long).unwrap()).unwrap());
        let other = format!("{}u", &long[..long.len() - 'ü'.len_utf8()]);
        assert!(!hash.matches(&Password::attempt(&other).unwrap()).unwrap());
    }

    #[test]
    fn a_hash_is_argon2id_and_knows_when_it_is_too_cheap() {
        let hash = PasswordHash::of(&Password::choose("correct horse").unwrap(), &[1; 16], CHEAP).unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{}", hash.as_str());
        assert!(!hash.is_below(CHEAP));
        assert!(hash.is_below(Cost::FLOOR));
        assert!(hash.is_below(Cost { passes: 2, ..CHEAP }));
        assert_eq!(PasswordHash::stored("nonsense".into()).matches(&Password::attempt("x").unwrap()), Err(HashError));
    }

    #[test]
    fn nothing_of_a_password_is_printed() {
        let password = Password::choose("correct horse").unwrap();
        let hash = PasswordHash::of(&password, &[1; 16], CHEAP).unwrap();
        assert_eq!(format!("{password:?} {hash:?}"), "Password(…) PasswordHash(…)");
    }
}
