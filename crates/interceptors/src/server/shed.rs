//! One bound on the calls in flight, and one on the open streams: what is too much is refused before it costs anything.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use souk_proto_common::{Failure, Reason, Shape};
use tokio::sync::Semaphore;
use tonic::body::Body;

use super::{StackConfig, body, context};
use crate::context::Target;
use crate::middleware::{Middleware, Next, pass};

/// When to come again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(super) struct Shed {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Shed {
    pub(super) fn new(config: &StackConfig) -> Self {
        let places = |max: usize| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Self { calls: places(config.calls_max), streams: places(config.streams_max) }
    }
}

impl<S: Next<Error = Failure>> Middleware<S> for Shed {
    async fn call(&self, request: Request<Body>, next: S) -> Result<Response<Body>, Failure> {
        let (places, is_stream) = match context(&request).target {
            Target::Infrastructure => return pass(next, request).await,
            Target::Known(method) if method.shape != Shape::Unary => (&self.streams, true),
            Target::Known(_) | Target::Unknown => (&self.calls, false),
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            return Err(Failure::unavailable(Reason::LoadShed, "the server is busy", RETRY_AFTER));
        };
        let response = pass(next, request).await?;
        // The work of a unary call is done now. A client that does not read its answer must not keep others out.
        Ok(if is_stream { body::observed(response, move |_| drop(place)) } else { response })
    }
}
