//! The book against a plain model: long random runs of commands, batch by batch, must be decided alike and leave the same stock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use souk_inventory::domain::book::{AnswerKey, Changes, Given, Kept, Loaded};
use souk_inventory::domain::command::{Adjust, Answer, CallKey, Change, Receive, Reserve, Resolve, Stamp};
use souk_inventory::domain::movement::{Movement, Reason};
use souk_inventory::domain::reservation::{Lines, State};
use souk_inventory::domain::{Book, Command, Location, Refusal, Reply, Sku, Stock, StockKey, StockLevel};
use souk_proto_common::IdempotencyKey;
use uuid::Uuid;

const SKUS: usize = 3;
const RESERVATIONS: u128 = 8;

fn key(index: usize) -> StockKey {
    StockKey::new(Sku::parse(["A", "B", "C", "UNKNOWN"][index]).unwrap(), Location::main())
}

fn at(seconds: u64) -> DateTime<Utc> {
    DateTime::from_timestamp(i64::try_from(seconds).unwrap(), 0).unwrap()
}

/// The tables, as the store would keep them.
#[derive(Default)]
struct Tables {
    stocks: BTreeMap<StockKey, Stock>,
    reservations: BTreeMap<Uuid, Kept>,
    movements: Vec<Movement>,
    answers: BTreeMap<AnswerKey, Given>,
}

impl Tables {
    /// What the store's loader brings: named records, named reservations, due ones on named records, and the records of all of those.
    fn load(&self, batch: &[(Command, Stamp)], now: DateTime<Utc>) -> Loaded {
        let mut keys: BTreeSet<StockKey> = batch.iter().flat_map(|(command, _)| command.keys()).cloned().collect();
        let named: BTreeSet<Uuid> = batch.iter().flat_map(|(command, _)| command.reservation_ids()).copied().collect();
        let touches = |kept: &Kept| kept.reservation.lines.iter().any(|line| line.held > 0 && keys.contains(&line.key));
        let wanted =
            |kept: &&Kept| named.contains(&kept.reservation.id) || (kept.reservation.is_due(now) && touches(kept));
        let reservations: Vec<Kept> = self.reservations.values().filter(wanted).cloned().collect();
        keys.extend(reservations.iter().flat_map(|kept| &kept.reservation.lines).map(|line| line.key.clone()));
        keys.remove(&key(SKUS));
        let level = |key: StockKey| StockLevel { stock: self.stocks.get(&key).copied().unwrap_or_default(), key };
        Loaded {
            stocks: keys.into_iter().map(level).collect(),
            unknown_locations: BTreeSet::new(),
            reservations,
            answers: self.answers.clone().into_iter().collect(),
        }
    }

    fn save(&mut self, changes: Changes) {
        self.stocks.extend(changes.stocks.into_iter().map(|changed| (changed.now.key, changed.now.stock)));
        self.reservations
            .extend(changes.reservations.into_iter().map(|changed| (changed.now.reservation.id, changed.now)));
        self.movements.extend(changes.movements);
        self.answers.extend(changes.answers);
    }
}

/// The plainest thing that could be right: a hold that is due is gone at once, and everything is counted anew each time.
#[derive(Default)]
struct Model {
    on_hand: BTreeMap<StockKey, i64>,
    holds: BTreeMap<Uuid, Hold>,
    answers: BTreeMap<Uuid, (Command, Reply)>,
}

struct Hold {
    state: State,
    expires_at: DateTime<Utc>,
    open: BTreeMap<StockKey, i64>,
    command: Command,
}

impl Model {
    fn pass_time(&mut self, now: DateTime<Utc>) {
        for hold in self.holds.values_mut().filter(|hold| hold.state == State::Held && hold.expires_at <= now) {
            hold.state = State::Expired;
            hold.open.clear();
        }
    }

    fn promised(&self, key: &StockKey) -> i64 {
        self.holds.values().filter_map(|hold| hold.open.get(key)).sum()
    }

    fn on_hand(&self, key: &StockKey) -> i64 {
        self.on_hand.get(key).copied().unwrap_or(0)
    }

    /// Whether the command succeeds; `None` for a replay.
    fn apply(&mut self, command: &Command, id: Uuid, now: DateTime<Utc>) -> Option<bool> {
        self.pass_time(now);
        if let Some((first, _)) = self.answers.get(&id) {
            return if first == command { None } else { Some(false) };
        }
        match command {
            Command::Reserve(reserve) => self.reserve(command, reserve, now),
            Command::Commit(resolve) => Some(self.resolve(resolve, State::Held, true)),
            Command::Release(resolve) => {
                let state = self.holds.get(&resolve.reservation_id).map_or(State::Held, |hold| hold.state);
                let from = if state == State::Committed { State::Committed } else { State::Held };
                Some(self.resolve(resolve, from, false))
            }
            Command::Receive(receive) => Some(self.change(&receive.key, receive.quantity)),
            Command::Adjust(adjust) => match adjust.change {
                Change::Delta(delta) => Some(self.change(&adjust.key, delta)),
                Change::Count { .. } => unreachable!("not generated"),
            },
            Command::Expire(_) => Some(true),
        }
    }

    fn reserve(&mut self, command: &Command, reserve: &Reserve, now: DateTime<Utc>) -> Option<bool> {
        if let Some(hold) = self.holds.get(&reserve.reservation_id) {
            return if hold.state == State::Held && hold.command == *command { None } else { Some(false) };
        }
        let fits = |(key, quantity): (&StockKey, i64)| {
            key.sku.as_str() != "UNKNOWN" && self.on_hand(key) - self.promised(key) >= quantity
        };
        if !reserve.lines.iter().all(fits) {
            return Some(false);
        }
        let open = reserve.lines.iter().map(|(key, quantity)| (key.clone(), quantity)).collect();
        let hold = Hold { state: State::Held, expires_at: now + reserve.ttl, open, command: command.clone() };
        self.holds.insert(reserve.reservation_id, hold);
        Some(true)
    }

    fn resolve(&mut self, resolve: &Resolve, from: State, commit: bool) -> bool {
        let Some(hold) = self.holds.get_mut(&resolve.reservation_id) else { return false };
        let exceeds =
            |lines: &Lines| lines.iter().any(|(key, quantity)| quantity > hold.open.get(key).copied().unwrap_or(0));
        if hold.state != from || resolve.lines.as_ref().is_some_and(exceeds) {
            return false;
        }
        for (key, open) in &mut hold.open {
            let named = resolve.lines.as_ref().map_or(*open, |lines| lines.get(key));
            *open = if commit { named } else { *open - named };
        }
        if commit {
            hold.state = State::Committed;
        } else if hold.open.values().all(|open| *open == 0) {
            hold.state = State::Released;
        }
        true
    }

    fn change(&mut self, key: &StockKey, delta: i64) -> bool {
        let after = self.on_hand(key) + delta;
        if key.sku.as_str() == "UNKNOWN" || after < self.promised(key) {
            return false;
        }
        self.on_hand.insert(key.clone(), after);
        true
    }
}

fn lines() -> impl Strategy<Value = Lines> {
    prop::collection::vec((0..SKUS, 1..6_i64), 1..4)
        .prop_map(|lines| Lines::sum(lines.into_iter().map(|(index, quantity)| (key(index), quantity))).unwrap())
}

fn command() -> impl Strategy<Value = Command> {
    let id = || (1..=RESERVATIONS).prop_map(Uuid::from_u128);
    let resolve = || {
        (id(), prop::option::weighted(0.3, lines()))
            .prop_map(|(reservation_id, lines)| Resolve { reservation_id, lines })
    };
    let any_key = || prop_oneof![9 => 0..SKUS, 1 => Just(SKUS)].prop_map(key);
    let unknown = Lines::sum([(key(0), 1), (key(SKUS), 1)]).unwrap();
    prop_oneof![
        5 => (id(), prop_oneof![20 => lines(), 1 => Just(unknown)], 1..20_u64).prop_map(|(reservation_id, lines, ttl)| {
            Command::Reserve(Reserve { reservation_id, lines, ttl: Duration::from_secs(ttl) })
        }),
        2 => resolve().prop_map(Command::Commit),
        2 => resolve().prop_map(Command::Release),
        3 => (any_key(), 1..20_i64).prop_map(|(key, quantity)| {
            Command::Receive(Receive { key, quantity, reason: Reason::Purchase, reference: String::new() })
        }),
        2 => (any_key(), prop_oneof![-10..0_i64, 1..5_i64]).prop_map(|(key, delta)| {
            let change = Change::Delta(delta);
            Command::Adjust(Adjust { key, change, reason: Reason::Correction, reference: String::new() })
        }),
        1 => prop::collection::vec(id(), 0..4).prop_map(Command::Expire),
    ]
}

/// A command, its key, and how much time passes before its batch.
fn run() -> impl Strategy<Value = Vec<Vec<(Command, u128)>>> {
    prop::collection::vec(prop::collection::vec((command(), 1..60_u128), 1..6), 1..40)
}

fn stamp(command: &Command, id: u128, now: DateTime<Utc>) -> Stamp {
    let mut hasher = DefaultHasher::new();
    format!("{command:?}").hash(&mut hasher);
    let mut fingerprint = [0; 32];
    fingerprint[..8].copy_from_slice(&hasher.finish().to_be_bytes());
    let key = IdempotencyKey { request_id: Uuid::from_u128(1_000 + id), fingerprint };
    let method = "/test";
    let keyed = !matches!(command, Command::Expire(_));
    Stamp { actor: "someone".into(), key: keyed.then_some(CallKey::new(method, key)), now }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_book_decides_as_the_model_does(run in run()) {
        let mut tables = Tables::default();
        let mut model = Model::default();
        for (step, batch) in run.into_iter().enumerate() {
            let now = at(3 * u64::try_from(step).unwrap());
            let batch: Vec<(Command, Stamp)> =
                batch.into_iter().map(|(command, id)| { let stamp = stamp(&command, id, now); (command, stamp) }).collect();
            let mut book = Book::open(tables.load(&batch, now), now);
            for (command, stamp) in &batch {
                let before = book.clone();
                let decided = book.apply(command, stamp);
                let id = stamp.key.map_or_else(Uuid::nil, |call| call.key.request_id);
                let expected = model.apply(command, id, now);
                match (&decided, expected) {
                    (Ok(Answer { replayed: true, value }), None) => {
                        if let Some((_, first)) = model.answers.get(&id) {
                            prop_assert_eq!(value, first);
                        }
                    }
                    (Ok(Answer { replayed: false, value }), Some(true)) => {
                        if stamp.key.is_some() {
                            model.answers.insert(id, (command.clone(), value.clone()));
                        }
                    }
                    (Err(refusal), Some(false)) => {
                        prop_assert_ne!(refusal, &Refusal::Inconsistent);
                        prop_assert_eq!(&book, &before, "a refused command changed the book");
                    }
                    _ => prop_assert!(false, "{command:?}: {decided:?}, expected {expected:?}"),
                }
            }
            tables.save(book.close());
            check(&tables, &model, now)?;
        }
    }
}

/// I1 to I7 and I9 on the tables, and that they say what the model says.
fn check(tables: &Tables, model: &Model, now: DateTime<Utc>) -> Result<(), TestCaseError> {
    for (key, stock) in &tables.stocks {
        prop_assert!(stock.held + stock.allocated <= stock.on_hand && stock.held >= 0 && stock.allocated >= 0);
        prop_assert_eq!(stock.on_hand, model.on_hand(key));
        let (mut held, mut due, mut committed) = (0, 0, 0);
        for kept in tables.reservations.values() {
            for line in kept.reservation.lines.iter().filter(|line| line.key == *key) {
                prop_assert_eq!(line.requested, line.held + line.committed + line.released + line.expired);
                held += line.held;
                committed += line.committed;
                due += if kept.reservation.is_due(now) { line.held } else { 0 };
            }
        }
        prop_assert_eq!((stock.held, stock.allocated), (held, committed));
        prop_assert_eq!(held - due + committed, model.promised(key));
        let ledger: Vec<&Movement> = tables.movements.iter().filter(|movement| movement.key == *key).collect();
        prop_assert!(ledger.iter().zip(1..).all(|(movement, seq)| movement.seq == seq), "a gap in the ledger");
        prop_assert_eq!(ledger.last().map_or(0, |movement| movement.seq), stock.version);
        let sums = ledger.iter().fold((0, 0, 0), |sums, movement| {
            let delta = movement.delta;
            (sums.0 + delta.on_hand, sums.1 + delta.held, sums.2 + delta.allocated)
        });
        prop_assert_eq!(sums, (stock.on_hand, stock.held, stock.allocated));
    }
    for (id, kept) in &tables.reservations {
        let state = if kept.reservation.is_due(now) { State::Expired } else { kept.reservation.state };
        prop_assert_eq!(model.holds.get(id).map(|hold| hold.state), Some(state));
    }
    prop_assert_eq!(tables.reservations.len(), model.holds.len());
    Ok(())
}

#[test]
fn a_reservation_whose_lines_or_records_are_not_loaded_is_not_there_yet() {
    let now = at(0);
    let lines = Lines::sum([(key(0), 1)]).unwrap();
    let id = Uuid::from_u128(1);
    let reserve = Command::Reserve(Reserve { reservation_id: id, lines, ttl: Duration::from_secs(9) });
    let stocks = vec![StockLevel { key: key(0), stock: Stock { on_hand: 1, ..Stock::default() } }];
    let mut book = Book::open(Loaded { stocks, ..Loaded::default() }, now);
    book.apply(&reserve, &stamp(&reserve, 1, now)).unwrap();
    let kept = book.close().reservations.remove(0).now;
    let mut without_lines = kept.clone();
    without_lines.reservation.lines.clear();
    let resolve = || Resolve { reservation_id: id, lines: None };
    for kept in [kept, without_lines] {
        let mut book = Book::open(Loaded { reservations: vec![kept], ..Loaded::default() }, now);
        for command in [Command::Commit(resolve()), Command::Release(resolve())] {
            let refused = book.apply(&command, &stamp(&command, 2, now));
            assert_eq!(refused, Err(Refusal::ReservationNotFound(id)));
        }
    }
}
