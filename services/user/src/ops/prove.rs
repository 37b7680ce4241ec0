//! Proving oneself by a password.

use souk_interceptors::context;

use crate::domain::{Password, PasswordHash};
use crate::error::Error;
use crate::ops::App;

/// Whether `password` is that of `hash`, the one of the account at the address `email`. Without a hash, and after too many failures of late
/// from the same place for the same account: no, after the same work.
pub(super) async fn proves(
    app: &App,
    email: &str,
    hash: Option<PasswordHash>,
    password: Password,
) -> Result<bool, Error> {
    let peer = context::current().and_then(|context| context.peer);
    let attempt = app.throttle.admit(peer, email, app.clock.now());
    let proved = app.hasher.verify(hash.filter(|_| attempt.is_some()), password).await?;
    match attempt {
        Some(attempt) if proved => attempt.succeeded(),
        Some(attempt) => attempt.failed(),
        None => {}
    }
    Ok(proved)
}
