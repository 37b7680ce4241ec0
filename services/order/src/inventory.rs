//! The inventory service, as the orders need it: prices, holds, and the steps that orders owe.

mod lane;

use std::fmt::Write as _;
use std::time::Duration;

use souk_interceptors::client::Channel;
use souk_interceptors::context;
use souk_proto_common::{Failure, IdempotencyKey, Money, Reason, failure};
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::catalog_service_client::CatalogServiceClient;
use souk_proto_inventory::v1::reservation_change::Change;
use souk_proto_inventory::v1::stock_service_client::StockServiceClient;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tracing::{debug, error, warn};
use uuid::Uuid;

use crate::config::LaneConfig;
use crate::domain::pricing::Products;
use crate::domain::saga::Answer;
use crate::domain::{Attempt, Item, Product, Sku, Step, StepKind, UserId};
use crate::error::Error;
use crate::prices::Prices;
use lane::{Lane, Replayed};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inventory {
    catalog: CatalogServiceClient<Channel>,
    /// For new orders.
    holds: Lane,
    /// For what orders owe. However many new ones come, those that are there are brought to their end.
    steps: Lane,
    prices: Prices,
    hold_ttl: Duration,
}

/// What became of a hold for an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing was held under this name before.
    New(Uuid),
    /// It was held already.
    Before(Uuid),
    /// What was held under this name is not held any more.
    Over,
}

/// The namespace of the names of holds.
const HOLD_NAMESPACE: Uuid = Uuid::from_u128(0x2c5e_71a9_0d3b_4f68_8e94_b7d0_1f6a_3c52);

impl Inventory {
    /// The inventory behind `channel`. Stock is held for `hold_ttl`.
    pub fn start(channel: Channel, lane: &LaneConfig, prices: Prices, hold_ttl: Duration) -> Self {
        let catalog = CatalogServiceClient::new(channel.clone());
        let stock = StockServiceClient::new(channel);
        let (holds, steps) = (Lane::start(stock.clone(), lane), Lane::start(stock, lane));
        Self { catalog, holds, steps, prices, hold_ttl }
    }

    /// What is remembered of the catalogue.
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// Those of `skus` that exist.
    pub async fn products(&self, skus: &[Sku]) -> Result<Products, Error> {
        let mut catalog = self.catalog.clone();
        self.prices
            .get(skus, async move |unknown| {
                let skus = unknown.iter().map(|sku| sku.as_str().to_owned()).collect();
                // What the inventory remembers may be what we have just heard the end of.
                let found = catalog
                    .batch_get_products(pb::BatchGetProductsRequest { skus, fresh: true })
                    .await
                    .map_err(|status| refusal(&status))?;
                found.into_inner().products.into_iter().map(product).collect()
            })
            .await
    }

    /// Holds all of `items` for an order under `key`, or none.
    ///
    /// The name is derived from the key and from what is asked for, so that whoever does the same again (a repeat after a crash, a
    /// duplicate in another replica) gets the same hold and not a second one: the inventory answers a Reserve of a name that is held with
    /// what is held. The Reserve itself has no `request_id`. Under one derived from the key, a repeat would be answered with what was true
    /// at the first time, and we would build an order on a hold that has run out since.
    ///
    /// A hold that is over (it ran out after a crash, or was given back) cannot be had again under its name, and the repeat must be able
    /// to succeed. So the names have generations: the first one that is held, or can be, is it. Duplicates that run at once walk the
    /// same way and meet at the same name.
    ///
    /// The walk also passes a hold that was committed: then the order is there. Whoever walks looks for it before the next generation, and
    /// whoever comes with another hold all the same learns of it from the tables when storing its own ([`crate::ops::place_order`] gives
    /// that hold back).
    pub async fn hold(
        &self,
        owner_id: UserId,
        key: &IdempotencyKey,
        items: &[Item],
        generation: u32,
    ) -> Result<Hold, Error> {
        let reservation_id = self.hold_name(owner_id, key, generation);
        match self.reserve(reservation_id, items).await {
            Ok(false) => Ok(Hold::New(reservation_id)),
            Ok(true) => Ok(Hold::Before(reservation_id)),
            Err(status) if is_over(&status) => Ok(Hold::Over),
            Err(status) => Err(refusal(&status)),
        }
    }

    /// Whose, under which key, of what, for how long: whatever differs in a Reserve makes another name.
    fn hold_name(&self, owner_id: UserId, key: &IdempotencyKey, generation: u32) -> Uuid {
        let mut name = format!("{owner_id}/{}/{}/{generation}/", key.request_id, self.hold_ttl.as_millis());
        for byte in key.fingerprint {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        Uuid::new_v5(&HOLD_NAMESPACE, name.as_bytes())
    }

    async fn reserve(&self, reservation_id: Uuid, items: &[Item]) -> Result<Replayed, Status> {
        let line = |item: &Item| pb::QuantityLine {
            sku: item.sku.as_str().to_owned(),
            quantity: item.quantity,
            ..Default::default()
        };
        let request = pb::ReserveRequest {
            request_id: String::new(),
            reservation_id: reservation_id.to_string(),
            lines: items.iter().map(line).collect(),
            ttl: Some(self.hold_ttl.into()),
        };
        self.holds.ask(Change::Reserve(request)).await
    }

    /// Gives back a hold that no order was or will be built on. If that fails, it runs out by itself.
    pub async fn give_back(&self, reservation_id: Uuid) {
        if let Err(status) = self.steps.ask(Change::Release(release(reservation_id))).await {
            debug!(%reservation_id, code = ?status.code(), "a hold is left to run out");
        }
    }

    /// Tries a step once.
    pub async fn attempt(&self, step: &Step, reservation_id: Uuid) -> Attempt {
        let change = match step.kind {
            StepKind::CommitStock => Change::Commit(commit(reservation_id)),
            StepKind::ReleaseStock => Change::Release(release(reservation_id)),
        };
        let asked = self.steps.ask(change).await;
        asked.map_or_else(|status| meaning(step.kind, &status), |_| Attempt::Answered(Answer::Done))
    }
}

/// All that is held. Without a `request_id`: that it is committed tells a repeat.
fn commit(reservation_id: Uuid) -> pb::CommitRequest {
    pb::CommitRequest { reservation_id: reservation_id.to_string(), ..Default::default() }
}

/// All that is open, likewise.
fn release(reservation_id: Uuid) -> pb::ReleaseRequest {
    pb::ReleaseRequest { reservation_id: reservation_id.to_string(), ..Default::default() }
}

/// What a failed try means. Only a reason that says so is the end; a status without one may come from anything on the way.
fn meaning(kind: StepKind, status: &Status) -> Attempt {
    let definite = matches!(status.code(), Code::FailedPrecondition | Code::NotFound);
    let again = || Attempt::Again(format!("{:?}: {}", status.code(), failure::echo(status.message())));
    let Some(reason) = failure::reason_of(status).filter(|_| definite) else { return again() };
    match kind {
        StepKind::CommitStock => match reason {
            // Nobody else knows the name of the reservation, so it was us.
            Reason::ReservationAlreadyCommitted => Attempt::Answered(Answer::Done),
            reason => Attempt::Answered(Answer::Refused(reason)),
        },
        StepKind::ReleaseStock => match reason {
            // Nothing is left to give back.
            Reason::ReservationAlreadyReleased | Reason::ReservationExpired | Reason::ReservationNotFound => {
                Attempt::Answered(Answer::Done)
            }
            // Stock must not be forgotten because of a refusal that we do not understand: an operator will see the step.
            _ => again(),
        },
    }
}

/// The reservation of that name is no hold any more.
fn is_over(status: &Status) -> bool {
    matches!(
        failure::reason_of(status),
        Some(Reason::ReservationExpired | Reason::ReservationAlreadyReleased | Reason::ReservationAlreadyCommitted)
    )
}

/// What a failure of the inventory is to our caller: a refusal that concerns them is passed on with its details; that their time
/// is up is told as it is; anything else is that the inventory is not available.
fn refusal(status: &Status) -> Error {
    let reason = failure::reason_of(status);
    match (status.code(), reason) {
        (Code::FailedPrecondition | Code::NotFound | Code::Aborted, Some(reason)) => {
            Error::Refused(Box::new(passed_on(status, reason)))
        }
        // Our call to it ends a little before the call that we serve: it was the caller's time that ran out.
        (Code::DeadlineExceeded, _) if context::deadline().is_some() => Error::DeadlineExceeded,
        (Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown, _) => {
            warn!(code = ?status.code(), message = status.message(), "the inventory does not answer");
            unavailable(status)
        }
        (Code::ResourceExhausted, _) => unavailable(status),
        // Our own token, scope, request or configuration, or a bug of theirs: nothing that a caller can mend.
        _ => {
            error!(code = ?status.code(), message = status.message(), ?reason, "the inventory does not serve us");
            unavailable(status)
        }
    }
}

fn unavailable(status: &Status) -> Error {
    Error::PeerUnavailable { retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay) }
}

fn passed_on(status: &Status, reason: Reason) -> Failure {
    let details = status.get_error_details();
    let mut failure = Failure::new(status.code(), reason, status.message());
    for (key, value) in details.error_info().into_iter().flat_map(|info| &info.metadata) {
        failure = failure.metadata(key, value);
    }
    if let Some(resource) = details.resource_info() {
        failure = failure.resource(&resource.resource_type, &resource.resource_name);
    }
    if let Some(precondition) = details.precondition_failure() {
        failure = failure.precondition_violations(precondition.violations.clone());
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        failure = failure.retry_after(delay);
    }
    failure
}

fn product(wire: pb::Product) -> Result<Product, Error> {
    let broken = || Error::Bug("the inventory describes a product that cannot be");
    let price = wire.price.as_ref().ok_or_else(broken)?;
    let price = Money::parse(&mut souk_proto_common::Check::new(), price).ok_or_else(broken)?;
    let sku = Sku::parse(&wire.sku).map_err(|_| broken())?;
    let known_tax = (0..=10_000).contains(&wire.tax_basis_points);
    known_tax
        .then_some(Product { sku, name: wire.name, price, tax_basis_points: wire.tax_basis_points })
        .ok_or_else(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, reason: Reason) -> Status {
        Failure::new(code, reason, "planted").into()
    }

    #[test]
    fn only_a_definite_refusal_ends_a_step() {
        use StepKind::{CommitStock, ReleaseStock};
        let precondition = |reason| status(Code::FailedPrecondition, reason);
        let refused = |reason| Attempt::Answered(Answer::Refused(reason));
        let table = [
            (CommitStock, precondition(Reason::ReservationAlreadyCommitted), Some(Attempt::Answered(Answer::Done))),
            (CommitStock, precondition(Reason::ReservationExpired), Some(refused(Reason::ReservationExpired))),
            (CommitStock, precondition(Reason::QuantityExceedsOpen), Some(refused(Reason::QuantityExceedsOpen))),
            (
                CommitStock,
                status(Code::NotFound, Reason::ReservationNotFound),
                Some(refused(Reason::ReservationNotFound)),
            ),
            (CommitStock, status(Code::Unavailable, Reason::DbUnavailable), None),
            (CommitStock, status(Code::PermissionDenied, Reason::ScopeMissing), None),
            (CommitStock, status(Code::Unauthenticated, Reason::TokenExpired), None),
            (CommitStock, status(Code::Aborted, Reason::SerializationConflict), None),
            (CommitStock, status(Code::Internal, Reason::Internal), None),
            (CommitStock, Status::failed_precondition("from some proxy"), None),
            (CommitStock, Status::not_found("from some proxy"), None),
            (ReleaseStock, precondition(Reason::ReservationAlreadyReleased), Some(Attempt::Answered(Answer::Done))),
            (ReleaseStock, precondition(Reason::ReservationExpired), Some(Attempt::Answered(Answer::Done))),
            (ReleaseStock, status(Code::NotFound, Reason::ReservationNotFound), Some(Attempt::Answered(Answer::Done))),
            (ReleaseStock, precondition(Reason::QuantityExceedsOpen), None),
            (ReleaseStock, Status::unavailable("gone"), None),
        ];
        for (kind, status, expected) in table {
            match (meaning(kind, &status), expected) {
                (Attempt::Again(_), None) => {}
                (attempt, expected) => assert_eq!(Some(attempt), expected, "{kind:?} {status:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_that_concerns_the_caller_is_passed_on_with_its_details() {
        let violation =
            tonic_types::PreconditionViolation::new("INSUFFICIENT_STOCK", "sku/TEA", "asked 3, available 1");
        let sent = Failure::new(Code::FailedPrecondition, Reason::InsufficientStock, "too few")
            .metadata("a", "b")
            .precondition_violations([violation]);
        let told = Status::from(refusal(&sent.into()));
        assert_eq!((told.code(), told.message()), (Code::FailedPrecondition, "too few"));
        assert_eq!(failure::reason_of(&told), Some(Reason::InsufficientStock));
        let details = told.get_error_details();
        assert_eq!(details.precondition_failure().unwrap().violations[0].subject, "sku/TEA");
        assert_eq!(details.error_info().unwrap().metadata["a"], "b");
    }

    #[test]
    fn whatever_else_the_inventory_says_is_that_it_is_not_available() {
        let statuses = [
            Status::unavailable("gone"),
            Status::deadline_exceeded("late"),
            Status::failed_precondition("from some proxy"),
            status(Code::PermissionDenied, Reason::ScopeMissing),
            status(Code::Internal, Reason::Internal),
            status(Code::InvalidArgument, Reason::InvalidRequest),
            Failure::new(Code::ResourceExhausted, Reason::RateLimited, "slow")
                .retry_after(Duration::from_secs(7))
                .into(),
        ];
        for status in statuses {
            let told = Status::from(refusal(&status));
            assert_eq!(told.code(), Code::Unavailable, "{status:?}");
            assert_eq!(failure::reason_of(&told), Some(Reason::PeerUnavailable));
            let delay = told.get_details_retry_info().unwrap().retry_delay.unwrap();
            assert_eq!(delay == Duration::from_secs(7), status.code() == Code::ResourceExhausted, "{delay:?}");
        }
    }
}
