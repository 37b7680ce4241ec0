//! WatchStock and SyncMovements, health and reflection.

use std::time::Duration;

use futures::StreamExt;
use souk_proto_common::v1::Reason;
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::sync_movements_request::Movement;
use souk_proto_inventory::v1::sync_movements_response::Outcome;
use souk_proto_inventory::v1::watch_stock_response::Update;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::harness::{STAFF, Server, assert_refused};

fn watch(skus: &[&str], known: &[(&str, i64)]) -> pb::WatchStockRequest {
    pb::WatchStockRequest {
        skus: skus.iter().map(|sku| (*sku).to_owned()).collect(),
        location: String::new(),
        known: known.iter().map(|(sku, version)| pb::KnownVersion { sku: (*sku).into(), version: *version }).collect(),
    }
}

async fn next(updates: &mut Streaming<pb::WatchStockResponse>) -> Option<(String, i64)> {
    match updates.message().await.unwrap().unwrap().update.unwrap() {
        Update::Level(level) => Some((level.sku, level.version)),
        Update::SnapshotEnd(_) => None,
    }
}

#[tokio::test]
async fn a_watcher_sees_the_snapshot_then_changes_and_resumes_where_it_was() {
    let server = Server::start().await;
    server.with_stock("TEA", 5).await;
    server.with_stock("CUP", 5).await;
    let mut staff = server.stock(STAFF);
    let mut updates = staff.watch_stock(watch(&["TEA", "CUP", "TEA"], &[])).await.unwrap().into_inner();
    assert_eq!(next(&mut updates).await, Some(("TEA".into(), 1)));
    assert_eq!(next(&mut updates).await, Some(("CUP".into(), 1)));
    assert_eq!(next(&mut updates).await, None);
    staff.receive(server.receive("CUP", 1)).await.unwrap();
    assert_eq!(next(&mut updates).await, Some(("CUP".into(), 2)));
    staff.reserve(server.reserve(&[("TEA", 1)])).await.unwrap();
    assert_eq!(next(&mut updates).await, Some(("TEA".into(), 2)));
    drop(updates);

    staff.receive(server.receive("TEA", 1)).await.unwrap();
    let known = watch(&["TEA", "CUP"], &[("TEA", 2), ("CUP", 2)]);
    let mut resumed = staff.watch_stock(known).await.unwrap().into_inner();
    assert_eq!(next(&mut resumed).await, Some(("TEA".into(), 3)));
    assert_eq!(next(&mut resumed).await, None);

    assert!(server.kernel.tasks.stop(Duration::from_secs(10)).await);
    let end = resumed.message().await;
    assert_refused(end, Code::Unavailable, Reason::ShuttingDown);
}

#[tokio::test]
async fn a_watch_of_what_is_not_there_is_refused() {
    let server = Server::start().await;
    server.with_stock("TEA", 5).await;
    let absent = server.stock(STAFF).watch_stock(watch(&["TEA", "NONE"], &[])).await;
    assert_refused(absent, Code::NotFound, Reason::ProductNotFound);
    let mut elsewhere = watch(&["TEA"], &[]);
    elsewhere.location = "moon".into();
    assert_refused(server.stock(STAFF).watch_stock(elsewhere).await, Code::NotFound, Reason::LocationNotFound);
}

fn movement(server: &Server, sku: &str, movement: Movement) -> pb::SyncMovementsRequest {
    pb::SyncMovementsRequest {
        request_id: server.id(),
        sku: sku.into(),
        movement: Some(movement),
        reason: pb::MovementReason::Other.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_scanner_gets_an_acknowledgement_for_each_movement_in_order() {
    let server = Server::start().await;
    server.with_stock("TEA", 0).await;
    let mut movements = vec![
        movement(&server, "TEA", Movement::Received(10)),
        movement(&server, "TEA", Movement::Delta(-3)),
        movement(&server, "TEA", Movement::Delta(-8)),
        movement(&server, "NONE", Movement::Received(1)),
        movement(&server, "TEA", Movement::Received(0)),
    ];
    // Counted after the delta, which was movement 2.
    let count = pb::AbsoluteCount { on_hand: 6, etag: "v2".into() };
    movements.push(movement(&server, "TEA", Movement::Count(count)));
    movements.extend((0..100).map(|_| movement(&server, "TEA", Movement::Received(1))));
    let sent = futures::stream::iter(movements.clone());
    let mut staff = server.stock("stock.write");
    let mut acknowledged = staff.sync_movements(sent).await.unwrap().into_inner();
    let mut outcomes = Vec::new();
    for movement in &movements {
        let ack = acknowledged.message().await.unwrap().unwrap();
        assert_eq!(ack.request_id, movement.request_id);
        assert!(!ack.replayed);
        outcomes.push(match ack.outcome.unwrap() {
            Outcome::Level(level) => Ok(level.on_hand),
            Outcome::Error(status) => Err(Code::from(status.code)),
        });
    }
    assert!(acknowledged.message().await.unwrap().is_none());
    let first = [Ok(10), Ok(7), Err(Code::FailedPrecondition), Err(Code::NotFound), Err(Code::InvalidArgument), Ok(6)];
    assert_eq!(outcomes[..6], first);
    assert!(outcomes[6..].iter().zip(7..).all(|(outcome, on_hand)| *outcome == Ok(on_hand)));

    // After a broken stream what took effect is sent again: nothing happens twice, and each is told as it was.
    let taken = |index: usize| outcomes[index].is_ok();
    let sent: Vec<_> = movements.into_iter().enumerate().filter(|(index, _)| taken(*index)).collect();
    let again = futures::stream::iter(sent.clone()).map(|(_, movement)| movement);
    let mut again = staff.sync_movements(again).await.unwrap().into_inner();
    for (index, _) in sent {
        let ack = again.message().await.unwrap().unwrap();
        let Some(Outcome::Level(level)) = ack.outcome else { panic!("{ack:?}") };
        assert_eq!((ack.replayed, Ok(level.on_hand)), (true, outcomes[index]));
    }
    assert_eq!(server.level("TEA").await.on_hand, 106);
    server.assert_sound().await;
}

#[tokio::test]
async fn a_failure_that_passes_ends_the_stream_and_not_the_order() {
    let server = Server::start_with(|config| config.database.lock_timeout_ms = 50).await;
    server.with_stock("TEA", 0).await;
    let movements = [movement(&server, "TEA", Movement::Received(5)), movement(&server, "TEA", Movement::Delta(-5))];
    let mut staff = server.stock("stock.write");
    let locked = server.locked().await;
    let mut broken = staff.sync_movements(futures::stream::iter(movements.clone())).await.unwrap().into_inner();
    assert_refused(broken.message().await, Code::Aborted, Reason::RequestInProgress);
    locked.rollback().await.unwrap();
    assert_eq!(server.level("TEA").await.version, 0, "nothing is done behind a failure");
    let mut again = staff.sync_movements(futures::stream::iter(movements)).await.unwrap().into_inner();
    for on_hand in [5, 0] {
        let ack = again.message().await.unwrap().unwrap();
        let Some(Outcome::Level(level)) = ack.outcome else { panic!("{ack:?}") };
        assert_eq!(level.on_hand, on_hand);
    }
}

#[tokio::test]
async fn a_slow_scanner_is_acknowledged_as_it_goes_and_told_of_the_end() {
    let server = Server::start().await;
    server.with_stock("TEA", 0).await;
    let (sender, sent) = mpsc::channel(1);
    let mut staff = server.stock("stock.write");
    let first = movement(&server, "TEA", Movement::Received(1));
    sender.send(first).await.unwrap();
    let mut acknowledged = staff.sync_movements(ReceiverStream::new(sent)).await.unwrap().into_inner();
    assert!(acknowledged.message().await.unwrap().is_some());
    sender.send(movement(&server, "TEA", Movement::Received(1))).await.unwrap();
    assert!(acknowledged.message().await.unwrap().is_some());
    assert!(server.kernel.tasks.stop(Duration::from_secs(10)).await);
    assert_refused(acknowledged.message().await, Code::Unavailable, Reason::ShuttingDown);
}

#[tokio::test]
async fn health_is_told_for_each_service() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel());
    for service in ["", "souk.inventory.v1.CatalogService", "souk.inventory.v1.StockService"] {
        let check = HealthCheckRequest { service: service.into() };
        let mut updates = health.watch(check).await.unwrap().into_inner();
        while updates.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    }
}
