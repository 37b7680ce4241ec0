//! The trace of what this task does goes on; a call that is made for nothing else begins its own. Each try has a CLIENT span of its own.

use http::{Request, Response};
use souk_proto_common::Method;
use souk_runtime::{Kernel, TraceContext, Tracer, trace};
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use crate::context::tell_position;
use crate::middleware::{Middleware, Next};
use crate::rpc::{self, Methods};
use crate::server::body;

#[derive(Clone)]
pub(super) struct Propagate {
    tracer: Tracer,
    methods: Methods,
}

impl Propagate {
    pub(super) fn new(kernel: &Kernel, methods: &[&'static [Method]]) -> Self {
        Self { tracer: kernel.tracer.clone(), methods: rpc::by_path(methods) }
    }

    fn begin(&self, path: &str) -> (Span, TraceContext) {
        let method = self.methods.get(path).copied();
        let path = method.map_or("", |method| method.path);
        let (service, method) = method.map_or(("", ""), Method::service_and_name);
        self.tracer.span(trace::current(), || {
            info_span!(
                "call",
                otel.kind = "client",
                otel.name = rpc::name(path),
                otel.status_code = Empty,
                rpc.system.name = "grpc",
                rpc.service = service,
                rpc.method = method,
                rpc.grpc.status_code = Empty,
                error.type = Empty,
            )
        })
    }
}

impl<S: Next<Error = Status>> Middleware<S> for Propagate {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Status> {
        let (span, position) = self.begin(request.uri().path());
        tell_position(position, request.headers_mut());
        let result = next.call(request).instrument(span.clone()).await;
        if !position.is_sampled() || !self.tracer.is_exporting() {
            return result;
        }
        let end = move |code: Code| span.in_scope(|| rpc::end(&span, code, code != Code::Ok));
        match result {
            Ok(response) => Ok(body::observed(response, end)),
            Err(status) => {
                end(status.code());
                Err(status)
            }
        }
    }
}
