//! One line a call, also one that was not let in: what, by whom, how it ended and how long it took. No payloads, no headers, no secrets.

use http::{Request, Response};
use souk_proto_common::{Failure, Reason};
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tracing::{debug, info};

use super::metrics::CODES;
use super::{body, context};
use crate::context::{CallContext, Target};
use crate::middleware::{Middleware, Next};

#[derive(Clone)]
pub(super) struct RequestLog;

impl<S: Next<Error = Failure>> Middleware<S> for RequestLog {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Failure> {
        let line = Line { context: context(request).clone(), started_at: Instant::now(), code: None };
        let response = next.call(request).await?;
        Ok(body::observed(response, move |code| line.end(code)))
    }
}

/// The line of a call that was not let in: who it claims to be is not known, or of no matter. What ends a call that was let in (its deadline, a
/// panic) leaves the call's own line.
pub(super) fn refused(context: &CallContext, failure: &Failure) {
    let method = match (context.target, failure.reason()) {
        (_, Reason::DeadlineExceeded | Reason::Internal) | (Target::Infrastructure(_), _) => return,
        // Under more load than we can bear, a line for each would be more of it.
        (_, Reason::LoadShed) => return debug!("call shed"),
        (target, _) => target.method().map_or("unknown", |method| method.path),
    };
    info!(
        method,
        code = CODES[failure.code() as usize],
        reason = failure.reason().wire_name(),
        peer = context.peer.map(tracing::field::display),
        call_id = %context.call_id,
        trace_id = %context.trace.trace_id(),
        "call refused",
    );
}

/// The line of a call: written when it ends, or is dropped before.
struct Line {
    context: CallContext,
    started_at: Instant,
    code: Option<Code>,
}

impl Line {
    fn end(mut self, code: Code) {
        self.code = Some(code);
    }

    /// A call is dropped because it panicked, because it is late, or because its caller has gone.
    fn code(&self) -> Code {
        let late = || self.context.deadline.is_some_and(|deadline| deadline <= Instant::now());
        match self.code {
            None if std::thread::panicking() => Code::Internal,
            None | Some(Code::Cancelled) if late() => Code::DeadlineExceeded,
            code => code.unwrap_or(Code::Cancelled),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let context = &self.context;
        let method = match context.target {
            Target::Known(method) => method.path,
            Target::Infrastructure(_) | Target::Unknown => return debug!("infrastructure call"),
        };
        info!(
            method,
            code = CODES[self.code() as usize],
            micros = u64::try_from(self.started_at.elapsed().as_micros()).unwrap_or(u64::MAX),
            caller = context.caller.subject(),
            call_id = %context.call_id,
            trace_id = %context.trace.trace_id(),
            "call",
        );
    }
}
