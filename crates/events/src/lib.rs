//! Events: from a change in one service's database to an effect in another's, at least once on the way and once in effect.
//!
//! A change and its event commit together ([`outbox`]). The [`Relay`] publishes what was committed, in the order of each aggregate's
//! versions. The [`Bus`] carries it to every [`Consumer`], which commits its effect together with the note that it has seen the event
//! (the inbox), and parks what it cannot handle ([`dead_letters`]). Never: what an event means.

mod bus;
mod consumer;
pub mod dead_letters;
mod event;
pub mod inbox;
pub mod outbox;
mod relay;
mod subject;

pub use bus::{Bus, BusError, Heard, Listener, MemoryBus};
pub use consumer::{Consumer, ConsumerConfig, Handler, HandlerError};
pub use event::Event;
pub use relay::{Relay, RelayConfig};

use souk_db::MigrationSet;

/// The tables of this crate: `outbox`, `inbox` and `dead_letters`.
pub static MIGRATIONS: MigrationSet = MigrationSet {
    name: "events",
    sqlite: &sqlx::migrate!("migrations/sqlite"),
    postgres: &sqlx::migrate!("migrations/postgres"),
};
