//! The gRPC server over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod age;
mod drain;
mod floods;
mod frames;
mod greeting;
mod harness;
mod places;
mod proxy;
mod tls;
mod unread;
