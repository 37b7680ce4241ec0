//! Cancels an order.
//!
//! The order becomes CANCELLED, its COMMIT_STOCK step is dropped and a RELEASE_STOCK step is left, all in one transaction. A worker may be
//! committing the stock at that very moment. Every interleaving ends with the order CANCELLED and its stock given back:
//!
//! - The commit has not been sent: it never will be (the step is dropped). The release gives the hold back.
//! - It was sent, and reaches the inventory first: the stock is allocated, then given back; a release takes held and allocated units alike.
//! - It was sent, and the release reaches the inventory first: the hold is given back, and the commit that comes late is refused
//!   (RESERVATION_ALREADY_RELEASED), as a reservation that is over never comes back.
//! - Its answer comes back after the cancellation: the worker finds its step dropped and changes nothing ([`super::drive_saga`]).
//! - Its answer is stored before the cancellation: the order is CONFIRMED, which can be cancelled as well; the release gives back what was
//!   allocated. Or it is REJECTED or EXPIRED, and there is nothing to cancel: INVALID_STATE_TRANSITION.
//! - The hold runs out meanwhile: the release finds nothing to give back, and is done.
//!
//! Storing the answer and cancelling both lock the order's row, so they come one after the other.

use souk_db::idempotency::{self, Key, Seen, Stored};
use souk_db::{Tx, all_touched, retrying, together};
use souk_interceptors::{Caller, context};
use souk_runtime::failpoint;

use super::{Answer, App, CANCEL_ALL, permitted, take_turn};
use crate::domain::{CancelOrder, Canceller, Order, StepKind, UserId};
use crate::error::Error;
use crate::store::NewStep;
use crate::{events, failpoints, store};

/// The path of the RPC, for its keys.
pub const METHOD: &str = "/souk.order.v1.OrderService/CancelOrder";

/// Cancels the order, or answers as when it was cancelled under this key.
pub async fn cancel_order(app: &App, caller: &Caller, command: CancelOrder) -> Result<Answer, Error> {
    let _turn = take_turn(app, caller, METHOD, command.key.request_id).await?;
    let (answer, version) = retrying(Error::is_conflict, || try_cancel(app, caller, &command)).await?;
    failpoint(failpoints::CANCEL_AFTER_COMMIT);
    if let Some(version) = version {
        app.relay.wake();
        app.hands.wake();
        app.watchers.tell(command.order_id, version);
    }
    Ok(answer)
}

/// The answer, and the new version if there is one.
async fn try_cancel(app: &App, caller: &Caller, command: &CancelOrder) -> Result<(Answer, Option<i64>), Error> {
    let now = app.clock.now();
    let key = Key::new(caller.subject(), METHOD, command.key.request_id);
    let mut tx = app.db.write().await?;
    // The lock first: a duplicate of another replica waits here, and then finds the key.
    let found = store::orders_for_update(&mut tx, &[command.order_id]).await?.pop();
    match idempotency::find(&mut tx, &key, &command.key.fingerprint).await? {
        Seen::Replay(snapshot) => return Ok((Answer { snapshot, replayed: true }, None)),
        Seen::Reused => return Err(Error::KeyReused),
        Seen::New => {}
    }
    let order = permitted(caller, CANCEL_ALL, command.order_id, found, |order| order.owner_id)?;
    if command.etag.is_some_and(|etag| etag != order.etag()) {
        return Err(Error::OrderChanged { current: order.etag() });
    }
    let cancelled = order.cancel(canceller(caller, &order), now)?;
    let snapshot = save(app, &mut tx, &cancelled).await?;
    let stored = Stored { key, fingerprint: command.key.fingerprint, response: snapshot.clone() };
    idempotency::keep(&mut tx, &[stored], now).await?;
    failpoint(failpoints::CANCEL_BEFORE_COMMIT);
    tx.commit().await?;
    Ok((Answer { snapshot, replayed: false }, Some(cancelled.version)))
}

fn canceller(caller: &Caller, order: &Order) -> Canceller {
    if caller.user_id().map(UserId) == Some(order.owner_id) { Canceller::Owner } else { Canceller::Staff }
}

async fn save(app: &App, tx: &mut Tx, cancelled: &Order) -> Result<Vec<u8>, Error> {
    let now = app.clock.now();
    let traceparent = context::current().map(|context| context.trace.to_string());
    let record = events::record(cancelled, &app.ids, traceparent.clone());
    let snapshot = record.version.snapshot.clone();
    let [versions, events] = events::insert(vec![record]);
    store::drop_step(tx, cancelled.id, StepKind::CommitStock, now).await?;
    let deadline_at = now + super::drive_saga::millis(app.saga.deadline_ms);
    let release =
        NewStep { order_id: cancelled.id, kind: StepKind::ReleaseStock, deadline_at, traceparent, taken: None };
    let orders = store::update_orders(std::slice::from_ref(cancelled));
    let writes = [orders, versions, events, store::insert_steps(&[release], now)];
    let [orders, versions, ..] = together(tx, writes).await?;
    all_touched(orders.min(versions), 1, "an order")?;
    Ok(snapshot)
}
