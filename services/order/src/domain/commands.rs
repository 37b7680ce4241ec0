//! What callers ask for, parsed: everything in here has been checked.

use chrono::{DateTime, Utc};
use souk_proto_common::{IdempotencyKey, Money, PageToken};

use super::names::{Etag, OrderId, Sku, UserId};
use super::order::OrderState;

/// Lines of a request, and so of an order.
pub const ITEMS_MAX: usize = 100;
/// Units of one product in an order.
pub const QUANTITY_MAX: i64 = 1_000_000;

/// A product and how many of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub sku: Sku,
    /// 1 to [`QUANTITY_MAX`].
    pub quantity: i64,
    /// Where it first stood in the request, for errors to name.
    pub index: usize,
}

/// Place an order for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceOrder {
    /// The caller's key.
    pub key: IdempotencyKey,
    /// 1 to [`ITEMS_MAX`], each sku once.
    pub items: Vec<Item>,
    /// What the caller was shown.
    pub expected_total: Option<Money>,
}

/// Cancel an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelOrder {
    /// The caller's key.
    pub key: IdempotencyKey,
    /// Which.
    pub order_id: OrderId,
    /// Only if it still is what the caller saw.
    pub etag: Option<Etag>,
}

/// A page of orders, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOrders {
    /// Whose; none: the caller's own, or everyone's for a caller who may see them.
    pub owner_id: Option<UserId>,
    /// In one of these states; empty: any.
    pub states: Vec<OrderState>,
    /// Placed at or after.
    pub created_from: Option<DateTime<Utc>>,
    /// Placed before.
    pub created_before: Option<DateTime<Utc>>,
    /// At most so many.
    pub page_size: i64,
    /// Only what comes after this one.
    pub after: Option<Position>,
}

/// The place of an order in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// When it was placed.
    pub created_at: DateTime<Utc>,
    /// Which.
    pub order_id: OrderId,
}

/// Every version of an order after one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchOrder {
    /// Which.
    pub order_id: OrderId,
    /// What the caller has; 0: nothing.
    pub after_version: i64,
}

impl Position {
    /// As a page token has it.
    pub fn token(self) -> PageToken {
        PageToken { after: format!("{}.{}", self.created_at.timestamp_micros(), self.order_id) }
    }

    /// Of a page token that we made.
    pub fn parse(token: &PageToken) -> Option<Self> {
        let (micros, id) = token.after.split_once('.')?;
        let created_at = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
        Some(Self { created_at, order_id: OrderId(id.parse().ok()?) })
    }
}
