//! One SQL on two engines: SQLite in the file beside the process, PostgreSQL over the network.
//!
//! Owns: connections, transactions, statements, migrations, group commit, idempotency keys and leases. Never: the SQL or the rules of
//! a service.
//!
//! SQL is written once, in the subset that both engines understand, with `$1`, `$2`, … for values:
//!
//! | Rust | SQLite | PostgreSQL |
//! |---|---|---|
//! | `i64`, `i32`, `u32` | `BIGINT` | `BIGINT` |
//! | `bool` | `BOOLEAN` | `BOOLEAN` |
//! | `String`, `&str` | `TEXT` | `TEXT` (`COLLATE "C"` where it is sorted) |
//! | `Uuid` | `BLOB` | `UUID` |
//! | `DateTime<Utc>`, in microseconds | `TEXT` | `TIMESTAMPTZ` |
//! | `Vec<u8>`, `&[u8]` | `BLOB` | `BYTEA` |
//!
//! `Option` of each is the nullable column. Sums are cast (`CAST(SUM(x) AS BIGINT)`), duplicates are met with `ON CONFLICT DO NOTHING` and
//! the row count (an error would abort PostgreSQL's transaction), `NULLS LAST` is said, and time comes from the clock, never from the
//! database. Where one engine needs its own text, it stands beside its twin in one `match tx.engine()`.

mod config;
mod connect;
mod error;
mod group;
pub mod idempotency;
mod in_flight;
pub mod lease;
mod meters;
mod migrate;
mod postgres;
mod rows;
pub mod schema;
mod span;
mod statement;
mod transaction;
mod url;
mod value;

pub use config::{DbConfig, Durability};
pub use connect::{Db, Engine};
pub use error::{Error, Kind};
pub use group::{Batch, Decided, GroupCommit, GroupConfig, GroupError, GroupStats};
pub use in_flight::{InFlight, Turn};
pub use migrate::MigrationSet;
pub use rows::{Many, all_touched, many, together};
pub use statement::{Row, Statement, sql};
pub use transaction::{Tx, detached, retrying};
pub use url::DbUrl;
pub use value::Value;

/// The tables of this crate: `idempotency_keys` and `leases`.
pub static MIGRATIONS: MigrationSet = MigrationSet {
    name: "db",
    sqlite: &sqlx::migrate!("migrations/sqlite"),
    postgres: &sqlx::migrate!("migrations/postgres"),
};
