//! Creates an account.

use souk_db::idempotency::Key;
use souk_db::{Tx, retrying};
use souk_events::outbox;
use souk_interceptors::Caller;

use super::audit::{self, Action};
use super::keyed::{given, in_turn, keep};
use super::prove::proves;
use crate::domain::command::{Answer, Keyed, Register};
use crate::domain::{PasswordHash, Role, Roles, User};
use crate::error::Error;
use crate::events;
use crate::ops::App;
use crate::store::{self, Account, Origin};

const METHOD: &str = "/souk.user.v1.AuthService/Register";

/// The user as created. An account keeps the key that it was created under, so a repeat is recognised for ever.
///
/// A repeat has the same password, which only its slow hash can tell: so that is compared, and no fast hash is stored. A wrong one counts
/// as a failed login: nobody can try passwords here.
pub async fn register(app: &App, caller: &Caller, asked: Keyed<Register>) -> Result<Answer<User>, Error> {
    // Nobody has proved anything yet: the key belongs to the address.
    let call = Key::new(&format!("register:{}", asked.command.email), METHOD, asked.key.request_id);
    in_turn(app, &call, register_or_find(app, caller, &call, &asked)).await
}

async fn register_or_find(
    app: &App,
    caller: &Caller,
    call: &Key,
    asked: &Keyed<Register>,
) -> Result<Answer<User>, Error> {
    if let Some(answer) = registered(app, call, asked).await? {
        return Ok(answer);
    }
    let password_hash = app.hasher.hash(asked.command.password.clone()).await?;
    match retrying(Error::is_conflict, || register_once(app, caller, call, asked, &password_hash)).await? {
        Some(user) => {
            app.relay.wake();
            Ok(Answer::fresh(user))
        }
        // Another was faster: perhaps a repeat of this very call.
        None => registered(app, call, asked).await?.ok_or_else(|| Error::UserExists(asked.command.email.clone())),
    }
}

/// The answer, if the address has an account: of the first time if this is a repeat, else an error.
async fn registered(app: &App, call: &Key, asked: &Keyed<Register>) -> Result<Option<Answer<User>>, Error> {
    let Keyed { key, command } = asked;
    let mut tx = app.db.read().await?;
    let Some(account) = store::account_by_email(&mut tx, &command.email).await? else { return Ok(None) };
    if account.origin.request_id != key.request_id {
        return Err(Error::UserExists(command.email.clone()));
    }
    let answered = given(&mut tx, call, key).await?;
    tx.rollback().await?;
    let same = account.origin.fingerprint == key.fingerprint
        && proves(app, command.email.as_str(), Some(account.password_hash), command.password.clone()).await?;
    if !same {
        return Err(Error::KeyReused);
    }
    Ok(Some(Answer::replayed(answered.unwrap_or(account.user))))
}

async fn register_once(
    app: &App,
    caller: &Caller,
    call: &Key,
    asked: &Keyed<Register>,
    password_hash: &PasswordHash,
) -> Result<Option<User>, Error> {
    let now = app.clock.now();
    let Keyed { key, command } = asked;
    let roles = Roles::only(Role::Customer);
    let user = User::new(app.ids.new_id(), command.email.clone(), command.display_name.clone(), roles, now);
    let origin = Origin { request_id: key.request_id, fingerprint: key.fingerprint };
    let account = Account { user, password_hash: password_hash.clone(), origin };
    let mut tx = app.db.write().await?;
    if !store::insert_account(&mut tx, &account).await? {
        return Ok(None);
    }
    let user = account.user;
    tell(app, &mut tx, caller, &user).await?;
    keep(&mut tx, call, key, &user, now).await?;
    tx.commit().await?;
    Ok(Some(user))
}

async fn tell(app: &App, tx: &mut Tx, caller: &Caller, user: &User) -> Result<(), Error> {
    let audited = audit::by(app, caller, Action::Registered, format!("user/{}", user.id), String::new());
    store::append_audit(tx, &audited).await?;
    Ok(outbox::append(tx, &[events::user_registered(user, &app.ids)]).await?)
}
