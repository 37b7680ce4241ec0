//! A panic of a handler, or of a response body that it left behind, is INTERNAL and a counter.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use http::{Request, Response};
use prometheus_client::metrics::counter::Counter;
use souk_proto_common::Failure;
use souk_runtime::Kernel;
use tonic::body::Body;
use tracing::error;

use super::context;
use crate::middleware::{Middleware, Next};

#[derive(Clone)]
pub(super) struct Panic {
    panics: Counter,
}

impl Panic {
    pub(super) fn new(kernel: &Kernel) -> Self {
        Self { panics: counter(kernel) }
    }
}

/// Handlers that panicked, and response bodies that they left behind.
pub(super) fn counter(kernel: &Kernel) -> Counter {
    kernel.metrics.register("grpc_server_panics", "Handlers that panicked")
}

impl<S: Next<Error = Failure>> Middleware<S> for Panic {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Failure> {
        let call_id = context(request).call_id;
        let Ok(result) = AssertUnwindSafe(next.call(request)).catch_unwind().await else {
            self.panics.inc();
            error!(%call_id, "a handler panicked");
            return Err(Failure::internal(call_id.to_string()));
        };
        result
    }
}
