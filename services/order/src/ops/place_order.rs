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

use chrono::{DateTime, TimeDelta, Utc};
use souk_db::{Batch, Decided, Error as DbError, GroupError, Kind, Tx};
use souk_interceptors::{Caller, context};
use souk_proto_common::{IdempotencyKey, Money};
use souk_runtime::{Clock, failpoint};
use uuid::Uuid;

use super::{Answer, App, take_turn};
use crate::domain::pricing::price;
use crate::domain::{Order, OrderId, OrderLine, PlaceOrder, Sku, StepKind, UserId};
use crate::error::Error;
use crate::events::{self, Record};
use crate::failpoints;
use crate::store::{self, NewOrder, NewStep, Placed};

/// The path of the RPC, for its keys.
pub const METHOD: &str = "/souk.order.v1.OrderService/PlaceOrder";

/// Places the order, or answers as when it was placed.
pub async fn place_order(app: &App, caller: &Caller, command: PlaceOrder) -> Result<Answer, Error> {
    // A service owns no orders.
    let owner_id = UserId(caller.user_id().ok_or(Error::NotOwner)?);
    let key = command.key;
    let _turn = take_turn(app, caller, METHOD, key.request_id).await?;
    if let Some(answer) = known(app, owner_id, &key).await? {
        return Ok(answer);
    }
    let (priced, reservation_id) = match price_and_hold(app, owner_id, &command).await {
        Ok(held) => held,
        // Another replica may have placed this very order meanwhile; its stock may be what we were short of, and the key has its answer.
        Err(refused) if refused.is_refusal() => return known(app, owner_id, &key).await?.ok_or(refused),
        Err(error) => return Err(error),
    };
    failpoint(failpoints::PLACE_AFTER_RESERVE);
    let id = OrderId(app.ids.new_id());
    let order = Order::place(id, owner_id, reservation_id, priced, app.clock.now());
    let answer = store_order(app, NewOrder { order, key }).await?;
    failpoint(failpoints::PLACE_BEFORE_REPLY);
    Ok(answer)
}

/// What was answered under the key.
async fn known(app: &App, owner_id: UserId, key: &IdempotencyKey) -> Result<Option<Answer>, Error> {
    let mut tx = app.db.read().await?;
    let placed = store::orders_by_key(&mut tx, &[(owner_id, key.request_id)]).await?.pop();
    placed.map(|placed| replay(placed, key)).transpose()
}

fn replay(placed: Placed, key: &IdempotencyKey) -> Result<Answer, Error> {
    if placed.key.fingerprint != key.fingerprint {
        return Err(Error::KeyReused);
    }
    Ok(Answer { snapshot: placed.snapshot, replayed: true })
}

type Priced = (Vec<OrderLine>, Money);

/// What the order costs, and the name of its stock.
async fn price_and_hold(app: &App, owner_id: UserId, command: &PlaceOrder) -> Result<(Priced, Uuid), Error> {
    let priced = priced(app, command).await?;
    failpoint(failpoints::PLACE_BEFORE_RESERVE);
    Ok((priced, app.inventory.hold(owner_id, &command.key, &command.items).await?))
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

/// Stores the order with what belongs to it, unless its key is taken.
async fn store_order(app: &App, new: NewOrder) -> Result<Answer, Error> {
    let (key, reservation_id) = (new.key, new.order.reservation_id);
    let traceparent = context::current().map(|context| context.trace.to_string());
    let record = events::record(&new.order, &app.ids, traceparent);
    let submitted = app.placing.submit(Placing::new(new, record), context::deadline()).await;
    failpoint(failpoints::PLACE_AFTER_COMMIT);
    match submitted {
        Ok(Stored::New(snapshot)) => {
            app.relay.wake();
            app.worker.notify_one();
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

/// A new order on its way into the tables.
#[derive(Clone, Debug)]
pub struct Placing {
    new: NewOrder,
    record: Record,
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
    /// When steps are due.
    pub clock: Clock,
    /// A first step should be done within this time.
    pub step_deadline: TimeDelta,
}

impl Batch for PlaceBatch {
    type Command = Placing;
    type Reply = Stored;
    /// A taken key is no refusal: it is answered with what it belongs to.
    type Error = std::convert::Infallible;

    async fn apply(&self, tx: &mut Tx, commands: &[Placing]) -> Result<Decided<Self>, DbError> {
        let orders: Vec<&NewOrder> = commands.iter().map(|placing| &placing.new).collect();
        let stored = store::insert_orders(tx, &orders).await?;
        let is_stored = |placing: &&Placing| stored.contains(&placing.new.order.id);
        events::keep(tx, commands.iter().filter(is_stored).map(|placing| placing.record.clone()).collect()).await?;
        let now = self.clock.now();
        let steps: Vec<NewStep> =
            commands.iter().filter(is_stored).map(|placing| placing.first_step(now + self.step_deadline)).collect();
        store::insert_steps(tx, &steps, now).await?;
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
    /// A new order and its record.
    pub fn new(new: NewOrder, record: Record) -> Self {
        Self { new, record }
    }

    fn first_step(&self, deadline_at: DateTime<Utc>) -> NewStep {
        let traceparent = self.record.event.traceparent.clone();
        NewStep { order_id: self.new.order.id, kind: StepKind::CommitStock, deadline_at, traceparent }
    }

    fn key(&self) -> (UserId, Uuid) {
        (self.new.order.owner_id, self.new.key.request_id)
    }
}
