//! An order as one writes it without Souk: a transaction of its own, which locks the rows of the stock, looks, and writes. On the same
//! database server as Souk, through sqlx, with a pool as large as that of each of our services.
//!
//! It is kept as cheap as it can honestly be: numbers for ids, no foreign keys, no idempotency, no history, no ledger.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Database, Decode, Encode, Executor, FromRow, IntoArguments, PgPool, SqlitePool, Type};
use tonic::Status;

use crate::dice::{Dice, Spread};
use crate::load::{Call, CallError, Calls};
use crate::market::UNITS;
use crate::scenario::{Scenario, Verdict};

/// As long as the event of an order.
pub(super) const EVENT: &str = "{\"specversion\": \"1.0\", \"type\": \"souk.order.order.placed\", \"source\": \
     \"/souk/order\", \"order\": {\"state\": \"PENDING\", \"currency\": \"EUR\", \"total_minor\": 2916, \"lines\": [{\"sku\": \
     \"BENCH-00000000-000000\", \"name\": \"Copper cup, hammered\", \"quantity\": 1, \"unit_price_minor\": 2450}]}}";

const LOCK_POSTGRES: &str = "SELECT on_hand - allocated FROM plain_stock WHERE product = $1 FOR UPDATE";
/// The transaction has the only lock there is.
const LOCK_SQLITE: &str = "SELECT on_hand - allocated FROM plain_stock WHERE product = $1";

/// A database, through sqlx alone.
pub(super) enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

impl Pool {
    /// A database of PostgreSQL, with so many connections, all of which stay.
    pub(super) async fn postgres(url: &str, connections: u32) -> Result<Self, sqlx::Error> {
        // Neither of them asks a connection whether it lives before each use: Souk does not.
        let pool = PgPoolOptions::new().max_connections(connections).min_connections(connections);
        Ok(Self::Postgres(pool.test_before_acquire(false).connect(url).await?))
    }

    /// A new file, with the settings under which Souk writes: WAL, every commit on the disk, one writer.
    pub(super) async fn sqlite(file: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1).test_before_acquire(false);
        Ok(Self::Sqlite(pool.connect_with(options).await?))
    }

    /// Its name, as people know it.
    pub(super) fn engine(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "PostgreSQL",
            Self::Sqlite(_) => "SQLite",
        }
    }

    /// Runs a text that returns nothing.
    pub(super) async fn run(&self, text: String) -> Result<(), sqlx::Error> {
        let text = sqlx::raw_sql(sqlx::AssertSqlSafe(text));
        match self {
            Self::Postgres(pool) => text.execute(pool).await.map(|_| ()),
            Self::Sqlite(pool) => text.execute(pool).await.map(|_| ()),
        }
    }

    /// The one number that a query asks for.
    pub(super) async fn number(&self, text: &'static str) -> Result<i64, sqlx::Error> {
        match self {
            Self::Postgres(pool) => sqlx::query_scalar(text).fetch_one(pool).await,
            Self::Sqlite(pool) => sqlx::query_scalar(text).fetch_one(pool).await,
        }
    }
}

/// See the module.
pub(crate) struct PlainOrders {
    pool: Pool,
    dice: Dice,
    spread: Spread,
    lines: usize,
    acknowledged: AtomicI64,
    unknown: AtomicI64,
}

/// What is ordered.
pub(crate) struct Wanted {
    pub(crate) products: usize,
    pub(crate) spread: Spread,
    pub(crate) lines: usize,
    pub(crate) seed: u64,
}

impl PlainOrders {
    /// In an empty database of PostgreSQL.
    pub(crate) async fn on_postgres(url: &str, connections: u32, wanted: &Wanted) -> anyhow::Result<Self> {
        let pool = Pool::postgres(url, connections).await?;
        Self::new(pool, "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", wanted).await
    }

    /// In a new file.
    pub(crate) async fn on_sqlite(file: &Path, wanted: &Wanted) -> anyhow::Result<Self> {
        Self::new(Pool::sqlite(file).await?, "INTEGER PRIMARY KEY", wanted).await
    }

    async fn new(pool: Pool, own_number: &str, wanted: &Wanted) -> anyhow::Result<Self> {
        pool.run(tables(own_number, wanted.products)).await?;
        Ok(Self {
            pool,
            dice: Dice::new(wanted.seed, wanted.spread, wanted.products),
            spread: wanted.spread,
            lines: wanted.lines.min(wanted.products),
            acknowledged: AtomicI64::new(0),
            unknown: AtomicI64::new(0),
        })
    }

    async fn place(&self, nth: u64) -> Result<(), sqlx::Error> {
        let products = self.dice.throw_different(nth, self.lines);
        let mut products: Vec<i64> = products.into_iter().map(|nth| i64::try_from(nth).unwrap_or(i64::MAX)).collect();
        // Two orders of the same products wait for each other, and not in a circle.
        products.sort_unstable();
        let customer = i64::try_from(nth % 1_000).unwrap_or_default();
        match &self.pool {
            Pool::Postgres(pool) => {
                let mut tx = pool.begin().await?;
                write_order::<sqlx::Postgres>(&mut tx, LOCK_POSTGRES, customer, &products).await?;
                tx.commit().await
            }
            Pool::Sqlite(pool) => {
                let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
                write_order::<sqlx::Sqlite>(&mut tx, LOCK_SQLITE, customer, &products).await?;
                tx.commit().await
            }
        }
    }
}

fn tables(own_number: &str, products: usize) -> String {
    format!(
        "CREATE TABLE plain_stock (product BIGINT PRIMARY KEY, on_hand BIGINT NOT NULL, allocated BIGINT NOT NULL);
         CREATE TABLE plain_orders (order_id {own_number}, customer BIGINT NOT NULL, state TEXT NOT NULL,
             total_minor BIGINT NOT NULL);
         CREATE TABLE plain_lines (order_id BIGINT NOT NULL, product BIGINT NOT NULL, quantity BIGINT NOT NULL,
             unit_price_minor BIGINT NOT NULL, PRIMARY KEY (order_id, product));
         CREATE TABLE plain_allocations (order_id BIGINT NOT NULL, product BIGINT NOT NULL, quantity BIGINT NOT NULL,
             PRIMARY KEY (order_id, product));
         CREATE TABLE plain_outbox (event_id {own_number}, order_id BIGINT NOT NULL, payload TEXT NOT NULL);
         INSERT INTO plain_stock WITH RECURSIVE n (product) AS
             (SELECT 0 UNION ALL SELECT product + 1 FROM n WHERE product + 1 < {products})
             SELECT product, {UNITS}, 0 FROM n;"
    )
}

/// Seven statements, of which an order of several lines repeats four.
async fn write_order<DB>(
    tx: &mut DB::Connection,
    lock: &'static str,
    customer: i64,
    products: &[i64],
) -> Result<(), sqlx::Error>
where
    DB: Database,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'r> (i64,): FromRow<'r, DB::Row>,
    for<'q> i64: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> &'q str: Encode<'q, DB> + Type<DB>,
{
    for product in products {
        let (available,): (i64,) = sqlx::query_as(lock).bind(*product).fetch_one(&mut *tx).await?;
        if available < 1 {
            return Err(sqlx::Error::Protocol("sold out".to_owned()));
        }
    }
    let insert =
        "INSERT INTO plain_orders (customer, state, total_minor) VALUES ($1, 'PENDING', 2916) RETURNING order_id";
    let (order_id,): (i64,) = sqlx::query_as(insert).bind(customer).fetch_one(&mut *tx).await?;
    for product in products {
        let insert = "INSERT INTO plain_lines (order_id, product, quantity, unit_price_minor) VALUES ($1, $2, 1, 2450)";
        sqlx::query(insert).bind(order_id).bind(*product).execute(&mut *tx).await?;
        let insert = "INSERT INTO plain_allocations (order_id, product, quantity) VALUES ($1, $2, 1)";
        sqlx::query(insert).bind(order_id).bind(*product).execute(&mut *tx).await?;
        let update = "UPDATE plain_stock SET allocated = allocated + 1 WHERE product = $1";
        sqlx::query(update).bind(*product).execute(&mut *tx).await?;
    }
    let insert = "INSERT INTO plain_outbox (order_id, payload) VALUES ($1, $2)";
    sqlx::query(insert).bind(order_id).bind(EVENT).execute(&mut *tx).await?;
    Ok(())
}

impl Calls for PlainOrders {
    async fn call(&self, Call { nth, .. }: Call) -> Result<(), CallError> {
        match self.place(nth).await {
            Ok(()) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                Err(Status::internal(error.to_string()).into())
            }
        }
    }
}

impl Scenario for PlainOrders {
    fn name(&self) -> String {
        let spread = format!("{:?}", self.spread).to_lowercase();
        let engine = self.pool.engine();
        format!("plain transaction on {engine}, {spread}, {} lines", self.lines)
    }

    async fn check(&self) -> anyhow::Result<Verdict> {
        let orders = self.pool.number("SELECT COUNT(*) FROM plain_orders").await?;
        let units = self.pool.number("SELECT CAST(SUM(allocated) AS BIGINT) FROM plain_stock").await?;
        let (acknowledged, unknown) = (self.acknowledged.load(Ordering::Relaxed), self.unknown.load(Ordering::Relaxed));
        let mut violations = Vec::new();
        if !(acknowledged..=acknowledged + unknown).contains(&orders) {
            violations.push(format!("{orders} orders, of {acknowledged} acknowledged and {unknown} unknown"));
        }
        if units != orders * i64::try_from(self.lines).unwrap_or(i64::MAX) {
            violations.push(format!("{units} units are allocated for {orders} orders"));
        }
        Ok(Verdict { violations, ..Verdict::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plain_orders_keep_their_books_and_a_lost_unit_is_found() {
        let folder = tempfile::TempDir::with_prefix("souk-bench-").unwrap();
        let wanted = Wanted { products: 10, spread: Spread::Zipf, lines: 3, seed: 1 };
        let plain = PlainOrders::on_sqlite(&folder.path().join("plain.sqlite"), &wanted).await.unwrap();
        for nth in 0..20 {
            plain.call(Call::uncounted(nth)).await.unwrap();
        }
        assert_eq!(plain.check().await.unwrap().violations, Vec::<String>::new());
        let Pool::Sqlite(pool) = &plain.pool else { panic!("it is on SQLite") };
        sqlx::query("UPDATE plain_stock SET allocated = 0 WHERE product = 0").execute(pool).await.unwrap();
        assert_eq!(plain.check().await.unwrap().violations.len(), 1);
    }
}
