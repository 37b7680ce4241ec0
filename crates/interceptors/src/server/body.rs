//! The response body of a call: what goes on after the handler has returned. The answer to a unary call is there as a whole by then, so
//! that nobody need watch it leave.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::response::Parts;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use prometheus_client::metrics::counter::Counter;
use souk_proto_common::{Failure, Reason};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::error;

use crate::context::{self, CallContext};

/// How the answer ends: an extension of a response that is all there.
#[derive(Clone, Copy)]
struct Ended(Code);

/// The answer to a unary call. tonic encodes its message when it is asked for: asked here, it is all there, and its end is known before it
/// leaves. No layer puts it into a box of its own, and its deadline needs no timer: of what the stack costs, driven
/// alone, 0.7 is left.
pub(super) fn collected<B>(mut head: Parts, mut body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Send + Unpin + 'static,
{
    let mut frames = [None, None];
    let mut end = None;
    for frame in &mut frames {
        let Some(Some(next)) = body.frame().now_or_never() else { break };
        end = next.as_ref().ok().and_then(|next| next.trailers_ref()).map(code_of_trailers);
        *frame = Some(next);
    }
    let Some(code) = end else {
        let rest = Some(Body::new(body));
        return Response::from_parts(head, Body::new(Collected { frames, rest }));
    };
    head.extensions.insert(Ended(code));
    Response::from_parts(head, Body::new(Collected { frames, rest: None }))
}

/// What there is of an answer: a message and its trailers, as a rule.
struct Collected {
    frames: [Option<Result<Frame<Bytes>, Status>>; 2],
    /// What was not there at once.
    rest: Option<Body>,
}

impl http_body::Body for Collected {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = self.frames.iter_mut().find_map(Option::take) {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.iter().all(Option::is_none) && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }
}

/// Calls `on_end` once with the code that the call ended with: at the end of the body, or where the body is dropped before, CANCELLED, or
/// INTERNAL if it has panicked.
pub(crate) fn observed(response: Response<Body>, on_end: impl FnOnce(Code) + Send + 'static) -> Response<Body> {
    if let Some(code) = end_of(&response) {
        on_end(code);
        return response;
    }
    response.map(|body| Body::new(Observed { body, on_end: Some(Box::new(on_end)), polling: false }))
}

/// How the response ends, if that is known: it is all there, or has no body, and its status in the headers.
fn end_of(response: &Response<Body>) -> Option<Code> {
    let ended = response.extensions().get().map(|Ended(code)| *code);
    ended.or_else(|| code_of(response.headers()))
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

fn code_of_trailers(trailers: &HeaderMap) -> Code {
    code_of(trailers).unwrap_or(Code::Unknown)
}

struct Observed {
    body: Body,
    on_end: Option<Box<dyn FnOnce(Code) + Send>>,
    /// Set while the body is polled; it stays so if that panics.
    polling: bool,
}

impl Observed {
    fn end(&mut self, code: Code) {
        if let Some(on_end) = self.on_end.take() {
            on_end(code);
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.end(if self.polling { Code::Internal } else { Code::Cancelled });
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.polling = true;
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.polling = false;
        let frame = ready!(frame);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.end(code_of_trailers(trailers));
                }
            }
            Some(Err(status)) => self.end(status.code()),
            None => self.end(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body as a part of the call: polled in its span and under its context, ended at its deadline, and a panic in it is a status and not a dead
/// connection.
pub(super) fn guarded(
    response: Response<Body>,
    context: CallContext,
    panics: Counter,
    until: Option<WaitForCancellationFutureOwned>,
) -> Response<Body> {
    if end_of(&response).is_some() {
        return response;
    }
    let deadline = context.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
    let until = until.map(Box::pin);
    response.map(|body| Body::new(Guarded { body, context, deadline, panics, until, ended: false }))
}

struct Guarded {
    body: Body,
    context: CallContext,
    deadline: Option<Pin<Box<Sleep>>>,
    panics: Counter,
    /// The end of the server, for what would not end by itself.
    until: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    ended: bool,
}

impl Guarded {
    /// The last frame: a status in place of what would have come.
    fn end_with(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        self.body = Body::empty(); // whatever made it stops here
        let mut trailers = HeaderMap::new();
        if let Err(status) = Status::from(failure).add_header(&mut trailers) {
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let span = self.context.span.clone();
        let _in_span = span.enter();
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let failure = super::deadline::exceeded(self.context.target);
            return self.end_with(failure);
        }
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            let again = Duration::from_millis(100);
            return self.end_with(Failure::unavailable(Reason::ShuttingDown, "the server is going away", again));
        }
        let context = self.context.clone();
        let body = &mut self.body;
        let poll = AssertUnwindSafe(|| context::sync_scope(context, || Pin::new(body).poll_frame(cx)));
        if let Ok(frame) = std::panic::catch_unwind(poll) {
            return frame;
        }
        self.panics.inc();
        error!(call_id = %self.context.call_id, "a response body panicked");
        let call_id = self.context.call_id.to_string();
        self.end_with(Failure::internal(call_id))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}
