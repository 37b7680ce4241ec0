//! What can be asked without changing anything, and the catalogue's commands.

use super::names::{Location, Sku, StockKey};
use super::product::{Details, Etag, Patch};

/// The most products that one call may name.
pub const BATCH_MAX: usize = 100;

/// One product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetProduct {
    /// Which.
    pub sku: Sku,
}

/// Products by name, each once, in the order of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchGetProducts {
    /// Which.
    pub skus: Vec<Sku>,
    /// As they are stored, not as they are remembered.
    pub fresh: bool,
}

/// Stock of products at one location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchGetStock {
    /// Of which, each once, in the order of asking.
    pub skus: Vec<Sku>,
    /// Where.
    pub location: Location,
}

/// A page of the catalogue, in the order of skus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListProducts {
    /// At most so many.
    pub size: i64,
    /// Those after this one.
    pub after: Option<Sku>,
}

/// A page of the ledger of one record, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListMovements {
    /// Of what, where.
    pub key: StockKey,
    /// At most so many.
    pub size: i64,
    /// Those before this `seq`.
    pub before: Option<i64>,
}

/// Levels of products as they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchStock {
    /// Of what, where, each once; and the version that the watcher has of it.
    pub keys: Vec<(StockKey, Option<i64>)>,
}

/// Adds a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateProduct {
    /// Its name.
    pub sku: Sku,
    /// What it is.
    pub details: Details,
}

/// Changes a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateProduct {
    /// Which.
    pub sku: Sku,
    /// The state of it that the caller saw, if the caller says.
    pub etag: Option<Etag>,
    /// The new values.
    pub patch: Patch,
}

/// One row of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportRow {
    /// Which.
    pub sku: Sku,
    /// The state of it that the caller saw, if the caller says.
    pub etag: Option<Etag>,
    /// What it is to be.
    pub details: Details,
}
