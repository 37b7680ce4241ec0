//! Products that are remembered: what is shown of them, and for how long.

use std::sync::Arc;

use souk_db::sql;
use souk_inventory::domain::command::Keyed;
use souk_inventory::domain::product::{Etag, Patch};
use souk_inventory::domain::query::{BatchGetProducts, UpdateProduct};
use souk_inventory::error::Error;
use souk_inventory::ops::{self, App};
use souk_inventory::store;
use souk_runtime::Kernel;
use souk_testkit::eventually;

use crate::shop::{Shop, create, keyed, replica, sku, staff};

/// What GetProduct shows of TEA.
async fn name(app: &App) -> String {
    ops::get_product(app, sku("TEA")).await.unwrap().details.name.clone()
}

/// What BatchGetProducts does.
async fn name_in_batch(app: &App, fresh: bool) -> String {
    let (found, missing) =
        ops::batch_get_products(app, BatchGetProducts { skus: vec![sku("NONE"), sku("TEA")], fresh }).await.unwrap();
    assert_eq!(missing, [sku("NONE")]);
    found[0].details.name.clone()
}

fn rename(shop: &Shop, etag: Option<Etag>, name: &str) -> Keyed<UpdateProduct> {
    let patch = Patch { name: Some(name.into()), ..Patch::default() };
    keyed(shop.id(), UpdateProduct { sku: sku("TEA"), etag, patch })
}

#[tokio::test]
async fn a_product_is_read_again_when_its_time_is_up() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 0).await;
    assert_eq!(name(&shop.app).await, "TEA");
    let mut tx = shop.database.write().await.unwrap();
    sql("UPDATE products SET name = 'Green tea'").execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    shop.wait(29);
    assert_eq!((name(&shop.app).await, name_in_batch(&shop.app, false).await), ("TEA".into(), "TEA".into()));
    assert_eq!(name_in_batch(&shop.app, true).await, "Green tea");
    shop.wait(1);
    assert_eq!(name_in_batch(&shop.app, false).await, "Green tea");
    assert_eq!(name(&shop.app).await, "Green tea");
}

#[tokio::test]
async fn a_replica_forgets_what_another_has_changed_when_it_hears_of_it() {
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        let shop = Shop::on(database).await.stocked(&["TEA"], 0).await;
        let other = Kernel::new(shop.kernel.clock.clone());
        let other = replica(&other, &shop.database, &shop.bus).await;
        assert_eq!(name(&other).await, "TEA");
        ops::update_product(&shop.app, &staff(), rename(&shop, None, "Green tea")).await.unwrap();
        assert_eq!(name(&shop.app).await, "Green tea", "whoever has changed it sees it at once");
        // No time passes: it is the event.
        eventually("the other has heard of it", async || name(&other).await == "Green tea").await;
    }
}

#[tokio::test]
async fn a_replica_that_hears_nothing_shows_what_was_no_longer_than_it_may_and_changes_what_is() {
    let shop = Shop::on_sqlite().await;
    let mut listener = shop.bus.listen(&["souk.inventory.>"]).await.unwrap();
    let shop = shop.stocked(&["TEA"], 0).await;
    // From now on it is the first replica that publishes events, where the other does not listen.
    listener.next().await.unwrap();
    let deaf = shop.another().await;
    assert_eq!(name(&deaf).await, "TEA");
    ops::update_product(&shop.app, &staff(), rename(&shop, None, "Green tea")).await.unwrap();
    assert_eq!((name(&deaf).await, name_in_batch(&deaf, true).await), ("TEA".into(), "Green tea".into()));
    let late = ops::update_product(&deaf, &staff(), rename(&shop, Some(Etag(1)), "Black tea")).await;
    assert!(matches!(late, Err(Error::ProductChanged { current: Etag(2), .. })), "{late:?}");
    assert_eq!(name(&deaf).await, "Green tea", "a change that was refused says that it was out of date");
    ops::update_product(&shop.app, &staff(), rename(&shop, None, "White tea")).await.unwrap();
    assert_eq!(name(&deaf).await, "Green tea");
    shop.wait(30);
    assert_eq!(name(&deaf).await, "White tea");
}

#[tokio::test]
async fn a_change_while_a_product_is_read_leaves_nothing_old_behind() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 0).await;
    let (app, tea) = (&shop.app, sku("TEA"));
    app.products.forget_all();
    let read_too_early = async || {
        let before = store::product(&mut app.db.read_one().await?, &tea).await?;
        ops::update_product(app, &staff(), rename(&shop, None, "Green tea")).await?;
        assert_eq!(name(app).await, "Green tea", "it waits for nobody who has begun before the change");
        Ok::<_, Error>(before.map(Arc::new))
    };
    let before = app.products.get(&tea, read_too_early).await.unwrap().unwrap();
    assert_eq!(before.details.name, "TEA");
    assert_eq!(name(app).await, "Green tea");
}

#[tokio::test]
async fn a_product_that_is_not_there_is_found_as_soon_as_it_is() {
    let shop = Shop::on_sqlite().await;
    let (app, tea) = (&shop.app, sku("TEA"));
    assert!(matches!(ops::get_product(app, tea.clone()).await, Err(Error::ProductNotFound(_))));
    let read_too_early = async || {
        let before = store::product(&mut app.db.read_one().await?, &tea).await?;
        ops::create_product(app, &staff(), create(&shop.id(), "TEA")).await?;
        assert_eq!(name(app).await, "TEA");
        Ok::<_, Error>(before.map(Arc::new))
    };
    assert_eq!(app.products.get(&tea, read_too_early).await.unwrap(), None);
    assert_eq!(name(app).await, "TEA");
}
