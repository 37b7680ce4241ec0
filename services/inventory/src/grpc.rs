//! The generated traits: accept, call the operation, reply.

mod catalog;
mod import;
mod stock;
mod sync;

use souk_interceptors::Caller;
use souk_proto_common::{REPLAY_HEADER, google_rpc};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

pub use catalog::CatalogGrpc;
pub use stock::StockGrpc;

use crate::domain::command::Answer;

/// The reply, with the header that says if it was given before.
fn reply<T, M>(answer: Answer<T>, message: impl FnOnce(T) -> M) -> Response<M> {
    let mut response = Response::new(message(answer.value));
    if answer.replayed {
        response.metadata_mut().insert(REPLAY_HEADER, MetadataValue::from_static("true"));
    }
    response
}

/// Who opens a stream.
fn caller_of<T>(request: &Request<T>) -> Caller {
    request.extensions().get().cloned().unwrap_or_default()
}

/// A status as a field of a message: the outcome of one row of a stream.
fn as_field(status: &Status) -> google_rpc::Status {
    let with_details = <google_rpc::Status as prost::Message>::decode(status.details()).ok();
    // A status without details has no bytes, which are a message of code 0.
    with_details.filter(|decoded| decoded.code != 0).unwrap_or_else(|| without_details(status))
}

fn without_details(status: &Status) -> google_rpc::Status {
    google_rpc::Status { code: status.code().into(), message: status.message().to_owned(), details: Vec::new() }
}
