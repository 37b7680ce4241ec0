//! Changes some fields of a product.

use souk_db::idempotency::{self, Key};
use souk_db::retrying;
use souk_events::outbox;
use souk_interceptors::Caller;

use super::keys::{Forgetting, answer, given, in_turn};
use crate::domain::Product;
use crate::domain::book::Changed;
use crate::domain::command::{Answer, Keyed};
use crate::domain::query::UpdateProduct;
use crate::error::Error;
use crate::events;
use crate::ops::App;
use crate::store;

const METHOD: &str = "/souk.inventory.v1.CatalogService/UpdateProduct";

/// The product as it is now. New values that are the old ones change nothing.
pub async fn update_product(app: &App, caller: &Caller, asked: Keyed<UpdateProduct>) -> Result<Answer<Product>, Error> {
    let key = Key::new(caller.subject(), METHOD, asked.key.request_id);
    let updated = in_turn(app, &key, retrying(Error::is_conflict, || update_once(app, &key, &asked))).await?;
    app.relay.wake();
    Ok(updated)
}

async fn update_once(app: &App, key: &Key, asked: &Keyed<UpdateProduct>) -> Result<Answer<Product>, Error> {
    let _forgetting = Forgetting { app, skus: std::slice::from_ref(&asked.command.sku) };
    let now = app.clock.now();
    let UpdateProduct { sku, etag, patch } = &asked.command;
    let mut tx = app.db.write().await?;
    // First the lock, then the key: a duplicate has waited here for the first call, and finds its answer.
    let there = store::product_to_change(&mut tx, sku).await?;
    if let Some(product) = given(&mut tx, key, &asked.key).await? {
        return Ok(Answer::replayed(product));
    }
    let before = there.ok_or_else(|| Error::ProductNotFound(sku.clone()))?.product;
    if etag.is_some_and(|etag| etag != before.etag()) {
        return Err(Error::ProductChanged { sku: sku.clone(), current: before.etag() });
    }
    let details = patch.apply(&before.details);
    if let Some(field) = patch.overlong(&details) {
        return Err(Error::TextTooLong(field));
    }
    let mut events = Vec::new();
    let after = match before.with(details, now) {
        None => before,
        Some(after) => {
            let changed = Changed { now: after, version_before: before.version };
            store::update_product(&mut tx, &changed).await?;
            events.push(events::product_updated(&changed.now, &app.ids));
            changed.now
        }
    };
    idempotency::keep(&mut tx, &[answer(key.clone(), asked.key.fingerprint, &after)?], now).await?;
    outbox::append(&mut tx, &events).await?;
    tx.commit().await?;
    Ok(Answer::fresh(after))
}
