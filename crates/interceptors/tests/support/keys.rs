//! A signing key of the tests, and the tokens that it signs.

use chrono::{DateTime, Utc};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::Serialize;
use souk_interceptors::token::{Claims, PublicKey, TYPE};
use uuid::Uuid;

pub(crate) const ISSUER: &str = "https://souk.test";
pub(crate) const AUDIENCE: &str = "souk";

/// A key under its name.
#[derive(Clone)]
pub(crate) struct Key {
    kid: &'static str,
    pair: SigningKey,
}

impl Key {
    pub(crate) fn new(kid: &'static str, seed: u8) -> Self {
        Self { kid, pair: SigningKey::from_bytes(&[seed; 32]) }
    }

    pub(crate) fn public(&self) -> PublicKey {
        let AlgorithmParameters::OctetKeyPair(parameters) = self.jwk().algorithm else { panic!("an Ed25519 key") };
        PublicKey { kid: self.kid.into(), x: parameters.x }
    }

    pub(crate) fn jwk(&self) -> Jwk {
        let key = DecodingKey::from_ed_der(self.pair.verifying_key().as_bytes());
        Jwk::from_decoding_key(&key, Some(Algorithm::EdDSA)).unwrap()
    }

    /// The header of a good token.
    pub(crate) fn header(&self) -> Header {
        Header { typ: Some(TYPE.into()), kid: Some(self.kid.into()), ..Header::new(Algorithm::EdDSA) }
    }

    pub(crate) fn sign(&self, claims: &impl Serialize) -> String {
        self.sign_under(&self.header(), claims)
    }

    pub(crate) fn sign_under(&self, header: &Header, claims: &impl Serialize) -> String {
        let der = self.pair.to_pkcs8_der().unwrap();
        jsonwebtoken::encode(header, claims, &EncodingKey::from_ed_der(der.as_bytes())).unwrap()
    }
}

/// What a good token says: issued now, good for ten minutes.
pub(crate) fn claims(subject: &str, scopes: &str, now: DateTime<Utc>) -> Claims {
    Claims {
        iss: ISSUER.into(),
        aud: AUDIENCE.into(),
        sub: subject.into(),
        sid: Some(Uuid::from_u128(7)),
        jti: Uuid::from_u128(1),
        iat: now.timestamp(),
        exp: now.timestamp() + 600,
        scope: scopes.into(),
        roles: Vec::new(),
    }
}
