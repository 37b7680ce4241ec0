//! Whether a failed call took effect.

use std::error::Error;

use http::Response;
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status, TimeoutExpired};

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
    let late = std::iter::successors(Some(first), |&error| error.source()).any(<dyn Error>::is::<TimeoutExpired>);
    let mut status = if late {
        Status::deadline_exceeded("the peer did not answer in time")
    } else {
        Status::unavailable("the peer does not answer")
    };
    status.set_source(std::sync::Arc::new(error));
    status
}
