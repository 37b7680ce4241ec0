//! All SQL of the service.

mod audit;
mod keys;
mod sessions;
mod users;

use std::fmt::Display;

use souk_db::{Error, MigrationSet};

pub use audit::{AuditEvent, append_audit};
pub use keys::{delete_key, insert_key, move_key, token_keys};
pub use sessions::{
    delete_ended_sessions, delete_ended_tokens, insert_session, insert_token, mark_used, revoke_session, session_of,
    session_to_change, token_used,
};
pub use users::{
    Account, Origin, account_by_email, administrators_to_change, insert_account, list_users, save_user,
    update_password_hash, user, user_to_change,
};

/// The tables of the user service.
pub static MIGRATIONS: MigrationSet = MigrationSet {
    name: "user",
    sqlite: &sqlx::migrate!("migrations/sqlite"),
    postgres: &sqlx::migrate!("migrations/postgres"),
};

/// A row that is not what this service writes.
fn corrupt(what: &str, why: impl Display) -> Error {
    Error::bug(format!("{what}: {why}"))
}

fn hash_of(bytes: Vec<u8>, what: &str) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_| corrupt(what, "not 32 bytes"))
}
