//! Several processes, of several versions, on one schema.

use souk_db::{Db, DbConfig, Kind, MigrationSet, sql};
use souk_testkit::{eventually, postgres};
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use tokio::task::JoinSet;

/// The history of an owner "shop" up to a version. The second takes its time, longer than any lock may be waited for.
fn shop(version: usize) -> &'static MigrationSet {
    shop_of(version, "ALTER TABLE goods ADD COLUMN price BIGINT; INSERT INTO runs VALUES (2); SELECT pg_sleep(0.5)")
}

fn shop_of(version: usize, second: &'static str) -> &'static MigrationSet {
    let texts = [
        "CREATE TABLE goods (id BIGINT NOT NULL PRIMARY KEY); CREATE TABLE runs (n BIGINT NOT NULL); INSERT INTO runs VALUES (1)",
        second,
        "CREATE TABLE labels (id BIGINT NOT NULL); INSERT INTO runs VALUES (3)",
    ];
    let migrations =
        texts.into_iter().zip(1..).take(version).map(|(text, number)| {
            Migration::new(number, "shop".into(), MigrationType::Simple, text.into_sql_str(), false)
        });
    let migrator: &'static Migrator = Box::leak(Box::new(Migrator::with_migrations(migrations.collect())));
    Box::leak(Box::new(MigrationSet { name: "shop", sqlite: migrator, postgres: migrator }))
}

/// So many processes start at once, each with a pool of its own.
async fn start_at_once(config: &DbConfig, count: usize, set: &'static MigrationSet) {
    let mut starting = JoinSet::new();
    for _ in 0..count {
        let config = DbConfig { lock_timeout_ms: 100, statement_timeout_ms: 300, ..config.clone() };
        starting.spawn(async move {
            let db = Db::open(&config).await?;
            db.migrate(&[&souk_db::MIGRATIONS, set]).await
        });
    }
    for result in starting.join_all().await {
        result.unwrap();
    }
}

async fn runs(db: &Db) -> Vec<i64> {
    let rows: Vec<(i64,)> =
        sql("SELECT n FROM runs ORDER BY n").fetch_all(&mut db.read().await.unwrap()).await.unwrap();
    rows.into_iter().map(|(n,)| n).collect()
}

#[tokio::test]
async fn five_processes_start_at_once_on_an_empty_database_and_on_an_older_one() {
    let database = postgres().await;
    start_at_once(database.config(), 5, shop(2)).await;
    assert_eq!(runs(&database).await, [1, 2]);
    start_at_once(database.config(), 5, shop(3)).await;
    assert_eq!(runs(&database).await, [1, 2, 3]);
}

#[tokio::test]
async fn an_older_process_starts_on_a_newer_schema() {
    let database = postgres().await;
    database.migrate(&[shop(3)]).await.unwrap();
    database.migrate(&[shop(1)]).await.unwrap();
    assert_eq!(runs(&database).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_migration_that_was_changed_after_it_ran_is_refused() {
    let database = postgres().await;
    database.migrate(&[shop(2)]).await.unwrap();
    let changed = shop_of(3, "SELECT 1");
    assert_eq!(database.migrate(&[changed]).await.unwrap_err().kind(), Kind::Bug);
    assert_eq!(runs(&database).await, [1, 2]);
}

#[tokio::test]
async fn a_role_that_may_not_change_tables_starts_on_a_schema_that_is_current() {
    let database = postgres().await;
    database.migrate(&[shop(3)]).await.unwrap();
    let mut tx = database.write().await.unwrap();
    let role = format!("reader_{}", std::process::id());
    for statement in
        [format!("CREATE ROLE {role} LOGIN"), format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")]
    {
        sql(statement).execute(&mut tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    let url = database.config().url.expose().replace("souk@", &format!("{role}@"));
    let db = Db::open(&DbConfig { url: url.into(), ..database.config().clone() }).await.unwrap();
    db.migrate(&[shop(3)]).await.unwrap();
}

#[tokio::test]
async fn a_migration_gives_way_to_who_uses_its_table_and_tries_again() {
    let database = postgres().await;
    database.migrate(&[shop(1)]).await.unwrap();
    let mut tx = database.write().await.unwrap();
    sql("INSERT INTO goods (id) VALUES (1)").execute(&mut tx).await.unwrap();
    let config = DbConfig { lock_timeout_ms: 50, ..database.config().clone() };
    let migrating = tokio::spawn(async move { Db::open(&config).await?.migrate(&[shop(3)]).await });
    let mut observer = super::observer(database.config().url.expose()).await;
    for waits in [true, false, true] {
        eventually("it waits for the table, gives way, and waits again", async || {
            let waiting = "SELECT EXISTS (SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database
                           WHERE d.datname = current_database() AND NOT granted)";
            let (is_waiting,): (bool,) = sqlx::query_as(waiting).fetch_one(&mut observer).await.unwrap();
            is_waiting == waits
        })
        .await;
    }
    drop(tx);
    migrating.await.unwrap().unwrap();
    assert_eq!(runs(&database).await, [1, 2, 3]);
}

#[tokio::test]
async fn migrations_do_not_wait_for_ever_for_another_process() {
    let database = postgres().await;
    let mut tx = database.write().await.unwrap();
    sql("SELECT pg_advisory_xact_lock(1936684395)").execute(&mut tx).await.unwrap();
    let config = DbConfig { migrate_timeout_ms: 300, ..database.config().clone() };
    let told = Db::open(&config).await.unwrap().migrate(&[shop(1)]).await.unwrap_err();
    assert_eq!(told.kind(), Kind::Unavailable);
}
