//! The rules of the inventory, pure: no clock, no database, no network. What holds here is tested without any of them.
//!
//! [`book::Book`] is the heart: every change of stock is a function on it.

pub mod book;
pub mod command;
mod draft;
pub mod movement;
pub mod names;
pub mod product;
pub mod query;
pub mod refusal;
pub mod reservation;
pub mod stock;

pub use book::Book;
pub use command::{Command, Reply};
pub use names::{Location, Sku, StockKey};
pub use product::Product;
pub use refusal::Refusal;
pub use reservation::Reservation;
pub use stock::{Stock, StockLevel};
