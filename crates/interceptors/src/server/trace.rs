//! Trace and call id: what a log line, an INTERNAL error and a call to another service can be found by.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Request, Response};
use souk_proto_common::Method;
use souk_runtime::server::Peer;
use souk_runtime::{Ids, Kernel};
use tonic::body::Body;
use tracing::{Instrument, info_span};

use crate::caller::Caller;
use crate::context::{CallContext, Target, TraceContext};
use crate::middleware::{Middleware, Next, pass};

/// Health and reflection: not of our contract, and open to anyone.
const INFRASTRUCTURE: [&str; 3] = ["/grpc.health.v1.Health/", "/grpc.reflection.v1.", "/grpc.reflection.v1alpha."];

#[derive(Clone)]
pub(super) struct Trace {
    ids: Ids,
    methods: Arc<HashMap<&'static str, &'static Method>>,
}

impl Trace {
    pub(super) fn new(kernel: &Kernel, methods: &[&'static [Method]]) -> Self {
        let methods = methods.iter().flat_map(|table| table.iter()).map(|method| (method.path, method)).collect();
        Self { ids: kernel.ids.clone(), methods: Arc::new(methods) }
    }

    fn target(&self, path: &str) -> Target {
        if let Some(method) = self.methods.get(path) {
            return Target::Known(method);
        }
        if INFRASTRUCTURE.iter().any(|prefix| path.starts_with(prefix)) {
            Target::Infrastructure
        } else {
            Target::Unknown
        }
    }
}

impl<S: Next> Middleware<S> for Trace {
    async fn call(&self, mut request: Request<Body>, next: S) -> Result<Response<Body>, S::Error> {
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
        let call_id = self.ids.new_id();
        let trace = TraceContext::of_headers(request.headers(), &self.ids);
        let target = self.target(request.uri().path());
        let (service, method) = target.method().map_or(("", ""), Method::service_and_name);
        let span = info_span!(
            "rpc",
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            trace_id = %trace.trace_id(),
            %call_id,
        );
        let context = CallContext {
            call_id,
            trace,
            target,
            peer,
            deadline: None,
            caller: Caller::anonymous(),
            span: span.clone(),
        };
        request.extensions_mut().insert(context);
        pass(next, request).instrument(span).await
    }
}
