//! The trace of the call that is being served goes on; a call that is made for none begins its own.

use http::{Request, Response};
use souk_runtime::{Ids, Kernel};
use tonic::Status;
use tonic::body::Body;

use crate::context::{self, TraceContext};
use crate::middleware::{Middleware, Next, pass};

#[derive(Clone)]
pub(super) struct Propagate {
    ids: Ids,
}

impl Propagate {
    pub(super) fn new(kernel: &Kernel) -> Self {
        Self { ids: kernel.ids.clone() }
    }
}

impl<S: Next<Error = Status>> Middleware<S> for Propagate {
    async fn call(&self, mut request: Request<Body>, next: S) -> Result<Response<Body>, Status> {
        let trace = match context::current() {
            Some(context) => context.trace.child(&self.ids),
            None => TraceContext::new(&self.ids),
        };
        trace.write_to(request.headers_mut());
        pass(next, request).await
    }
}
