//! One line a call: what, by whom, how it ended and how long it took. No payloads, no headers, no secrets.

use http::{Request, Response};
use souk_proto_common::Failure;
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tracing::{debug, info};

use super::metrics::CODES;
use super::{body, context};
use crate::context::{CallContext, Target};
use crate::middleware::{Middleware, Next, pass};

#[derive(Clone)]
pub(super) struct RequestLog;

impl<S: Next<Error = Failure>> Middleware<S> for RequestLog {
    async fn call(&self, request: Request<Body>, next: S) -> Result<Response<Body>, Failure> {
        let context = context(&request).clone();
        let started_at = Instant::now();
        let response = pass(next, request).await?;
        Ok(body::observed(response, move |code| log(&context, code, started_at)))
    }
}

fn log(context: &CallContext, code: Code, started_at: Instant) {
    let method = match context.target {
        Target::Known(method) => method.path,
        Target::Infrastructure | Target::Unknown => return debug!("infrastructure call"),
    };
    info!(
        method,
        code = CODES[code as usize],
        micros = u64::try_from(started_at.elapsed().as_micros()).unwrap_or(u64::MAX),
        caller = context.caller.subject(),
        call_id = %context.call_id,
        trace_id = %context.trace.trace_id(),
        "call",
    );
}
