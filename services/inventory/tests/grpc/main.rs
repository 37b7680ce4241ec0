//! The service as its clients see it: real connections to port 0, tokens, streams.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod bad_fields;
mod batch;
mod catalog;
mod harness;
mod raw;
mod stock;
mod streams;
