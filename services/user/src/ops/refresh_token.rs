//! Exchanges a refresh token.

use souk_db::{Tx, retrying};

use super::audit::{self, Action};
use crate::domain::command::PresentedToken;
use crate::domain::session::{Exchange, Used};
use crate::domain::{RefreshToken, Session, User};
use crate::error::Error;
use crate::ops::{App, Tokens};
use crate::store;

/// The next tokens of the session. The second use of a token ends the session, and that is committed although it is an error.
pub async fn refresh_token(app: &App, asked: PresentedToken) -> Result<Tokens, Error> {
    let token = asked.token.ok_or(Error::TokenInvalid)?;
    retrying(Error::is_conflict, || exchange_once(app, &token)).await
}

async fn exchange_once(app: &App, token: &RefreshToken) -> Result<Tokens, Error> {
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let found = store::session_to_change(&mut tx, &token.hash()).await?;
    let (session, stored) = found.ok_or(Error::TokenInvalid)?;
    let successor_used = match stored.used {
        Some(used) => store::token_used(&mut tx, &used.successor).await?,
        None => false,
    };
    let next = RefreshToken::new(app.ids.random_bytes());
    let used_now = Used { at: now, successor: next.hash() };
    match session.exchange(&stored, successor_used, &app.session_rules, now) {
        Exchange::Rotate => store::mark_used(&mut tx, &stored.hash, &used_now).await?,
        Exchange::Reissue { void } => {
            // The window counts from the first exchange. The void token stays, so that whoever has it is noticed.
            let at = stored.used.map_or(now, |used| used.at);
            store::mark_used(&mut tx, &stored.hash, &Used { at, ..used_now }).await?;
            store::mark_used(&mut tx, &void, &Used { at: now, successor: void }).await?;
        }
        Exchange::Reused => return Err(end_session(app, tx, &session).await?),
        Exchange::Revoked => return Err(Error::SessionRevoked),
        Exchange::Expired => return Err(Error::TokenExpired),
    }
    let (tokens, _) = issue(app, tx, &session, next).await?;
    Ok(tokens)
}

/// Ends the transaction with the next tokens of the session, for the user with the roles of now.
pub(super) async fn issue(
    app: &App,
    mut tx: Tx,
    session: &Session,
    refresh: RefreshToken,
) -> Result<(Tokens, User), Error> {
    let now = app.clock.now();
    let issued = session.issue(&refresh, &app.session_rules, now);
    store::insert_token(&mut tx, &issued).await?;
    let user = store::user(&mut tx, session.user_id).await?.ok_or(Error::Bug("a session without a user"))?;
    let access = app.issuer.user_token(&user, session.id, now)?;
    tx.commit().await?;
    Ok((Tokens { access, refresh, refresh_expires_at: issued.expires_at, session_id: session.id }, user))
}

async fn end_session(app: &App, mut tx: Tx, session: &Session) -> Result<Error, Error> {
    store::revoke_session(&mut tx, session.id, app.clock.now()).await?;
    let subject = format!("session/{}", session.id);
    let audited = audit::by_system(app, Action::RefreshTokenReused, subject, String::new());
    store::append_audit(&mut tx, &audited).await?;
    tx.commit().await?;
    Ok(Error::RefreshTokenReused)
}
