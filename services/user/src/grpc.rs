//! The generated traits: accept, call the operation, reply.

mod auth;
mod user;

use souk_proto_common::REPLAY_HEADER;
use tonic::Response;
use tonic::metadata::MetadataValue;

pub use auth::AuthGrpc;
pub use user::UserGrpc;

use crate::domain::command::Answer;

/// The reply, with the header that says if it was given before.
fn reply<T, M>(answer: Answer<T>, message: impl FnOnce(T) -> M) -> Response<M> {
    let mut response = Response::new(message(answer.value));
    if answer.replayed {
        response.metadata_mut().insert(REPLAY_HEADER, MetadataValue::from_static("true"));
    }
    response
}
