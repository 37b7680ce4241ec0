//! The ledger: one row a change of one stock record, only ever added.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::names::StockKey;
use super::stock::Delta;

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Which record.
    pub key: StockKey,
    /// 1, 2, 3, … for a record, without gaps: its version after the movement.
    pub seq: i64,
    /// What was done.
    pub operation: Operation,
    /// By how much.
    pub delta: Delta,
    /// Why, where the operation does not say it all.
    pub reason: Option<Reason>,
    /// The caller's own reference; may be empty.
    pub reference: String,
    /// Who did it.
    pub actor: String,
    /// The key of the call; none for what the service does by itself.
    pub request_id: Option<Uuid>,
    /// The reservation that was moved.
    pub reservation_id: Option<Uuid>,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// What a movement did. Stands in the tables by name, so that an operator can read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// held += q
    Reserve,
    /// held -= q, allocated += c
    Commit,
    /// held or allocated -= q
    Release,
    /// held -= q, because the hold ran out
    Expire,
    /// on_hand += q
    Receive,
    /// on_hand += d
    Adjust,
}

impl Operation {
    /// Every value.
    pub const ALL: &[Self] = &[Self::Reserve, Self::Commit, Self::Release, Self::Expire, Self::Receive, Self::Adjust];

    /// Its name in the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserve => "RESERVE",
            Self::Commit => "COMMIT",
            Self::Release => "RELEASE",
            Self::Expire => "EXPIRE",
            Self::Receive => "RECEIVE",
            Self::Adjust => "ADJUST",
        }
    }

    /// The value of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_str() == name)
    }
}

/// Why units came or went. Stands in the tables by name, so that an operator can read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Bought.
    Purchase,
    /// Made.
    Production,
    /// Sent back by a customer.
    CustomerReturn,
    /// Somebody counted.
    Count,
    /// Broken or spoilt.
    Damage,
    /// Gone.
    Loss,
    /// Stolen.
    Theft,
    /// Turned up again.
    Found,
    /// An earlier movement was wrong.
    Correction,
    /// Something else.
    Other,
}

impl Reason {
    /// Every value.
    pub const ALL: &[Self] = &[
        Self::Purchase,
        Self::Production,
        Self::CustomerReturn,
        Self::Count,
        Self::Damage,
        Self::Loss,
        Self::Theft,
        Self::Found,
        Self::Correction,
        Self::Other,
    ];

    /// Its name in the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "PURCHASE",
            Self::Production => "PRODUCTION",
            Self::CustomerReturn => "CUSTOMER_RETURN",
            Self::Count => "COUNT",
            Self::Damage => "DAMAGE",
            Self::Loss => "LOSS",
            Self::Theft => "THEFT",
            Self::Found => "FOUND",
            Self::Correction => "CORRECTION",
            Self::Other => "OTHER",
        }
    }

    /// The value of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for operation in Operation::ALL {
            assert_eq!(Operation::from_name(operation.as_str()), Some(*operation));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::from_name("purchase"), None);
    }
}
