//! Events: what one service tells the others, at least once each, applied once, in order per aggregate.
//!
//! Owns: the outbox, the relay that empties it, the bus, the inbox and dead letters of consumers. Never: what an event means.
//!
//! The way of an event, and what a crash after each step leaves:
//!
//! 1. [`outbox::append`] in the transaction of the change. Both are there, or neither.
//! 2. The [`Relay`] of the service's database reads it and publishes it on the [`Bus`]. Nothing is marked yet: it is published again.
//! 3. A [`Consumer`]'s [`Handler`] runs in a transaction with a row of the inbox. Both are committed, or neither; seen again, the row
//!    tells that it is done.
//! 4. The bus acknowledges; the relay marks the row published. The row stays for a while, so that a lost bus can be refilled
//!    ([`outbox::republish`]).
//!
//! An event that a handler fails at again and again is parked in [`dead_letters`] of the consumer's database, in the transaction of its
//! inbox row, where an operator finds it.
//!
//! Order: an event is published only after all earlier ones of its aggregate were acknowledged, whoever publishes. So a consumer
//! sees the events of an aggregate in the order of their versions; only one that was parked and replayed comes late.

mod bus;
pub mod commands;
mod config;
mod consumer;
pub mod dead_letters;
mod event;
mod grpc;
mod inbox;
mod listener;
mod memory;
mod nats;
pub mod outbox;
mod pause;
mod position;
mod relay;
mod steps;
mod subject;
#[cfg(test)]
mod tests;

pub use bus::{Bus, BusError};
pub use config::{BusConfig, BusTls, StreamConfig};
pub use consumer::{Consumer, ConsumerConfig, Handler, HandlerError, ReplayError, Subscription};
pub use dead_letters::DeadLetter;
pub use event::{DecodeError, Event};
pub use grpc::DeadLetterGrpc;
pub use listener::{Heard, Listener};
pub use memory::MemoryBus;
pub use nats::NatsBus;
pub use relay::{Relay, RelayConfig, RelayHandle};
use souk_db::MigrationSet;
pub use subject::{Pattern, PatternError};

/// The tables of this crate: `outbox`, `inbox` and `dead_letters`. They need those of [`souk_db::MIGRATIONS`].
pub static MIGRATIONS: MigrationSet = MigrationSet {
    name: "events",
    sqlite: &sqlx::migrate!("migrations/sqlite"),
    postgres: &sqlx::migrate!("migrations/postgres"),
};
