//! StockService, the unary part.

use std::time::Duration;

use souk_proto_common::v1::Reason;
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::adjust_request::Change;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{STAFF, Server, assert_refused, is_replay, quantities};

fn commit(server: &Server, reservation_id: &str, lines: &[(&str, i64)]) -> pb::CommitRequest {
    let lines = quantities(lines);
    pb::CommitRequest { request_id: server.id(), reservation_id: reservation_id.into(), lines }
}

fn release(server: &Server, reservation_id: &str, lines: &[(&str, i64)]) -> pb::ReleaseRequest {
    let lines = quantities(lines);
    pb::ReleaseRequest { request_id: server.id(), reservation_id: reservation_id.into(), lines }
}

/// Subject and description of each violation.
fn preconditions(status: &Status) -> Vec<(String, String)> {
    let failure = status.get_details_precondition_failure().unwrap();
    failure.violations.into_iter().map(|violation| (violation.subject, violation.description)).collect()
}

#[tokio::test]
async fn stock_is_held_committed_and_given_back() {
    let server = Server::start().await;
    server.with_stock("TEA", 10).await;
    let mut order = server.stock("stock.reserve");
    let request = server.reserve(&[("TEA", 2), ("TEA", 3)]);
    let held = order.reserve(request.clone()).await.unwrap();
    assert!(!is_replay(&held));
    let held = held.into_inner().reservation.unwrap();
    assert_eq!((held.lines.len(), held.lines[0].requested), (1, 5));
    let again = order.reserve(request.clone()).await.unwrap();
    assert!(is_replay(&again));
    assert_eq!(again.into_inner().reservation.unwrap(), held);
    let level = server.level("TEA").await;
    assert_eq!((level.on_hand, level.held, level.allocated, level.available), (10, 5, 0, 5));

    let request = commit(&server, &held.reservation_id, &[("TEA", 4)]);
    let committed = order.commit(request.clone()).await.unwrap().into_inner().reservation.unwrap();
    assert_eq!((committed.lines[0].committed, committed.lines[0].released), (4, 1));
    server.kernel.clock.advance(Duration::from_secs(100_000));
    let mut later = server.stock("stock.reserve");
    let again = later.commit(request).await.unwrap();
    assert!(is_replay(&again), "a commit is answered the same even after the expiry");
    assert_eq!(again.into_inner().reservation.unwrap(), committed);
    let level = server.level("TEA").await;
    assert_eq!((level.held, level.allocated, level.available), (0, 4, 6));

    later.release(release(&server, &held.reservation_id, &[("TEA", 1)])).await.unwrap();
    let released = later.release(release(&server, &held.reservation_id, &[])).await.unwrap().into_inner();
    let released = released.reservation.unwrap();
    assert_eq!(released.state(), pb::ReservationState::Released);
    assert_eq!(server.level("TEA").await.available, 10);
    server.assert_sound().await;
}

#[tokio::test]
async fn short_stock_names_every_short_line_and_holds_none() {
    let server = Server::start().await;
    for sku in ["A", "B", "C"] {
        server.with_stock(sku, 5).await;
    }
    server.with_stock("EMPTY", 0).await;
    let mut order = server.stock("stock.reserve");
    let before = server.rows().await;
    let refused = order.reserve(server.reserve(&[("C", 6), ("A", 3), ("B", 5), ("A", 3), ("EMPTY", 1)])).await;
    let refused = assert_refused(refused, Code::FailedPrecondition, Reason::InsufficientStock);
    let named: Vec<(String, String)> = preconditions(&refused);
    let expected = [
        ("sku/A", "asked 6, available 5 at main"),
        ("sku/C", "asked 6, available 5 at main"),
        ("sku/EMPTY", "asked 1, available 0 at main"),
    ];
    assert_eq!(named, expected.map(|(subject, text)| (subject.to_owned(), text.to_owned())));
    let unknown = order.reserve(server.reserve(&[("X", 1), ("A", 100), ("W", 1)])).await;
    let unknown = assert_refused(unknown, Code::NotFound, Reason::ProductNotFound);
    assert_eq!(unknown.get_details_resource_info().unwrap().resource_name, "W");
    let subjects: Vec<String> = preconditions(&unknown).into_iter().map(|(subject, _)| subject).collect();
    assert_eq!(subjects, ["sku/W", "sku/X"]);
    let mut elsewhere = server.reserve(&[("A", 1)]);
    elsewhere.lines[0].location = "moon".into();
    assert_refused(order.reserve(elsewhere).await, Code::NotFound, Reason::LocationNotFound);
    assert_eq!(server.rows().await, before, "what was refused changed nothing");
}

#[tokio::test]
async fn a_hold_resolves_once_and_each_refusal_says_how() {
    let server = Server::start().await;
    server.with_stock("TEA", 10).await;
    let mut order = server.stock("stock.reserve");
    let absent = order.commit(commit(&server, &server.id(), &[])).await;
    assert_refused(absent, Code::NotFound, Reason::ReservationNotFound);

    let request = server.reserve(&[("TEA", 2)]);
    let committed = request.reservation_id.clone();
    order.reserve(request.clone()).await.unwrap();
    let exceeding = order.commit(commit(&server, &committed, &[("TEA", 3), ("CUP", 1)])).await;
    let exceeding = assert_refused(exceeding, Code::FailedPrecondition, Reason::QuantityExceedsOpen);
    let named: Vec<String> = preconditions(&exceeding).into_iter().map(|(subject, _)| subject).collect();
    assert_eq!(named, ["sku/CUP", "sku/TEA"]);
    order.commit(commit(&server, &committed, &[])).await.unwrap();
    let twice = order.commit(commit(&server, &committed, &[])).await;
    assert_refused(twice, Code::FailedPrecondition, Reason::ReservationAlreadyCommitted);

    let request_2 = server.reserve(&[("TEA", 2)]);
    let released = request_2.reservation_id.clone();
    order.reserve(request_2).await.unwrap();
    order.release(release(&server, &released, &[])).await.unwrap();
    let late = order.commit(commit(&server, &released, &[])).await;
    assert_refused(late, Code::FailedPrecondition, Reason::ReservationAlreadyReleased);
    let twice = order.release(release(&server, &released, &[])).await;
    assert_refused(twice, Code::FailedPrecondition, Reason::ReservationAlreadyReleased);

    let mut request_3 = server.reserve(&[("TEA", 2)]);
    request_3.ttl = Some(pbjson_types::Duration { seconds: 1, nanos: 0 });
    let expired = request_3.reservation_id.clone();
    order.reserve(request_3).await.unwrap();
    server.kernel.clock.advance(Duration::from_secs(1));
    let late = order.commit(commit(&server, &expired, &[])).await;
    assert_refused(late, Code::FailedPrecondition, Reason::ReservationExpired);
    let late = order.release(release(&server, &expired, &[])).await;
    assert_refused(late, Code::FailedPrecondition, Reason::ReservationExpired);

    let mut named_twice = server.reserve(&[("TEA", 9)]);
    named_twice.reservation_id = committed;
    let named_twice = order.reserve(named_twice).await;
    assert_refused(named_twice, Code::FailedPrecondition, Reason::IdempotencyKeyReused);
    let mut reused = request;
    reused.lines = quantities(&[("TEA", 1)]);
    assert_refused(order.reserve(reused).await, Code::FailedPrecondition, Reason::IdempotencyKeyReused);
    server.assert_sound().await;
}

#[tokio::test]
async fn stock_is_received_counted_and_corrected() {
    let server = Server::start().await;
    server.with_stock("TEA", 10).await;
    let mut staff = server.stock("stock.write stock.read");
    let adjust = |change| pb::AdjustRequest {
        request_id: server.id(),
        sku: "TEA".into(),
        change: Some(change),
        reason: pb::MovementReason::Count.into(),
        ..Default::default()
    };
    let counted = server.level("TEA").await;
    server.stock("stock.reserve").reserve(server.reserve(&[("TEA", 4)])).await.unwrap();
    let count = |on_hand| Change::Count(pb::AbsoluteCount { on_hand, etag: counted.etag.clone() });
    let level = staff.adjust(adjust(count(9))).await.unwrap().into_inner().level.unwrap();
    assert_eq!((level.on_hand, level.available), (9, 5), "a hold does not disturb a count");
    assert_refused(staff.adjust(adjust(count(8))).await, Code::Aborted, Reason::EtagMismatch);
    let request = adjust(Change::Delta(-5));
    staff.adjust(request.clone()).await.unwrap();
    assert!(is_replay(&staff.adjust(request).await.unwrap()));
    let stranding = staff.adjust(adjust(Change::Delta(-1))).await;
    let stranding = assert_refused(stranding, Code::FailedPrecondition, Reason::WouldStrandReservations);
    let metadata = stranding.get_details_error_info().unwrap().metadata;
    assert_eq!((metadata["on_hand"].as_str(), metadata["promised"].as_str()), ("4", "4"));

    staff.receive(server.receive("TEA", 1_000_000_000)).await.unwrap();
    let absent = staff.receive(server.receive("NONE", 1)).await;
    assert_refused(absent, Code::NotFound, Reason::ProductNotFound);
    let mut elsewhere = server.receive("TEA", 1);
    elsewhere.location = "moon".into();
    assert_refused(staff.receive(elsewhere).await, Code::NotFound, Reason::LocationNotFound);
    server.assert_sound().await;
}

#[tokio::test]
async fn a_location_can_hold_so_much_and_no_more() {
    let server = Server::start().await;
    server.with_stock("TEA", 1).await;
    let mut staff = server.stock("stock.write");
    let level = server.level("TEA").await;
    let full = pb::AdjustRequest {
        request_id: server.id(),
        sku: "TEA".into(),
        change: Some(Change::Count(pb::AbsoluteCount { on_hand: 1_000_000_000_000, etag: level.etag })),
        reason: pb::MovementReason::Count.into(),
        ..Default::default()
    };
    staff.adjust(full.clone()).await.unwrap();
    let more =
        assert_refused(staff.receive(server.receive("TEA", 1)).await, Code::InvalidArgument, Reason::InvalidRequest);
    let violation = &more.get_details_bad_request().unwrap().field_violations[0];
    assert_eq!((violation.field.as_str(), violation.reason.as_str()), ("quantity", "OUT_OF_BOUNDS"));
    let more = pb::AdjustRequest { request_id: server.id(), change: Some(Change::Delta(1)), ..full };
    assert_refused(staff.adjust(more).await, Code::InvalidArgument, Reason::InvalidRequest);
}

#[tokio::test]
async fn levels_and_movements_are_read() {
    let server = Server::start().await;
    server.with_stock("TEA", 10).await;
    server.with_stock("NEW", 0).await;
    let mut staff = server.stock("stock.read");
    let skus = ["NONE", "TEA", "NEW"].map(str::to_owned).to_vec();
    let batch = pb::BatchGetStockRequest { skus, location: String::new() };
    let batch = staff.batch_get_stock(batch).await.unwrap().into_inner();
    let levels: Vec<(&str, i64, i64)> =
        batch.levels.iter().map(|level| (level.sku.as_str(), level.on_hand, level.version)).collect();
    assert_eq!((levels, batch.missing_skus), (vec![("TEA", 10, 1), ("NEW", 0, 0)], vec!["NONE".to_owned()]));
    let absent = pb::GetStockRequest { sku: "NONE".into(), location: String::new() };
    assert_refused(staff.get_stock(absent).await, Code::NotFound, Reason::ProductNotFound);
    let elsewhere = pb::GetStockRequest { sku: "TEA".into(), location: "moon".into() };
    assert_refused(staff.get_stock(elsewhere).await, Code::NotFound, Reason::LocationNotFound);

    for _ in 0..4 {
        server.stock(STAFF).reserve(server.reserve(&[("TEA", 1)])).await.unwrap();
    }
    let mut seqs = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListMovementsRequest { sku: "TEA".into(), page_size: 2, page_token, ..Default::default() };
        let page = staff.list_movements(request).await.unwrap().into_inner();
        seqs.extend(page.movements.iter().map(|movement| (movement.seq, movement.operation())));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        // The token belongs to this product.
        let other =
            pb::ListMovementsRequest { sku: "NEW".into(), page_token: page_token.clone(), ..Default::default() };
        assert_refused(staff.list_movements(other).await, Code::InvalidArgument, Reason::InvalidRequest);
    }
    let reserved = pb::MovementOperation::Reserve;
    let expected = [(5, reserved), (4, reserved), (3, reserved), (2, reserved), (1, pb::MovementOperation::Receive)];
    assert_eq!(seqs, expected);
    let absent = pb::ListMovementsRequest { sku: "NONE".into(), ..Default::default() };
    assert_refused(staff.list_movements(absent).await, Code::NotFound, Reason::ProductNotFound);
    let empty = pb::ListMovementsRequest { sku: "NEW".into(), ..Default::default() };
    assert_eq!(staff.list_movements(empty).await.unwrap().into_inner().movements, []);
}

#[tokio::test]
async fn each_scope_opens_its_own_calls() {
    let server = Server::start().await;
    let mut nothing = server.stock("orders.place");
    let denied = (Code::PermissionDenied, Reason::ScopeMissing);
    assert_refused(nothing.get_stock(pb::GetStockRequest::default()).await, denied.0, denied.1);
    assert_refused(nothing.batch_get_stock(pb::BatchGetStockRequest::default()).await, denied.0, denied.1);
    assert_refused(nothing.list_movements(pb::ListMovementsRequest::default()).await, denied.0, denied.1);
    assert_refused(nothing.watch_stock(pb::WatchStockRequest::default()).await, denied.0, denied.1);
    let mut reader = server.stock("stock.read");
    assert_refused(reader.receive(pb::ReceiveRequest::default()).await, denied.0, denied.1);
    assert_refused(reader.adjust(pb::AdjustRequest::default()).await, denied.0, denied.1);
    assert_refused(reader.sync_movements(futures::stream::iter([])).await, denied.0, denied.1);
    let mut writer = server.stock("stock.write");
    assert_refused(writer.reserve(pb::ReserveRequest::default()).await, denied.0, denied.1);
    assert_refused(writer.commit(pb::CommitRequest::default()).await, denied.0, denied.1);
    assert_refused(writer.release(pb::ReleaseRequest::default()).await, denied.0, denied.1);
}
