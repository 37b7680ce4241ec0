//! Places an order: prices it, holds its stock, stores it.
//!
//! What a crash after each step leaves, and what the same request finds when it comes again:
//!
//! - before the hold: nothing.
//! - between hold and order: a hold that nobody else knows of. It runs out by itself; until then the repeat gets the same hold (see
//!   [`crate::inventory::Inventory::hold`]), after that a new one.
//! - after the order: the order. The repeat is answered from its row, for ever.
//!
//! When is a hold given back? Only when it is certain that no order will ever be built on it: the key belongs to another order, or storing
//! fails by a fault of ours. Where the caller is invited to try again (too busy, too late, database gone), the hold stays for the repeat to
//! find. Giving it back there would pull it from under a duplicate in another replica that has got the same hold and is just storing the
//! order; and if the outcome is not known, the order may be there.

use std::collections::HashMap;
use std::convert::Infallible;

use souk_db::{Batch, Decided, Error as DbError, GroupError, Kind, Tx, all_touched, detached, together};
use souk_interceptors::Caller;
use souk_proto_common::{IdempotencyKey, Money};
use souk_runtime::{Clock, deadline, failpoint, trace};
use tracing::debug;
use uuid::Uuid;

use super::drive_saga::millis;
use super::{Answer, App, take_turn};
use crate::domain::pricing::price;
use crate::domain::{Order, OrderId, OrderLine, PlaceOrder, Sku, Step, StepKind, UserId};
use crate::error::Error;
use crate::events::{self, Record};
use crate::failpoints;
use crate::hands::{Claimed, Hand};
use crate::inventory::Hold;
use crate::store::{self, NewOrder, NewStep, Placed, Taken};

/// The path of the RPC, for its keys.
pub const METHOD: &str = "/souk.order.v1.OrderService/PlaceOrder";

/// Holds that are made under one key, one after the other, before we give up.
const GENERATIONS_MAX: u32 = 8;

/// Places the order, or answers as when it was placed.
pub async fn place_order(app: &App, caller: &Caller, command: PlaceOrder) -> Result<Answer, Error> {
    // A service owns no orders.
    let owner_id = UserId(caller.user_id().ok_or(Error::NotOwner)?);
    let key = command.key;
    let turn = take_turn(app, caller, METHOD, key.request_id).await?;
    if turn.has_waited()
        && let Some(answer) = known(app, owner_id, &key).await?
    {
        return Ok(answer);
    }
    // Nothing is held for what cannot be stored.
    app.db.check()?;
    let hand = app.hands.one().await;
    let (priced, reservation_id) = match price_and_hold(app, owner_id, &command).await? {
        Way::Held(priced, reservation_id) => (priced, reservation_id),
        Way::Known(answer) => return Ok(answer),
    };
    failpoint(failpoints::PLACE_AFTER_RESERVE);
    let id = OrderId(app.ids.new_id());
    let order = Order::place(id, owner_id, reservation_id, priced, app.clock.now());
    // In a task of its own: were a caller to go away between the commit and its news, the step would be nobody's until its lease runs out.
    let answer = detached(trace::carried(store_order(app.clone(), NewOrder { order, key }, hand))).await?;
    failpoint(failpoints::PLACE_BEFORE_REPLY);
    Ok(answer)
}

type Priced = (Vec<OrderLine>, Money);

/// Where the way of a request leads.
enum Way {
    /// To a new order, at these prices and of this stock.
    Held(Priced, Uuid),
    /// To an answer that was given before.
    Known(Answer),
}

/// Prices the order and holds its stock, unless the key turns out to be known: nobody looks for it as long as all seems new, as that would
/// cost every new order a transaction. Where the first hold is new, there is most likely no order, and storing finds out if there is.
async fn price_and_hold(app: &App, owner_id: UserId, command: &PlaceOrder) -> Result<Way, Error> {
    let key = &command.key;
    let priced = match priced(app, command).await {
        Ok(priced) => priced,
        Err(error) => return known_or(app, owner_id, key, error).await,
    };
    failpoint(failpoints::PLACE_BEFORE_RESERVE);
    for generation in 0..GENERATIONS_MAX {
        let reservation_id = match app.inventory.hold(owner_id, key, &command.items, generation).await {
            Ok(Hold::New(reservation_id)) => return Ok(Way::Held(priced, reservation_id)),
            Ok(Hold::Before(reservation_id)) => Some(reservation_id),
            Ok(Hold::Over) => None,
            Err(error) => return known_or(app, owner_id, key, error).await,
        };
        if let Some(answer) = known(app, owner_id, key).await? {
            return Ok(Way::Known(answer));
        }
        if let Some(reservation_id) = reservation_id {
            return Ok(Way::Held(priced, reservation_id));
        }
        debug!(%owner_id, generation, "a hold is over");
    }
    Err(Error::HoldsExpired)
}

/// The order may be there although it cannot be priced or held: its own stock may be what is short now, and for its answer nobody else is
/// needed.
async fn known_or(app: &App, owner_id: UserId, key: &IdempotencyKey, error: Error) -> Result<Way, Error> {
    if matches!(error, Error::DeadlineExceeded) {
        return Err(error); // there is no time to look
    }
    known(app, owner_id, key).await?.map(Way::Known).ok_or(error)
}

/// What was answered under the key.
async fn known(app: &App, owner_id: UserId, key: &IdempotencyKey) -> Result<Option<Answer>, Error> {
    let mut tx = app.db.read_one().await?;
    let placed = store::orders_by_key(&mut tx, &[(owner_id, key.request_id)]).await?.pop();
    placed.map(|placed| replay(placed, key)).transpose()
}

fn replay(placed: Placed, key: &IdempotencyKey) -> Result<Answer, Error> {
    if placed.key.fingerprint != key.fingerprint {
        return Err(Error::KeyReused);
    }
    Ok(Answer { snapshot: placed.snapshot, replayed: true })
}

async fn priced(app: &App, command: &PlaceOrder) -> Result<Priced, Error> {
    let skus: Vec<Sku> = command.items.iter().map(|item| item.sku.clone()).collect();
    let (lines, total) = price(&command.items, &app.inventory.products(&skus).await?)?;
    let Some(expected) = command.expected_total.filter(|expected| *expected != total) else {
        return Ok((lines, total));
    };
    // The caller may know a newer price than we remember: ask before refusing.
    for sku in &skus {
        app.inventory.prices().forget(sku);
    }
    let (lines, actual) = price(&command.items, &app.inventory.products(&skus).await?)?;
    if actual == expected { Ok((lines, actual)) } else { Err(Error::PriceChanged { expected, actual }) }
}

/// Stores the order with what belongs to it, unless its key is taken, and leaves its first step to `hand`.
async fn store_order(app: App, new: NewOrder, hand: Option<Hand>) -> Result<Answer, Error> {
    let (key, reservation_id) = (new.key, new.order.reservation_id);
    let position = trace::current();
    let step = first_step(&app, new.order.id);
    let traceparent = position.map(|position| position.to_string());
    let record = events::record(&new.order, &app.ids, traceparent.clone());
    let (order_id, kind, deadline_at) = (step.order_id, step.kind, step.deadline_at);
    let taken = hand.as_ref().map(|_| taken_up(&app));
    let step_row = NewStep { order_id, kind, deadline_at, traceparent, taken };
    let submitted = app.placing.submit(Placing { new, record, step: step_row }, deadline::current()).await;
    failpoint(failpoints::PLACE_AFTER_COMMIT);
    match submitted {
        Ok(Stored::New(snapshot)) => {
            app.relay.wake();
            if let Some(hand) = hand {
                app.hands.give(Claimed { step, reservation_id, position }, hand);
            }
            Ok(Answer { snapshot, replayed: false })
        }
        Ok(Stored::Before(placed)) => {
            if placed.reservation_id != reservation_id {
                app.inventory.give_back(reservation_id).await;
            }
            replay(placed, &key)
        }
        Err(GroupError::Db(error)) if error.kind() == Kind::Bug => {
            app.inventory.give_back(reservation_id).await;
            Err(error.into())
        }
        Err(GroupError::Db(error)) => Err(error.into()),
        Err(GroupError::QueueFull) => Err(Error::Busy),
        Err(GroupError::Expired) => Err(Error::DeadlineExceeded),
        Err(GroupError::Rejected(never)) => match never {},
    }
}

/// The first step of an order. Whoever stores it with a hand takes it up as it is stored, so that nobody has to look for it.
fn first_step(app: &App, order_id: OrderId) -> Step {
    let deadline_at = app.clock.now() + millis(app.saga.deadline_ms);
    Step { order_id, kind: StepKind::CommitStock, epoch: 1, attempts: 1, deadline_at }
}

/// That this process has taken it up. If it does not live to do it, the lease runs out, and another does.
fn taken_up(app: &App) -> Taken {
    Taken { holder: app.hands.holder(), lease_until: app.clock.now() + millis(app.saga.lease_ms) }
}

/// A new order on its way into the tables.
#[derive(Clone, Debug)]
pub struct Placing {
    new: NewOrder,
    record: Record,
    step: NewStep,
}

/// What is in the tables under the key of a new order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The order.
    New(Vec<u8>),
    /// Another, which was there before.
    Before(Placed),
}

/// The transaction of a group: new orders, each with its lines, its first version, its first step and its event.
#[derive(Clone, Debug)]
pub struct PlaceBatch {
    /// When rows are written.
    pub clock: Clock,
}

impl Batch for PlaceBatch {
    type Command = Placing;
    type Reply = Stored;
    /// A taken key is no refusal: it is answered with what it belongs to.
    type Error = Infallible;

    async fn apply(&self, tx: &mut Tx, commands: &[Placing]) -> Result<Decided<Self>, DbError> {
        let orders: Vec<&NewOrder> = commands.iter().map(|placing| &placing.new).collect();
        let stored = store::insert_orders(tx, &orders).await?;
        let is_stored = |placing: &&Placing| stored.contains(&placing.new.order.id);
        let new = || commands.iter().filter(is_stored);
        let lines = store::insert_lines(new().map(|placing| &placing.new.order));
        let [versions, events] = events::insert(new().map(|placing| placing.record.clone()).collect());
        let steps: Vec<NewStep> = new().map(|placing| placing.step.clone()).collect();
        let writes = [versions, lines, events, store::insert_steps(&steps, self.clock.now())];
        let [versions, ..] = together(tx, writes).await?;
        all_touched(versions, stored.len(), "an order")?;
        let before = taken(tx, commands.iter().filter(|placing| !is_stored(placing))).await?;
        failpoint(failpoints::PLACE_BEFORE_COMMIT);
        let outcome = |placing: &Placing| {
            if is_stored(&placing) {
                return Ok(Ok(Stored::New(placing.record.version.snapshot.clone())));
            }
            let placed = before.get(&placing.key()).cloned();
            placed
                .map(|placed| Ok(Stored::Before(placed)))
                .ok_or_else(|| DbError::conflict("a key was taken and is free"))
        };
        commands.iter().map(outcome).collect()
    }
}

/// What is stored under the keys of `commands`.
async fn taken<'c>(
    tx: &mut Tx,
    commands: impl Iterator<Item = &'c Placing>,
) -> Result<HashMap<(UserId, Uuid), Placed>, DbError> {
    let keys: Vec<(UserId, Uuid)> = commands.map(Placing::key).collect();
    let placed = store::orders_by_key(tx, &keys).await?;
    Ok(placed.into_iter().map(|placed| ((placed.owner_id, placed.key.request_id), placed)).collect())
}

impl Placing {
    fn key(&self) -> (UserId, Uuid) {
        (self.new.order.owner_id, self.new.key.request_id)
    }
}
