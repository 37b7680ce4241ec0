//! The client's stack, layer by layer: against a peer that answers as the test says, and from within a call that is being served.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod deadline;
mod peer;
#[path = "../support/probe.rs"]
mod probe;
mod replica;
mod replicas;
mod retry;
mod service_token;
mod tls;
mod trace;
mod unprocessed;
