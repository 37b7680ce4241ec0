//! Every failure becomes a status with details, here and nowhere else; and what tonic itself says in bare words is put into ours.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use souk_proto_common::{Failure, Reason, failure};
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::error;

use super::context;
use crate::OUTCOME;
use crate::context::{CallContext, Target};
use crate::middleware::{Middleware, Next, pass};

#[derive(Clone)]
pub(super) struct Rescue;

impl<S: Next<Error = Failure>> Middleware<S> for Rescue {
    async fn call(&self, request: Request<Body>, next: S) -> Result<Response<Body>, Failure> {
        let context = context(&request).clone();
        match pass(next, request).await {
            Ok(response) => Ok(amended(response, context)),
            Err(failure) => Ok(into_response(failure.into())),
        }
    }
}

fn amended(response: Response<Body>, context: CallContext) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => into_response(ours(status, &context)),
        Some(_) => response,
        // What ends a stream, or breaks off an answer, comes after it.
        None => response.map(|body| Body::new(body.map_frame(move |frame| amended_end(frame, &context)))),
    }
}

fn amended_end(frame: Frame<Bytes>, context: &CallContext) -> Frame<Bytes> {
    let trailers = match frame.into_trailers() {
        Ok(trailers) => trailers,
        Err(data) => return data,
    };
    let failed = Status::from_header_map(&trailers).filter(|status| status.code() != Code::Ok);
    let Some(status) = failed else { return Frame::trailers(trailers) };
    let mut amended = HeaderMap::new();
    match ours(status, context).add_header(&mut amended) {
        Ok(()) => Frame::trailers(amended),
        Err(_) => Frame::trailers(trailers),
    }
}

/// A status with details, whoever made it.
fn ours(status: Status, context: &CallContext) -> Status {
    // Health and reflection have errors of their own, in bare words that their clients know.
    let bare = status.details().is_empty() && context.target != Target::Infrastructure;
    if bare { explained(&status, context).into() } else { status }
}

/// A status that tonic made, not a handler.
fn explained(status: &Status, context: &CallContext) -> Failure {
    let message = status.message();
    match status.code() {
        Code::Unimplemented => Failure::new(Code::Unimplemented, Reason::UnknownMethod, "no such method"),
        Code::OutOfRange | Code::ResourceExhausted if message.contains("message length too large") => Failure::new(
            Code::ResourceExhausted,
            Reason::MessageTooLarge,
            "the message is larger than this method takes",
        ),
        Code::Internal if message.contains("failed to decode Protobuf message") => {
            Failure::new(Code::InvalidArgument, Reason::InvalidFormat, "the message cannot be decoded")
        }
        // A unary call without its message, or a message that ends too early.
        Code::Internal if message.contains("Missing request message") || message.contains("Unexpected EOF") => {
            Failure::new(Code::InvalidArgument, Reason::InvalidFormat, "the message is missing or incomplete")
        }
        Code::Cancelled => Failure::new(Code::Cancelled, Reason::Cancelled, "cancelled"),
        code => {
            error!(call_id = %context.call_id, ?code, message, "a status without a reason");
            Failure::internal(context.call_id.to_string())
        }
    }
}

fn into_response(status: Status) -> Response<Body> {
    let definite = is_definite(&status);
    let mut response = status.into_http();
    if definite {
        response.headers_mut().insert(OUTCOME, HeaderValue::from_static("definite"));
    }
    response
}

/// Nothing took effect, and the caller can rely on that. Where the database or a peer failed in the middle, or the call was cut off, nobody
/// can.
fn is_definite(status: &Status) -> bool {
    let unknown_by_code =
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled | Code::Internal | Code::Unknown);
    let reason = failure::reason_of(status);
    !unknown_by_code && !matches!(reason, None | Some(Reason::DbUnavailable | Reason::PeerUnavailable))
}
