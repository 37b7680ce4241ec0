//! What the contracts of all services share: `Money`, `Sku`, `Etag`, the access rule of an RPC, the reasons of errors, and the one way to
//! turn a failure into a `Status` with details.
//!
//! Never: rules of one service, I/O, or anything that knows of a database.

pub mod etag;
pub mod failure;
pub mod idempotency;
pub mod method;
pub mod money;
pub mod page;
pub mod sku;
pub mod time;
pub mod validation;

pub use etag::Etag;
pub use failure::Failure;
pub use idempotency::{Answer, IdempotencyKey, REPLAY_HEADER};
pub use method::{Access, Method, Shape};
pub use money::{Currency, Money};
pub use page::PageToken;
pub use sku::{Sku, SkuError};
pub use v1::Reason;
pub use validation::{Check, FieldError, InvalidRequest};

/// The generated messages of `souk.common.v1`.
pub mod v1 {
    tonic::include_proto!("souk.common.v1");
}

/// `google.rpc.Status` as a message field: the outcome of one row of a stream.
pub mod google_rpc {
    tonic::include_proto!("google.rpc");
}

/// The descriptors of `souk.common.v1` and what it imports, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
