//! Every failure becomes a status with details, here and nowhere else; and what had no effect is marked as such.

use http::{HeaderValue, Request, Response};
use souk_proto_common::{Failure, Reason, failure};
use tonic::body::Body;
use tonic::{Code, Status};

use super::{context, request_log};
use crate::OUTCOME;
use crate::middleware::{Middleware, Next};

#[derive(Clone)]
pub(super) struct Rescue;

impl<S: Next<Error = Failure>> Middleware<S> for Rescue {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Failure> {
        let context = context(request).clone();
        let mut response = next.call(request).await.unwrap_or_else(|failure| {
            request_log::refused(&context, &failure);
            Status::from(failure).into_http()
        });
        if Status::from_header_map(response.headers()).is_some_and(|status| is_definite(&status)) {
            response.headers_mut().insert(OUTCOME, HeaderValue::from_static("definite"));
        }
        Ok(response)
    }
}

/// Nothing took effect, and the caller can rely on that. Where the database or a peer failed in the middle, or the call was cut off, nobody
/// can.
fn is_definite(status: &Status) -> bool {
    let unknown_by_code =
        matches!(status.code(), Code::Ok | Code::DeadlineExceeded | Code::Cancelled | Code::Internal | Code::Unknown);
    let reason = failure::reason_of(status);
    !unknown_by_code && !matches!(reason, None | Some(Reason::DbUnavailable | Reason::PeerUnavailable))
}
