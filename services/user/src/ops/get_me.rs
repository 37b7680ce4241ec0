//! Reads the user who calls.

use souk_interceptors::Caller;

use crate::domain::User;
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// A service that calls is no user.
pub async fn get_me(app: &App, caller: &Caller) -> Result<User, Error> {
    let nobody = || Error::UserNotFound(caller.subject().to_owned());
    let id = caller.user_id().ok_or_else(nobody)?;
    store::user(&mut app.db.read_one().await?, id).await?.ok_or_else(nobody)
}
