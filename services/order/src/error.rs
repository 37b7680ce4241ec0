//! What can go wrong, and what a caller is told of it: one exhaustive match.

use std::time::Duration;

use souk_db::Kind;
use souk_interceptors::context::{self, bug};
use souk_proto_common::v1::Reason;
use souk_proto_common::{Failure, InvalidRequest, Money};
use tonic::{Code, Status};
use tonic_types::PreconditionViolation;

use crate::domain::{Etag, IllegalStep, OrderId, PriceError, Sku};

const ORDER: &str = "souk.order.v1.Order";
const PRODUCT: &str = "souk.inventory.v1.Product";
/// When to come again after a failure that passes by itself.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// When to come again for an answer that is on its way, or to another replica.
const RETRY_SOON: Duration = Duration::from_millis(100);

/// Why an operation failed. No order was placed or changed, unless a database was lost at the commit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong in a way that shows only now.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// These are not in the catalogue.
    #[error("{} product(s) not found", .0.len())]
    ProductsNotFound(Vec<Sku>),
    /// The total is not what the caller expected.
    #[error("the total is {actual}, not {expected}")]
    PriceChanged {
        /// What the caller was shown.
        expected: Money,
        /// What it is.
        actual: Money,
    },
    /// The inventory says no, as a caller may be told it.
    #[error("the inventory refused")]
    Refused(Box<Failure>),
    /// Every hold that was made under this key has run out.
    #[error("the holds of this request have expired")]
    HoldsExpired,
    /// The key was used for something else.
    #[error("the key was used for something else")]
    KeyReused,
    /// The same request is still running.
    #[error("the same request is still running")]
    InProgress,
    /// It belongs to another, or does not exist.
    #[error("not the owner")]
    NotOwner,
    /// No such order.
    #[error("no order {0}")]
    OrderNotFound(OrderId),
    /// An order does not take this step from where it stands.
    #[error(transparent)]
    IllegalStep(#[from] IllegalStep),
    /// The order has changed since the caller saw it.
    #[error("the order has changed")]
    OrderChanged {
        /// Its etag now.
        current: Etag,
    },
    /// Another service does not answer, or answers nothing that helps.
    #[error("the inventory is not available")]
    PeerUnavailable {
        /// When it may be.
        retry_after: Option<Duration>,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] souk_db::Error),
    /// Too many orders wait already.
    #[error("too many orders are waiting")]
    Busy,
    /// The caller's deadline passed before anything was stored.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The server is going away.
    #[error("shutting down")]
    ShuttingDown,
    /// A stored or computed thing is not what it must be.
    #[error("{0}")]
    Bug(&'static str),
}

impl Error {
    /// A concurrent transaction was in the way: try again at once.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Database(error) if error.kind() == Kind::Conflict)
    }
}

impl From<PriceError> for Error {
    fn from(error: PriceError) -> Self {
        match error {
            PriceError::NotFound(skus) => Self::ProductsNotFound(skus),
            PriceError::Invalid(invalid) => Self::Invalid(invalid),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(invalid) => invalid.into(),
            Error::ProductsNotFound(skus) => products_not_found(&skus),
            Error::PriceChanged { expected, actual } => {
                precondition(Reason::PriceChanged, "the total is not what you expected")
                    .metadata("expected_total_minor", expected.amount_minor)
                    .metadata("expected_currency_code", expected.currency.code())
                    .metadata("total_minor", actual.amount_minor)
                    .metadata("currency_code", actual.currency.code())
            }
            Error::Refused(failure) => *failure,
            Error::HoldsExpired => precondition(
                Reason::ReservationExpired,
                "the stock held for this request has expired too often; begin anew with another request_id",
            ),
            Error::KeyReused => {
                precondition(Reason::IdempotencyKeyReused, "request_id was used before for something else")
                    .metadata("field", "request_id")
            }
            Error::InProgress => in_progress(),
            Error::NotOwner => {
                Self::new(Code::PermissionDenied, Reason::NotOwner, "it belongs to another, or does not exist")
            }
            Error::OrderNotFound(id) => Self::not_found(Reason::OrderNotFound, ORDER, id.to_string()),
            Error::IllegalStep(step) => illegal_step(step),
            Error::OrderChanged { current } => {
                Self::new(Code::Aborted, Reason::EtagMismatch, "it has changed since you read it")
                    .metadata("etag", current)
            }
            Error::PeerUnavailable { retry_after } => Self::unavailable(
                Reason::PeerUnavailable,
                "a service that this one needs does not answer",
                retry_after.unwrap_or(RETRY_AFTER),
            ),
            Error::Database(error) => database(&error),
            Error::Busy => Self::unavailable(Reason::LoadShed, "too many orders are waiting", RETRY_AFTER),
            Error::DeadlineExceeded => Self::new(
                Code::DeadlineExceeded,
                Reason::DeadlineExceeded,
                "the deadline passed before anything was stored",
            ),
            Error::ShuttingDown => Self::unavailable(Reason::ShuttingDown, "the server is going away", RETRY_SOON),
            Error::Bug(what) => bug(what, &error),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

fn in_progress() -> Failure {
    Failure::new(Code::Aborted, Reason::RequestInProgress, "the same request is still running").retry_after(RETRY_SOON)
}

fn precondition(reason: Reason, message: &str) -> Failure {
    Failure::new(Code::FailedPrecondition, reason, message)
}

fn products_not_found(skus: &[Sku]) -> Failure {
    let violations = skus.iter().map(|sku| {
        PreconditionViolation::new(Reason::ProductNotFound.wire_name(), format!("sku/{sku}"), "no such product")
    });
    Failure::not_found(Reason::ProductNotFound, PRODUCT, skus.first().map_or("", Sku::as_str))
        .precondition_violations(violations)
}

fn illegal_step(step: IllegalStep) -> Failure {
    let allowed: Vec<&str> = step.from.allowed().iter().map(|state| state.name()).collect();
    precondition(Reason::InvalidStateTransition, &step.to_string())
        .metadata("current_state", step.from)
        .metadata("allowed_states", allowed.join(","))
}

fn database(error: &souk_db::Error) -> Failure {
    match error.kind() {
        // What placing and cancelling lock is of one order: whoever has it for so long is at the same, in another replica.
        Kind::Locked => in_progress(),
        Kind::Conflict => context::database(error).retry_after(RETRY_SOON),
        Kind::Unavailable | Kind::Timeout | Kind::Deadline | Kind::Bug => context::database(error),
    }
}
