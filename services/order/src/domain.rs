//! Orders as pure types and rules. Never: time of its own, a database, the network.

pub mod commands;
pub mod names;
pub mod order;
pub mod pricing;
pub mod saga;

pub use commands::{CancelOrder, Item, ListOrders, PlaceOrder, WatchOrder};
pub use names::{Etag, OrderId, Sku, UserId};
pub use order::{Canceller, IllegalStep, Order, OrderLine, OrderState};
pub use pricing::{PriceError, Product};
pub use saga::{Attempt, Step, StepKind};
