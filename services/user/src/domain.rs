//! What a user, a password, a session and a signing key are, and the rules of each. Pure: no I/O, no clock of its own.

pub mod command;
pub mod email;
pub mod keys;
pub mod password;
pub mod role;
pub mod session;
pub mod user;

pub use email::Email;
pub use password::{Password, PasswordHash};
pub use role::{Role, Roles};
pub use session::{RefreshToken, Session, SessionRules};
pub use souk_proto_common::Etag;
pub use user::User;
