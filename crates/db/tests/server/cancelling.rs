//! Nothing runs on the server for callers that have gone.

use std::time::Duration;

use souk_db::{Db, DbConfig, Kind, sql};
use souk_testkit::{eventually, postgres};

use super::{observer, running, table, within};

/// As long as any statement may run here.
const LONG: &str = "SELECT 1 FROM pg_sleep(30)";

async fn slow(db: &Db, mark: &str) -> Result<u64, souk_db::Error> {
    let mut tx = db.write().await?;
    sql(format!("{LONG} /* {mark} */")).execute(&mut tx).await
}

#[tokio::test]
async fn a_caller_who_goes_away_ends_the_statement_on_the_server() {
    let database = postgres().await;
    let config = DbConfig { statement_timeout_ms: 60_000, connections_max: 1, ..database.config().clone() };
    let mut observer = observer(config.url.expose()).await;
    let db = Db::open(&config).await.unwrap();
    let call = tokio::spawn({
        let db = db.clone();
        async move { slow(&db, "left").await }
    });
    eventually("the statement runs", async || running(&mut observer, "/* left */").await == 1).await;
    call.abort();
    let soon = Duration::from_secs(5);
    souk_testkit::within(soon, "the statement ends", async || running(&mut observer, "/* left */").await == 0).await;
    // The one connection of the pool is to be had again.
    sql("SELECT 1").execute(&mut db.write().await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn the_server_itself_ends_a_statement_at_the_deadline_of_its_call() {
    let database = postgres().await;
    let mut observer = observer(database.config().url.expose()).await;
    // Not found out by the looks for the client, and not by our own time-out alone.
    let config = DbConfig { client_check_interval_ms: 0, ..database.config().clone() };
    let db = Db::open(&config).await.unwrap();
    let (result, took) = within(Duration::from_millis(300), slow(&db, "late")).await;
    assert_eq!(result.unwrap_err().kind(), Kind::Deadline);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let soon = Duration::from_secs(5);
    souk_testkit::within(soon, "the statement ends", async || running(&mut observer, "/* late */").await == 0).await;
}

#[tokio::test]
async fn a_caller_waits_for_a_connection_no_longer_than_its_deadline() {
    let database = postgres().await;
    let config = DbConfig { connections_max: 1, acquire_timeout_ms: 60_000, ..database.config().clone() };
    let db = Db::open(&config).await.unwrap();
    let _in_the_way = db.write().await.unwrap();
    let (result, took) = within(Duration::from_millis(100), db.read()).await;
    assert_eq!(result.unwrap_err().kind(), Kind::Deadline);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_caller_waits_for_a_lock_no_longer_than_its_deadline() {
    let database = postgres().await;
    table(&database).await;
    let config = DbConfig { lock_timeout_ms: 60_000, ..database.config().clone() };
    let db = Db::open(&config).await.unwrap();
    let insert = || sql("INSERT INTO t (id, n) VALUES (1, 1)");
    let mut holder = db.write().await.unwrap();
    insert().execute(&mut holder).await.unwrap();
    let waiting = async {
        let mut tx = db.write().await?;
        insert().execute(&mut tx).await
    };
    let (result, took) = within(Duration::from_millis(200), waiting).await;
    assert_eq!(result.unwrap_err().kind(), Kind::Deadline);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn what_was_given_up_in_a_transaction_is_not_committed() {
    let database = postgres().await;
    table(&database).await;
    let mut tx = database.write().await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(50), sql("SELECT pg_sleep(0.2)").execute(&mut tx)).await;
    assert!(given_up.is_err());
    assert_eq!(sql("SELECT 1").execute(&mut tx).await.unwrap_err().kind(), Kind::Bug);
    assert_eq!(tx.commit().await.unwrap_err().kind(), Kind::Bug);
    // A short statement ends by itself, and its connection is used again.
    let mut tx = database.write().await.unwrap();
    let (rows,): (i64,) = sql("SELECT COUNT(*) FROM t").fetch_one(&mut tx).await.unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn many_callers_who_go_away_leave_no_transaction_open() {
    let database = postgres().await;
    table(&database).await;
    let config = DbConfig { connections_max: 4, ..database.config().clone() };
    let mut observer = observer(config.url.expose()).await;
    let db = Db::open(&config).await.unwrap();
    for id in 0..200_i64 {
        let call = async {
            let mut tx = db.write().await?;
            sql("INSERT INTO t (id, n) VALUES ($1, 0)").bind(id).execute(&mut tx).await?;
            tx.commit().await
        };
        // Given up at every stage.
        drop(tokio::time::timeout(Duration::from_micros(40 * (id.cast_unsigned() % 50)), call).await);
    }
    let open = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()";
    eventually("all is at rest", async || {
        let (open,): (i64,) = sqlx::query_as(open).fetch_one(&mut observer).await.unwrap();
        open == 0
    })
    .await;
    super::insert(&db, 1_000).await.unwrap();
}

#[tokio::test]
async fn a_read_of_one_statement_ends_at_the_deadline_of_its_call() {
    let database = postgres().await;
    let config = DbConfig { connections_max: 1, ..database.config().clone() };
    let mut observer = observer(config.url.expose()).await;
    let db = Db::open(&config).await.unwrap();
    let reading = async |text: String| {
        let mut tx = db.read_one().await?;
        sql(text).fetch_all::<(i32,)>(&mut tx).await
    };
    let quick = within(Duration::from_secs(5), reading("SELECT 1".to_owned())).await.0;
    assert_eq!(quick.unwrap(), [(1,)]);
    let slow = "SELECT 1 FROM pg_sleep(30) /* late read */".to_owned();
    let (result, took) = within(Duration::from_millis(300), reading(slow)).await;
    assert_eq!(result.unwrap_err().kind(), Kind::Deadline);
    assert!(took < Duration::from_secs(5), "{took:?}");
    // Not told of the deadline, the server finds its client gone.
    let soon = Duration::from_secs(5);
    souk_testkit::within(soon, "the statement ends", async || running(&mut observer, "/* late read */").await == 0)
        .await;
    assert_eq!(reading("SELECT 1".to_owned()).await.unwrap(), [(1,)]);
}

#[tokio::test]
async fn a_read_of_one_statement_is_in_no_transaction() {
    let database = postgres().await;
    let mut observer = observer(database.config().url.expose()).await;
    let mut tx = database.read_one().await.unwrap();
    let own = "SELECT pg_backend_pid()";
    let (pid,): (i32,) = sql(own).fetch_one(&mut tx).await.unwrap();
    let state = "SELECT state FROM pg_stat_activity WHERE pid = $1";
    let (state,): (String,) = sqlx::query_as(state).bind(pid).fetch_one(&mut observer).await.unwrap();
    assert_eq!(state, "idle", "and not: idle in transaction");
}
