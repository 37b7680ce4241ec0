//! Begins a session.

use souk_db::retrying;

use super::audit::{self, Action};
use super::prove::proves;
use super::refresh_token::issue;
use crate::domain::command::Login;
use crate::domain::{PasswordHash, RefreshToken, Session, User};
use crate::error::Error;
use crate::ops::{App, Tokens};
use crate::store::{self, Account};

/// The first tokens of a session. A wrong password, no account and too many failures of late answer alike, after the same work.
pub async fn login(app: &App, asked: Login) -> Result<(Tokens, User), Error> {
    let account = match &asked.email {
        Some(email) => store::account_by_email(&mut app.db.read_one().await?, email).await?,
        None => None,
    };
    let name = asked.email.as_ref().map_or("", |email| email.as_str());
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    let proved = proves(app, name, hash, asked.password.clone()).await?;
    let account = account.filter(|_| proved).ok_or(Error::InvalidCredentials)?;
    let better = app.hasher.better(&account.password_hash, asked.password).await;
    retrying(Error::is_conflict, || begin_session(app, &account, better.as_ref())).await
}

async fn begin_session(app: &App, account: &Account, better: Option<&PasswordHash>) -> Result<(Tokens, User), Error> {
    let mut tx = app.db.write().await?;
    let user_id = account.user.id;
    if let Some(better) = better {
        store::update_password_hash(&mut tx, user_id, &account.password_hash, better).await?;
    }
    let session = Session::begin(app.ids.new_id(), user_id, &app.session_rules, app.clock.now());
    store::insert_session(&mut tx, &session).await?;
    let audited = audit::by_user(app, user_id, Action::LoggedIn, format!("session/{}", session.id));
    store::append_audit(&mut tx, &audited).await?;
    issue(app, tx, &session, RefreshToken::new(app.ids.random_bytes())).await
}
