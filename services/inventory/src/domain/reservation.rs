//! A reservation and its rules: held until it expires, then committed, released or expired, once.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::names::StockKey;
use super::refusal::{Refusal, Short};
use super::stock::QUANTITY_MAX;

/// The most lines that one call may name.
pub const LINES_MAX: usize = 100;
/// The shortest time for which units can be held.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// The longest.
pub const TTL_MAX: Duration = Duration::from_hours(31 * 24);
/// The one that counts where none is said.
pub const TTL_DEFAULT: Duration = Duration::from_mins(15);

/// Where a reservation stands. Stands in the tables by name, so that an operator can read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Until it runs out.
    Held,
    /// Allocated.
    Committed,
    /// Given back, the last unit of it.
    Released,
    /// Ran out.
    Expired,
}

impl State {
    /// Every value.
    pub const ALL: &[Self] = &[Self::Held, Self::Committed, Self::Released, Self::Expired];

    /// Its name in the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Committed => "COMMITTED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
        }
    }

    /// The value of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_str() == name)
    }
}

/// Quantities by stock record, in the order in which records are locked. Duplicates are summed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(BTreeMap<StockKey, i64>);

impl Lines {
    /// Sums the lines of each record. A quantity or a sum outside 1 to [`QUANTITY_MAX`] is refused: the index of the line that
    /// does it.
    pub fn sum(lines: impl IntoIterator<Item = (StockKey, i64)>) -> Result<Self, usize> {
        let mut sums = BTreeMap::new();
        for (index, (key, quantity)) in lines.into_iter().enumerate() {
            let sum = sums.entry(key).or_insert(0_i64);
            *sum = sum.checked_add(quantity).filter(|sum| quantity > 0 && *sum <= QUANTITY_MAX).ok_or(index)?;
        }
        Ok(Self(sums))
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = (&StockKey, i64)> {
        self.0.iter().map(|(key, quantity)| (key, *quantity))
    }

    /// How many units of `key`; none if it is not named.
    pub fn get(&self, key: &StockKey) -> i64 {
        self.0.get(key).copied().unwrap_or(0)
    }
}

/// Units of some products set aside for one buyer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The name that the caller chose.
    pub id: Uuid,
    /// Where it stands.
    pub state: State,
    /// In the order of their keys.
    pub lines: Vec<Line>,
    /// When the hold runs out. A hold is live before this instant and due from it on.
    pub expires_at: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// 1 at first, one more with every change.
    pub version: i64,
}

/// The part of a reservation that is of one stock record: `requested = held + committed + released + expired`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Of what, where.
    pub key: StockKey,
    /// Asked for.
    pub requested: i64,
    /// Still held.
    pub held: i64,
    /// Committed and not released after that.
    pub committed: i64,
    /// Given back.
    pub released: i64,
    /// Ran out.
    pub expired: i64,
}

/// What a step of a reservation means for one stock record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Of what, where.
    pub key: StockKey,
    /// Change of `held`.
    pub held: i64,
    /// Change of `allocated`.
    pub allocated: i64,
}

impl Reservation {
    /// A hold of `lines` from `now` on, for `ttl`.
    pub fn hold(id: Uuid, lines: &Lines, ttl: Duration, now: DateTime<Utc>) -> Self {
        let line = |(key, quantity): (&StockKey, i64)| Line {
            key: key.clone(),
            requested: quantity,
            held: quantity,
            committed: 0,
            released: 0,
            expired: 0,
        };
        Self {
            id,
            state: State::Held,
            lines: lines.iter().map(line).collect(),
            expires_at: now + ttl,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }

    /// Its time has come and nobody resolved it.
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.state == State::Held && self.expires_at <= now
    }

    /// Why it is not a live hold, if it is not.
    pub fn check_live(&self, now: DateTime<Utc>) -> Result<(), Refusal> {
        match self.state {
            State::Held if self.is_due(now) => Err(Refusal::Expired(self.id)),
            State::Held => Ok(()),
            State::Committed => Err(Refusal::AlreadyCommitted(self.id)),
            State::Released => Err(Refusal::AlreadyReleased(self.id)),
            State::Expired => Err(Refusal::Expired(self.id)),
        }
    }

    /// Commits `asked`, or all that is held; what is held beyond `asked` is released.
    pub fn commit(&mut self, asked: Option<&Lines>, now: DateTime<Utc>) -> Result<Vec<Step>, Refusal> {
        self.check_live(now)?;
        self.check_open(asked, |line| line.held)?;
        let mut steps = Vec::with_capacity(self.lines.len());
        for line in self.lines.iter_mut().filter(|line| line.held > 0) {
            let committed = asked.map_or(line.held, |lines| lines.get(&line.key));
            steps.push(Step { key: line.key.clone(), held: -line.held, allocated: committed });
            line.committed += committed;
            line.released += line.held - committed;
            line.held = 0;
        }
        self.state = State::Committed;
        self.touch(now);
        Ok(steps)
    }

    /// Releases `asked`, or all that is open, be it held or committed.
    pub fn release(&mut self, asked: Option<&Lines>, now: DateTime<Utc>) -> Result<Vec<Step>, Refusal> {
        if self.state != State::Committed {
            self.check_live(now)?;
        }
        self.check_open(asked, |line| line.held + line.committed)?;
        let mut steps = Vec::with_capacity(self.lines.len());
        for line in &mut self.lines {
            let released = asked.map_or(line.held + line.committed, |lines| lines.get(&line.key));
            if released == 0 {
                continue;
            }
            // One of the two is zero: what is held is not committed yet.
            let from_held = released.min(line.held);
            let from_committed = released - from_held;
            steps.push(Step { key: line.key.clone(), held: -from_held, allocated: -from_committed });
            line.held -= from_held;
            line.committed -= from_committed;
            line.released += released;
        }
        if self.lines.iter().all(|line| line.held + line.committed == 0) {
            self.state = State::Released;
        }
        self.touch(now);
        Ok(steps)
    }

    /// Ends a due hold.
    pub fn expire(&mut self, now: DateTime<Utc>) -> Vec<Step> {
        let mut steps = Vec::with_capacity(self.lines.len());
        for line in self.lines.iter_mut().filter(|line| line.held > 0) {
            steps.push(Step { key: line.key.clone(), held: -line.held, allocated: 0 });
            line.expired += line.held;
            line.held = 0;
        }
        self.state = State::Expired;
        self.touch(now);
        steps
    }

    /// Names every line of `asked` that is more than `open` says there is, or that the reservation does not have.
    fn check_open(&self, asked: Option<&Lines>, open: impl Fn(&Line) -> i64) -> Result<(), Refusal> {
        let mut exceeding = Vec::new();
        for (key, asked) in asked.into_iter().flat_map(Lines::iter) {
            let there = self.lines.iter().find(|line| line.key == *key).map_or(0, &open);
            if asked > there {
                exceeding.push(Short { key: key.clone(), asked, there });
            }
        }
        if exceeding.is_empty() { Ok(()) } else { Err(Refusal::ExceedsOpen(exceeding)) }
    }

    fn touch(&mut self, now: DateTime<Utc>) {
        self.updated_at = now;
        self.version += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::names::{Location, Sku};

    fn key(sku: &str) -> StockKey {
        StockKey::new(Sku::parse(sku).unwrap(), Location::main())
    }

    fn lines(pairs: &[(&str, i64)]) -> Lines {
        Lines::sum(pairs.iter().map(|(sku, quantity)| (key(sku), *quantity))).unwrap()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn held(pairs: &[(&str, i64)]) -> Reservation {
        Reservation::hold(Uuid::from_u128(1), &lines(pairs), Duration::from_mins(1), at(0))
    }

    #[test]
    fn duplicates_are_summed_before_anything_else() {
        assert_eq!(lines(&[("B", 2), ("A", 1), ("B", 3)]), lines(&[("A", 1), ("B", 5)]));
        assert_eq!(Lines::sum([(key("A"), QUANTITY_MAX), (key("B"), 1), (key("A"), 1)]), Err(2));
        assert_eq!(Lines::sum([(key("A"), 0)]), Err(0));
    }

    #[test]
    fn a_hold_is_live_until_the_instant_of_its_expiry() {
        let hold = held(&[("A", 1)]);
        assert!(hold.check_live(at(59)).is_ok());
        assert_eq!(hold.check_live(at(60)), Err(Refusal::Expired(hold.id)));
    }

    #[test]
    fn a_commit_of_fewer_releases_the_rest_in_the_same_step() {
        let mut hold = held(&[("A", 5), ("B", 2)]);
        let steps = hold.commit(Some(&lines(&[("A", 3)])), at(1)).unwrap();
        assert_eq!(
            steps,
            [Step { key: key("A"), held: -5, allocated: 3 }, Step { key: key("B"), held: -2, allocated: 0 }]
        );
        assert_eq!((hold.lines[0].committed, hold.lines[0].released, hold.lines[1].released), (3, 2, 2));
        assert_eq!(hold.state, State::Committed);
    }

    #[test]
    fn more_than_is_open_is_refused_with_every_line_named() {
        let mut hold = held(&[("A", 5)]);
        let before = hold.clone();
        let refused = hold.commit(Some(&lines(&[("A", 6), ("B", 1)])), at(1));
        let short = |sku, asked, there| Short { key: key(sku), asked, there };
        assert_eq!(refused, Err(Refusal::ExceedsOpen(vec![short("A", 6, 5), short("B", 1, 0)])));
        assert_eq!(hold, before);
    }

    #[test]
    fn a_hold_resolves_exactly_once() {
        let mut committed = held(&[("A", 1)]);
        committed.commit(None, at(1)).unwrap();
        assert_eq!(committed.commit(None, at(1)), Err(Refusal::AlreadyCommitted(committed.id)));
        let mut released = held(&[("A", 1)]);
        released.release(None, at(1)).unwrap();
        assert_eq!(released.commit(None, at(1)), Err(Refusal::AlreadyReleased(released.id)));
        assert_eq!(released.release(None, at(1)), Err(Refusal::AlreadyReleased(released.id)));
        let mut expired = held(&[("A", 1)]);
        expired.expire(at(60));
        assert_eq!(expired.commit(None, at(61)), Err(Refusal::Expired(expired.id)));
        assert_eq!(expired.release(None, at(61)), Err(Refusal::Expired(expired.id)));
    }

    #[test]
    fn what_was_committed_can_be_given_back_in_parts() {
        let mut order = held(&[("A", 5)]);
        order.commit(None, at(1)).unwrap();
        let steps = order.release(Some(&lines(&[("A", 2)])), at(1_000)).unwrap();
        assert_eq!(steps, [Step { key: key("A"), held: 0, allocated: -2 }]);
        assert_eq!((order.state, order.lines[0].committed), (State::Committed, 3));
        order.release(None, at(1_000)).unwrap();
        assert_eq!(order.state, State::Released);
    }
}
