//! AuthService on the wire.

use souk_interceptors::token::PublicKey;
use souk_proto_common::time::timestamp;
use souk_proto_common::v1::Reason;
use souk_proto_common::validation::text;
use souk_proto_common::{Check, FieldError, InvalidRequest};
use souk_proto_user::v1 as pb;
use souk_runtime::Secret;

use super::{display_name, email, key};
use crate::domain::command::{GetJwks, IssueServiceToken, Keyed, Login, PresentedToken, Register};
use crate::domain::password::PasswordError;
use crate::domain::{Email, Password, RefreshToken};
use crate::issuer::AccessToken;
use crate::ops::Tokens;

const SERVICE_CHARS_MAX: usize = 64;
/// Longer ones are not compared.
const SECRET_BYTES_MAX: usize = 1_024;

impl TryFrom<pb::RegisterRequest> for Keyed<Register> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::RegisterRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        // The fingerprint is stored, and a fast hash of a password must not be.
        let password = std::mem::take(&mut request.password);
        let mut check = Check::new();
        let email = check.field("email", email(&request.email));
        if let Some(email) = &email {
            email.as_str().clone_into(&mut request.email);
        }
        let key = key(&mut check, &request_id, &request);
        let password = check.field("password", Password::choose(&password).map_err(password_error));
        let display_name = check.field("display_name", display_name(&request.display_name));
        check.finish(|| {
            let command = Register { email: email?, password: password?, display_name: display_name? };
            Some(Self { key: key?, command })
        })
    }
}

impl TryFrom<pb::LoginRequest> for Login {
    type Error = InvalidRequest;

    fn try_from(request: pb::LoginRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let email = check.field("email", attempted_email(&request.email));
        let password = check.field("password", Password::attempt(&request.password).map_err(password_error));
        check.finish(|| Some(Self { email: email?, password: password? }))
    }
}

/// What cannot be an address has no account: the login fails as any other.
fn attempted_email(text: &str) -> Result<Option<Email>, FieldError> {
    if text.is_empty() {
        return Err(FieldError::required());
    }
    Ok(Email::parse(text).ok())
}

impl TryFrom<pb::RefreshTokenRequest> for PresentedToken {
    type Error = InvalidRequest;

    fn try_from(request: pb::RefreshTokenRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let token = check.field("refresh_token", refresh_token(&request.refresh_token));
        check.finish(|| Some(Self { token: token? }))
    }
}

impl TryFrom<pb::LogoutRequest> for Keyed<PresentedToken> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::LogoutRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let text = std::mem::take(&mut request.refresh_token);
        let mut check = Check::new();
        let token = check.field("refresh_token", refresh_token(&text));
        // Whose call it is, is the session that the token belongs to: the rest of the request is empty.
        let key = key(&mut check, &request_id, &request);
        check.finish(|| Some(Self { key: key?, command: PresentedToken { token: token? } }))
    }
}

fn refresh_token(text: &str) -> Result<Option<RefreshToken>, FieldError> {
    if text.is_empty() { Err(FieldError::required()) } else { Ok(RefreshToken::parse(text)) }
}

impl TryFrom<pb::IssueServiceTokenRequest> for IssueServiceToken {
    type Error = InvalidRequest;

    fn try_from(request: pb::IssueServiceTokenRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let service = check.field("service", text(&request.service, 1..=SERVICE_CHARS_MAX));
        let secret = check.field("client_secret", secret(request.client_secret));
        check.finish(|| Some(Self { service: service?, secret: secret? }))
    }
}

fn secret(text: String) -> Result<Secret, FieldError> {
    match text.len() {
        0 => Err(FieldError::required()),
        1..=SECRET_BYTES_MAX => Ok(Secret::new(text)),
        _ => Err(FieldError::new(Reason::TooLong, format!("must be at most {SECRET_BYTES_MAX} bytes"))),
    }
}

impl TryFrom<pb::GetJwksRequest> for GetJwks {
    type Error = InvalidRequest;

    fn try_from(_: pb::GetJwksRequest) -> Result<Self, InvalidRequest> {
        Ok(Self)
    }
}

fn password_error(error: PasswordError) -> FieldError {
    match error {
        PasswordError::Empty => FieldError::required(),
        PasswordError::TooShort => FieldError::new(Reason::OutOfBounds, "must be at least 8 characters"),
        PasswordError::TooLong => FieldError::new(Reason::TooLong, "must be at most 128 characters"),
        PasswordError::Weak => FieldError::new(Reason::WeakPassword, "is among the most common passwords"),
    }
}

/// The tokens of a session.
pub fn token_pair(tokens: Tokens) -> pb::TokenPair {
    pb::TokenPair {
        access_token: tokens.access.token,
        access_token_expire_time: Some(timestamp(tokens.access.expires_at)),
        refresh_token: tokens.refresh.expose(),
        refresh_token_expire_time: Some(timestamp(tokens.refresh_expires_at)),
        session_id: tokens.session_id.to_string(),
    }
}

/// The token of a service.
pub fn service_token(token: AccessToken) -> pb::IssueServiceTokenResponse {
    pb::IssueServiceTokenResponse {
        access_token_expire_time: Some(timestamp(token.expires_at)),
        access_token: token.token,
    }
}

/// The public keys as JWKs (RFC 8037).
pub fn jwks(keys: Vec<PublicKey>) -> pb::GetJwksResponse {
    let jwk = |key: PublicKey| pb::Jwk {
        kty: "OKP".into(),
        crv: "Ed25519".into(),
        x: key.x,
        kid: key.kid,
        alg: "EdDSA".into(),
        r#use: "sig".into(),
    };
    pb::GetJwksResponse { keys: keys.into_iter().map(jwk).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn register(email: &str, password: &str) -> pb::RegisterRequest {
        let (email, password) = (email.into(), password.into());
        pb::RegisterRequest { request_id: ID.into(), email, password, display_name: "Ada".into() }
    }

    #[test]
    fn every_bad_field_of_a_registration_is_named_at_once() {
        let request = pb::RegisterRequest {
            request_id: "1".into(),
            email: "nobody".into(),
            password: "password".into(),
            display_name: " a".into(),
        };
        let invalid = Keyed::<Register>::try_from(request).unwrap_err();
        let named: Vec<(&str, Reason)> = invalid.violations().iter().map(|(f, e)| (f.as_str(), e.reason)).collect();
        assert_eq!(
            named,
            [
                ("email", Reason::InvalidFormat),
                ("request_id", Reason::InvalidFormat),
                ("password", Reason::WeakPassword),
                ("display_name", Reason::InvalidFormat),
            ]
        );
    }

    #[test]
    fn the_fingerprint_knows_the_address_in_any_case_and_nothing_of_the_password() {
        let key = |email, password| Keyed::<Register>::try_from(register(email, password)).unwrap().key;
        let one = key("ada@x.example", "correct horse");
        assert_eq!(one, key("ADA@x.example", "battery staple"));
        assert_ne!(one, key("bob@x.example", "correct horse"));
    }

    #[test]
    fn a_login_with_what_is_no_address_is_a_login_that_fails() {
        let login = Login::try_from(pb::LoginRequest { email: "nobody".into(), password: "x".into() }).unwrap();
        assert_eq!(login.email, None);
        let invalid = Login::try_from(pb::LoginRequest::default()).unwrap_err();
        assert_eq!(invalid.violations().len(), 2);
    }
}
