//! What Prometheus has of a call: started, handled by code, and how long it took. The handles of every RPC are made at the start.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use souk_proto_common::Method;
use souk_runtime::Kernel;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;

use super::{body, context};
use crate::context::Target;
use crate::middleware::{Middleware, Next};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rpc {
    grpc_service: &'static str,
    grpc_method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "the names of the labels")]
struct Handled {
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

#[derive(Clone)]
pub(super) struct Metrics {
    by_path: Arc<HashMap<&'static str, Arc<Handles>>>,
    other: Arc<Handles>,
}

/// The handles of one RPC.
struct Handles {
    started: Counter,
    seconds: Histogram,
    /// By the number of the code.
    handled: Vec<Counter>,
}

/// 250 microseconds to 8 seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
}

impl Metrics {
    pub(super) fn new(kernel: &Kernel, methods: &[&'static [Method]]) -> Self {
        let started: Family<Rpc, Counter> = kernel.metrics.register("grpc_server_started", "Calls that came in");
        let handled: Family<Handled, Counter> =
            kernel.metrics.register("grpc_server_handled", "Calls that ended, by their code");
        let durations =
            kernel.metrics.register_with("grpc_server_handling_seconds", "From a call's start to its end", || {
                Family::<Rpc, Histogram, fn() -> Histogram>::new_with_constructor(seconds)
            });
        let of_method = |grpc_service, grpc_method| {
            let rpc = Rpc { grpc_service, grpc_method };
            let handled =
                CODES.map(|grpc_code| handled.get_or_create(&Handled { grpc_service, grpc_method, grpc_code }).clone());
            Arc::new(Handles {
                started: started.get_or_create(&rpc).clone(),
                seconds: durations.get_or_create(&rpc).clone(),
                handled: handled.into(),
            })
        };
        let by_path = methods.iter().flat_map(|table| table.iter()).map(|method| {
            let (service, name) = method.service_and_name();
            (method.path, of_method(service, name))
        });
        Self { by_path: Arc::new(by_path.collect()), other: of_method("other", "other") }
    }

    fn handles(&self, target: Target) -> Arc<Handles> {
        target.method().and_then(|method| self.by_path.get(method.path)).unwrap_or(&self.other).clone()
    }
}

impl<S: Next> Middleware<S> for Metrics {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, S::Error> {
        let handles = self.handles(context(request).target);
        handles.started.inc();
        let call = Call { handles, started_at: Instant::now(), ended: false };
        let response = next.call(request).await?;
        Ok(body::observed(response, move |code| call.end(code)))
    }
}

/// A call that counts as CANCELLED if it is dropped before its end.
struct Call {
    handles: Arc<Handles>,
    started_at: Instant,
    ended: bool,
}

impl Call {
    fn end(mut self, code: Code) {
        self.count(code);
    }

    fn count(&mut self, code: Code) {
        self.ended = true;
        self.handles.seconds.observe(self.started_at.elapsed().as_secs_f64());
        if let Some(counter) = self.handles.handled.get(code as usize) {
            counter.inc();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.count(Code::Cancelled);
        }
    }
}

/// The names of the codes, by their numbers.
pub(super) const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
