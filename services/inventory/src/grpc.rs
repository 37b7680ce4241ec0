//! The generated traits: accept, call the operation, reply.

mod batch;
mod catalog;
mod import;
mod stock;
mod sync;

use souk_interceptors::Caller;
use tonic::Request;

pub use catalog::CatalogGrpc;
pub use stock::StockGrpc;

/// Who opens a stream.
fn caller_of<T>(request: &Request<T>) -> Caller {
    request.extensions().get().cloned().unwrap_or_default()
}
