//! Ends a session.

use super::audit::{self, Action};
use super::keyed::{call, given, keep};
use crate::domain::RefreshToken;
use crate::domain::command::{Answer, Keyed, Logout};
use crate::error::Error;
use crate::ops::App;
use crate::store;
use souk_db::retrying;

const METHOD: &str = "/souk.user.v1.AuthService/Logout";

/// A session that is over, or that we do not know, is no error: there is nothing left to end.
pub async fn logout(app: &App, asked: Keyed<Logout>) -> Result<Answer<()>, Error> {
    match &asked.command.token {
        None => Ok(Answer::fresh(())),
        Some(token) => retrying(Error::is_conflict, || logout_once(app, &asked, token)).await,
    }
}

async fn logout_once(app: &App, asked: &Keyed<Logout>, token: &RefreshToken) -> Result<Answer<()>, Error> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let Some((session, _)) = store::session_to_change(&mut tx, &token.hash()).await? else {
        return Ok(Answer::fresh(()));
    };
    // Whoever has a token of the session is its user: that is whose key it is.
    let call = call(&format!("session:{}", session.id), METHOD, &asked.key);
    if given::<()>(&mut tx, &call, &asked.key).await?.is_some() {
        return Ok(Answer::replayed(()));
    }
    if store::revoke_session(&mut tx, session.id, now).await? {
        let audited = audit::by_user(app, session.user_id, Action::LoggedOut, format!("session/{}", session.id));
        store::append_audit(&mut tx, &audited).await?;
    }
    keep(&mut tx, call, &asked.key, &(), now).await?;
    tx.commit().await?;
    Ok(Answer::fresh(()))
}
