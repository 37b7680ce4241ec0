//! Products.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use souk_db::{Engine, Error, Statement, Tx, all_touched, many, sql};
use souk_proto_common::{Currency, Money};
use uuid::Uuid;

use super::corrupt;
use crate::domain::book::{Changed, Origin};
use crate::domain::product::Details;
use crate::domain::{Product, Sku};

/// A product and the call that created it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedProduct {
    /// The product.
    pub product: Product,
    /// Who created it, under which key.
    pub origin: Origin,
}

#[derive(sqlx::FromRow)]
struct ProductRow {
    sku: String,
    name: String,
    description: String,
    currency_code: String,
    price_minor: i64,
    tax_basis_points: i64,
    attributes: String,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    caller: String,
    request_id: Uuid,
    fingerprint: Vec<u8>,
}

impl TryFrom<ProductRow> for SavedProduct {
    type Error = Error;

    fn try_from(row: ProductRow) -> Result<Self, Error> {
        let unreadable = |why: &str| corrupt("products", why);
        let currency = Currency::parse(&row.currency_code).map_err(|_| unreadable("currency_code"))?;
        let attributes: BTreeMap<String, String> =
            serde_json::from_str(&row.attributes).map_err(|_| unreadable("attributes"))?;
        let details = Details {
            name: row.name,
            description: row.description,
            price: Money { currency, amount_minor: row.price_minor },
            tax_basis_points: row.tax_basis_points,
            attributes,
        };
        let product = Product {
            sku: Sku::parse(&row.sku).map_err(|_| unreadable("sku"))?,
            details,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        let fingerprint = row.fingerprint.try_into().map_err(|_| unreadable("fingerprint"))?;
        Ok(Self { product, origin: Origin { caller: row.caller, request_id: row.request_id, fingerprint } })
    }
}

const COLUMNS: &str = "p.sku, p.name, p.description, p.currency_code, p.price_minor, p.tax_basis_points, p.attributes, p.version, \
                       p.created_at, p.updated_at, p.caller, p.request_id, p.fingerprint";

const INSERT: &str =
    "INSERT INTO products (sku, name, description, currency_code, price_minor, tax_basis_points, attributes, version,
         created_at, updated_at, caller, request_id, fingerprint) VALUES {rows} ON CONFLICT DO NOTHING";

const UPDATE: &str = "WITH v (sku, name, description, currency_code, price_minor, tax_basis_points, attributes, version,
         updated_at, version_before) AS (VALUES {rows})
     UPDATE products SET name = v.name, description = v.description, currency_code = v.currency_code,
         price_minor = v.price_minor, tax_basis_points = v.tax_basis_points, attributes = v.attributes, version = v.version,
         updated_at = v.updated_at
     FROM v WHERE products.sku = v.sku AND products.version = v.version_before";

/// The product.
pub async fn product(tx: &mut Tx, sku: &Sku) -> Result<Option<Product>, Error> {
    Ok(products(tx, std::slice::from_ref(sku)).await?.pop())
}

/// Those of the products that exist, in no order.
pub async fn products(tx: &mut Tx, skus: &[Sku]) -> Result<Vec<Product>, Error> {
    let saved = by_sku(tx, skus, "").await?;
    Ok(saved.into_iter().map(|saved| saved.product).collect())
}

/// The product, locked until the transaction ends.
pub async fn product_to_change(tx: &mut Tx, sku: &Sku) -> Result<Option<SavedProduct>, Error> {
    Ok(products_to_change(tx, std::slice::from_ref(sku)).await?.pop())
}

/// Those of the products that exist, locked in the order of their skus until the transaction ends.
pub async fn products_to_change(tx: &mut Tx, skus: &[Sku]) -> Result<Vec<SavedProduct>, Error> {
    let mut sorted = skus.to_vec();
    sorted.sort();
    sorted.dedup();
    let lock = match tx.engine() {
        Engine::Sqlite => "", // one writer at a time
        Engine::Postgres => "ORDER BY p.sku FOR NO KEY UPDATE OF p",
    };
    by_sku(tx, &sorted, lock).await
}

async fn by_sku(tx: &mut Tx, skus: &[Sku], lock: &str) -> Result<Vec<SavedProduct>, Error> {
    let text =
        format!("WITH v (sku) AS (VALUES {{rows}}) SELECT {COLUMNS} FROM v JOIN products p ON p.sku = v.sku {lock}");
    let rows: Vec<ProductRow> = many(&text, skus, |row, sku| row.bind(sku.as_str())).fetch_all(tx).await?;
    rows.into_iter().map(SavedProduct::try_from).collect()
}

/// Up to `limit` products after `after`, in the order of their skus.
pub async fn list_products(tx: &mut Tx, after: Option<&Sku>, limit: usize) -> Result<Vec<Product>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let text = format!("SELECT {COLUMNS} FROM products p WHERE p.sku > $1 ORDER BY p.sku LIMIT $2");
    // Every sku sorts after the empty text.
    let rows: Vec<ProductRow> = sql(text).bind(after.map_or("", Sku::as_str)).bind(limit).fetch_all(tx).await?;
    rows.into_iter().map(|row| SavedProduct::try_from(row).map(|saved| saved.product)).collect()
}

/// Adds a product; `false`: its sku is taken.
pub async fn insert_product(tx: &mut Tx, saved: &SavedProduct) -> Result<bool, Error> {
    Ok(many(INSERT, std::slice::from_ref(saved), bind_new).execute(tx).await? == 1)
}

/// Writes the product's new state; fails if it has moved on from `version_before`.
pub async fn update_product(tx: &mut Tx, changed: &Changed<Product>) -> Result<(), Error> {
    let touched = many(UPDATE, std::slice::from_ref(changed), bind_changed).execute(tx).await?;
    all_touched(touched, 1, "a product")
}

/// Writes new products and new states of others, each at most once.
pub async fn save_products(tx: &mut Tx, new: &[SavedProduct], changed: &[Changed<Product>]) -> Result<(), Error> {
    let inserted = many(INSERT, new, bind_new).execute(tx).await?;
    all_touched(inserted, new.len(), "a sku")?;
    let updated = many(UPDATE, changed, bind_changed).execute(tx).await?;
    all_touched(updated, changed.len(), "a product")
}

fn bind_new(row: Statement, saved: &SavedProduct) -> Statement {
    let SavedProduct { product, origin } = saved;
    bind_details(row, product)
        .bind(product.version)
        .bind(product.created_at)
        .bind(product.updated_at)
        .bind(&origin.caller)
        .bind(origin.request_id)
        .bind(origin.fingerprint)
}

fn bind_changed(row: Statement, changed: &Changed<Product>) -> Statement {
    bind_details(row, &changed.now).bind(changed.now.version).bind(changed.now.updated_at).bind(changed.version_before)
}

fn bind_details(row: Statement, product: &Product) -> Statement {
    let details = &product.details;
    let attributes = serde_json::to_string(&details.attributes).expect("a map of texts is JSON");
    row.bind(product.sku.as_str())
        .bind(&details.name)
        .bind(&details.description)
        .bind(details.price.currency.code())
        .bind(details.price.amount_minor)
        .bind(details.tax_basis_points)
        .bind(attributes)
}
