//! Changes a profile.

use souk_db::idempotency::Key;
use souk_db::retrying;
use souk_events::outbox;
use souk_interceptors::Caller;

use super::audit::{self, Action};
use super::get_user::owner_or;
use super::keyed::{Found, find_user, in_turn, keep};
use crate::domain::User;
use crate::domain::command::{Answer, Keyed, UpdateUser};
use crate::error::Error;
use crate::events;
use crate::ops::App;
use crate::store;

const METHOD: &str = "/souk.user.v1.UserService/UpdateUser";

/// The user as it is now. Oneself, or with the scope `users.write` anybody. New values that are the old ones change nothing.
pub async fn update_user(app: &App, caller: &Caller, asked: Keyed<UpdateUser>) -> Result<Answer<User>, Error> {
    owner_or(caller, asked.command.user_id, "users.write")?;
    let call = Key::new(caller.subject(), METHOD, asked.key.request_id);
    let update = retrying(Error::is_conflict, || update_once(app, caller, &call, &asked));
    let updated = in_turn(app, &call, update).await?;
    app.relay.wake();
    Ok(updated)
}

async fn update_once(app: &App, caller: &Caller, call: &Key, asked: &Keyed<UpdateUser>) -> Result<Answer<User>, Error> {
    let now = app.clock.now();
    let UpdateUser { user_id, etag, display_name } = &asked.command;
    let mut tx = app.db.write().await?;
    let mut user = match find_user(&mut tx, call, &asked.key, *user_id, *etag).await? {
        Found::Given(user) => return Ok(Answer::replayed(user)),
        Found::Locked(user) => user,
    };
    if let Some(renamed) = display_name.as_ref().and_then(|name| user.renamed(name, now)) {
        store::save_user(&mut tx, &renamed).await?;
        let audited = audit::by(app, caller, Action::ProfileChanged, format!("user/{user_id}"), "display_name".into());
        store::append_audit(&mut tx, &audited).await?;
        outbox::append(&mut tx, &[events::user_updated(&renamed, &app.ids)]).await?;
        user = renamed;
    }
    keep(&mut tx, call, &asked.key, &user, now).await?;
    tx.commit().await?;
    Ok(Answer::fresh(user))
}
