//! BatchChangeReservations.

use souk_proto_common::failure::reason_of;
use souk_proto_common::v1::Reason;
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::reservation_change::Change;
use souk_proto_inventory::v1::reservation_result::Outcome;
use tonic::{Code, Status};

use crate::bad_fields::{assert_named, assert_named_in};
use crate::harness::{STAFF, Server, is_replay};

/// A hold of TEA under a name, without a key.
fn hold(name: &str, quantity: i64) -> Change {
    let line = pb::QuantityLine { sku: "TEA".into(), quantity, ..Default::default() };
    Change::Reserve(pb::ReserveRequest { reservation_id: name.into(), lines: vec![line], ..Default::default() })
}

fn commit(name: &str) -> Change {
    Change::Commit(pb::CommitRequest { reservation_id: name.into(), ..Default::default() })
}

fn release(name: &str) -> Change {
    Change::Release(pb::ReleaseRequest { reservation_id: name.into(), ..Default::default() })
}

fn request(changes: impl IntoIterator<Item = Change>) -> pb::BatchChangeReservationsRequest {
    let change = |change| pb::ReservationChange { change: Some(change), ..Default::default() };
    pb::BatchChangeReservationsRequest { changes: changes.into_iter().map(change).collect() }
}

/// What became of each: its state and whether it was so before, or the reason.
type Told = Result<(pb::ReservationState, bool), (Code, Option<Reason>)>;

async fn sent(server: &Server, changes: impl IntoIterator<Item = Change>) -> Vec<Told> {
    let done = server.stock(STAFF).batch_change_reservations(request(changes)).await.unwrap().into_inner();
    let told = |result: pb::ReservationResult| match result.outcome.unwrap() {
        Outcome::Reservation(reservation) => Ok((reservation.state(), result.replayed)),
        Outcome::Error(error) => {
            let status = Status::from(error);
            Err((status.code(), reason_of(&status)))
        }
    };
    done.results.into_iter().map(told).collect()
}

fn refused(reason: Reason) -> Told {
    Err((Code::FailedPrecondition, Some(reason)))
}

const HELD: Told = Ok((pb::ReservationState::Held, false));
const COMMITTED: Told = Ok((pb::ReservationState::Committed, false));
const RELEASED: Told = Ok((pb::ReservationState::Released, false));

#[tokio::test]
async fn each_change_is_done_or_refused_on_its_own_in_order() {
    let server = Server::start().await;
    server.with_stock("TEA", 5).await;
    let (a, b, c) = (server.id(), server.id(), server.id());
    let told =
        sent(&server, [hold(&a, 3), hold(&b, 3), commit(&a), release(&c), hold(&c, 2), release(&c), hold(&b, 2)]).await;
    let expected = [
        HELD,
        refused(Reason::InsufficientStock),
        COMMITTED,
        Err((Code::NotFound, Some(Reason::ReservationNotFound))),
        HELD,
        RELEASED,
        HELD,
    ];
    assert_eq!(told, expected);
    let level = server.level("TEA").await;
    assert_eq!((level.held, level.allocated), (2, 3));
}

#[tokio::test]
async fn without_a_key_the_reservation_tells_a_repeat() {
    let server = Server::start().await;
    server.with_stock("TEA", 5).await;
    let name = server.id();
    assert_eq!(sent(&server, [hold(&name, 3)]).await, [HELD]);
    assert_eq!(sent(&server, [hold(&name, 3)]).await, [Ok((pb::ReservationState::Held, true))]);
    assert_eq!(sent(&server, [hold(&name, 2)]).await, [refused(Reason::IdempotencyKeyReused)], "not the same");
    assert_eq!(sent(&server, [commit(&name)]).await, [COMMITTED]);
    assert_eq!(sent(&server, [commit(&name)]).await, [refused(Reason::ReservationAlreadyCommitted)]);
    assert_eq!(sent(&server, [hold(&name, 3)]).await, [refused(Reason::ReservationAlreadyCommitted)]);
    assert_eq!(sent(&server, [release(&name)]).await, [RELEASED]);
    assert_eq!(sent(&server, [release(&name)]).await, [refused(Reason::ReservationAlreadyReleased)]);
    let level = server.level("TEA").await;
    assert_eq!((level.held, level.allocated, level.available), (0, 0, 5));
}

#[tokio::test]
async fn a_key_is_the_same_one_in_a_batch_and_in_a_call_of_its_own() {
    let server = Server::start().await;
    server.with_stock("TEA", 5).await;
    let alone = server.reserve(&[("TEA", 2)]);
    server.stock(STAFF).reserve(alone.clone()).await.unwrap();
    let again = sent(&server, [Change::Reserve(alone.clone())]).await;
    assert_eq!(again, [Ok((pb::ReservationState::Held, true))]);
    let commit = pb::CommitRequest { request_id: server.id(), reservation_id: alone.reservation_id, lines: Vec::new() };
    assert_eq!(
        sent(&server, [Change::Commit(commit.clone()), Change::Commit(commit.clone())]).await,
        [COMMITTED, Ok((pb::ReservationState::Committed, true))]
    );
    let replayed = server.stock(STAFF).commit(commit).await.unwrap();
    assert!(is_replay(&replayed));
}

#[tokio::test]
async fn what_is_not_well_formed_is_named_and_does_not_disturb_the_others() {
    let server = Server::start().await;
    server.with_stock("TEA", 5).await;
    let some = vec![pb::QuantityLine { sku: "TEA".into(), quantity: 1, ..Default::default() }];
    let changes = [
        Some(hold("x", 0)),
        Some(Change::Release(pb::ReleaseRequest { reservation_id: server.id(), lines: some, ..Default::default() })),
        None,
        Some(hold(&server.id(), 1)),
    ];
    let changes = changes.map(|change| pb::ReservationChange { change, traceparent: "no position".into() });
    let request = pb::BatchChangeReservationsRequest { changes: changes.into() };
    let results = server.stock(STAFF).batch_change_reservations(request).await.unwrap().into_inner().results;
    let expected: [&[&str]; 3] = [
        &["reserve.reservation_id INVALID_FORMAT", "reserve.lines[0].quantity OUT_OF_BOUNDS"],
        &["release.request_id REQUIRED"],
        &["change REQUIRED"],
    ];
    let mut outcomes = results.into_iter().map(|result| result.outcome.unwrap());
    for expected in expected {
        let Some(Outcome::Error(error)) = outcomes.next() else { panic!("{expected:?}") };
        assert_named_in(error, expected);
    }
    assert!(matches!(outcomes.next(), Some(Outcome::Reservation(_))));
    assert_eq!(server.level("TEA").await.held, 1);
}

#[tokio::test]
async fn a_call_without_changes_or_with_too_many_is_refused_whole() {
    let server = Server::start().await;
    let mut staff = server.stock(STAFF);
    assert_named(staff.batch_change_reservations(request([])).await, &["changes REQUIRED"]);
    let too_many = (0..1_001).map(|_| release(&server.id()));
    assert_named(staff.batch_change_reservations(request(too_many)).await, &["changes TOO_MANY"]);
}
