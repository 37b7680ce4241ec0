//! What a process does when it starts: refuses what loses data, waits for what is not there yet.

use souk_db::{Db, DbConfig, Durability, Kind};
use souk_runtime::story;
use souk_testkit::postgres::Server;
use sqlx::{AssertSqlSafe, Executor};

use super::observer;

async fn refusal(config: &DbConfig) -> String {
    let error = Db::open(config).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Bug, "it is not waited for: {error:?}");
    story(&error)
}

#[tokio::test]
async fn a_server_that_may_lose_what_it_acknowledged_is_refused_by_name() {
    let server = Server::start_with(&["fsync=off", "full_page_writes=off", "synchronous_commit=off"]).await;
    let config = DbConfig { unsafe_allow: Vec::new(), ..server.config() };
    let told = refusal(&config).await;
    assert!(told.contains(": fsync, synchronous_commit, full_page_writes."), "{told}");
    let told = refusal(&DbConfig { unsafe_allow: vec![Durability::Fsync], ..config.clone() }).await;
    assert!(told.contains(": synchronous_commit, full_page_writes."), "{told}");
    let all = vec![Durability::Fsync, Durability::SynchronousCommit, Durability::FullPageWrites];
    Db::open(&DbConfig { unsafe_allow: all, ..config }).await.unwrap();
}

#[tokio::test]
async fn what_is_off_for_the_role_the_database_or_the_session_is_off() {
    let server = Server::start_careless().await;
    let mut root = observer(&server.url("souk")).await;
    for statement in [
        "CREATE ROLE hasty LOGIN",
        "ALTER ROLE hasty SET synchronous_commit = off",
        "CREATE DATABASE hasty",
        "ALTER DATABASE hasty SET synchronous_commit = off",
    ] {
        root.execute(statement).await.unwrap();
    }
    let urls = [
        server.url("hasty"),
        server.url("souk").replace("/postgres", "/hasty"),
        format!("{}?options=-c%20synchronous_commit%3Doff", server.url("souk")),
    ];
    for url in urls {
        let told = refusal(&DbConfig { url: url.clone().into(), ..server.config() }).await;
        assert!(told.contains(": synchronous_commit."), "{url}: {told}");
    }
    Db::open(&server.config()).await.unwrap();
    root.execute(AssertSqlSafe("DROP DATABASE hasty".to_owned())).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let mut server = Server::start_careless().await;
    server.stop().await;
    let config = server.config();
    let opening = tokio::spawn(async move { Db::open(&config).await });
    server.resume().await;
    opening.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_come_is_not_waited_for_longer_than_was_said() {
    let mut server = Server::start_careless().await;
    server.stop().await;
    let config = DbConfig { connect_timeout_ms: 300, ..server.config() };
    let began = std::time::Instant::now();
    assert_eq!(Db::open(&config).await.unwrap_err().kind(), Kind::Unavailable);
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}
