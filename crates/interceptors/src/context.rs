//! What is known of the call that is being served: by request extension, and by task for whatever it calls in turn.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use souk_proto_common::{Failure, Method};
use souk_runtime::{Ids, story};
use tokio::time::Instant;
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
    /// What its logs stand in.
    pub(crate) span: Span,
}

/// Which RPC a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One of the contract.
    Known(&'static Method),
    /// Health or reflection: open to anyone, never shed, as orchestrators and tools need them.
    Infrastructure,
    /// None that we have.
    Unknown,
}

impl Target {
    /// The RPC of the contract.
    pub fn method(self) -> Option<&'static Method> {
        match self {
            Self::Known(method) => Some(method),
            Self::Infrastructure | Self::Unknown => None,
        }
    }
}

/// The call that this task is serving, if it is serving one.
pub fn current() -> Option<CallContext> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The deadline of the call that this task is serving.
pub fn deadline() -> Option<Instant> {
    CURRENT.try_with(|context| context.deadline).ok().flatten()
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

/// Runs `future` as part of the call.
pub async fn scope<F: Future>(context: CallContext, future: F) -> F::Output {
    CURRENT.scope(context, future).await
}

/// Runs `f` as part of the call.
pub(crate) fn sync_scope<T>(context: CallContext, f: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(context, f)
}

/// A position in a trace, as W3C Trace Context has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
}

/// <https://www.w3.org/TR/trace-context/>
const TRACEPARENT: &str = "traceparent";

impl TraceContext {
    /// A new trace.
    pub fn new(ids: &Ids) -> Self {
        let span_id = u64::from_be_bytes(ids.random_bytes());
        Self { trace_id: u128::from_be_bytes(ids.random_bytes()), span_id, sampled: false }
    }

    /// A new span in the trace of the caller, or in a new one.
    pub fn of_headers(headers: &HeaderMap, ids: &Ids) -> Self {
        match headers.get(TRACEPARENT).and_then(|value| Self::parse(value.to_str().ok()?)) {
            Some(parent) => parent.child(ids),
            None => Self::new(ids),
        }
    }

    /// A new span in the same trace.
    #[must_use]
    pub fn child(self, ids: &Ids) -> Self {
        Self { span_id: u64::from_be_bytes(ids.random_bytes()), ..self }
    }

    /// `00-<trace id>-<span id>-<flags>`; `None` for what is not so.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let well_formed = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
        if !well_formed || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        Some(Self { trace_id, span_id, sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1 })
    }

    /// The trace, in 32 hexadecimal digits.
    pub fn trace_id(self) -> impl fmt::Display {
        std::fmt::from_fn(move |f| write!(f, "{:032x}", self.trace_id))
    }

    /// Puts the position into the headers of a call to another service.
    pub(crate) fn write_to(self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(&self.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use souk_runtime::Clock;

    use super::*;

    #[test]
    fn a_trace_goes_on_with_a_new_span() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = TraceContext::parse(text).unwrap();
        assert_eq!(parent.to_string(), text);
        let child = parent.child(&Ids::seeded(Clock::system(), 1));
        assert_eq!(child.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(child.to_string(), text);
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        let bad = [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ];
        for text in bad {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }
}
