//! A server that is stopped, killed and frozen keeps what it has acknowledged.

use souk_testkit::postgres::Server;
use sqlx::{Connection, PgConnection};

#[tokio::test]
async fn what_was_acknowledged_outlives_a_stop_a_kill_and_a_freeze() {
    let mut server = Server::start().await;
    let url = server.new_database().await;
    let mut connection = PgConnection::connect(&url).await.expect("it answers");
    sqlx::query("CREATE TABLE kept (number BIGINT)").execute(&mut connection).await.expect("a table");
    for number in 0..3_i64 {
        sqlx::query("INSERT INTO kept VALUES ($1)").bind(number).execute(&mut connection).await.expect("a row");
        match number {
            0 => server.stop().await,
            1 => server.kill().await,
            _ => {
                server.freeze();
                let ask = sqlx::query("SELECT 1").execute(&mut connection);
                assert!(tokio::time::timeout(std::time::Duration::from_millis(300), ask).await.is_err());
                server.wake();
                break;
            }
        }
        PgConnection::connect(&url).await.expect_err("nobody answers");
        server.resume().await;
        connection = PgConnection::connect(&url).await.expect("it answers again");
    }
    connection = PgConnection::connect(&url).await.expect("it answers still");
    let (rows,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM kept").fetch_one(&mut connection).await.expect("a count");
    assert_eq!(rows, 3);
}
