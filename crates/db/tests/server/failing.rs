//! The server goes away, in every way, and comes back.

use std::time::Duration;

use souk_db::{Db, DbConfig, Kind, sql};
use souk_runtime::Metrics;
use souk_testkit::postgres::Server;
use souk_testkit::{PATIENCE, eventually};
use sqlx::Executor;

use super::{insert, observer, table, within};

const CALL: Duration = Duration::from_secs(2);
/// What needs no answer of the server at all.
const FAST: Duration = Duration::from_millis(100);

struct Fixture {
    server: Server,
    db: Db,
}

async fn fixture(config: impl FnOnce(DbConfig) -> DbConfig) -> Fixture {
    let server = Server::start_careless().await;
    let db = Db::open(&config(server.config())).await.unwrap();
    table(&db).await;
    Fixture { server, db }
}

impl Fixture {
    /// Calls until one is told at once that the database is down; none may take longer than its deadline, or be told anything else.
    async fn is_found_out(&self) {
        eventually("calls fail at once", async || {
            let (result, took) = within(CALL, insert(&self.db, 1)).await;
            let kind = result.unwrap_err().kind();
            assert!(matches!(kind, Kind::Unavailable | Kind::Timeout | Kind::Deadline), "{kind:?}");
            assert!(took < CALL + Duration::from_secs(1), "{took:?}");
            took < FAST && kind == Kind::Unavailable
        })
        .await;
        assert!(!self.db.clone().is_well().await);
        for _ in 0..20 {
            let (result, took) = within(CALL, self.db.read()).await;
            assert_eq!(result.unwrap_err().kind(), Kind::Unavailable);
            assert!(took < FAST, "{took:?}");
        }
    }

    async fn heals(&self) {
        eventually("calls succeed again", async || self.db.clone().is_well().await).await;
        for id in 100..140 {
            within(PATIENCE, insert(&self.db, id)).await.0.unwrap();
        }
    }
}

#[tokio::test]
async fn a_server_that_is_restarted_is_used_again_without_one_failed_call() {
    let mut server = Server::start_careless().await;
    let metrics = Metrics::default();
    let config = DbConfig { connections_max: 4, ..server.config() };
    let db = Db::open_measured(&config, "order", &metrics).await.unwrap();
    table(&db).await;
    drop(futures::future::join_all((0..4).map(|_| db.write())).await);
    let idle = "db_connections{database=\"order\",pool=\"all\",state=\"idle\"} 4";
    eventually("four connections are open, and idle", async || metrics.encode().contains(idle)).await;
    server.stop().await;
    server.resume().await;
    insert(&db, 1).await.unwrap();
}

#[tokio::test]
async fn a_read_that_no_begin_goes_before_does_not_fail_since_its_connections_were_cut_either() {
    let fixture = fixture(|config| DbConfig { connections_max: 4, connections_min: 4, ..config }).await;
    insert(&fixture.db, 1).await.unwrap();
    let mut root = observer_of(&fixture).await;
    let mut read = async || {
        let mut tx = fixture.db.read_one().await?;
        let cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'souk-%'";
        root.execute(cut).await.unwrap(); // after the pool has looked at the connection
        sql("SELECT id FROM t").fetch_all::<(i64,)>(&mut tx).await
    };
    assert_eq!(read().await.unwrap(), [(1,)]);
}

#[tokio::test]
async fn a_server_that_is_stopped_is_found_out_once_and_heals_by_itself() {
    let mut fixture = fixture(|config| config).await;
    fixture.server.stop().await;
    fixture.is_found_out().await;
    fixture.server.resume().await;
    fixture.heals().await;
}

#[tokio::test]
async fn a_server_that_is_killed_is_found_out_once_and_heals_by_itself() {
    let mut fixture = fixture(|config| config).await;
    let mut open = fixture.db.write().await.unwrap();
    sql("INSERT INTO t (id, n) VALUES (7, 7)").execute(&mut open).await.unwrap();
    fixture.server.kill().await;
    assert_eq!(open.commit().await.unwrap_err().kind(), Kind::Unavailable);
    fixture.is_found_out().await;
    fixture.server.resume().await;
    fixture.heals().await;
}

#[tokio::test]
async fn a_server_that_stands_still_is_found_out_once_and_heals_by_itself() {
    let fixture = fixture(|config| DbConfig { statement_timeout_ms: 60_000, ..config }).await;
    let mut open = fixture.db.write().await.unwrap();
    fixture.server.freeze();
    // One that has no deadline: it waits for an answer that does not come, until the others have found it out.
    let waiting = tokio::spawn(async move { sql("SELECT 1").execute(&mut open).await });
    fixture.is_found_out().await;
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), Kind::Unavailable);
    fixture.server.wake();
    fixture.heals().await;
}

#[tokio::test]
async fn a_commit_is_heard_of_though_the_deadline_passes_while_it_is_on_its_way() {
    let fixture = fixture(|config| config).await;
    let commit = async {
        let mut tx = fixture.db.write().await.unwrap();
        sql("INSERT INTO t (id, n) VALUES (1, 0)").execute(&mut tx).await.unwrap();
        fixture.server.freeze();
        let deadline = souk_runtime::deadline::current().unwrap();
        let wake = async {
            tokio::time::sleep_until(deadline).await;
            fixture.server.wake();
        };
        tokio::join!(tx.commit(), wake).0
    };
    let time = Duration::from_millis(500);
    let (committed, took) = within(time, commit).await;
    committed.unwrap();
    assert!(took >= time, "{took:?}");
}

#[tokio::test]
async fn what_has_no_deadline_does_not_wait_for_ever_for_a_server_that_stands_still() {
    let fixture = fixture(|config| DbConfig { statement_timeout_ms: 500, ..config }).await;
    let mut open = fixture.db.write().await.unwrap();
    fixture.server.freeze();
    let told = tokio::time::timeout(PATIENCE, sql("SELECT 1").execute(&mut open)).await.unwrap();
    assert_eq!(told.unwrap_err().kind(), Kind::Unavailable);
    eventually("it is found out", async || insert(&fixture.db, 1).await.unwrap_err().kind() == Kind::Unavailable).await;
    fixture.server.wake();
    fixture.heals().await;
}

#[tokio::test]
async fn a_server_that_takes_no_writes_any_more_is_as_good_as_down() {
    let fixture = fixture(|config| config).await;
    let mut root = observer(&fixture.server.url("souk")).await;
    // What a demoted primary says. A standby says it whatever a session asks for; here sessions must be new ones.
    root.execute("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
    root.execute("SELECT pg_reload_conf()").await.unwrap();
    eventually("a write is refused", async || insert(&fixture.db, 2).await.is_err()).await;
    let told = insert(&fixture.db, 2).await.unwrap_err();
    assert_eq!(told.kind(), Kind::Unavailable);
    eventually("it is not well", async || !fixture.db.clone().is_well().await).await;
    eventually("nor may it be read", async || fixture.db.read().await.is_err()).await;
    root.execute("SET default_transaction_read_only = off").await.unwrap();
    root.execute("ALTER SYSTEM RESET default_transaction_read_only").await.unwrap();
    root.execute("SELECT pg_reload_conf()").await.unwrap();
    fixture.heals().await;
}

#[tokio::test]
async fn of_several_hosts_the_one_that_takes_writes_is_used() {
    let mut one = Server::start_with(&["fsync=off", "full_page_writes=off", "default_transaction_read_only=on"]).await;
    let mut two = Server::start_careless().await;
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", one.port(), two.port());
    let url = format!("postgres://souk@{hosts}/postgres?target_session_attrs=read-write");
    let db = Db::open(&DbConfig { url: url.into(), ..one.config() }).await.unwrap();
    table(&db).await;
    insert(&db, 1).await.unwrap();
    // The failover: the second goes, the first becomes the primary.
    two.kill().await;
    one.stop().await;
    one.set("default_transaction_read_only=off");
    one.resume().await;
    eventually("the other is used", async || db.clone().is_well().await).await;
    table(&db).await;
    insert(&db, 1).await.unwrap();
}

#[tokio::test]
async fn a_pool_that_is_exhausted_is_no_server_that_is_down() {
    let fixture = fixture(|config| DbConfig { connections_max: 1, acquire_timeout_ms: 100, ..config }).await;
    let mut held = fixture.db.write().await.unwrap();
    let told = fixture.db.read().await.unwrap_err();
    assert_eq!(told.kind(), Kind::Unavailable);
    let ask = async {
        loop {
            sql("SELECT 1").execute(&mut held).await.unwrap();
        }
    };
    let is_well = tokio::select! {
        is_well = fixture.db.clone().is_well() => is_well,
        () = ask => false,
    };
    assert!(is_well, "others get their answers");
    held.rollback().await.unwrap();
    insert(&fixture.db, 1).await.unwrap();
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_unavailable_to_whoever_needs_one() {
    let server = Server::start_with(&[
        "fsync=off",
        "full_page_writes=off",
        "max_connections=8",
        "superuser_reserved_connections=2",
    ])
    .await;
    let mut root = observer(&server.url("souk")).await;
    root.execute("CREATE ROLE shop LOGIN").await.unwrap();
    let config = DbConfig { url: server.url("shop").into(), acquire_timeout_ms: 300, ..server.config() };
    let db = Db::open(&config).await.unwrap();
    let mut ours = db.write().await.unwrap();
    let mut others = Vec::new();
    while let Ok(other) = <sqlx::PgConnection as sqlx::Connection>::connect(&server.url("shop")).await {
        others.push(other);
    }
    assert_eq!(db.write().await.unwrap_err().kind(), Kind::Unavailable);
    sql("SELECT 1").execute(&mut ours).await.unwrap();
    drop(others);
    eventually("there is one again", async || db.write().await.is_ok()).await;
}

#[tokio::test]
async fn a_password_that_is_not_accepted_any_more_is_unavailable_and_may_be_mended() {
    let fixture = fixture(|config| config).await;
    fixture.server.put("pg_hba.conf", "host all all 127.0.0.1/32 reject\n");
    let mut root = observer_of(&fixture).await;
    root.execute("SELECT pg_reload_conf()").await.unwrap();
    root.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")
        .await
        .unwrap();
    eventually("nobody is let in", async || fixture.db.read().await.is_err()).await;
    assert_eq!(fixture.db.read().await.unwrap_err().kind(), Kind::Unavailable);
    fixture.server.put("pg_hba.conf", "host all all 127.0.0.1/32 trust\n");
    root.execute("SELECT pg_reload_conf()").await.unwrap();
    fixture.heals().await;
}

/// Connected before nobody is let in any more: the settings are read again only when the server is told to.
async fn observer_of(fixture: &Fixture) -> sqlx::PgConnection {
    observer(&fixture.server.url("souk")).await
}
