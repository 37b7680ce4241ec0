//! Adds and replaces products in bulk: rows are written in batches, each row whole or not at all.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use souk_db::idempotency::{self, Key, Stored};
use souk_db::retrying;
use souk_events::{Event, outbox};
use souk_interceptors::Caller;
use uuid::Uuid;

use super::keys::{Forgetting, answer, in_turn, parse};
use crate::domain::book::{Changed, Origin};
use crate::domain::command::{Answer, Keyed};
use crate::domain::product::Etag;
use crate::domain::query::ImportRow;
use crate::domain::{Product, Sku};
use crate::error::Error;
use crate::events;
use crate::ops::App;
use crate::store::{self, SavedProduct};

const METHOD: &str = "/souk.inventory.v1.CatalogService/ImportProducts";

/// What a row did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// It created the product.
    Created,
    /// It changed the product.
    Updated,
    /// It said what was there.
    Unchanged,
}

/// What became of a row that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// What it did.
    pub effect: Effect,
    /// The product's etag after it.
    pub etag: Etag,
}

type RowResult = Result<Answer<Imported>, Error>;

/// Writes some rows of an import in one transaction, in order; a result for each. An `Err` is a failure of the whole: nothing of it is
/// written, unless the database was lost at the commit.
pub async fn import_products(
    app: &App,
    caller: &Caller,
    import_id: Uuid,
    rows: &[Keyed<ImportRow>],
) -> Result<Vec<RowResult>, Error> {
    let key = Key::new(caller.subject(), METHOD, import_id);
    let results = in_turn(app, &key, retrying(Error::is_conflict, || import_once(app, caller, rows))).await?;
    app.relay.wake();
    Ok(results)
}

async fn import_once(app: &App, caller: &Caller, rows: &[Keyed<ImportRow>]) -> Result<Vec<RowResult>, Error> {
    let skus: Vec<Sku> = rows.iter().map(|row| row.command.sku.clone()).collect();
    let _forgetting = Forgetting { app, skus: &skus };
    let now = app.clock.now();
    let mut tx = app.db.write().await?;
    let there = store::products_to_change(&mut tx, &skus).await?;
    let keys: Vec<Key> = rows.iter().map(|row| Key::new(caller.subject(), METHOD, row.key.request_id)).collect();
    let given = idempotency::find_many(&mut tx, &keys).await?;
    let mut import = Import {
        app,
        now,
        caller,
        places: there.into_iter().map(|saved| (saved.product.sku.clone(), Place::of(saved))).collect(),
        given: given.into_iter().map(|stored| (stored.key.clone(), stored)).collect(),
        answers: Vec::new(),
        events: Vec::new(),
    };
    let results = rows.iter().zip(keys).map(|(row, key)| import.take(row, key)).collect();
    let (new, changed) = Place::parted(import.places);
    store::save_products(&mut tx, &new, &changed).await?;
    idempotency::keep(&mut tx, &import.answers, now).await?;
    outbox::append(&mut tx, &import.events).await?;
    tx.commit().await?;
    Ok(results)
}

/// The products of a batch, as its rows change them.
struct Import<'a> {
    app: &'a App,
    now: DateTime<Utc>,
    caller: &'a Caller,
    places: BTreeMap<Sku, Place>,
    given: HashMap<Key, Stored>,
    answers: Vec<Stored>,
    events: Vec<Event>,
}

struct Place {
    saved: SavedProduct,
    /// 0: it is new.
    version_before: i64,
}

impl Place {
    fn of(saved: SavedProduct) -> Self {
        let version_before = saved.product.version;
        Self { saved, version_before }
    }

    /// The new ones, and the changed ones.
    fn parted(places: BTreeMap<Sku, Self>) -> (Vec<SavedProduct>, Vec<Changed<Product>>) {
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for Self { saved, version_before } in places.into_values() {
            if version_before == 0 {
                new.push(saved);
            } else if saved.product.version > version_before {
                changed.push(Changed { now: saved.product, version_before });
            }
        }
        (new, changed)
    }
}

impl Import<'_> {
    fn take(&mut self, row: &Keyed<ImportRow>, key: Key) -> RowResult {
        if let Some(stored) = self.given.get(&key) {
            let same = stored.fingerprint == row.key.fingerprint;
            return if same { Ok(Answer::replayed(parse(&stored.response)?)) } else { Err(Error::KeyReused) };
        }
        if let Some(created) = self.created_before(row) {
            return Ok(Answer::replayed(created));
        }
        let imported = self.write(row)?;
        self.answers.push(answer(key, row.key.fingerprint, &imported)?);
        Ok(Answer::fresh(imported))
    }

    /// What a row created is recognised for ever, when its key has long been forgotten: written again, it would undo what came after.
    fn created_before(&self, row: &Keyed<ImportRow>) -> Option<Imported> {
        let saved = &self.places.get(&row.command.sku)?.saved;
        let same = saved.origin == self.origin(row);
        same.then(|| Imported { effect: Effect::Created, etag: saved.product.etag() })
    }

    fn write(&mut self, row: &Keyed<ImportRow>) -> Result<Imported, Error> {
        let ImportRow { sku, etag, details } = row.command.clone();
        let Some(place) = self.places.get_mut(&sku) else {
            return if etag.is_none() { Ok(self.create(row)) } else { Err(Error::ProductNotFound(sku)) };
        };
        let before = &place.saved.product;
        if etag.is_some_and(|etag| etag != before.etag()) {
            return Err(Error::ProductChanged { sku, current: before.etag() });
        }
        let Some(after) = before.with(details, self.now) else {
            return Ok(Imported { effect: Effect::Unchanged, etag: before.etag() });
        };
        self.events.push(events::product_updated(&after, &self.app.ids));
        let etag = after.etag();
        place.saved.product = after;
        Ok(Imported { effect: Effect::Updated, etag })
    }

    fn create(&mut self, row: &Keyed<ImportRow>) -> Imported {
        let ImportRow { sku, details, .. } = row.command.clone();
        let product = Product::new(sku.clone(), details, self.now);
        let etag = product.etag();
        self.events.push(events::product_created(&product, &self.app.ids));
        let origin = self.origin(row);
        self.places.insert(sku, Place { saved: SavedProduct { product, origin }, version_before: 0 });
        Imported { effect: Effect::Created, etag }
    }

    fn origin(&self, row: &Keyed<ImportRow>) -> Origin {
        let caller = self.caller.subject().to_owned();
        Origin { caller, request_id: row.key.request_id, fingerprint: row.key.fingerprint }
    }
}
