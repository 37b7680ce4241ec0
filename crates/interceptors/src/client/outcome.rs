//! Whether a failed call took effect.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use souk_proto_common::{Failure, Reason};
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, ConnectError, Status, TimeoutExpired};

use crate::OUTCOME;

/// What is known of the effect of a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server says so: there was none.
    Definite,
    /// It may have taken effect.
    Unknown,
}

/// What is known of the effect of a call that failed with `status`.
pub fn outcome(status: &Status) -> Outcome {
    of_metadata(status.metadata())
}

fn of_metadata(metadata: &MetadataMap) -> Outcome {
    match metadata.get(OUTCOME).map(MetadataValue::as_bytes) {
        Some(b"definite") => Outcome::Definite,
        _ => Outcome::Unknown,
    }
}

/// The status of a response that has failed before its first message.
pub(super) fn failed(response: &Response<Body>) -> Option<Status> {
    Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
}

/// No answer came: the peer may be down, or gone in the middle, or late by the channel's own timer, which obeys `grpc-timeout` too and may be
/// ahead of ours. Nothing of the cause goes on to our own caller.
pub(super) fn of_transport(error: tonic::transport::Error) -> Status {
    let first: &(dyn Error + 'static) = &error;
    let causes = || std::iter::successors(Some(first), |&error| error.source());
    let mut status = if causes().any(<dyn Error>::is::<TimeoutExpired>) {
        Status::deadline_exceeded("the peer did not answer in time")
    } else {
        Status::unavailable("the peer does not answer")
    };
    if causes().any(was_not_processed) {
        mark_definite(&mut status);
    }
    status.set_source(Arc::new(error));
    status
}

/// Whether the error says that nobody has looked at the request.
fn was_not_processed(error: &(dyn Error + 'static)) -> bool {
    // There is no connection: it was not sent.
    if error.is::<ConnectError>() {
        return true;
    }
    // It was waiting for its turn when the connection ended: it was not sent.
    if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
        return true;
    }
    // The peer has told so: by RST_STREAM with REFUSED_STREAM, or by a GOAWAY whose last stream came before this one (RFC 9113, 6.8 and
    // 8.7). h2 gives the error of a GOAWAY to those streams only; the others end with that of the connection.
    error.downcast_ref::<h2::Error>().is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away() || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)))
    })
}

/// No address of the peer answers: nothing was sent.
pub(super) fn nobody(peer: &'static str, retry_after: Duration) -> Status {
    let message = format!("the {peer} service does not answer");
    let mut status: Status = Failure::unavailable(Reason::PeerUnavailable, message, retry_after).into();
    mark_definite(&mut status);
    status.set_source(Arc::new(Nobody));
    status
}

/// Whether the call failed for want of an address.
pub(super) fn is_nobody(status: &Status) -> bool {
    status.source().is_some_and(<dyn Error>::is::<Nobody>)
}

/// See [`nobody`].
#[derive(Debug)]
struct Nobody;

impl fmt::Display for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no address of the peer answers")
    }
}

impl Error for Nobody {}

pub(super) fn mark_definite(status: &mut Status) {
    status.metadata_mut().insert(OUTCOME, MetadataValue::from_static("definite"));
}
