//! Watchers and events: who is told what.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use souk_events::{Bus, Heard};
use souk_inventory::domain::product::Patch;
use souk_inventory::domain::query::{UpdateProduct, WatchStock};
use souk_inventory::error::Error;
use souk_inventory::ops;
use souk_inventory::ops::watch_stock::Update;
use souk_runtime::Kernel;

use crate::shop::{Shop, details, key, keyed, order, replica, sku, staff};

#[tokio::test]
async fn a_watcher_has_the_snapshot_then_changes_and_never_the_same_twice() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA", "CUP"], 5).await;
    let watch = |known| WatchStock { keys: vec![(key("TEA"), known), (key("CUP"), None)] };
    let mut updates = Box::pin(ops::watch_stock(&shop.app, watch(None)).await.unwrap());
    assert_eq!(versions(&mut updates, 2).await, [("TEA".into(), 1), ("CUP".into(), 1)]);
    assert_eq!(updates.next().await.unwrap().unwrap(), Update::SnapshotEnd);
    assert_eq!(updates.next().now_or_never().map(|_| ()), None, "nothing changed");
    // A slow reader: of many changes it gets the last.
    for _ in 0..5 {
        shop.receive("TEA", 1).await.unwrap();
    }
    assert_eq!(versions(&mut updates, 1).await, [("TEA".into(), 6)]);
    assert_eq!(updates.next().now_or_never().map(|_| ()), None);
    // To resume, it says what it has.
    let mut resumed = Box::pin(ops::watch_stock(&shop.app, watch(Some(6))).await.unwrap());
    assert_eq!(versions(&mut resumed, 1).await, [("CUP".into(), 1)]);
    assert_eq!(resumed.next().await.unwrap().unwrap(), Update::SnapshotEnd);
    let mut behind = Box::pin(ops::watch_stock(&shop.app, watch(Some(5))).await.unwrap());
    assert_eq!(versions(&mut behind, 1).await, [("TEA".into(), 6)]);
    // And it is told of the end.
    assert!(shop.kernel.tasks.stop(Duration::from_secs(10)).await);
    assert!(matches!(updates.next().await, Some(Err(Error::ShuttingDown))));
    assert!(updates.next().await.is_none());
}

async fn versions(
    updates: &mut (impl futures::Stream<Item = Result<Update, Error>> + Unpin),
    count: usize,
) -> Vec<(String, i64)> {
    let mut versions = Vec::new();
    for _ in 0..count {
        let Update::Level(level) = updates.next().await.unwrap().unwrap() else { panic!("a level was expected") };
        versions.push((level.key.sku.as_str().to_owned(), level.stock.version));
    }
    versions
}

#[tokio::test]
async fn a_watcher_hears_of_what_another_replica_did() {
    let shop = Shop::on(souk_testkit::postgres().await).await.stocked(&["TEA"], 5).await;
    let other = Kernel::new(shop.kernel.clock.clone());
    let app = replica(&other, &shop.database, &Bus::memory()).await;
    let mut updates = Box::pin(ops::watch_stock(&app, WatchStock { keys: vec![(key("TEA"), Some(1))] }).await.unwrap());
    assert_eq!(updates.next().await.unwrap().unwrap(), Update::SnapshotEnd);
    shop.receive("TEA", 1).await.unwrap();
    // The poll of the other replica waits for the clock; it may begin to wait only now.
    let told = loop {
        shop.wait(1);
        if let Some(told) = versions(&mut updates, 1).now_or_never() {
            break told;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(told, [("TEA".into(), 2)]);
}

#[tokio::test]
async fn every_change_is_told_in_order() {
    let shop = Shop::on_sqlite().await;
    let mut listener = shop.bus.listen(&["souk.inventory.>"]).await.unwrap();
    let shop = shop.stocked(&["TEA"], 5).await;
    let first = shop.reserve(&[("TEA", 1)]).await.unwrap();
    shop.commit(first.id).await.unwrap();
    let release = shop.resolve(first.id);
    ops::release_reservation(&shop.app, &order(), release).await.unwrap();
    let second = shop.reserve(&[("TEA", 1)]).await.unwrap();
    shop.wait(10);
    ops::expire_holds(&shop.app, shop.kernel.clock.now()).await.unwrap();
    let patch = Patch { price: Some(details("TEA", 200).price), ..Patch::default() };
    let update = keyed(shop.id(), UpdateProduct { sku: sku("TEA"), etag: None, patch });
    ops::update_product(&shop.app, &staff(), update).await.unwrap();

    let mut told: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    while told.values().map(Vec::len).sum::<usize>() < 13 {
        let Some(Heard::Event(event)) = listener.next().await else { panic!("an event was expected") };
        let kind = event.kind.trim_start_matches("souk.inventory.v1.").to_owned();
        told.entry(event.aggregate.clone()).or_default().push((kind, event.version));
    }
    let expected =
        |kinds: &[&str]| -> Vec<(String, i64)> { kinds.iter().map(|kind| (*kind).to_owned()).zip(1..).collect() };
    assert_eq!(told["product/TEA"], expected(&["ProductCreated", "ProductUpdated"]));
    assert_eq!(told["stock/main/TEA"], expected(&["StockChanged"; 6]));
    let resolved = ["ReservationHeld", "ReservationCommitted", "ReservationReleased"];
    assert_eq!(told[&format!("reservation/{}", first.id)], expected(&resolved));
    assert_eq!(told[&format!("reservation/{}", second.id)], expected(&["ReservationHeld", "ReservationExpired"]));
}
