//! P8: what the services stand on goes away under load, and comes back. Errors are fast and honest, nothing is lost or doubled, and all goes
//! on by itself. `CAMPAIGN=1` makes the outages as long as the issue's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use souk_testkit::PATIENCE;
use souk_testkit::cluster::{Cluster, ClusterConfig};
use souk_testkit::load::{Load, by_campaign};

const BUYERS: usize = 16;

/// How long it is away.
fn outage() -> Duration {
    by_campaign(Duration::from_secs(3), Duration::from_secs(20))
}

async fn own_cluster() -> Cluster {
    Cluster::start_with(ClusterConfig { own_postgres: true, ..ClusterConfig::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_postgresql_is_told_and_comes_back() {
    let mut cluster = own_cluster().await;
    let load = Load::start(&cluster, BUYERS).await;
    load.goes_on(PATIENCE, 50).await;
    let postgres = cluster.postgres.as_mut().unwrap();
    postgres.stop().await;
    tokio::time::sleep(outage()).await;
    assert!(load.refused() > BUYERS, "nobody has noticed");
    postgres.resume().await;
    load.goes_on(PATIENCE, 50).await;
    let bought = load.stop().await;
    bought.assert_honest();
    bought.assert_kept(&cluster).await;
    cluster.stop().await;
}

/// P3: SIGKILL of the database's processes; its log has what it acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgresql_has_every_order_that_was_acknowledged() {
    let mut cluster = own_cluster().await;
    let load = Load::start(&cluster, BUYERS).await;
    for _ in 0..by_campaign(2, 10) {
        load.goes_on(PATIENCE, 50).await;
        let postgres = cluster.postgres.as_mut().unwrap();
        postgres.kill().await;
        postgres.resume().await;
    }
    load.goes_on(PATIENCE, 50).await;
    let bought = load.stop().await;
    bought.assert_honest();
    bought.assert_kept(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_inventory_is_told_and_comes_back() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster, BUYERS).await;
    load.goes_on(PATIENCE, 50).await;
    for replica in 0..cluster.inventory.len() {
        cluster.inventory.kill(replica).await;
    }
    tokio::time::sleep(outage()).await;
    assert!(load.refused() > BUYERS, "nobody has noticed");
    for replica in 0..cluster.inventory.len() {
        cluster.inventory.start(replica);
    }
    load.goes_on(PATIENCE, 50).await;
    let bought = load.stop().await;
    bought.assert_honest();
    bought.assert_kept(&cluster).await;
    cluster.stop().await;
}

/// One replica of each service at a time dies without a word, under callers who try again.
#[tokio::test(flavor = "multi_thread")]
async fn killed_replicas_lose_and_double_nothing() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster, BUYERS).await;
    let mut kills = 0;
    for round in 0..by_campaign(2, 20) {
        for service in [&mut cluster.order, &mut cluster.inventory, &mut cluster.user] {
            let replica = round % service.len();
            service.kill(replica).await;
            kills += 1;
            load.goes_on(PATIENCE, 20).await;
            service.start(replica);
            service.ready(replica).await;
        }
    }
    assert!(kills >= 6);
    let bought = load.stop().await;
    bought.assert_kept(&cluster).await;
    cluster.stop().await;
}
