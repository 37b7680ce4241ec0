//! Why a command on the book was refused. A refused command has changed nothing.

use uuid::Uuid;

use super::names::{Location, Sku, StockKey};

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key, or the reservation's name, was used for something else.
    #[error("the {0} was used before for something else")]
    KeyReused(&'static str),
    /// No such products, every one of them.
    #[error("unknown products")]
    ProductsNotFound(Vec<Sku>),
    /// No such location.
    #[error("unknown location")]
    LocationNotFound(Location),
    /// Too few units, for every line that is short.
    #[error("too few units")]
    InsufficientStock(Vec<Short>),
    /// No such reservation.
    #[error("unknown reservation")]
    ReservationNotFound(Uuid),
    /// It was committed before.
    #[error("reservation is committed")]
    AlreadyCommitted(Uuid),
    /// It was released before.
    #[error("reservation is released")]
    AlreadyReleased(Uuid),
    /// It ran out.
    #[error("reservation has expired")]
    Expired(Uuid),
    /// More was named than is open, for every such line.
    #[error("more than is open")]
    ExceedsOpen(Vec<Short>),
    /// Fewer units would be left than are promised.
    #[error("reservations would be stranded")]
    WouldStrand {
        /// Of what.
        key: StockKey,
        /// Units there now.
        on_hand: i64,
        /// Units promised.
        promised: i64,
        /// Units that would be left.
        asked: i64,
    },
    /// More units than a location can hold; the field that asks for them.
    #[error("more than a location can hold")]
    TooMany(&'static str),
    /// The count was taken against another level.
    #[error("etag differs")]
    EtagMismatch {
        /// Of what.
        key: StockKey,
        /// The version that counts now.
        current: i64,
    },
    /// The book contradicts itself: a bug.
    #[error("the stock contradicts itself")]
    Inconsistent,
}

/// A line that asks for more than there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// Of what, where.
    pub key: StockKey,
    /// Units asked for.
    pub asked: i64,
    /// Units that there are: available, or open.
    pub there: i64,
}
