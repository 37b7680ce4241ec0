//! The server's stack, layer by layer, over real connections.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod access;
mod deadline;
mod harness;
#[path = "../support/keys.rs"]
mod keys;
mod logs;
mod metrics;
mod panics;
#[path = "../support/probe.rs"]
mod probe;
mod rate_limit;
mod request_log;
mod rescue;
mod shed;
mod streams;
mod trace;
