//! Statements, transactions, migrations, keys and leases, each on both engines.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use chrono::{DateTime, TimeDelta, Utc};
use souk_db::idempotency::{self, Key, Seen, Stored};
use souk_db::{Db, Kind, MIGRATIONS, lease, many, schema, sql, together};
use souk_testkit::{on_both, postgres, sqlite};
use uuid::Uuid;

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_700_000_000_000_000 + micros).unwrap()
}

async fn table(db: &Db) {
    let text = match db.engine() {
        souk_db::Engine::Sqlite => {
            "CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, b BOOLEAN, s TEXT, u BLOB, at TEXT, x BLOB)"
        }
        souk_db::Engine::Postgres => {
            "CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, b BOOLEAN, s TEXT, u UUID, at TIMESTAMPTZ, x BYTEA)"
        }
    };
    let mut tx = db.write().await.unwrap();
    sql(text).execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
}

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct All {
    id: i64,
    b: Option<bool>,
    s: Option<String>,
    u: Option<Uuid>,
    at: Option<DateTime<Utc>>,
    x: Option<Vec<u8>>,
}

#[tokio::test]
async fn every_type_comes_back_as_it_went_in() {
    on_both(&[], |db| async move {
        table(&db).await;
        let id = Uuid::from_u128(7);
        let full = All {
            id: i64::MAX,
            b: Some(true),
            s: Some("ä'\"$1".into()),
            u: Some(id),
            at: Some(time(123_456)),
            x: Some(vec![0, 255]),
        };
        let empty = All { id: i64::MIN, b: None, s: None, u: None, at: None, x: None };
        let mut tx = db.write().await.unwrap();
        let rows = [&full, &empty];
        let insert = many("INSERT INTO t (id, b, s, u, at, x) VALUES {rows}", &rows, |row, all| {
            row.bind(all.id).bind(all.b).bind(all.s.clone()).bind(all.u).bind(all.at).bind(all.x.clone())
        });
        assert_eq!(insert.execute(&mut tx).await.unwrap(), 2);
        tx.commit().await.unwrap();
        let mut tx = db.read().await.unwrap();
        let read: Vec<All> = sql("SELECT id, b, s, u, at, x FROM t ORDER BY id DESC").fetch_all(&mut tx).await.unwrap();
        assert_eq!(read, [full, empty]);
    })
    .await;
}

#[tokio::test]
async fn a_time_is_cut_to_microseconds_and_sorts_by_time() {
    on_both(&[], |db| async move {
        table(&db).await;
        let mut tx = db.write().await.unwrap();
        let times: Vec<i64> = vec![0, 1, 999, 1_000, 500_000, 1_000_000];
        let insert = many("INSERT INTO t (id, at) VALUES {rows}", &times, |row, micros| {
            row.bind(*micros).bind(time(*micros) + TimeDelta::nanoseconds(999))
        });
        insert.execute(&mut tx).await.unwrap();
        let read: Vec<(i64, DateTime<Utc>)> = sql("SELECT id, at FROM t ORDER BY at").fetch_all(&mut tx).await.unwrap();
        let expected: Vec<_> = times.iter().map(|micros| (*micros, time(*micros))).collect();
        assert_eq!(read, expected);
        let before: Vec<(i64,)> =
            sql("SELECT id FROM t WHERE at < $1 ORDER BY at").bind(time(1_000)).fetch_all(&mut tx).await.unwrap();
        assert_eq!(before, [(0,), (1,), (999,)]);
    })
    .await;
}

#[tokio::test]
async fn many_rows_are_updated_and_looked_up_by_one_template() {
    on_both(&[], |db| async move {
        table(&db).await;
        let mut tx = db.write().await.unwrap();
        let rows: Vec<i64> = (0..700).collect();
        let insert = many("INSERT INTO t (id, s) VALUES {rows}", &rows, |row, id| row.bind(*id).bind("old"));
        assert_eq!(insert.execute(&mut tx).await.unwrap(), 700);
        let update = "WITH v (id, s) AS (VALUES {rows}) UPDATE t SET s = v.s FROM v WHERE t.id = v.id";
        let update = many(update, &rows[..300], |row, id| row.bind(*id).bind(format!("new {id}")));
        assert_eq!(update.execute(&mut tx).await.unwrap(), 300);
        let look_up = "WITH v (id) AS (VALUES {rows}) SELECT t.id, t.s FROM v JOIN t ON t.id = v.id ORDER BY t.id";
        let look_up = many(look_up, &[299_i64, 300, 5_000], |row, id| row.bind(*id));
        let found: Vec<(i64, String)> = look_up.fetch_all(&mut tx).await.unwrap();
        assert_eq!(found, [(299, "new 299".into()), (300, "old".into())]);
    })
    .await;
}

#[tokio::test]
async fn writes_go_together_and_each_tells_what_it_touched() {
    on_both(&[], |db| async move {
        table(&db).await;
        let mut tx = db.write().await.unwrap();
        let insert = "INSERT INTO t (id, s) VALUES {rows} ON CONFLICT DO NOTHING";
        let update = "WITH v (id, s) AS (VALUES {rows}) UPDATE t SET s = v.s FROM v WHERE t.id = v.id";
        let inserts = |ids: &'static [i64]| many(insert, ids, |row, id| row.bind(*id).bind("new"));
        let updates = |ids: &'static [i64]| many(update, ids, |row, id| row.bind(*id).bind("changed"));
        assert_eq!(together(&mut tx, [inserts(&[1, 2, 3]), updates(&[])]).await.unwrap(), [3, 0]);
        assert_eq!(together(&mut tx, [updates(&[]), inserts(&[3, 4]), updates(&[1, 9])]).await.unwrap(), [0, 1, 1]);
        assert_eq!(together(&mut tx, [updates(&[]), updates(&[])]).await.unwrap(), [0, 0]);
        let read: Vec<(i64, String)> = sql("SELECT id, s FROM t ORDER BY id").fetch_all(&mut tx).await.unwrap();
        assert_eq!(read, [(1, "changed".into()), (2, "new".into()), (3, "new".into()), (4, "new".into())]);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_transaction_leaves_nothing() {
    on_both(&[], |db| async move {
        table(&db).await;
        let mut tx = db.write().await.unwrap();
        sql("INSERT INTO t (id) VALUES (1)").execute(&mut tx).await.unwrap();
        drop(tx);
        let mut tx = db.write().await.unwrap();
        let rows: Vec<(i64,)> = sql("SELECT id FROM t").fetch_all(&mut tx).await.unwrap();
        assert_eq!(rows, []);
    })
    .await;
}

#[tokio::test]
async fn a_reader_sees_one_state_while_a_writer_commits() {
    on_both(&[], |db| async move {
        table(&db).await;
        let mut reader = db.read().await.unwrap();
        let count = || sql("SELECT COUNT(*) FROM t");
        let (before,): (i64,) = count().fetch_one(&mut reader).await.unwrap();
        let mut writer = db.write().await.unwrap();
        sql("INSERT INTO t (id) VALUES (1)").execute(&mut writer).await.unwrap();
        writer.commit().await.unwrap();
        let (after,): (i64,) = count().fetch_one(&mut reader).await.unwrap();
        assert_eq!((before, after), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_reading_transaction_cannot_write() {
    on_both(&[], |db| async move {
        table(&db).await;
        let mut tx = db.read().await.unwrap();
        assert!(sql("INSERT INTO t (id) VALUES (1)").execute(&mut tx).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_constraint_is_a_bug_and_tells_nothing_of_it() {
    on_both(&[], |db| async move {
        table(&db).await;
        let mut tx = db.write().await.unwrap();
        sql("INSERT INTO t (id) VALUES (1)").execute(&mut tx).await.unwrap();
        let error = sql("INSERT INTO t (id) VALUES (1)").execute(&mut tx).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Bug, "database error"));
    })
    .await;
}

#[tokio::test]
async fn a_locked_row_is_waited_for_no_longer_than_was_said() {
    let database = postgres().await;
    table(&database).await;
    let mut tx = database.write().await.unwrap();
    sql("INSERT INTO t (id) VALUES (1)").execute(&mut tx).await.unwrap();
    let impatient = souk_db::DbConfig { lock_timeout_ms: 50, ..database.config().clone() };
    let other = Db::open(&impatient).await.unwrap();
    let mut waiting = other.write().await.unwrap();
    let error = sql("INSERT INTO t (id) VALUES (1) ON CONFLICT DO NOTHING").execute(&mut waiting).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Locked);
}

#[tokio::test]
async fn both_engines_have_the_same_schema() {
    let mut schemas = Vec::new();
    for database in [sqlite().await, postgres().await] {
        database.migrate(&[&MIGRATIONS]).await.unwrap();
        schemas.push(schema::columns(&mut database.read().await.unwrap()).await.unwrap());
    }
    assert!(schemas[0].iter().any(|column| column.table_name == "leases"));
    assert_eq!(schemas[0], schemas[1]);
}

#[tokio::test]
async fn whether_tables_are_up_to_date_is_told_and_nothing_is_changed() {
    on_both(&[], |db| async move {
        for _ in 0..2 {
            assert!(!db.is_migrated(&[&MIGRATIONS]).await.unwrap());
        }
        db.migrate(&[&MIGRATIONS]).await.unwrap();
        assert!(db.is_migrated(&[&MIGRATIONS]).await.unwrap());
        // As a database that an older process has made.
        let mut tx = db.write().await.unwrap();
        let last = "DELETE FROM _migrations_db WHERE version = (SELECT MAX(version) FROM _migrations_db)";
        assert_eq!(sql(last).execute(&mut tx).await.unwrap(), 1);
        tx.commit().await.unwrap();
        assert!(!db.is_migrated(&[&MIGRATIONS]).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn several_processes_may_migrate_at_once() {
    let database = postgres().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let db = Db::open(database.config()).await.unwrap();
        tasks.spawn(async move { db.migrate(&[&MIGRATIONS]).await });
    }
    for result in tasks.join_all().await {
        result.unwrap();
    }
}

fn stored(response: &str) -> Stored {
    let key = Key { caller: "alice".into(), method: "/Place".into(), request_id: Uuid::from_u128(1) };
    Stored { key, fingerprint: [1; 32], response: response.into() }
}

#[tokio::test]
async fn a_key_answers_its_own_body_and_refuses_another() {
    on_both(&[&MIGRATIONS], |db| async move {
        let mut tx = db.write().await.unwrap();
        let first = stored("one");
        assert_eq!(idempotency::find(&mut tx, &first.key, &[1; 32]).await.unwrap(), Seen::New);
        idempotency::keep(&mut tx, std::slice::from_ref(&first), time(0)).await.unwrap();
        let taken = idempotency::keep(&mut tx, &[stored("two")], time(0)).await;
        assert_eq!(taken.unwrap_err().kind(), Kind::Conflict);
        assert_eq!(idempotency::find(&mut tx, &first.key, &[1; 32]).await.unwrap(), Seen::Replay(b"one".to_vec()));
        assert_eq!(idempotency::find(&mut tx, &first.key, &[2; 32]).await.unwrap(), Seen::Reused);
        let other = Key { caller: "bob".into(), ..first.key };
        assert_eq!(idempotency::find(&mut tx, &other, &[2; 32]).await.unwrap(), Seen::New);
    })
    .await;
}

#[tokio::test]
async fn a_key_is_swept_after_72_hours_and_not_before() {
    on_both(&[&MIGRATIONS], |db| async move {
        let mut tx = db.write().await.unwrap();
        idempotency::keep(&mut tx, &[stored("one")], time(0)).await.unwrap();
        assert_eq!(idempotency::sweep(&mut tx, time(0) + idempotency::KEEP, 10).await.unwrap(), 0);
        assert_eq!(idempotency::sweep(&mut tx, time(1) + idempotency::KEEP, 10).await.unwrap(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_lease_has_one_holder_and_a_new_epoch_for_each() {
    on_both(&[&MIGRATIONS], |db| async move {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let ttl = TimeDelta::seconds(10);
        let mut tx = db.write().await.unwrap();
        let first = lease::acquire(&mut tx, "relay", one, time(0), ttl).await.unwrap().unwrap();
        assert_eq!(lease::acquire(&mut tx, "relay", two, time(1), ttl).await.unwrap(), None);
        let renewed = lease::acquire(&mut tx, "relay", one, time(2), ttl).await.unwrap().unwrap();
        assert_eq!((first.epoch, renewed.epoch, renewed.expires_at), (1, 1, time(2) + ttl));
        let second = lease::acquire(&mut tx, "relay", two, renewed.expires_at, ttl).await.unwrap().unwrap();
        assert_eq!(second.epoch, 2);
        lease::release(&mut tx, &second, two, time(3)).await.unwrap();
        assert!(lease::acquire(&mut tx, "relay", one, time(3), ttl).await.unwrap().is_some());
    })
    .await;
}
