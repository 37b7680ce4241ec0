//! One bound on the calls in flight, and one on the open streams: what is too much is refused before it costs anything. Whether we are
//! well can always be asked; who wants to be told whenever that changes, or holds a stream of reflection, has so many places for each peer.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use souk_proto_common::{Failure, Reason};
use souk_runtime::server::Places;
use souk_runtime::{Call, Calls, Kernel};
use tokio::sync::Semaphore;
use tonic::body::Body;

use super::arrival::Arrivals;
use super::{StackConfig, body, context};
use crate::context::{CallContext, Target};
use crate::middleware::{Middleware, Next};

/// When to come again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(super) struct Shed {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    observers: Arc<Places>,
    arrivals: Arrivals,
    /// Who asks the process what it is at is shown what holds a place.
    seen: Calls,
}

impl Shed {
    pub(super) fn new(kernel: &Kernel, config: &StackConfig) -> Self {
        let places = |max: usize| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Self {
            calls: places(config.calls_max),
            streams: places(config.streams_max),
            observers: Places::new(config.observers_per_peer_max),
            arrivals: Arrivals::new(config),
            seen: kernel.calls.clone(),
        }
    }
}

impl<S: Next<Error = Failure>> Middleware<S> for Shed {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Failure> {
        let context = context(request);
        let is_stream = context.target.is_stream();
        let peer = context.peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        if let Target::Infrastructure(_) = context.target {
            self.arrivals.watch(request, peer);
            let place = is_stream.then(|| self.observers.take(peer).ok_or_else(busy)).transpose()?;
            let response = next.call(request).await?;
            return Ok(body::observed(response, move |_| drop(place)));
        }
        let places = if is_stream { &self.streams } else { &self.calls };
        let place = places.clone().try_acquire_owned().map_err(|_| busy())?;
        let place = (place, self.seen.enter(|| call(context)));
        if !is_stream {
            self.arrivals.watch(request, peer);
        }
        let response = next.call(request).await?;
        // The work of a unary call is done now. A client that does not read its answer must not keep others out.
        Ok(if is_stream { body::observed(response, move |_| drop(place)) } else { response })
    }
}

pub(super) fn busy() -> Failure {
    Failure::unavailable(Reason::LoadShed, "the server is busy", RETRY_AFTER)
}

fn call(context: &CallContext) -> Call {
    Call {
        rpc: context.target.method().map_or("", |method| method.path),
        call_id: context.call_id,
        trace_id: context.trace.trace_id().to_string(),
        peer: context.peer,
    }
}
