//! The token that one service proves itself to another with: fetched when it is needed, kept until shortly before it ends.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use souk_runtime::{Clock, Secret};
use tokio::sync::Mutex;
use tonic::body::Body;
use tonic::{Code, Status};

use super::outcome;
use crate::middleware::{Middleware, Next, pass};

/// A token is replaced so long before it ends.
const RENEW_BEFORE: TimeDelta = TimeDelta::seconds(60);

/// An access token, and when it ends.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: Secret,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// Asks for a new token.
pub type TokenSource = Arc<dyn Fn() -> BoxFuture<'static, Result<IssuedToken, Status>> + Send + Sync>;

/// A service's own token. Cheap to clone; clones share the token.
#[derive(Clone)]
pub struct ServiceToken {
    clock: Clock,
    source: TokenSource,
    held: Arc<Mutex<Option<IssuedToken>>>,
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceToken")
    }
}

impl ServiceToken {
    /// A peer does not take it: its key may be gone.
    async fn forget(&self) {
        *self.held.lock().await = None;
    }

    /// A token that comes from `source`.
    pub fn new(clock: Clock, source: TokenSource) -> Self {
        Self { clock, source, held: Arc::default() }
    }

    /// The token that we have, or a new one; whoever comes while it is fetched waits for the same.
    async fn get(&self) -> Result<Secret, Status> {
        let mut held = self.held.lock().await;
        if let Some(issued) = &*held
            && self.clock.now() + RENEW_BEFORE < issued.expires_at
        {
            return Ok(issued.token.clone());
        }
        match (self.source)().await {
            Ok(issued) => Ok(held.insert(issued).token.clone()),
            // What we have is good for a while yet: the user service may be back before it ends.
            Err(failed) => match &*held {
                Some(issued) if self.clock.now() < issued.expires_at => Ok(issued.token.clone()),
                _ => Err(failed),
            },
        }
    }
}

#[derive(Clone)]
pub(super) struct Authenticate {
    token: Option<ServiceToken>,
}

impl Authenticate {
    pub(super) fn new(token: Option<ServiceToken>) -> Self {
        Self { token }
    }
}

impl<S: Next<Error = Status>> Middleware<S> for Authenticate {
    async fn call(&self, mut request: Request<Body>, next: S) -> Result<Response<Body>, Status> {
        if let Some(token) = &self.token {
            let token = token.get().await.map_err(without_token)?;
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| Status::internal("the service token is no header value"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let result = pass(next, request).await;
        if let (Some(token), Ok(response)) = (&self.token, &result)
            && outcome::failed(response).is_some_and(|status| status.code() == Code::Unauthenticated)
        {
            token.forget().await;
        }
        result
    }
}

/// Whatever keeps us from a token, the call itself was not made; our caller can only come again.
fn without_token(status: Status) -> Status {
    let mut unavailable = Status::unavailable("no service token can be had");
    unavailable.set_source(Arc::new(status));
    outcome::mark_definite(&mut unavailable);
    unavailable
}
