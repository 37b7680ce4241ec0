//! What can go wrong, and what a caller is told of it: one exhaustive match.

use std::convert::Infallible;
use std::time::Duration;

use souk_db::{GroupError, Kind};
use souk_interceptors::context::{bug, database};
use souk_proto_common::v1::Reason;
use souk_proto_common::{Failure, FieldError, InvalidRequest};
use tonic::{Code, Status};
use tonic_types::PreconditionViolation;

use crate::domain::product::Etag;
use crate::domain::refusal::Short;
use crate::domain::stock::ON_HAND_MAX;
use crate::domain::{Refusal, Sku};
use crate::wire::text_too_long;

const PRODUCT: &str = "souk.inventory.v1.Product";
const RESERVATION: &str = "souk.inventory.v1.Reservation";
const LOCATION: &str = "souk.inventory.v1.Location";
/// When to come again after a failure that passes by itself.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why an operation failed. Nothing of it has taken effect, unless the database was lost at the commit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The rules of stock forbid it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request is wrong in a way that shows only now.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// No such product.
    #[error("no product {0}")]
    ProductNotFound(Sku),
    /// The sku is taken.
    #[error("product {0} exists")]
    ProductExists(Sku),
    /// The product has changed since the caller saw it.
    #[error("product {sku} has changed")]
    ProductChanged {
        /// Which.
        sku: Sku,
        /// Its etag now.
        current: Etag,
    },
    /// The field with which description and attributes have more bytes than a product may have.
    #[error("the {0} is too long")]
    TextTooLong(&'static str),
    /// The key was used for something else.
    #[error("the key was used for something else")]
    KeyReused,
    /// A call with this key is still running, or one that it waits for.
    #[error("a call with this key is still running")]
    InProgress,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] souk_db::Error),
    /// Too many changes of stock wait already.
    #[error("too many changes of stock are waiting")]
    Busy,
    /// The caller's deadline passed before anything was done.
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

    /// The error of a call that has a key: who has a lock that it did not get is most likely its first try, in another replica.
    pub(crate) fn of_keyed(self) -> Self {
        match self {
            Self::Database(error) if error.kind() == Kind::Locked => Self::InProgress,
            other => other,
        }
    }
}

impl From<GroupError<Infallible>> for Error {
    fn from(error: GroupError<Infallible>) -> Self {
        match error {
            GroupError::QueueFull => Self::Busy,
            GroupError::Expired => Self::DeadlineExceeded,
            GroupError::Db(error) => Self::Database(error),
            GroupError::Rejected(never) => match never {},
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refused(refusal),
            Error::Invalid(invalid) => invalid.into(),
            Error::ProductNotFound(sku) => Self::not_found(Reason::ProductNotFound, PRODUCT, sku.as_str()),
            Error::ProductExists(sku) => Self::already_exists(Reason::ProductExists, PRODUCT, sku.as_str()),
            Error::ProductChanged { sku, current } => etag_mismatch(&sku, current),
            Error::TextTooLong(field) => InvalidRequest::one(format!("product.{field}"), text_too_long()).into(),
            Error::KeyReused => key_reused("request_id"),
            Error::InProgress => {
                Self::new(Code::Aborted, Reason::RequestInProgress, "a call with this request_id is still running")
                    .retry_after(RETRY_AFTER)
            }
            Error::Database(error) => database(&error),
            Error::Busy => Self::unavailable(Reason::LoadShed, "too many changes of stock are waiting", RETRY_AFTER),
            Error::DeadlineExceeded => Self::new(
                Code::DeadlineExceeded,
                Reason::DeadlineExceeded,
                "the deadline passed before anything was done",
            ),
            Error::ShuttingDown => {
                Self::unavailable(Reason::ShuttingDown, "the server is going away", Duration::from_millis(100))
            }
            Error::Bug(what) => bug(what, &error),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

fn refused(refusal: Refusal) -> Failure {
    let precondition = |reason, message: &str| Failure::new(Code::FailedPrecondition, reason, message);
    let resolved =
        |reason, message, id: uuid::Uuid| precondition(reason, message).resource(RESERVATION, &id.to_string());
    match refusal {
        Refusal::KeyReused(field) => key_reused(field),
        Refusal::ProductsNotFound(skus) => products_not_found(&skus),
        Refusal::LocationNotFound(location) => {
            Failure::not_found(Reason::LocationNotFound, LOCATION, location.as_str())
        }
        Refusal::InsufficientStock(short) => precondition(Reason::InsufficientStock, "too few units are available")
            .precondition_violations(
                short.iter().map(|short| violation(Reason::InsufficientStock, short, "available")),
            ),
        Refusal::ReservationNotFound(id) => {
            Failure::not_found(Reason::ReservationNotFound, RESERVATION, id.to_string())
        }
        Refusal::AlreadyCommitted(id) => {
            resolved(Reason::ReservationAlreadyCommitted, "the reservation was committed before", id)
        }
        Refusal::AlreadyReleased(id) => {
            resolved(Reason::ReservationAlreadyReleased, "the reservation was released before", id)
        }
        Refusal::Expired(id) => resolved(Reason::ReservationExpired, "the reservation has expired", id),
        Refusal::ExceedsOpen(short) => precondition(Reason::QuantityExceedsOpen, "more than is open was named")
            .precondition_violations(short.iter().map(|short| violation(Reason::QuantityExceedsOpen, short, "open"))),
        Refusal::WouldStrand { key, on_hand, promised, asked } => {
            precondition(Reason::WouldStrandReservations, "fewer units would be left than are promised")
                .metadata("sku", key.sku)
                .metadata("on_hand", on_hand)
                .metadata("promised", promised)
                .metadata("asked", asked)
        }
        Refusal::TooMany(field) => {
            let most = format!("must leave at most {ON_HAND_MAX} units at a location");
            InvalidRequest::one(field, FieldError::new(Reason::OutOfBounds, most)).into()
        }
        Refusal::EtagMismatch { key, current } => etag_mismatch(&key.sku, Etag(current)),
        Refusal::Inconsistent => bug("a stock record contradicts itself", &refusal),
    }
}

fn violation(reason: Reason, short: &Short, word: &str) -> PreconditionViolation {
    let subject = format!("sku/{}", short.key.sku);
    let description = format!("asked {}, {word} {} at {}", short.asked, short.there, short.key.location);
    PreconditionViolation::new(reason.wire_name(), subject, description)
}

fn products_not_found(skus: &[Sku]) -> Failure {
    let first = skus.first().map_or("", Sku::as_str);
    let violations = skus.iter().map(|sku| {
        PreconditionViolation::new(Reason::ProductNotFound.wire_name(), format!("sku/{sku}"), "no such product")
    });
    Failure::not_found(Reason::ProductNotFound, PRODUCT, first).precondition_violations(violations)
}

fn etag_mismatch(sku: &Sku, current: Etag) -> Failure {
    Failure::new(Code::Aborted, Reason::EtagMismatch, "it has changed since you read it")
        .metadata("sku", sku)
        .metadata("etag", current.text())
}

fn key_reused(field: &str) -> Failure {
    let message = format!("{field} was used before for something else");
    Failure::new(Code::FailedPrecondition, Reason::IdempotencyKeyReused, message).metadata("field", field)
}
