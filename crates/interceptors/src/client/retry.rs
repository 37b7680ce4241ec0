//! Again, where that cannot do harm.
//!
//! A status that a Souk server marked as definite had no effect: UNAVAILABLE is tried again. Any other failure of the transport may have
//! had one: it is tried again only where repeating is harmless, that is for reads and under an idempotency key. Everything else, and all
//! streams, go back to the caller. Never past the deadline, and never beyond the budget. Each try goes to another address, as long as there
//! is one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use prometheus_client::metrics::counter::Counter;
use souk_proto_common::{Method, Shape};
use souk_runtime::{Ids, Kernel};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tracing::debug;

use super::ClientConfig;
use super::balance::Tried;
use super::deadline::{self, AnswerBy};
use super::outcome::{self, Outcome, outcome};
use crate::context;
use crate::middleware::{Middleware, Next};
use crate::rpc::{self, Methods};

/// A larger request is not sent: it could not be kept for a second try, and no method of ours takes one.
const BODY_BYTES_MAX: usize = 4 * 1_024 * 1_024;

#[derive(Clone)]
pub(super) struct Retry {
    ids: Ids,
    methods: Methods,
    tries_max: u32,
    backoff: Duration,
    budget: Arc<Mutex<Budget>>,
    retries: Counter,
}

impl Retry {
    /// `retries` counts them.
    pub(super) fn new(kernel: &Kernel, config: &ClientConfig, methods: &[&'static [Method]], retries: Counter) -> Self {
        Self {
            ids: kernel.ids.clone(),
            methods: rpc::by_path(methods),
            tries_max: config.tries_max,
            backoff: Duration::from_millis(config.backoff_ms),
            budget: Arc::new(Mutex::new(Budget::new(config.retry_budget_percent))),
            retries,
        }
    }

    fn may_retry(&self, method: &Method, failure: &Status) -> bool {
        // It is known that nobody answers, and it is tried again by others: whoever calls learns of it at once.
        if outcome::is_nobody(failure) {
            return false;
        }
        let harmless = match outcome(failure) {
            Outcome::Definite => failure.code() == Code::Unavailable,
            Outcome::Unknown => method.repeatable() && matches!(failure.code(), Code::Unavailable | Code::Unknown),
        };
        harmless && self.budget().take()
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Full jitter, so that those who failed together do not come again together; but not before the server asked for.
    fn pause(&self, attempt: u32, failure: &Status) -> Duration {
        let backoff =
            self.backoff.saturating_mul(2_u32.saturating_pow(attempt - 1)).mul_f64(self.ids.random_fraction());
        let asked = failure.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
        backoff.max(asked)
    }
}

impl<S: Next<Error = Status>> Middleware<S> for Retry {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Status> {
        let by = request.extensions().get::<AnswerBy>().map_or_else(Instant::now, |by| by.0);
        let method = self.methods.get(request.uri().path()).copied();
        let Some(method) = method.filter(|method| method.shape == Shape::Unary) else {
            // A stream that is made for no call may last; one that is made for a call ends with it.
            if context::deadline().is_some() {
                request.headers_mut().insert("grpc-timeout", deadline::header(by));
            }
            return next.call(request).await;
        };
        let (mut parts, body) = std::mem::take(request).into_parts();
        parts.extensions.insert(Tried::default());
        let collected = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body: Bytes = collected.map_err(|_| Status::resource_exhausted("the request is too large"))?.to_bytes();
        self.budget().deposit();
        let mut attempt = 1;
        loop {
            let mut request = Request::from_parts(
                parts.clone(),
                Body::new(Full::new(body.clone()).map_err(|impossible| match impossible {})),
            );
            request.headers_mut().insert("grpc-timeout", deadline::header(by));
            let result = next.call(&mut request).await;
            let failure = match &result {
                Ok(response) => outcome::failed(response),
                Err(status) => Some(status.clone()),
            };
            let Some(failure) = failure else { return result };
            if attempt >= self.tries_max || !self.may_retry(method, &failure) {
                return result;
            }
            let pause = self.pause(attempt, &failure);
            if pause >= by.saturating_duration_since(Instant::now()) {
                return result;
            }
            self.retries.inc();
            debug!(method = method.path, attempt, code = ?failure.code(), "trying again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}

/// Retries that are allowed: a share of the calls, and a few to begin with. Counted in hundredths of a retry: a sum of fractions
/// would not come out even.
struct Budget {
    share: u32,
    left: u32,
}

impl Budget {
    const RETRY: u32 = 100;
    const MAX: u32 = 100 * Self::RETRY;
    const FIRST: u32 = 10 * Self::RETRY;

    fn new(percent: u32) -> Self {
        Self { share: percent, left: if percent == 0 { 0 } else { Self::FIRST } }
    }

    fn deposit(&mut self) {
        self.left = self.left.saturating_add(self.share).min(Self::MAX);
    }

    fn take(&mut self) -> bool {
        let left = self.left.checked_sub(Self::RETRY);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_calls() {
        let mut budget = Budget::new(20);
        assert_eq!((0..100).filter(|_| budget.take()).count(), 10);
        (0..100).for_each(|_| budget.deposit());
        assert_eq!((0..100).filter(|_| budget.take()).count(), 20);
        assert!(!Budget::new(0).take());
    }
}
