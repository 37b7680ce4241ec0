//! What an order still owes the inventory: stored steps, each done by a call that may be repeated, and what its answer means.
//!
//! Commit is the pivot: until it an order can end as REJECTED or EXPIRED, after it the way back is CANCELLED with a release. A step is
//! done again and again until the inventory gives a definite answer; no answer is no reason to give up.

use chrono::{DateTime, Utc};
use souk_proto_common::Reason;

use super::names::OrderId;
use super::order::{Order, OrderState};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepKind {
    /// Turn the order's hold into an allocation.
    CommitStock,
    /// Give the order's stock back, held or allocated.
    ReleaseStock,
}

impl StepKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::CommitStock, Self::ReleaseStock];

    /// As the tables and the metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CommitStock => "COMMIT_STOCK",
            Self::ReleaseStock => "RELEASE_STOCK",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A step that a worker has taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whose.
    pub order_id: OrderId,
    /// What.
    pub kind: StepKind,
    /// Grows whenever the step is taken up: whoever comes with an older one has been replaced.
    pub epoch: i64,
    /// The how many-th try this is.
    pub attempts: i64,
    /// By then it should be done.
    pub deadline_at: DateTime<Utc>,
}

/// What the inventory said to one try of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// This, for good: the step is over.
    Answered(Answer),
    /// There is no knowing, or it cannot be now: try again.
    Again(String),
}

/// A definite answer to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done, now or before.
    Done,
    /// Refused, for this reason.
    Refused(Reason),
}

/// What a step has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The order after it, if that changes it.
    pub order: Option<Order>,
    /// What is to be done next.
    pub next: Option<StepKind>,
}

/// What `order` becomes by the end of a step.
///
/// An order that is no longer PENDING when its commit comes back was cancelled meanwhile: what the commit did is undone by the release
/// that the cancellation has left behind.
pub fn conclude(kind: StepKind, order: &Order, answer: Answer, now: DateTime<Utc>) -> Conclusion {
    let becomes = |next, order| Conclusion { order, next };
    if kind == StepKind::ReleaseStock || order.state != OrderState::Pending {
        return becomes(None, None);
    }
    match answer {
        Answer::Done => becomes(None, order.confirm(now).ok()),
        Answer::Refused(Reason::ReservationExpired) => becomes(None, order.expire(now).ok()),
        // There is nothing to give back.
        Answer::Refused(reason @ (Reason::ReservationAlreadyReleased | Reason::ReservationNotFound)) => {
            becomes(None, order.reject(reason.wire_name(), now).ok())
        }
        Answer::Refused(reason) => becomes(Some(StepKind::ReleaseStock), order.reject(reason.wire_name(), now).ok()),
    }
}

#[cfg(test)]
mod tests {
    use souk_proto_common::{Currency, Money};
    use uuid::Uuid;

    use super::*;
    use crate::domain::names::UserId;
    use crate::domain::order::Canceller;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn pending() -> Order {
        let id = Uuid::from_u128(1);
        let total = Money::zero(Currency::parse("EUR").unwrap());
        Order::place(OrderId(id), UserId(id), id, (Vec::new(), total), now())
    }

    fn commit(answer: Answer) -> (OrderState, String, Option<StepKind>) {
        let conclusion = conclude(StepKind::CommitStock, &pending(), answer, now());
        let order = conclusion.order.unwrap();
        (order.state, order.state_reason, conclusion.next)
    }

    #[test]
    fn a_definite_answer_to_the_commit_decides_the_order() {
        assert_eq!(commit(Answer::Done), (OrderState::Confirmed, String::new(), None));
        let expired = commit(Answer::Refused(Reason::ReservationExpired));
        assert_eq!(expired, (OrderState::Expired, "RESERVATION_EXPIRED".into(), None));
        let released = commit(Answer::Refused(Reason::ReservationAlreadyReleased));
        assert_eq!(released, (OrderState::Rejected, "RESERVATION_ALREADY_RELEASED".into(), None));
    }

    #[test]
    fn an_order_that_is_rejected_gives_its_stock_back() {
        let refused = commit(Answer::Refused(Reason::QuantityExceedsOpen));
        assert_eq!(refused, (OrderState::Rejected, "QUANTITY_EXCEEDS_OPEN".into(), Some(StepKind::ReleaseStock)));
    }

    #[test]
    fn a_commit_that_comes_back_to_a_cancelled_order_changes_nothing() {
        let cancelled = pending().cancel(Canceller::Owner, now()).unwrap();
        for answer in [Answer::Done, Answer::Refused(Reason::ReservationExpired)] {
            let conclusion = conclude(StepKind::CommitStock, &cancelled, answer, now());
            assert_eq!(conclusion, Conclusion { order: None, next: None });
        }
    }
}
