//! What a transaction leaves behind when something breaks in it: nothing, on either engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use souk_db::{Db, DbConfig, Error, Kind, many, retrying, sql};
use souk_testkit::{on_both, postgres, sqlite};

async fn table(db: &Db) {
    let mut tx = db.write().await.unwrap();
    sql("CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, s TEXT)").execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
}

async fn insert(db: &Db, id: i64, text: String) -> Result<(), souk_db::Error> {
    let mut tx = db.write().await?;
    sql("INSERT INTO t (id, s) VALUES ($1, $2)").bind(id).bind(text).execute(&mut tx).await?;
    tx.commit().await
}

async fn ids(db: &Db) -> Vec<i64> {
    let mut tx = db.read().await.unwrap();
    let rows: Vec<(i64,)> = sql("SELECT id FROM t ORDER BY id").fetch_all(&mut tx).await.unwrap();
    rows.into_iter().map(|(id,)| id).collect()
}

/// Asks for `reading` so many times, unless it is there before, and drops it.
async fn drop_after<T>(polls: usize, reading: impl Future<Output = T>) {
    let mut reading = pin!(reading);
    for _ in 0..polls {
        if reading.as_mut().now_or_never().is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_transaction_in_which_a_statement_failed_is_not_committed() {
    on_both(&[], |db| async move {
        table(&db).await;
        let mut tx = db.write().await.unwrap();
        sql("INSERT INTO t (id) VALUES (1)").execute(&mut tx).await.unwrap();
        sql("INSERT INTO t (id) VALUES (1)").execute(&mut tx).await.unwrap_err(); // and the caller swallows it
        assert_eq!(tx.commit().await.unwrap_err().kind(), Kind::Bug);
        assert!(ids(&db).await.is_empty());
        insert(&db, 2, String::new()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_always_meets_a_conflict_is_tried_three_times() {
    let tries = AtomicUsize::new(0);
    let conflict = || async {
        tries.fetch_add(1, Ordering::Relaxed);
        Err::<(), Error>(Error::conflict("planted"))
    };
    let told = retrying(|error: &Error| error.kind() == Kind::Conflict, conflict).await;
    assert_eq!((told.unwrap_err().kind(), tries.into_inner()), (Kind::Conflict, 3));
    let tries = AtomicUsize::new(0);
    let bug = || async {
        tries.fetch_add(1, Ordering::Relaxed);
        Err::<(), Error>(Error::bug("planted"))
    };
    retrying(|error: &Error| error.kind() == Kind::Conflict, bug).await.unwrap_err();
    assert_eq!(tries.into_inner(), 1);
}

#[tokio::test]
async fn a_full_disk_fails_what_meets_it_and_nothing_after() {
    let db = sqlite().await;
    table(&db).await;
    let mut tx = db.write().await.unwrap();
    sql("PRAGMA max_page_count = 3").execute(&mut tx).await.unwrap();
    let full = sql("INSERT INTO t (id, s) VALUES (1, $1)").bind("x".repeat(1_000_000)).execute(&mut tx).await;
    assert_eq!(full.unwrap_err().kind(), Kind::Unavailable);
    drop(tx);
    for id in 2..5 {
        insert(&db, id, "x".repeat(10_000)).await.unwrap(); // there is room again, by way of a fresh connection
    }
    assert_eq!(ids(&db).await, [2, 3, 4]);
}

#[tokio::test]
async fn a_caller_who_goes_away_while_a_transaction_begins_leaves_none_open() {
    let database = postgres().await;
    let config = DbConfig { connections_max: 1, ..database.config().clone() };
    let db = Db::open(&config).await.unwrap();
    table(&db).await;
    for id in 0..20 {
        for polls in 1..4 {
            drop_after(polls, db.read()).await;
        }
        insert(&db, id, String::new()).await.unwrap();
    }
    assert_eq!(ids(&db).await.len(), 20);
}

#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let database = postgres().await;
    table(&database).await;
    for id in [1, 2] {
        insert(&database, id, "0".into()).await.unwrap();
    }
    let both_have_one = tokio::sync::Barrier::new(2);
    let tries = AtomicUsize::new(0);
    let change = |first: i64, second: i64| {
        let (database, both_have_one, tries) = (&database, &both_have_one, &tries);
        let is_first_try = std::cell::Cell::new(true);
        async move {
            let attempt = || async {
                tries.fetch_add(1, Ordering::Relaxed);
                let update = |id: i64| sql("UPDATE t SET s = s || '+' WHERE id = $1").bind(id);
                let mut tx = database.write().await?;
                update(first).execute(&mut tx).await?;
                if is_first_try.replace(false) {
                    both_have_one.wait().await;
                }
                update(second).execute(&mut tx).await?;
                tx.commit().await
            };
            retrying(|error: &Error| error.kind() == Kind::Conflict, attempt).await
        }
    };
    let (one, two) = tokio::join!(change(1, 2), change(2, 1));
    one.unwrap();
    two.unwrap();
    assert!(tries.load(Ordering::Relaxed) > 2, "one of them was the victim; on a slow machine, both");
    let (changed,): (i64,) =
        sql("SELECT COUNT(*) FROM t WHERE s = '0++'").fetch_one(&mut database.read().await.unwrap()).await.unwrap();
    assert_eq!(changed, 2);
}

#[tokio::test]
async fn a_read_of_one_statement_reads_once_and_leaves_nothing_open() {
    for database in [sqlite().await, postgres().await] {
        table(&database).await;
        let db = Db::open(&DbConfig { connections_max: 1, ..database.config().clone() }).await.unwrap();
        for id in 0..3 {
            insert(&db, id, String::new()).await.unwrap();
            let mut tx = db.read_one().await.unwrap();
            let (count,): (i64,) = sql("SELECT COUNT(*) FROM t").fetch_one(&mut tx).await.unwrap();
            assert_eq!(count, id + 1, "what was committed before is there: no earlier state is still being read");
            let another = sql("SELECT id FROM t").fetch_optional::<(i64,)>(&mut tx).await;
            assert_eq!(another.unwrap_err().kind(), Kind::Bug);
        }
        let mut tx = db.read_one().await.unwrap();
        let all = many(
            "WITH k (id) AS (VALUES {rows}) SELECT t.id FROM k JOIN t ON t.id = k.id ORDER BY t.id",
            &[2_i64, 9, 0],
            |row, id| row.bind(*id),
        );
        assert_eq!(all.fetch_all::<(i64,)>(&mut tx).await.unwrap(), [(0,), (2,)]);
        assert_eq!(tx.commit().await.unwrap_err().kind(), Kind::Bug);
        let mut tx = db.read_one().await.unwrap();
        let failed = sql("SELECT id FROM nothing").fetch_all::<(i64,)>(&mut tx).await;
        assert_eq!(failed.unwrap_err().kind(), Kind::Bug);
        tx.rollback().await.unwrap();
        insert(&db, 3, String::new()).await.unwrap();
    }
}

#[tokio::test]
async fn a_reader_who_goes_away_leaves_nothing_running() {
    for database in [sqlite().await, postgres().await] {
        table(&database).await;
        let db = Db::open(&DbConfig { connections_max: 1, ..database.config().clone() }).await.unwrap();
        let read = async || {
            let mut tx = db.read_one().await?;
            sql("SELECT COUNT(*) FROM t").fetch_one::<(i64,)>(&mut tx).await
        };
        for id in 0..20 {
            for polls in 1..5 {
                drop_after(polls, read()).await;
            }
            insert(&db, id, String::new()).await.unwrap();
            assert_eq!(read().await.unwrap(), (id + 1,));
        }
    }
}

#[tokio::test]
async fn a_read_of_one_statement_cannot_write_on_sqlite() {
    let db = sqlite().await;
    table(&db).await;
    let mut tx = db.read_one().await.unwrap();
    sql("INSERT INTO t (id) VALUES (1)").execute(&mut tx).await.unwrap_err();
    drop(tx);
    assert!(ids(&db).await.is_empty());
}
