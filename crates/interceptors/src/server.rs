//! The server's side of a call.

mod arrival;
mod auth;
mod authorize;
pub(crate) mod body;
mod config;
mod deadline;
mod explain;
mod metrics;
mod panic;
mod rate_limit;
mod request_log;
mod rescue;
mod shed;
mod trace;

use std::convert::Infallible;

use http::{Request, Response};
use souk_proto_common::{Failure, Method};
use souk_runtime::Kernel;
use tonic::Code;
use tonic::body::Body;
use tower::{Service, ServiceBuilder, ServiceExt};

pub use config::{RateLimit, StackConfig};

use crate::context::CallContext;
use crate::middleware::{Around, Innermost, Whole};
use crate::token::Verifier;

/// A service under its stack.
pub type Stack = Whole<Infallible>;

/// The one stack, outermost first. `methods` are the tables of the contracts that `routes` serve.
pub fn stack<S>(
    kernel: &Kernel,
    methods: &[&'static [Method]],
    verifier: Verifier,
    config: &StackConfig,
    routes: S,
) -> Stack
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let stack = ServiceBuilder::new()
        // every reply belongs to a trace and has a call id, even a refusal
        .layer(Around(trace::Trace::new(kernel, methods)))
        // every reply is counted
        .layer(Around(metrics::Metrics::new(kernel, methods)))
        // every failure of what is below becomes a status with details, here and nowhere else
        .layer(Around(rescue::Rescue))
        // a panic is INTERNAL and a counter, not a dead connection
        .layer(Around(panic::Panic::new(kernel)))
        // one bound on what is in flight; more is refused before it costs anything
        .layer(Around(shed::Shed::new(kernel, config)))
        // nobody works on what nobody waits for
        .layer(Around(deadline::Deadline::new(kernel, config)))
        // who calls
        .layer(Around(auth::Auth::new(verifier)))
        // whether they may: no rule, no entry
        .layer(Around(authorize::Authorize))
        // how often
        .layer(Around(rate_limit::RateLimits::new(kernel, config)))
        // one line a call
        .layer(Around(request_log::RequestLog))
        // what tonic itself says, with a reason
        .layer(Around(explain::Explain))
        .service(Innermost(routes.map_err(|impossible| -> Failure { match impossible {} })));
    Whole::new(stack, |_| unreachable!("rescue leaves no failure"))
}

/// The name of a code, as the wire's documentation has it.
pub(crate) fn code_name(code: Code) -> &'static str {
    metrics::CODES[code as usize]
}

/// The context that `trace` has set.
fn context(request: &Request<Body>) -> &CallContext {
    request.extensions().get().expect("trace is the outermost layer")
}

/// Changes what is known of the call.
fn amend(request: &mut Request<Body>, change: impl FnOnce(&mut CallContext)) {
    let context: &mut CallContext = request.extensions_mut().get_mut().expect("trace is the outermost layer");
    change(context);
}
