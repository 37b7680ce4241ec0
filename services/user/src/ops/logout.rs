//! Ends a session.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use souk_db::idempotency::Key;
use souk_db::retrying;

use super::audit::{self, Action};
use super::keyed::{given, in_turn, keep};
use crate::domain::RefreshToken;
use crate::domain::command::{Answer, Keyed, PresentedToken};
use crate::error::Error;
use crate::ops::App;
use crate::store;

const METHOD: &str = "/souk.user.v1.AuthService/Logout";

/// A session that is over, or that we do not know, is no error: there is nothing left to end.
pub async fn logout(app: &App, asked: Keyed<PresentedToken>) -> Result<Answer<()>, Error> {
    let Some(token) = &asked.command.token else { return Ok(Answer::fresh(())) };
    // Whose call it is, the tables know. A repeat has the same token.
    let turn = Key::new(&format!("token:{}", URL_SAFE_NO_PAD.encode(token.hash())), METHOD, asked.key.request_id);
    in_turn(app, &turn, retrying(Error::is_conflict, || logout_once(app, &asked, token))).await
}

async fn logout_once(app: &App, asked: &Keyed<PresentedToken>, token: &RefreshToken) -> Result<Answer<()>, Error> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let Some((session, _)) = store::session_to_change(&mut tx, &token.hash()).await? else {
        return Ok(Answer::fresh(()));
    };
    // Whoever has a token of the session is its user: that is whose key it is.
    let call = Key::new(&format!("session:{}", session.id), METHOD, asked.key.request_id);
    if given::<()>(&mut tx, &call, &asked.key).await?.is_some() {
        return Ok(Answer::replayed(()));
    }
    if store::revoke_session(&mut tx, session.id, now).await? {
        let audited = audit::by_user(app, session.user_id, Action::LoggedOut, format!("session/{}", session.id));
        store::append_audit(&mut tx, &audited).await?;
    }
    keep(&mut tx, &call, &asked.key, &(), now).await?;
    tx.commit().await?;
    Ok(Answer::fresh(()))
}
