//! What can go wrong, and what a caller is told of it: one exhaustive match.

use std::time::Duration;

use souk_db::Kind;
use souk_interceptors::context::{bug, database};
use souk_proto_common::Failure;
use souk_proto_common::v1::Reason;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::domain::password::HashError;
use crate::domain::user::LastAdministrator;
use crate::domain::{Email, Etag};

const USER: &str = "souk.user.v1.User";
/// When to come again after a failure that passes by itself.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why an operation failed. Nothing of it has taken effect, unless the database was lost at the commit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The login failed, whatever the cause.
    #[error("the login failed")]
    InvalidCredentials,
    /// The refresh token is not one of ours.
    #[error("unknown refresh token")]
    TokenInvalid,
    /// The session has run out.
    #[error("the session has run out")]
    TokenExpired,
    /// The refresh token was used before; its session is ended now. This has taken effect.
    #[error("the refresh token was used before")]
    RefreshTokenReused,
    /// The session was ended before.
    #[error("the session was ended")]
    SessionRevoked,
    /// It is another's, or does not exist.
    #[error("not the owner")]
    NotOwner,
    /// No such user; what was asked for.
    #[error("no user {0}")]
    UserNotFound(String),
    /// The address is taken.
    #[error("the address is taken")]
    UserExists(Email),
    /// The user has changed since the caller saw it.
    #[error("user {id} has changed")]
    UserChanged {
        /// Which.
        id: Uuid,
        /// The etag now.
        current: Etag,
    },
    /// The last administrator keeps the role.
    #[error("the last administrator keeps the role")]
    LastAdministrator,
    /// The key was used for something else.
    #[error("the key was used for something else")]
    KeyReused,
    /// A call with this key is still running.
    #[error("a call with this key is still running")]
    InProgress,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] souk_db::Error),
    /// Too many passwords wait to be hashed.
    #[error("too many passwords wait to be hashed")]
    Busy,
    /// The server is going away.
    #[error("shutting down")]
    ShuttingDown,
    /// A stored or computed thing is not what it must be.
    #[error("{0}")]
    Bug(&'static str),
}

impl Error {
    /// A concurrent transaction was in the way: try again at once.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.kind() == Kind::Conflict)
    }
}

impl From<LastAdministrator> for Error {
    fn from(_: LastAdministrator) -> Self {
        Self::LastAdministrator
    }
}

impl From<HashError> for Error {
    fn from(_: HashError) -> Self {
        Self::Bug("a password hash cannot be made or read")
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidCredentials => unauthenticated(Reason::InvalidCredentials, "the login failed"),
            Error::TokenInvalid => unauthenticated(Reason::TokenInvalid, "the refresh token is not one of ours"),
            Error::TokenExpired => unauthenticated(Reason::TokenExpired, "the session has run out: sign in again"),
            Error::RefreshTokenReused => {
                unauthenticated(Reason::RefreshTokenReused, "the refresh token was used before: the session is ended")
            }
            Error::SessionRevoked => unauthenticated(Reason::SessionRevoked, "the session was ended: sign in again"),
            Error::NotOwner => {
                Self::new(Code::PermissionDenied, Reason::NotOwner, "it is another's, or does not exist")
            }
            Error::UserNotFound(name) => Self::not_found(Reason::UserNotFound, USER, name),
            Error::UserExists(email) => Self::already_exists(Reason::UserExists, USER, email.as_str()),
            Error::UserChanged { id, current } => {
                Self::new(Code::Aborted, Reason::EtagMismatch, "it has changed since you read it")
                    .metadata("user_id", id)
                    .metadata("etag", current)
            }
            Error::LastAdministrator => precondition(
                Reason::InvalidStateTransition,
                "the last administrator keeps the role: give it to another first",
            )
            .metadata("current_state", "ROLE_ADMIN")
            .metadata("allowed_states", "ROLE_ADMIN"),
            Error::KeyReused => {
                precondition(Reason::IdempotencyKeyReused, "request_id was used before for something else")
            }
            Error::InProgress => {
                Self::new(Code::Aborted, Reason::RequestInProgress, "a call with this request_id is still running")
                    .retry_after(RETRY_AFTER)
            }
            Error::Database(error) => database(&error),
            Error::Busy => Self::unavailable(Reason::LoadShed, "too many logins are waiting", RETRY_AFTER),
            Error::ShuttingDown => {
                Self::unavailable(Reason::ShuttingDown, "the server is going away", Duration::from_millis(100))
            }
            Error::Bug(what) => bug(what, &error),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

fn unauthenticated(reason: Reason, message: &str) -> Failure {
    Failure::new(Code::Unauthenticated, reason, message)
}

fn precondition(reason: Reason, message: &str) -> Failure {
    Failure::new(Code::FailedPrecondition, reason, message)
}
