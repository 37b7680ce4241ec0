//! An order, and the steps that it may take.

use std::fmt;

use chrono::{DateTime, Utc};
use souk_proto_common::{Money, Reason};
use uuid::Uuid;

use super::names::{Etag, OrderId, Sku, UserId};

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OrderState {
    /// Stored, its stock held.
    Pending,
    /// Its stock is committed.
    Confirmed,
    /// It could not be confirmed.
    Rejected,
    /// Its hold ran out.
    Expired,
    /// Cancelled by its owner or by staff.
    Cancelled,
    /// Everything shipped or cancelled.
    Completed,
}

impl OrderState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Confirmed, Self::Rejected, Self::Expired, Self::Cancelled, Self::Completed];

    /// Where an order may go from here.
    pub fn allowed(self) -> &'static [Self] {
        match self {
            Self::Pending => &[Self::Confirmed, Self::Rejected, Self::Expired, Self::Cancelled],
            Self::Confirmed => &[Self::Completed, Self::Cancelled],
            Self::Rejected | Self::Expired | Self::Cancelled | Self::Completed => &[],
        }
    }

    /// Nothing comes after it.
    pub fn is_final(self) -> bool {
        self.allowed().is_empty()
    }

    /// As the tables and the errors have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Rejected => "REJECTED",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
            Self::Completed => "COMPLETED",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for OrderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A step that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an order that is {from} cannot become {to}")]
pub struct IllegalStep {
    /// Where the order stands.
    pub from: OrderState,
    /// Where it should have gone.
    pub to: OrderState,
}

/// Who cancels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canceller {
    /// The one who placed the order.
    Owner,
    /// Someone who may cancel any order.
    Staff,
}

/// An order as it stands at one version. It changes by becoming another value with the next version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The order.
    pub id: OrderId,
    /// Who placed it.
    pub owner_id: UserId,
    /// The inventory's name for its stock.
    pub reservation_id: Uuid,
    /// Where it stands.
    pub state: OrderState,
    /// Why it stands there; empty while all is well.
    pub state_reason: String,
    /// What was ordered, each sku once.
    pub lines: Vec<OrderLine>,
    /// The sum of the lines.
    pub total: Money,
    /// 1 at first, one more with every change.
    pub version: i64,
    /// When it was placed.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// A line, with what the product was and cost when the order was placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderLine {
    /// The product.
    pub sku: Sku,
    /// Its name.
    pub name: String,
    /// How many.
    pub quantity: i64,
    /// The price of one, without tax.
    pub unit_price: Money,
    /// The tax rate in hundredths of a percent.
    pub tax_basis_points: i32,
    /// The tax on the line.
    pub tax: Money,
    /// `unit_price * quantity + tax`
    pub total: Money,
}

impl Order {
    /// A new order: PENDING, version 1.
    pub fn place(
        id: OrderId,
        owner_id: UserId,
        reservation_id: Uuid,
        (lines, total): (Vec<OrderLine>, Money),
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            owner_id,
            reservation_id,
            state: OrderState::Pending,
            state_reason: String::new(),
            lines,
            total,
            version: 1,
            created_at: now,
            updated_at: now,
        }
    }

    /// Its stock is committed.
    pub fn confirm(&self, now: DateTime<Utc>) -> Result<Self, IllegalStep> {
        self.step(OrderState::Confirmed, "", now)
    }

    /// It cannot be confirmed, because of `reason`.
    pub fn reject(&self, reason: &str, now: DateTime<Utc>) -> Result<Self, IllegalStep> {
        self.step(OrderState::Rejected, reason, now)
    }

    /// Its hold ran out.
    pub fn expire(&self, now: DateTime<Utc>) -> Result<Self, IllegalStep> {
        self.step(OrderState::Expired, Reason::ReservationExpired.wire_name(), now)
    }

    /// Its owner, or the staff, does not want it any more.
    pub fn cancel(&self, by: Canceller, now: DateTime<Utc>) -> Result<Self, IllegalStep> {
        let reason = match by {
            Canceller::Owner => "CANCELLED_BY_OWNER",
            Canceller::Staff => "CANCELLED_BY_STAFF",
        };
        self.step(OrderState::Cancelled, reason, now)
    }

    /// Names the version.
    pub fn etag(&self) -> Etag {
        Etag(self.version)
    }

    fn step(&self, to: OrderState, reason: &str, now: DateTime<Utc>) -> Result<Self, IllegalStep> {
        if !self.state.allowed().contains(&to) {
            return Err(IllegalStep { from: self.state, to });
        }
        let mut next = self.clone();
        next.state = to;
        reason.clone_into(&mut next.state_reason);
        next.version += 1;
        // Clocks of two replicas differ; an order's own times do not run backwards.
        next.updated_at = now.max(self.updated_at);
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use souk_proto_common::Currency;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn order(state: OrderState) -> Order {
        let id = Uuid::from_u128(1);
        let total = Money::zero(Currency::parse("EUR").unwrap());
        Order { state, ..Order::place(OrderId(id), UserId(id), id, (Vec::new(), total), at(0)) }
    }

    #[test]
    fn an_order_takes_the_steps_of_the_table_and_no_others() {
        use OrderState::{Cancelled, Completed, Confirmed, Expired, Pending, Rejected};
        let table = [
            (Pending, vec![Confirmed, Rejected, Expired, Cancelled]),
            (Confirmed, vec![Cancelled]), // COMPLETED comes with shipping
            (Rejected, vec![]),
            (Expired, vec![]),
            (Cancelled, vec![]),
            (Completed, vec![]),
        ];
        for (from, allowed) in table {
            let order = order(from);
            let steps = [
                (Confirmed, order.confirm(at(1))),
                (Rejected, order.reject("WHY", at(1))),
                (Expired, order.expire(at(1))),
                (Cancelled, order.cancel(Canceller::Owner, at(1))),
            ];
            for (to, result) in steps {
                match result {
                    Ok(next) => {
                        assert!(allowed.contains(&to), "{from} -> {to}");
                        assert_eq!((next.state, next.version, next.updated_at), (to, 2, at(1)));
                    }
                    Err(illegal) => {
                        assert!(!allowed.contains(&to), "{from} -> {to}");
                        assert_eq!(illegal, IllegalStep { from, to });
                    }
                }
            }
        }
    }

    #[test]
    fn a_final_state_is_one_without_a_way_out() {
        use OrderState::{Cancelled, Completed, Expired, Rejected};
        let finals: Vec<OrderState> = OrderState::ALL.into_iter().filter(|state| state.is_final()).collect();
        assert_eq!(finals, [Rejected, Expired, Cancelled, Completed]);
        assert!(OrderState::ALL.iter().all(|state| OrderState::from_name(state.name()) == Some(*state)));
        assert_eq!(OrderState::from_name("pending"), None);
    }

    #[test]
    fn the_reason_says_who_cancelled_and_is_empty_while_all_is_well() {
        let order = order(OrderState::Pending);
        assert_eq!(order.cancel(Canceller::Owner, at(1)).unwrap().state_reason, "CANCELLED_BY_OWNER");
        assert_eq!(order.cancel(Canceller::Staff, at(1)).unwrap().state_reason, "CANCELLED_BY_STAFF");
        assert_eq!(order.expire(at(1)).unwrap().state_reason, "RESERVATION_EXPIRED");
        assert_eq!(order.confirm(at(1)).unwrap().state_reason, "");
    }

    #[test]
    fn an_orders_times_do_not_run_backwards() {
        assert_eq!(order(OrderState::Pending).confirm(at(-5)).unwrap().updated_at, at(0));
    }
}
