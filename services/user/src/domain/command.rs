//! What can be asked of the service, parsed.

pub use souk_proto_common::Answer;
use souk_proto_common::IdempotencyKey;
use souk_runtime::Secret;
use uuid::Uuid;

use super::{Email, Etag, Password, RefreshToken, Roles};

/// A mutation, with the key that a repeat of it is recognised by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed<C> {
    /// The key.
    pub key: IdempotencyKey,
    /// What is asked for.
    pub command: C,
}

/// See `AuthService.Register`. The fingerprint of its key says nothing of the password: a fast hash of one must not be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// The address.
    pub email: Email,
    /// The password.
    pub password: Password,
    /// The name; may be empty.
    pub display_name: String,
}

/// See `AuthService.Login`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The address; `None`: what was sent is none, so there is no such account.
    pub email: Option<Email>,
    /// The password.
    pub password: Password,
}

/// See `AuthService.RefreshToken` and `AuthService.Logout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedToken {
    /// The token; `None`: what was sent cannot be one of ours.
    pub token: Option<RefreshToken>,
}

/// See `AuthService.IssueServiceToken`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueServiceToken {
    /// The name of the service.
    pub service: String,
    /// Its secret.
    pub secret: Secret,
}

/// See `UserService.UpdateUser`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateUser {
    /// Which user.
    pub user_id: Uuid,
    /// Only if the user still has it.
    pub etag: Option<Etag>,
    /// The new name; `None`: the mask does not name it.
    pub display_name: Option<String>,
}

/// See `UserService.SetRoles`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetRoles {
    /// Which user.
    pub user_id: Uuid,
    /// Only if the user still has it.
    pub etag: Option<Etag>,
    /// The roles from now on.
    pub roles: Roles,
}

/// See `UserService.GetUser`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetUser {
    /// Which user.
    pub user_id: Uuid,
}

/// See `UserService.GetMe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetMe;

/// See `AuthService.GetJwks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetJwks;

/// See `UserService.ListUsers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListUsers {
    /// At most so many.
    pub size: i64,
    /// Those after this one.
    pub after: Option<Uuid>,
}

/// See `UserService.StreamUsers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamUsers {
    /// Those after this one.
    pub after: Option<Uuid>,
}
