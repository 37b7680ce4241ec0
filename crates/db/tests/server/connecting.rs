//! How connections are made: named, encrypted, bounded, measured.

use souk_db::{Batch, Db, DbConfig, Decided, Error, GroupCommit, GroupConfig, Kind, Tx, sql};
use souk_runtime::Metrics;
use souk_testkit::postgres::{Server, certificate};
use souk_testkit::{eventually, postgres};
use tempfile::TempDir;

use super::{insert, table};

async fn one<T>(db: &Db, text: &'static str) -> T
where
    (T,): souk_db::Row,
{
    let (value,): (T,) = sql(text).fetch_one(&mut db.read().await.unwrap()).await.unwrap();
    value
}

#[tokio::test]
async fn a_connection_says_whose_it_is() {
    let database = postgres().await;
    let db = Db::open_measured(database.config(), "order", &Metrics::default()).await.unwrap();
    assert_eq!(one::<String>(&db, "SELECT current_setting('application_name')").await, "souk-order");
    assert_eq!(one::<String>(&db, "SELECT current_setting('client_connection_check_interval')").await, "250ms");
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate_and_its_name() {
    let folder = TempDir::new().unwrap();
    let [ca, certificate_file, key] = certificate(folder.path());
    let mut server = Server::start_careless().await;
    server.put("server.crt", &std::fs::read_to_string(certificate_file).unwrap());
    server.put("server.key", &std::fs::read_to_string(key).unwrap());
    server.put("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n");
    server.stop().await;
    server.set("ssl=on");
    server.resume().await;
    let at = |host: &str, options: &str| {
        let url = format!("postgres://souk@{host}:{}/postgres?{options}", server.port());
        DbConfig { url: url.into(), connect_timeout_ms: 500, ..server.config() }
    };
    let trusted = format!("sslmode=verify-full&sslrootcert={}", ca.display());
    let db = Db::open(&at("localhost", &trusted)).await.unwrap();
    assert!(one::<bool>(&db, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await);
    for (host, options) in [
        ("127.0.0.1", trusted.as_str()),      // another name than the certificate's
        ("localhost", "sslmode=verify-full"), // of an authority that nobody knows
        ("localhost", "sslmode=disable"),     // and in the clear we are not let in
    ] {
        let refused = Db::open(&at(host, options)).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Unavailable, "{host} {options}");
    }
}

#[tokio::test]
async fn without_a_cache_nothing_stays_prepared() {
    let database = postgres().await;
    let prepared = "SELECT COUNT(*) FROM pg_prepared_statements";
    for (statement_cache_max, left) in [(0, false), (10, true)] {
        let config = DbConfig { statement_cache_max, connections_max: 1, ..database.config().clone() };
        let db = Db::open(&config).await.unwrap();
        for _ in 0..3 {
            sql("SELECT $1").bind(1_i64).execute(&mut db.read().await.unwrap()).await.unwrap();
        }
        assert_eq!(one::<i64>(&db, prepared).await > 1, left, "{statement_cache_max}");
    }
}

#[tokio::test]
async fn connections_are_kept_ready() {
    let database = postgres().await;
    let metrics = Metrics::default();
    let config = DbConfig { connections_min: 3, ..database.config().clone() };
    let _db = Db::open_measured(&config, "user", &metrics).await.unwrap();
    let ready = "db_connections{database=\"user\",pool=\"all\",state=\"idle\"} 3";
    eventually("three are idle", async || metrics.encode().contains(ready)).await;
}

struct Insert;

impl Batch for Insert {
    type Command = i64;
    type Reply = ();
    type Error = std::convert::Infallible;

    async fn apply(&self, tx: &mut Tx, ids: &[i64]) -> Result<Decided<Self>, Error> {
        for id in ids {
            sql("INSERT INTO t (id, n) VALUES ($1, 0)").bind(*id).execute(tx).await?;
        }
        Ok(ids.iter().map(|_| Ok(())).collect())
    }
}

#[tokio::test]
async fn what_a_database_does_is_measured() {
    let database = postgres().await;
    let metrics = Metrics::default();
    let db = Db::open_measured(database.config(), "order", &metrics).await.unwrap();
    table(&db).await;
    insert(&db, 1).await.unwrap();
    insert(&db, 1).await.unwrap_err();
    let tx = db.read().await.unwrap();
    GroupCommit::start("inserts", db.clone(), Insert, &GroupConfig::default()).submit(2, None).await.unwrap();
    let text = metrics.encode();
    for line in [
        "db_up{database=\"order\"} 1",
        "db_connections{database=\"order\",pool=\"all\",state=\"used\"}",
        "db_connections_max{database=\"order\",pool=\"all\"} 8",
        "db_transactions_total{database=\"order\",access=\"write\",outcome=\"committed\"} 3",
        "db_transactions_total{database=\"order\",access=\"write\",outcome=\"rolled_back\"} 1",
        "db_errors_total{database=\"order\",kind=\"bug\"} 1",
        "db_acquire_seconds_count{database=\"order\"} 5",
        "db_acquire_failures_total{database=\"order\"} 0",
        "db_connections_dropped_total{database=\"order\"} 0",
        "db_clock_skew_seconds{database=\"order\"}",
        "db_group_batches_total{database=\"order\",group=\"inserts\"} 1",
        "db_group_commands_total{database=\"order\",group=\"inserts\"} 1",
        "db_group_batch_commands_bucket{le=\"1.0\",database=\"order\",group=\"inserts\"} 1",
        "db_group_dropped_total{database=\"order\",group=\"inserts\"} 0",
        "db_group_refused_total{database=\"order\",group=\"inserts\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    tx.rollback().await.unwrap();
}
