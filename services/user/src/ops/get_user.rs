//! Reads a user.

use souk_interceptors::Caller;
use uuid::Uuid;

use crate::domain::User;
use crate::domain::command::GetUser;
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// Oneself, or with the scope `users.read` anybody.
pub async fn get_user(app: &App, caller: &Caller, asked: GetUser) -> Result<User, Error> {
    owner_or(caller, asked.user_id, "users.read")?;
    let mut tx = app.db.read_one().await?;
    store::user(&mut tx, asked.user_id).await?.ok_or_else(|| Error::UserNotFound(asked.user_id.to_string()))
}

/// Before anything is read, so that the answer tells nothing of what exists.
pub(super) fn owner_or(caller: &Caller, owner: Uuid, scope: &str) -> Result<(), Error> {
    if caller.user_id() == Some(owner) || caller.has_scope(scope) { Ok(()) } else { Err(Error::NotOwner) }
}
