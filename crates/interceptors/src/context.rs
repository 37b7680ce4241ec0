//! What is known of the call that is being served: by request extension, and by task for whatever it calls in turn.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use souk_db::Kind;
use souk_proto_common::{Failure, Method, Reason, Shape};
pub use souk_runtime::TraceContext;
use souk_runtime::{deadline, story, trace};
use tokio::time::Instant;
use tonic::Code;
use tracing::Span;
use uuid::Uuid;

use crate::caller::Caller;

tokio::task_local! {
    static CURRENT: CallContext;
}

/// The call that is being served. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// What the logs have the call under; `google.rpc.RequestInfo.request_id` of an INTERNAL error.
    pub call_id: Uuid,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// Which RPC.
    pub target: Target,
    /// Where it comes from.
    pub peer: Option<IpAddr>,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// Who calls.
    pub caller: Caller,
    /// What its logs stand in; none, if they have the call's ids from its task.
    pub(crate) span: Span,
}

/// Which RPC a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One of the contract.
    Known(&'static Method),
    /// Health or reflection: open to anyone, as orchestrators and tools need them.
    Infrastructure(Shape),
    /// None that we have.
    Unknown,
}

impl Target {
    /// The RPC of the contract.
    pub fn method(self) -> Option<&'static Method> {
        match self {
            Self::Known(method) => Some(method),
            Self::Infrastructure(_) | Self::Unknown => None,
        }
    }

    /// Whether it is open as long as its caller likes.
    pub(crate) fn is_stream(self) -> bool {
        match self {
            Self::Known(method) => method.shape != Shape::Unary,
            Self::Infrastructure(shape) => shape != Shape::Unary,
            Self::Unknown => false,
        }
    }
}

/// The call that this task is serving, if it is serving one.
pub fn current() -> Option<CallContext> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The deadline of the call that this task is serving.
pub fn deadline() -> Option<Instant> {
    deadline::current()
}

/// Until when a call waits for another of the same key: `most` at most, and half of its own time.
pub fn patience(most: Duration) -> Instant {
    let now = Instant::now();
    now + deadline().map_or(most, |by| most.min(by.saturating_duration_since(now) / 2))
}

/// A bug of ours met in the call that is being served: logged here and nowhere else, and what the caller is told of it.
pub fn bug(what: &'static str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let call_id = current().map(|context| context.call_id.to_string()).unwrap_or_default();
    tracing::error!(error = story(error), %call_id, what, "bug");
    Failure::internal(call_id)
}

/// When to come again after a failure of the database, which passes by itself.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A failure of the database met in the call that is being served: logged here and nowhere else, and what the caller is told of it.
pub fn database(error: &souk_db::Error) -> Failure {
    match error.kind() {
        Kind::Unavailable | Kind::Timeout => {
            tracing::warn!(error = story(error), "database does not answer");
            Failure::unavailable(Reason::DbUnavailable, "the database does not answer", RETRY_AFTER)
        }
        Kind::Deadline => Failure::new(Code::DeadlineExceeded, Reason::DeadlineExceeded, "the deadline passed"),
        Kind::Conflict | Kind::Locked => {
            let message = "concurrent changes were in the way; try again";
            Failure::new(Code::Aborted, Reason::SerializationConflict, message).retry_after(RETRY_AFTER)
        }
        Kind::Bug => bug("a statement failed", error),
    }
}

/// Runs `future` as part of the call, and under its deadline. It is at the call's position in the trace already.
pub(crate) async fn scope<F: Future>(context: CallContext, future: F) -> F::Output {
    deadline::scope(context.deadline, CURRENT.scope(context, future)).await
}

/// Runs `f` as part of the call, at its position in the trace, and under its deadline.
pub(crate) fn sync_scope<T>(context: CallContext, f: impl FnOnce() -> T) -> T {
    let (position, call_id, by) = (context.trace, context.call_id, context.deadline);
    trace::sync_call_scope(position, call_id, || deadline::sync_scope(by, || CURRENT.sync_scope(context, f)))
}

/// <https://www.w3.org/TR/trace-context/>
const TRACEPARENT: &str = "traceparent";

/// Where the caller stands, if the headers say so.
pub(crate) fn position_of(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
}

/// Puts the position into the headers of a call to another service.
pub(crate) fn tell_position(position: TraceContext, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::from_str(&position.to_string()) {
        headers.insert(TRACEPARENT, value);
    }
}
