//! What can be asked of the book, and what it answers.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
pub use souk_proto_common::Answer;
use souk_proto_common::IdempotencyKey;
use uuid::Uuid;

use super::movement::Reason;
use super::names::StockKey;
use super::reservation::{Lines, Reservation};
use super::stock::StockLevel;

/// A change of stock, whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Hold units.
    Reserve(Reserve),
    /// Turn a hold into an allocation.
    Commit(Resolve),
    /// Give units back.
    Release(Resolve),
    /// Book units that came.
    Receive(Receive),
    /// Correct what is there.
    Adjust(Adjust),
    /// End those of these holds that are due.
    Expire(Vec<Uuid>),
}

/// A mutation, with the key that a repeat of it is recognised by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed<C> {
    /// The key.
    pub key: IdempotencyKey,
    /// What is asked for.
    pub command: C,
}

/// See [`Command::Reserve`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// The name of the reservation.
    pub reservation_id: Uuid,
    /// What to hold; not empty.
    pub lines: Lines,
    /// For how long.
    pub ttl: Duration,
}

/// See [`Command::Commit`] and [`Command::Release`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// Which reservation.
    pub reservation_id: Uuid,
    /// How much of it; `None`: all.
    pub lines: Option<Lines>,
}

/// The most changes of reservations of one call.
pub const CHANGES_MAX: usize = 1_000;

/// One of many changes of reservations that are asked for in one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationChange {
    /// What is asked for: a Reserve, a Commit or a Release.
    pub command: Command,
    /// The caller's key, or one made of the name of the reservation.
    pub key: IdempotencyKey,
    /// Whether it is the caller's.
    pub is_callers: bool,
}

/// See [`Command::Receive`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    /// Of what, where.
    pub key: StockKey,
    /// How much came; more than 0.
    pub quantity: i64,
    /// Why.
    pub reason: Reason,
    /// The caller's own reference.
    pub reference: String,
}

/// See [`Command::Adjust`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjust {
    /// Of what, where.
    pub key: StockKey,
    /// By how much, or to what.
    pub change: Change,
    /// Why.
    pub reason: Reason,
    /// The caller's own reference.
    pub reference: String,
}

/// By how much, or to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `on_hand += delta`; not 0.
    Delta(i64),
    /// `on_hand = count`, if it has not changed since.
    Count {
        /// Units counted.
        on_hand: i64,
        /// [`Stock::on_hand_version`](super::Stock::on_hand_version) when the count began.
        etag: i64,
    },
}

/// The actor of what the service does by itself: holds that ran out are ended by it, in whosever way they were.
pub const SELF: &str = "service:inventory";

/// Who asks, when, and under which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// A user's id, or the name of a service.
    pub actor: String,
    /// None for what the service does by itself.
    pub key: Option<CallKey>,
    /// The moment at which the command is decided.
    pub now: DateTime<Utc>,
}

/// The idempotency key of a call, and the RPC that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallKey {
    /// The path of the RPC.
    pub method: &'static str,
    /// Key and fingerprint.
    pub key: IdempotencyKey,
    /// Whether the answer is kept under the key. Else the state of the reservation tells a repeat.
    pub is_kept: bool,
}

impl CallKey {
    /// A call of `method` whose answer is kept.
    pub fn new(method: &'static str, key: IdempotencyKey) -> Self {
        Self { method, key, is_kept: true }
    }
}

/// What became of a command. Stored with its key, to be told again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The reservation after it.
    Reservation(Reservation),
    /// The level after it.
    Level(StockLevel),
    /// So many holds were ended.
    Expired(usize),
}
