//! Adds a product.

use souk_db::idempotency::{self, Key};
use souk_db::retrying;
use souk_events::outbox;
use souk_interceptors::Caller;

use super::keys::{Forgetting, answer, given, in_turn};
use crate::domain::Product;
use crate::domain::book::Origin;
use crate::domain::command::{Answer, Keyed};
use crate::domain::query::CreateProduct;
use crate::error::Error;
use crate::events;
use crate::ops::App;
use crate::store::{self, SavedProduct};

const METHOD: &str = "/souk.inventory.v1.CatalogService/CreateProduct";

/// The product as created. A product keeps the key that it was created under, so a repeat is recognised for ever.
pub async fn create_product(app: &App, caller: &Caller, asked: Keyed<CreateProduct>) -> Result<Answer<Product>, Error> {
    let key = Key::new(caller.subject(), METHOD, asked.key.request_id);
    let created = in_turn(app, &key, retrying(Error::is_conflict, || create_once(app, caller, &key, &asked))).await?;
    app.relay.wake();
    Ok(created)
}

async fn create_once(
    app: &App,
    caller: &Caller,
    key: &Key,
    asked: &Keyed<CreateProduct>,
) -> Result<Answer<Product>, Error> {
    let _forgetting = Forgetting { app, skus: std::slice::from_ref(&asked.command.sku) };
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    if let Some(product) = given(&mut tx, key, &asked.key).await? {
        return Ok(Answer::replayed(product));
    }
    let CreateProduct { sku, details } = asked.command.clone();
    let product = Product::new(sku, details, now);
    let origin = Origin {
        caller: caller.subject().to_owned(),
        request_id: asked.key.request_id,
        fingerprint: asked.key.fingerprint,
    };
    let saved = SavedProduct { product, origin };
    if !store::insert_product(&mut tx, &saved).await? {
        let there = store::product_to_change(&mut tx, &saved.product.sku).await?;
        return match there {
            Some(there) if there.origin == saved.origin => Ok(Answer::replayed(there.product)),
            _ => Err(Error::ProductExists(saved.product.sku)),
        };
    }
    idempotency::keep(&mut tx, &[answer(key.clone(), asked.key.fingerprint, &saved.product)?], now).await?;
    outbox::append(&mut tx, &[events::product_created(&saved.product, &app.ids)]).await?;
    tx.commit().await?;
    Ok(Answer::fresh(saved.product))
}
