//! Products: created, changed, imported.

use futures::FutureExt;
use souk_inventory::domain::command::{Answer, Keyed};
use souk_inventory::domain::product::{Etag, Patch};
use souk_inventory::domain::query::{ImportRow, ListProducts, UpdateProduct};
use souk_inventory::error::Error;
use souk_inventory::ops;
use souk_inventory::ops::import_products::{Effect, Imported, import_products};
use uuid::Uuid;

use crate::shop::{Shop, create, details, keyed, sku, staff};

#[tokio::test]
async fn a_product_is_created_once_and_a_late_repeat_is_recognised() {
    let shop = Shop::on_sqlite().await;
    let command = create(&shop.id(), "TEA");
    let created = ops::create_product(&shop.app, &staff(), command.clone()).await.unwrap();
    assert!(!created.replayed);
    let again = ops::create_product(&shop.app, &staff(), command.clone()).await.unwrap();
    assert_eq!((again.replayed, &again.value), (true, &created.value));
    let taken = ops::create_product(&shop.app, &staff(), create(&shop.id(), "TEA")).await;
    assert!(matches!(taken, Err(Error::ProductExists(_))), "{taken:?}");
    let mut reused = command.clone();
    reused.key.fingerprint = [2; 32];
    let reused = ops::create_product(&shop.app, &staff(), reused).await;
    assert!(matches!(reused, Err(Error::KeyReused)), "{reused:?}");
    // Keys are forgotten after 72 hours, what they created is not.
    shop.wait(73 * 3_600);
    let forgotten = ops::forget_keys(&shop.app, shop.kernel.clock.now()).await.unwrap();
    assert_eq!(forgotten, 1);
    assert!(ops::create_product(&shop.app, &staff(), command).await.unwrap().replayed);
}

#[tokio::test]
async fn an_update_changes_what_is_named_if_the_etag_is_current() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 0).await;
    let patch = Patch { name: Some("Green tea".into()), ..Patch::default() };
    let update = |etag, patch| keyed(shop.id(), UpdateProduct { sku: sku("TEA"), etag, patch });
    let updated = ops::update_product(&shop.app, &staff(), update(Some(Etag(1)), patch.clone())).await.unwrap().value;
    assert_eq!((updated.details.name.as_str(), updated.version), ("Green tea", 2));
    let late = ops::update_product(&shop.app, &staff(), update(Some(Etag(1)), patch.clone())).await;
    assert!(matches!(late, Err(Error::ProductChanged { current: Etag(2), .. })), "{late:?}");
    let same = ops::update_product(&shop.app, &staff(), update(None, patch)).await.unwrap().value;
    assert_eq!(same, updated, "what is there already changes nothing");
    assert_eq!(*ops::get_product(&shop.app, sku("TEA")).await.unwrap(), updated);
}

const IMPORT: Uuid = Uuid::from_u128(1);

fn row(id: u128, text: &str, etag: Option<Etag>, amount_minor: i64) -> Keyed<ImportRow> {
    keyed(Uuid::from_u128(id), ImportRow { sku: sku(text), etag, details: details(text, amount_minor) })
}

#[tokio::test]
async fn an_import_creates_updates_and_leaves_alone_row_by_row() {
    let shop = Shop::on_sqlite().await.stocked(&["OLD", "SAME"], 0).await;
    let rows = [
        row(1, "NEW", None, 100),
        row(2, "OLD", Some(Etag(1)), 200),
        row(3, "SAME", None, 100),
        row(4, "OLD", Some(Etag(1)), 300),
        row(5, "NEW", None, 500),
        row(6, "NONE", Some(Etag(1)), 100),
    ];
    let done = |effect, version, replayed| Answer { value: Imported { effect, etag: Etag(version) }, replayed };
    let results = import_products(&shop.app, &staff(), IMPORT, &rows).await.unwrap();
    assert_eq!(results[0].clone().unwrap(), done(Effect::Created, 1, false));
    assert_eq!(results[1].clone().unwrap(), done(Effect::Updated, 2, false));
    assert_eq!(results[2].clone().unwrap(), done(Effect::Unchanged, 1, false));
    assert!(matches!(results[3], Err(Error::ProductChanged { .. })));
    assert_eq!(results[4].clone().unwrap(), done(Effect::Updated, 2, false));
    assert!(matches!(results[5], Err(Error::ProductNotFound(_))));
    assert_eq!(ops::get_product(&shop.app, sku("NEW")).await.unwrap().details.price.amount_minor, 500);
    let again = import_products(&shop.app, &staff(), IMPORT, &rows[..2]).await.unwrap();
    assert_eq!(again[0].clone().unwrap(), done(Effect::Created, 1, true));
    assert_eq!(again[1].clone().unwrap(), done(Effect::Updated, 2, true));
    let mut other = rows[0].clone();
    other.key.fingerprint = [2; 32];
    assert!(matches!(import_products(&shop.app, &staff(), IMPORT, &[other]).await.unwrap()[0], Err(Error::KeyReused)));
}

#[tokio::test]
async fn a_late_repeat_of_an_import_does_not_undo_what_came_after() {
    let shop = Shop::on_sqlite().await;
    let rows = [row(1, "TEA", None, 100)];
    import_products(&shop.app, &staff(), IMPORT, &rows).await.unwrap();
    let patch = Patch { price: Some(details("TEA", 200).price), ..Patch::default() };
    let update = keyed(shop.id(), UpdateProduct { sku: sku("TEA"), etag: None, patch });
    let updated = ops::update_product(&shop.app, &staff(), update).await.unwrap().value;
    shop.wait(73 * 3_600);
    assert_eq!(ops::forget_keys(&shop.app, shop.kernel.clock.now()).await.unwrap(), 2);
    let late = import_products(&shop.app, &staff(), IMPORT, &rows).await.unwrap().remove(0).unwrap();
    assert_eq!(late, Answer::replayed(Imported { effect: Effect::Created, etag: updated.etag() }));
    assert_eq!(*ops::get_product(&shop.app, sku("TEA")).await.unwrap(), updated);
    let another =
        import_products(&shop.app, &staff(), IMPORT, &[row(2, "TEA", None, 300)]).await.unwrap().remove(0).unwrap();
    assert_eq!(another, Answer::fresh(Imported { effect: Effect::Updated, etag: Etag(3) }));
}

#[tokio::test]
async fn a_duplicate_that_is_in_flight_is_told_to_come_again() {
    let shop = Shop::on_sqlite().await.stocked(&["CUP"], 0).await;
    let app = shop.another_with(|config| config.limits.duplicate_wait_ms = 50).await;
    let caller = staff();
    let patch = Patch { name: Some("Mug".into()), ..Patch::default() };
    let update = keyed(shop.id(), UpdateProduct { sku: sku("CUP"), etag: None, patch });
    let create = create(&shop.id(), "TEA");
    let rows = [row(1, "POT", None, 100)];
    let created = || ops::create_product(&app, &caller, create.clone());
    let updated = || ops::update_product(&app, &caller, update.clone());
    let imported = || import_products(&app, &caller, IMPORT, &rows);

    let locked = shop.database.write().await.unwrap();
    let mut first = Box::pin(async { tokio::join!(created(), updated(), imported()) });
    assert!(first.as_mut().now_or_never().is_none());
    assert!(matches!(created().await, Err(Error::InProgress)));
    assert!(matches!(updated().await, Err(Error::InProgress)));
    assert!(matches!(imported().await, Err(Error::InProgress)));
    locked.rollback().await.unwrap();
    let (first_created, first_updated, first_imported) = first.await;
    assert!(first_created.is_ok() && first_updated.is_ok() && first_imported.is_ok());
    assert!(created().await.unwrap().replayed && updated().await.unwrap().replayed);
    assert!(imported().await.unwrap()[0].as_ref().is_ok_and(|answer| answer.replayed));
}

#[tokio::test]
async fn a_duplicate_of_another_replica_is_told_to_come_again() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 0).await;
    let app = shop.another_with(|config| config.database.lock_timeout_ms = 50).await;
    let locked = shop.database.write().await.unwrap();
    let created = ops::create_product(&app, &staff(), create(&shop.id(), "CUP")).await;
    assert!(matches!(created, Err(Error::InProgress)), "{created:?}");
    let reserved = ops::reserve(&app, &staff(), shop.reserve_command(&[("TEA", 1)])).await;
    assert!(matches!(reserved, Err(Error::InProgress)), "{reserved:?}");
    locked.rollback().await.unwrap();
}

#[tokio::test]
async fn a_list_ends_a_page_by_number_or_by_bytes_but_never_empty() {
    let shop = Shop::on_sqlite().await;
    let rows: Vec<Keyed<ImportRow>> = (0..250).map(|id| row(id, &format!("P{id:03}"), None, 100)).collect();
    import_products(&shop.app, &staff(), IMPORT, &rows).await.unwrap();
    let listed = async |bytes_max, size, after: Option<&str>| {
        let mut app = shop.app.clone();
        app.limits.page_bytes_max = bytes_max;
        let (page, more) = ops::list_products(&app, ListProducts { size, after: after.map(sku) }).await.unwrap();
        let first = page.first().map(|product| product.sku.as_str().to_owned());
        (first.unwrap_or_default(), page.len(), more)
    };
    let all = usize::MAX;
    assert_eq!(listed(all, 1_000, None).await, ("P000".into(), 250, false));
    assert_eq!(listed(all, 250, None).await, ("P000".into(), 250, false));
    assert_eq!(listed(all, 249, None).await, ("P000".into(), 249, true));
    assert_eq!(listed(all, 100, None).await, ("P000".into(), 100, true));
    assert_eq!(listed(all, 1_000, Some("P099")).await, ("P100".into(), 150, false));
    assert_eq!(listed(all, 50, Some("P249")).await, (String::new(), 0, false));
    let bytes = 64 + 4 + 4; // of each
    assert_eq!(listed(150 * bytes, 1_000, None).await, ("P000".into(), 150, true));
    assert_eq!(listed(200 * bytes, 1_000, None).await, ("P000".into(), 200, true));
    assert_eq!(listed(10, 1_000, None).await, ("P000".into(), 1, true));
}
