//! The token that one service proves itself to another with: fetched when it is needed, kept until shortly before it ends.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use souk_runtime::{Clock, Secret};
use tokio::sync::Mutex as AsyncMutex;
use tonic::body::Body;
use tonic::{Code, Status};

use super::outcome;
use crate::middleware::{Middleware, Next};

/// A token is replaced so long before it ends.
const RENEW_BEFORE: TimeDelta = TimeDelta::seconds(60);
/// So long after it could not be.
const RENEW_PAUSE: Duration = Duration::from_secs(1);

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
    /// Whoever has it fetches.
    turn: Arc<AsyncMutex<()>>,
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceToken")
    }
}

impl ServiceToken {
    /// A token that comes from `source`.
    pub fn new(clock: Clock, source: TokenSource) -> Self {
        Self { clock, source, held: Arc::default(), turn: Arc::default() }
    }

    /// The token that we have, or a new one; whoever comes while the first is fetched waits for the same. One that ends soon is replaced
    /// beside the calls: it is good as long as it lasts, however long the user service takes.
    async fn get(&self) -> Result<Secret, Status> {
        if let Some(issued) = self.good() {
            if issued.expires_at <= self.clock.now() + RENEW_BEFORE {
                self.renew();
            }
            return Ok(issued.token);
        }
        let _turn = self.turn.lock().await;
        match self.good() {
            Some(issued) => Ok(issued.token),
            None => self.fetch().await,
        }
    }

    /// A peer does not take it: its key may be gone.
    fn forget(&self) {
        *self.held() = None;
    }

    /// Begins to fetch another, if nobody does.
    fn renew(&self) {
        let Ok(turn) = self.turn.clone().try_lock_owned() else { return };
        let token = self.clone();
        tokio::spawn(async move {
            if token.fetch().await.is_err() {
                token.clock.sleep(RENEW_PAUSE).await;
            }
            drop(turn);
        });
    }

    async fn fetch(&self) -> Result<Secret, Status> {
        let issued = (self.source)().await?;
        Ok(self.held().insert(issued).token.clone())
    }

    fn good(&self) -> Option<IssuedToken> {
        self.held().clone().filter(|issued| self.clock.now() < issued.expires_at)
    }

    fn held(&self) -> MutexGuard<'_, Option<IssuedToken>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Status> {
        if let Some(token) = &self.token {
            let token = token.get().await.map_err(without_token)?;
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| Status::internal("the service token is no header value"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let result = next.call(request).await;
        if let (Some(token), Ok(response)) = (&self.token, &result)
            && outcome::failed(response).is_some_and(|status| status.code() == Code::Unauthenticated)
        {
            token.forget();
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
