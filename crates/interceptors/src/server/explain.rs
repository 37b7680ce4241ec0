//! What tonic says in bare words, put into ours. Innermost, so that every layer sees what the caller will.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use souk_proto_common::{Failure, FieldError, InvalidRequest, Reason};
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::error;
use uuid::Uuid;

use super::{body, context};
use crate::context::Target;
use crate::middleware::{Middleware, Next};

#[derive(Clone)]
pub(super) struct Explain;

impl<S: Next<Error = Failure>> Middleware<S> for Explain {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Failure> {
        let (call_id, target) = (context(request).call_id, context(request).target);
        let response = next.call(request).await?;
        // Health and reflection have errors of their own, in bare words that their clients know.
        let is_ours = !matches!(target, Target::Infrastructure(_));
        Ok(if is_ours { explained(response, call_id, target.is_stream()) } else { response })
    }
}

fn explained(response: Response<Body>, call_id: Uuid, is_stream: bool) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if is_bare(&status) => return Status::from(failure(&status, call_id)).into_http(),
        Some(_) => return response,
        None => {}
    }
    // What ends a stream, or breaks off an answer, comes after it.
    let (head, body) = response.into_parts();
    let body = body.map_frame(move |frame| explained_end(frame, call_id));
    if is_stream { Response::from_parts(head, Body::new(body)) } else { body::collected(head, body) }
}

fn explained_end(frame: Frame<Bytes>, call_id: Uuid) -> Frame<Bytes> {
    let trailers = match frame.into_trailers() {
        Ok(trailers) => trailers,
        Err(data) => return data,
    };
    let Some(status) = Status::from_header_map(&trailers).filter(is_bare) else { return Frame::trailers(trailers) };
    let mut explained = HeaderMap::new();
    match Status::from(failure(&status, call_id)).add_header(&mut explained) {
        Ok(()) => Frame::trailers(explained),
        Err(_) => Frame::trailers(trailers),
    }
}

/// A status that tonic made, not a handler.
fn is_bare(status: &Status) -> bool {
    status.code() != Code::Ok && status.details().is_empty()
}

/// What tonic says when a message is not of the form that gRPC, gRPC-Web or protobuf ask for.
const MALFORMED: [&str; 7] = [
    "failed to decode Protobuf message",
    "Missing request message",
    "Unexpected EOF",
    "compressed-flag but no grpc-encoding",
    "invalid compression flag",
    "Error decompressing",
    "tonic-web: ",
];

fn failure(status: &Status, call_id: Uuid) -> Failure {
    let message = status.message();
    let says = |words: &str| message.contains(words);
    match status.code() {
        Code::Unimplemented if says("Content is compressed") => {
            let message = "the message is compressed in a way that is not supported: identity and gzip are";
            Failure::new(Code::Unimplemented, Reason::UnsupportedEncoding, message)
        }
        Code::Unimplemented => Failure::new(Code::Unimplemented, Reason::UnknownMethod, "no such method"),
        Code::OutOfRange | Code::ResourceExhausted
            if says("decoded message length too large") || says("while decompressing message") =>
        {
            let message = "the message is larger than this method takes";
            Failure::new(Code::ResourceExhausted, Reason::MessageTooLarge, message)
        }
        Code::Internal if MALFORMED.into_iter().any(says) => {
            let why = "is missing, incomplete or cannot be decoded";
            InvalidRequest::one(field(message), FieldError::new(Reason::InvalidFormat, why)).into()
        }
        Code::Cancelled => cancelled(),
        // The caller hung up in the middle of its message.
        Code::Unknown if says("error reading a body from connection") => cancelled(),
        code => {
            error!(%call_id, ?code, message, "a status without a reason");
            Failure::internal(call_id.to_string())
        }
    }
}

/// The field that prost could not decode, as far as it says, innermost first: `items.sku` of "failed to decode Protobuf message:
/// OrderItem.sku: PlaceOrderRequest.items: invalid string value". Empty for the message as a whole.
fn field(message: &str) -> String {
    let words = message.split(": ").skip(1);
    let mut path: Vec<&str> = words.map_while(|word| word.split_once('.')).map(|(_, field)| field).collect();
    path.reverse();
    path.join(".")
}

fn cancelled() -> Failure {
    Failure::new(Code::Cancelled, Reason::Cancelled, "cancelled")
}
