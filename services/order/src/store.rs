//! All SQL of the service. Statements are set-based: their number does not grow with the size of a batch.
//!
//! Locks on PostgreSQL are taken in one order: orders by id, then their steps. Whoever only takes up steps skips what is locked, so nobody
//! waits for them.

mod orders;
mod saga;
mod versions;

use std::fmt::Display;

use souk_db::{Error, MigrationSet};

pub use orders::{NewOrder, Placed, insert_lines, insert_orders, orders_by_key, orders_for_update, update_orders};
pub use saga::{
    Backlog, Finished, NewStep, Postponed, Taken, backlog, claim_steps, drop_step, finish_steps, hasten_steps,
    insert_steps, lock_current, postpone_steps, reservations_of,
};
pub use versions::{
    Head, Listed, Version, current_versions, head, insert_versions, latest, list_orders, versions_after,
};

/// The tables of the service.
pub static MIGRATIONS: MigrationSet = MigrationSet {
    name: "order",
    sqlite: &sqlx::migrate!("migrations/sqlite"),
    postgres: &sqlx::migrate!("migrations/postgres"),
};

/// A row that is not what this service writes.
fn corrupt(what: &str, why: impl Display) -> Error {
    Error::bug(format!("{what}: {why}"))
}
