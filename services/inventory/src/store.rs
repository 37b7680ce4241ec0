//! All SQL of the service. Statements are set-based: their number does not grow with the size of a batch.

mod book;
pub mod invariants;
mod movements;
mod products;
mod stock;

use std::fmt::Display;

use souk_db::{Error, MigrationSet};

pub use book::{due_among, load, save};
pub use movements::list_movements;
pub use products::{
    SavedProduct, insert_product, list_products, product, product_to_change, products, products_to_change,
    save_products, update_product,
};
pub use stock::{due_reservations, known_skus, levels, unknown_locations};

/// The tables of the inventory.
pub static MIGRATIONS: MigrationSet = MigrationSet {
    name: "inventory",
    sqlite: &sqlx::migrate!("migrations/sqlite"),
    postgres: &sqlx::migrate!("migrations/postgres"),
};

/// A row that is not what this service writes.
fn corrupt(what: &str, why: impl Display) -> Error {
    Error::bug(format!("{what}: {why}"))
}
