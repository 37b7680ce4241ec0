//! The first administrator, without whom nobody could make another.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use souk_db::lease;
use souk_events::outbox;
use souk_runtime::Secret;

use super::audit::{self, Action};
use crate::domain::{Email, Password, Role, Roles, User};
use crate::error::Error;
use crate::events;
use crate::ops::App;
use crate::store::{self, Account, Origin};

const LEASE: &str = "user-first-administrator";
const LEASE_TTL: TimeDelta = TimeDelta::seconds(30);

/// An administrator that was just created: to be shown once, and never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct FirstAdministrator {
    /// The address.
    pub email: String,
    /// The password, 144 random bits. It is nowhere else.
    pub password: Secret,
}

impl fmt::Debug for FirstAdministrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FirstAdministrator({})", self.email)
    }
}

/// Creates one, unless there is one; `None`: there is, or another replica is at it.
///
/// It is shown before the commit: a crash in between leaves a password that was shown and does not work, and the next start shows another.
/// The other way round it would leave an administrator whose password nobody knows.
pub async fn create_first_administrator(
    app: &App,
    email: &Email,
    show: impl FnOnce(&FirstAdministrator) -> anyhow::Result<()>,
) -> anyhow::Result<Option<FirstAdministrator>> {
    if !store::administrators_to_change(&mut app.db.write().await?).await?.is_empty() {
        return Ok(None);
    }
    let text = URL_SAFE_NO_PAD.encode(app.ids.random_bytes::<18>());
    let password = Password::choose(&text).map_err(|_| Error::Bug("a random password is too weak"))?;
    let password_hash = app.hasher.hash(password).await?;
    let now = app.clock.now();
    let user = User::new(app.ids.new_id(), email.clone(), "Administrator".into(), Roles::only(Role::Admin), now);
    // Nobody asked for it: no call has this key.
    let origin = Origin { request_id: app.ids.new_id(), fingerprint: [0; 32] };
    let account = Account { user, password_hash, origin };
    let mut tx = app.db.write().await?;
    // Replicas that start at once take turns here.
    let held = lease::acquire(&mut tx, LEASE, app.replica, now, LEASE_TTL).await?;
    if held.is_none() || !store::administrators_to_change(&mut tx).await?.is_empty() {
        return Ok(None);
    }
    if !store::insert_account(&mut tx, &account).await? {
        return Err(Error::UserExists(email.clone()).into());
    }
    let subject = format!("user/{}", account.user.id);
    let audited = audit::by_system(app, Action::FirstAdministratorCreated, subject, String::new());
    store::append_audit(&mut tx, &audited).await?;
    outbox::append(&mut tx, &[events::user_registered(&account.user, &app.ids)]).await?;
    let first = FirstAdministrator { email: email.as_str().to_owned(), password: Secret::new(text) };
    show(&first)?;
    tx.commit().await?;
    Ok(Some(first))
}
