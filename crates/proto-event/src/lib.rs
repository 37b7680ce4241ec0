//! The contract of `souk.event.v1`: generated messages, client, server, and the table of its RPCs. No logic.

use souk_proto_common::Method;

/// The generated code of `souk.event.v1`.
pub mod v1 {
    tonic::include_proto!("souk.event.v1");
}

/// Every RPC of the contract, with its access rule.
pub const METHODS: &[Method] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// The descriptors of `souk.event.v1` and what it imports, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
