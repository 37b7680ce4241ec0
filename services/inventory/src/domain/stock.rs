//! One stock record: its buckets, and the only way to change them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::names::StockKey;
use super::refusal::Refusal;

/// The largest quantity that one line, or the sum of a product's lines in one call, may name.
pub const QUANTITY_MAX: i64 = 1_000_000_000;
/// The most units of a product that can be at a location. With it no sum of this service comes near the limits of `i64`.
pub const ON_HAND_MAX: i64 = 1_000_000_000_000;

/// The buckets of a (sku, location). None is ever negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Units that are there.
    pub on_hand: i64,
    /// Units of live holds.
    pub held: i64,
    /// Units committed and not shipped.
    pub allocated: i64,
    /// Units that are never promised.
    pub safety: i64,
    /// Units on their way.
    pub incoming: i64,
    /// The `seq` of the last movement; 0 before the first.
    pub version: i64,
    /// The version at which `on_hand` last changed: what a count is taken against.
    pub on_hand_version: i64,
    /// When the last movement happened.
    pub updated_at: Option<DateTime<Utc>>,
}

/// By how much each bucket changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Of `on_hand`.
    pub on_hand: i64,
    /// Of `held`.
    pub held: i64,
    /// Of `allocated`.
    pub allocated: i64,
    /// Of `safety`.
    pub safety: i64,
    /// Of `incoming`.
    pub incoming: i64,
}

impl Stock {
    /// Units that a Reserve can get. Below zero only where a safety stock was raised above what is there.
    pub fn available(&self) -> i64 {
        self.on_hand - self.safety - self.held - self.allocated
    }

    /// Units that somebody was promised.
    pub fn promised(&self) -> i64 {
        self.held + self.allocated
    }

    /// The record after one more movement. Fails where a bucket would fall below zero, or promises would exceed what is there: the
    /// rules above refuse such a command before, so this is a bug, or a table that somebody else wrote to.
    pub fn after(&self, delta: &Delta, now: DateTime<Utc>) -> Result<Self, Refusal> {
        let sum = |bucket: i64, change: i64| {
            bucket.checked_add(change).filter(|sum| (0..=ON_HAND_MAX).contains(sum)).ok_or(Refusal::Inconsistent)
        };
        let version = self.version.checked_add(1).ok_or(Refusal::Inconsistent)?;
        let next = Self {
            on_hand: sum(self.on_hand, delta.on_hand)?,
            held: sum(self.held, delta.held)?,
            allocated: sum(self.allocated, delta.allocated)?,
            safety: sum(self.safety, delta.safety)?,
            incoming: sum(self.incoming, delta.incoming)?,
            version,
            on_hand_version: if delta.on_hand == 0 { self.on_hand_version } else { version },
            updated_at: Some(now),
        };
        if next.promised() > next.on_hand { Err(Refusal::Inconsistent) } else { Ok(next) }
    }
}

/// A stock record with its name, as it is told to callers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockLevel {
    /// Of what, where.
    pub key: StockKey,
    /// How much.
    #[serde(flatten)]
    pub stock: Stock,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stock(on_hand: i64, held: i64) -> Stock {
        Stock { on_hand, held, ..Stock::default() }
    }

    #[test]
    fn a_bucket_never_falls_below_zero_nor_past_its_limit() {
        let now = DateTime::UNIX_EPOCH;
        for (before, delta) in [
            (stock(1, 0), Delta { on_hand: -2, ..Delta::default() }),
            (stock(1, 0), Delta { held: -1, ..Delta::default() }),
            (stock(1, 1), Delta { on_hand: -1, ..Delta::default() }),
            (stock(ON_HAND_MAX, 0), Delta { on_hand: 1, ..Delta::default() }),
            (stock(1, 0), Delta { on_hand: i64::MAX, ..Delta::default() }),
        ] {
            assert_eq!(before.after(&delta, now), Err(Refusal::Inconsistent), "{before:?} {delta:?}");
        }
    }

    #[test]
    fn a_hold_does_not_change_what_a_count_is_taken_against() {
        let now = DateTime::UNIX_EPOCH;
        let received = Stock::default().after(&Delta { on_hand: 5, ..Delta::default() }, now).unwrap();
        let held = received.after(&Delta { held: 2, ..Delta::default() }, now).unwrap();
        assert_eq!((held.version, held.on_hand_version, held.available()), (2, 1, 3));
    }
}
