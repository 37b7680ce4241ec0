//! The use cases, one a file. Each is one transaction, or one command in the transaction of a group.

pub mod cancel_order;
pub mod drive_saga;
pub mod get_order;
pub mod list_orders;
pub mod place_order;
pub mod watch_order;

pub use cancel_order::cancel_order;
pub use get_order::get_order;
pub use list_orders::list_orders;
pub use place_order::place_order;
pub use watch_order::watch_order;

use std::sync::Arc;
use std::time::Duration;

use souk_db::idempotency::Key;
use souk_db::{Db, GroupCommit, InFlight, Turn};
use souk_events::{RelayHandle, Subscription};
use souk_interceptors::{Caller, context};
use souk_runtime::{Clock, Ids, Tracer};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{Limits, SagaConfig};
use crate::domain::{OrderId, UserId};
use crate::error::Error;
use crate::hands::Hands;
use crate::inventory::Inventory;
use crate::store::Head;
use crate::watchers::Watchers;
use drive_saga::FinishBatch;
use place_order::PlaceBatch;

/// What every operation may use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    /// Time.
    pub clock: Clock,
    /// Ids of orders, events and workers.
    pub ids: Ids,
    /// Begins the spans of what is done later.
    pub tracer: Tracer,
    /// The tables.
    pub db: Db,
    /// Where new orders go.
    pub placing: GroupCommit<PlaceBatch>,
    /// Where the answers to steps go.
    pub finishing: GroupCommit<FinishBatch>,
    /// Changes that are running.
    pub in_flight: InFlight<Key>,
    /// The other service.
    pub inventory: Inventory,
    /// Publishes what was committed.
    pub relay: RelayHandle,
    /// Take the events of others.
    pub consumers: Vec<Arc<Subscription>>,
    /// Do what orders owe.
    pub hands: Hands,
    /// Who waits for changes of orders.
    pub watchers: Watchers,
    /// How what orders owe is done.
    pub saga: SagaConfig,
    /// The bounds.
    pub limits: Limits,
    /// The end of the process.
    pub shutdown: CancellationToken,
}

/// The answer to a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The order after it, encoded.
    pub snapshot: Vec<u8>,
    /// It was given before.
    pub replayed: bool,
}

/// Waits until no other call of the key is running in this process.
async fn take_turn(app: &App, caller: &Caller, method: &str, request_id: Uuid) -> Result<Turn<Key>, Error> {
    let until = context::patience(Duration::from_millis(app.limits.duplicate_wait_ms));
    app.in_flight.enter(Key::new(caller.subject(), method, request_id), until).await.ok_or(Error::InProgress)
}

/// Sees any order.
const READ_ALL: &str = "orders.read_all";
/// Cancels any order.
const CANCEL_ALL: &str = "orders.cancel_all";

/// An order that the caller may touch: their own, or any with `scope_for_all`. To everybody else one that is missing and one that is
/// another's look the same.
fn permitted<T>(
    caller: &Caller,
    scope_for_all: &str,
    id: OrderId,
    found: Option<T>,
    owner_of: impl FnOnce(&T) -> UserId,
) -> Result<T, Error> {
    if caller.has_scope(scope_for_all) {
        return found.ok_or(Error::OrderNotFound(id));
    }
    let caller_id = caller.user_id().map(UserId);
    match found {
        Some(order) if Some(owner_of(&order)) == caller_id => Ok(order),
        _ => Err(Error::NotOwner),
    }
}

fn permitted_head(caller: &Caller, id: OrderId, head: Option<Head>) -> Result<Head, Error> {
    permitted(caller, READ_ALL, id, head, |head| head.owner_id)
}
