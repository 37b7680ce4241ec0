//! The working set of one batch: everything that its commands touch, loaded before, saved after. In between, every change of stock is
//! a pure function on it, so the rules can be tested without a database and a hot product costs no round trips.
//!
//! Each command takes effect whole or not at all, in the order given, as if each had a transaction of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::command::{Answer, CallKey, Command, Reply, Stamp};
use super::draft::{Done, Draft};
use super::movement::Movement;
use super::names::{Location, Sku, StockKey};
use super::refusal::Refusal;
use super::reservation::Reservation;
use super::stock::{Stock, StockLevel};

/// Who made a reservation, under which key: kept with it for ever, so that a late repeat is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The caller.
    pub caller: String,
    /// The caller's key.
    pub request_id: Uuid,
    /// What was asked for.
    pub fingerprint: [u8; 32],
}

/// A reservation and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The reservation.
    pub reservation: Reservation,
    /// Where it came from.
    pub origin: Origin,
}

/// Whose key, of which RPC.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnswerKey {
    /// The caller.
    pub caller: String,
    /// The path of the RPC.
    pub method: &'static str,
    /// The caller's key.
    pub request_id: Uuid,
}

/// A reply that was given under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// What was asked for.
    pub fingerprint: [u8; 32],
    /// What was told.
    pub reply: Reply,
}

/// What was there before the batch.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Every record that a command of the batch, or a line of a loaded reservation, names; a record that has no row yet is all zeros. A
    /// record of an unknown product or location is missing here.
    pub stocks: Vec<StockLevel>,
    /// Those of the named locations that do not exist.
    pub unknown_locations: BTreeSet<Location>,
    /// Every reservation that a command names, and the due ones that hold units of a record that a command names.
    pub reservations: Vec<Kept>,
    /// The replies that were given under keys of the batch.
    pub answers: Vec<(AnswerKey, Given)>,
}

/// What the batch did, to be saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The records that changed, as they are now, in order.
    pub stocks: Vec<Changed<StockLevel>>,
    /// The reservations that changed, as they are now, in order.
    pub reservations: Vec<Changed<Kept>>,
    /// New rows of the ledger.
    pub movements: Vec<Movement>,
    /// New replies under keys, in order.
    pub answers: Vec<(AnswerKey, Given)>,
    /// What happened to reservations, in order.
    pub notices: Vec<Notice>,
}

/// What changed, and the version that it had before; 0: it is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// As it is now.
    pub now: T,
    /// What a concurrent transaction must not have moved on from.
    pub version_before: i64,
}

/// Something that happened to a reservation, and the reservation after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Units were set aside.
    Held(Reservation),
    /// They were allocated.
    Committed(Reservation),
    /// Units were given back.
    Released(Reservation),
    /// The hold ran out.
    Expired(Reservation),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    stocks: HashMap<StockKey, Stock>,
    unknown_locations: BTreeSet<Location>,
    reservations: HashMap<Uuid, Kept>,
    /// Holds that may be due, by record, the longest due first.
    due: HashMap<StockKey, Vec<Uuid>>,
    answers: HashMap<AnswerKey, Given>,
    /// With the version before the batch, as below.
    stocks_changed: BTreeMap<StockKey, i64>,
    reservations_changed: BTreeMap<Uuid, i64>,
    answers_new: BTreeSet<AnswerKey>,
    movements: Vec<Movement>,
    notices: Vec<Notice>,
}

impl Book {
    /// Opens the book on what was loaded. `now` decides which holds are due.
    pub fn open(loaded: Loaded, now: DateTime<Utc>) -> Self {
        let mut book = Self {
            stocks: loaded.stocks.into_iter().map(|level| (level.key, level.stock)).collect(),
            unknown_locations: loaded.unknown_locations,
            answers: loaded.answers.into_iter().collect(),
            ..Self::default()
        };
        let mut kept = loaded.reservations;
        kept.sort_by_key(|kept| (kept.reservation.expires_at, kept.reservation.id));
        for kept in kept {
            // One whose lines or records are not all here was made while the batch was loading: it is not there yet, as far as this
            // batch goes. A step of one without lines would move nothing.
            let lines = &kept.reservation.lines;
            if !lines.is_empty() && lines.iter().all(|line| book.stocks.contains_key(&line.key)) {
                book.note_due(&kept.reservation, now);
                book.reservations.insert(kept.reservation.id, kept);
            }
        }
        book
    }

    /// Applies one command. Refused: the book is as before.
    pub fn apply(&mut self, command: &Command, stamp: &Stamp) -> Result<Answer<Reply>, Refusal> {
        let kept = stamp.key.filter(|call| call.is_kept);
        let answer_key = kept.map(|call| (AnswerKey::new(&stamp.actor, &call), call.key.fingerprint));
        if let Some((key, fingerprint)) = &answer_key
            && let Some(given) = self.answers.get(key)
        {
            let same = given.fingerprint == *fingerprint;
            return if same {
                Ok(Answer::replayed(given.reply.clone()))
            } else {
                Err(Refusal::KeyReused("request_id"))
            };
        }
        let mut draft = Draft::new(self, stamp);
        let answer = draft.run(command)?;
        let done = draft.finish();
        self.merge(done);
        if let Some((key, fingerprint)) = answer_key
            && !answer.replayed
        {
            self.answers_new.insert(key.clone());
            self.answers.insert(key, Given { fingerprint, reply: answer.value.clone() });
        }
        Ok(answer)
    }

    /// How many notices there are by now.
    pub fn notices(&self) -> usize {
        self.notices.len()
    }

    /// Closes the book: what is to be saved.
    pub fn close(mut self) -> Changes {
        let stocks = self.stocks_changed.into_iter().filter_map(|(key, version_before)| {
            let stock = *self.stocks.get(&key)?;
            Some(Changed { now: StockLevel { key, stock }, version_before })
        });
        let reservations = self.reservations_changed.into_iter().filter_map(|(id, version_before)| {
            let now = self.reservations.remove(&id)?;
            Some(Changed { now, version_before })
        });
        Changes {
            stocks: stocks.collect(),
            reservations: reservations.collect(),
            movements: self.movements,
            answers: self.answers_new.into_iter().filter_map(|key| self.answers.remove_entry(&key)).collect(),
            notices: self.notices,
        }
    }

    /// The record, or why there is none.
    pub fn stock(&self, key: &StockKey) -> Result<Stock, Refusal> {
        if let Some(stock) = self.stocks.get(key) {
            return Ok(*stock);
        }
        if self.unknown_locations.contains(&key.location) {
            return Err(Refusal::LocationNotFound(key.location.clone()));
        }
        Err(Refusal::ProductsNotFound(vec![key.sku.clone()]))
    }

    /// The reservation of that name.
    pub fn reservation(&self, id: Uuid) -> Option<&Kept> {
        self.reservations.get(&id)
    }

    /// Holds that may be due and have units of `key`.
    pub(super) fn due_on(&self, key: &StockKey) -> &[Uuid] {
        self.due.get(key).map_or(&[], Vec::as_slice)
    }

    /// Products of `keys` that do not exist, each once.
    pub(super) fn unknown_products<'k>(&self, keys: impl Iterator<Item = &'k StockKey>) -> Vec<Sku> {
        let unknown: BTreeSet<&Sku> = keys.filter(|key| !self.stocks.contains_key(key)).map(|key| &key.sku).collect();
        unknown.into_iter().cloned().collect()
    }

    /// The first location of `keys` that does not exist.
    pub(super) fn unknown_location<'k>(&self, mut keys: impl Iterator<Item = &'k StockKey>) -> Option<&'k Location> {
        keys.find(|key| self.unknown_locations.contains(&key.location)).map(|key| &key.location)
    }

    fn note_due(&mut self, reservation: &Reservation, now: DateTime<Utc>) {
        if !reservation.is_due(now) {
            return;
        }
        for line in reservation.lines.iter().filter(|line| line.held > 0) {
            self.due.entry(line.key.clone()).or_default().push(reservation.id);
        }
    }

    fn merge(&mut self, done: Done) {
        for (key, stock) in done.stocks {
            let before = self.stocks.insert(key.clone(), stock);
            self.stocks_changed.entry(key).or_insert(before.map_or(0, |stock| stock.version));
        }
        for (id, kept) in done.reservations {
            let before = self.reservations.insert(id, kept);
            self.reservations_changed.entry(id).or_insert(before.map_or(0, |kept| kept.reservation.version));
        }
        self.movements.extend(done.movements);
        self.notices.extend(done.notices);
    }
}

impl AnswerKey {
    /// The key of `call` as `caller` made it.
    pub fn new(caller: &str, call: &CallKey) -> Self {
        Self { caller: caller.to_owned(), method: call.method, request_id: call.key.request_id }
    }
}

impl Command {
    /// The records that the command names, as far as it names any.
    pub fn keys(&self) -> Vec<&StockKey> {
        match self {
            Self::Reserve(reserve) => reserve.lines.iter().map(|(key, _)| key).collect(),
            Self::Receive(receive) => vec![&receive.key],
            Self::Adjust(adjust) => vec![&adjust.key],
            Self::Commit(_) | Self::Release(_) | Self::Expire(_) => Vec::new(),
        }
    }

    /// The reservations that the command names.
    pub fn reservation_ids(&self) -> &[Uuid] {
        match self {
            Self::Reserve(reserve) => std::slice::from_ref(&reserve.reservation_id),
            Self::Commit(resolve) | Self::Release(resolve) => std::slice::from_ref(&resolve.reservation_id),
            Self::Expire(ids) => ids,
            Self::Receive(_) | Self::Adjust(_) => &[],
        }
    }
}
