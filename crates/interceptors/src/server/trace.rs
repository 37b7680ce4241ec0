//! Trace and call id: what a log line, an INTERNAL error and a call to another service can be found by. The span of the call is the SERVER
//! span of its trace.

use http::{Request, Response};
use souk_proto_common::{Method, Shape};
use souk_runtime::server::Peer;
use souk_runtime::{Ids, Kernel, TraceContext, Tracer, trace};
use tonic::body::Body;
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};
use uuid::Uuid;

use super::body;
use crate::caller::Caller;
use crate::context::{CallContext, Target, position_of};
use crate::middleware::{Middleware, Next};
use crate::rpc::{self, Methods};

/// Health and reflection: not of our contract, and open to anyone. The first that fits.
const INFRASTRUCTURE: [(&str, Shape); 4] = [
    ("/grpc.health.v1.Health/Watch", Shape::ServerStream),
    ("/grpc.health.v1.Health/", Shape::Unary),
    ("/grpc.reflection.v1.", Shape::BidiStream),
    ("/grpc.reflection.v1alpha.", Shape::BidiStream),
];

#[derive(Clone)]
pub(super) struct Trace {
    ids: Ids,
    tracer: Tracer,
    methods: Methods,
}

impl Trace {
    pub(super) fn new(kernel: &Kernel, methods: &[&'static [Method]]) -> Self {
        Self { ids: kernel.ids.clone(), tracer: kernel.tracer.clone(), methods: rpc::by_path(methods) }
    }

    fn target(&self, path: &str) -> Target {
        if let Some(method) = self.methods.get(path) {
            return Target::Known(method);
        }
        let infrastructure = INFRASTRUCTURE.iter().find(|(prefix, _)| path.starts_with(prefix));
        infrastructure.map_or(Target::Unknown, |(_, shape)| Target::Infrastructure(*shape))
    }
}

impl<S: Next> Middleware<S> for Trace {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, S::Error> {
        let peer = request.extensions().get::<Peer>();
        let asked = position_of(request.headers());
        let caller = asked.map(|asked| self.tracer.admit(asked));
        let peer = peer.map(|peer| peer.address.ip());
        let call_id = self.ids.new_id();
        let target = self.target(request.uri().path());
        let (span, trace) = self.begin(caller, target, call_id);
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
        let response = trace::call_scope(trace, call_id, next.call(request)).instrument(span.clone()).await?;
        if !trace.is_sampled() || !self.tracer.is_exporting() {
            return Ok(response);
        }
        Ok(body::observed(response, move |code| span.in_scope(|| rpc::end(&span, code, rpc::is_servers_fault(code)))))
    }
}

impl Trace {
    /// The span of a call. Nobody needs a trace of the orchestrator's questions, unless it asks for one.
    fn begin(&self, caller: Option<TraceContext>, target: Target, call_id: Uuid) -> (Span, TraceContext) {
        let nobody = || matches!(target, Target::Infrastructure(_)).then(|| TraceContext::new(&self.ids));
        let parent = caller.or_else(nobody);
        let path = target.method().map_or("", |method| method.path);
        let (service, method) = target.method().map_or(("", ""), Method::service_and_name);
        let make = || {
            info_span!(
                "rpc",
                %call_id,
                otel.kind = "server",
                otel.name = rpc::name(path),
                otel.status_code = Empty,
                rpc.system.name = "grpc",
                rpc.service = service,
                rpc.method = method,
                rpc.grpc.status_code = Empty,
                error.type = Empty,
            )
        };
        if target.is_stream() { self.tracer.span(parent, make) } else { self.tracer.call_span(parent, make) }
    }
}
