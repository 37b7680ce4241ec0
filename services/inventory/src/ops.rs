//! The use cases, one a file. Each is one transaction, or one command in the transaction of a group.

pub mod adjust_stock;
pub mod batch_get_products;
pub mod batch_get_stock;
pub mod change_reservations;
pub mod change_stock;
pub mod commit_reservation;
pub mod create_product;
pub mod expire_holds;
pub mod forget_keys;
pub mod get_product;
pub mod get_stock;
pub mod import_products;
mod keys;
pub mod list_movements;
pub mod list_products;
pub mod receive_stock;
pub mod release_reservation;
pub mod reserve;
pub mod sweep;
pub mod sync_movements;
pub mod update_product;
pub mod watch_stock;

pub use adjust_stock::adjust_stock;
pub use batch_get_products::batch_get_products;
pub use batch_get_stock::batch_get_stock;
pub use change_reservations::change_reservations;
pub use commit_reservation::commit_reservation;
pub use create_product::create_product;
pub use expire_holds::expire_holds;
pub use forget_keys::forget_keys;
pub use get_product::get_product;
pub use get_stock::get_stock;
pub use list_movements::list_movements;
pub use list_products::list_products;
pub use receive_stock::receive_stock;
pub use release_reservation::release_reservation;
pub use reserve::reserve;
pub use sweep::sweep;
pub use sync_movements::sync_movements;
pub use update_product::update_product;
pub use watch_stock::watch_stock;

use std::sync::Arc;

use change_stock::StockBatch;
use souk_db::idempotency::Key;
use souk_db::{Db, GroupCommit, InFlight};
use souk_events::RelayHandle;
use souk_runtime::{Clock, Ids, Remembered};
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::domain::{Product, Sku};
use crate::watchers::Watchers;

/// What every operation may use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    /// Time.
    pub clock: Clock,
    /// Ids of events.
    pub ids: Ids,
    /// The tables.
    pub db: Db,
    /// Where every change of stock goes.
    pub stock: GroupCommit<StockBatch>,
    /// Products as they were a moment ago. For reading alone: whoever changes one reads the tables.
    pub products: Remembered<Sku, Arc<Product>>,
    /// Changes of the catalogue that are running, by their key.
    pub in_flight: InFlight<Key>,
    /// Publishes what was committed.
    pub relay: RelayHandle,
    /// Who waits for changes of stock.
    pub watchers: Watchers,
    /// The bounds.
    pub limits: Limits,
    /// The end of the process.
    pub shutdown: CancellationToken,
}
