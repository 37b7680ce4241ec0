//! What is left of the caller's time, less a margin: told to the peer, and kept here whatever the peer does.

use std::time::Duration;

use http::{HeaderValue, Request, Response};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use super::ClientConfig;
use crate::context;
use crate::middleware::{Middleware, Next};

#[derive(Clone)]
pub(super) struct Deadline {
    timeout: Duration,
    margin: Duration,
}

/// When the call must be answered: a request extension, for the layers below.
#[derive(Clone, Copy)]
pub(super) struct AnswerBy(pub(super) Instant);

impl Deadline {
    pub(super) fn new(config: &ClientConfig) -> Self {
        Self { timeout: Duration::from_millis(config.timeout_ms), margin: Duration::from_millis(config.margin_ms) }
    }
}

impl<S: Next<Error = Status>> Middleware<S> for Deadline {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Status> {
        let now = Instant::now();
        let by =
            context::deadline().map_or(now + self.timeout, |deadline| deadline.checked_sub(self.margin).unwrap_or(now));
        if by <= now {
            return Err(Status::deadline_exceeded("no time is left for the call"));
        }
        request.extensions_mut().insert(AnswerBy(by));
        let answer = tokio::time::timeout_at(by, next.call(request)).await;
        answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the peer did not answer in time")))
    }
}

/// `grpc-timeout` of one try: what is left now.
pub(super) fn header(by: Instant) -> HeaderValue {
    let left = by.saturating_duration_since(Instant::now()).as_millis().min(99_999_999);
    HeaderValue::from_str(&format!("{left}m")).expect("digits and a letter are a header value")
}
