//! Replaces the roles of a user.

use souk_db::idempotency::Key;
use souk_db::retrying;
use souk_events::outbox;
use souk_interceptors::Caller;

use super::audit::{self, Action};
use super::keyed::{Found, find_user, in_turn, keep};
use crate::domain::command::{Answer, Keyed, SetRoles};
use crate::domain::{Role, Roles, User};
use crate::error::Error;
use crate::events;
use crate::ops::App;
use crate::store;

const METHOD: &str = "/souk.user.v1.UserService/SetRoles";

/// The user as it is now. The last administrator keeps the role, whoever else resigns at the same moment.
pub async fn set_roles(app: &App, caller: &Caller, asked: Keyed<SetRoles>) -> Result<Answer<User>, Error> {
    let call = Key::new(caller.subject(), METHOD, asked.key.request_id);
    let set = retrying(Error::is_conflict, || set_once(app, caller, &call, &asked));
    let changed = in_turn(app, &call, set).await?;
    app.relay.wake();
    Ok(changed)
}

async fn set_once(app: &App, caller: &Caller, call: &Key, asked: &Keyed<SetRoles>) -> Result<Answer<User>, Error> {
    let now = app.clock.now();
    let SetRoles { user_id, etag, roles } = &asked.command;
    let mut tx = app.db.write().await?;
    let mut user = match find_user(&mut tx, call, &asked.key, *user_id, *etag).await? {
        Found::Given(user) => return Ok(Answer::replayed(user)),
        Found::Locked(user) => user,
    };
    let administrators = store::administrators_to_change(&mut tx).await?;
    if let Some(changed) = user.with_roles(roles, &administrators, now)? {
        store::save_user(&mut tx, &changed).await?;
        let detail = format!("{} -> {}", names(&user.roles), names(roles));
        let audited = audit::by(app, caller, Action::RolesChanged, format!("user/{user_id}"), detail);
        store::append_audit(&mut tx, &audited).await?;
        outbox::append(&mut tx, &[events::user_roles_changed(&changed, &user.roles, &app.ids)]).await?;
        user = changed;
    }
    keep(&mut tx, call, &asked.key, &user, now).await?;
    tx.commit().await?;
    Ok(Answer::fresh(user))
}

fn names(roles: &Roles) -> String {
    roles.iter().map(Role::name).collect::<Vec<_>>().join(" ")
}
