//! P8: what the services stand on goes away under load, and comes back. Errors are fast and honest, nothing is lost or doubled, and all goes
//! on by itself. `CAMPAIGN=1` makes the outages as long as the issue's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use souk_db::{Tx, sql};
use souk_events::{Bus, BusConfig, Consumer, ConsumerConfig, Event, Handler, HandlerError};
use souk_runtime::{Clock, Kernel};
use souk_testkit::cluster::{Cluster, ClusterConfig};
use souk_testkit::load::{Bought, Load, by_campaign, number};
use souk_testkit::{PATIENCE, TestDatabase, eventually, sqlite};

const BUYERS: usize = 16;

/// How long it is away.
fn outage() -> Duration {
    by_campaign(Duration::from_secs(3), Duration::from_secs(20))
}

async fn own_cluster() -> Cluster {
    Cluster::start_with(ClusterConfig { own_postgres: true, ..ClusterConfig::default() }).await
}

/// Buyers, who are at it.
async fn load(cluster: &Cluster) -> Load {
    let load = Load::start(cluster, BUYERS).await;
    load.goes_on(PATIENCE, 50).await;
    load
}

/// It goes on; and of all that was acknowledged nothing is lost or doubled.
async fn recovered(load: Load, cluster: &Cluster) -> Bought {
    load.goes_on(PATIENCE, 50).await;
    let bought = load.stop().await;
    bought.assert_kept(cluster).await;
    bought
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_postgresql_is_told_and_comes_back() {
    let mut cluster = own_cluster().await;
    let load = load(&cluster).await;
    let postgres = cluster.postgres.as_mut().unwrap();
    postgres.stop().await;
    tokio::time::sleep(outage()).await;
    assert!(load.refused() > BUYERS, "nobody has noticed");
    postgres.resume().await;
    recovered(load, &cluster).await.assert_honest(1);
    cluster.stop().await;
}

/// P3: SIGKILL of the database's processes; its log has what it acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgresql_has_every_order_that_was_acknowledged() {
    let mut cluster = own_cluster().await;
    let load = Load::start(&cluster, BUYERS).await;
    let rounds = by_campaign(2, 10);
    for _ in 0..rounds {
        load.goes_on(PATIENCE, 50).await;
        let postgres = cluster.postgres.as_mut().unwrap();
        postgres.kill().await;
        postgres.resume().await;
    }
    recovered(load, &cluster).await.assert_honest(rounds);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_inventory_is_told_and_comes_back() {
    let mut cluster = Cluster::start().await;
    let load = load(&cluster).await;
    for replica in 0..cluster.inventory.len() {
        cluster.inventory.kill(replica).await;
    }
    tokio::time::sleep(outage()).await;
    assert!(load.refused() > BUYERS, "nobody has noticed");
    for replica in 0..cluster.inventory.len() {
        cluster.inventory.start(replica);
    }
    recovered(load, &cluster).await.assert_honest(1);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_nats_is_noticed_by_nobody_and_has_every_event_in_the_end() {
    let cluster = Cluster::start().await;
    let audience = Audience::of(&cluster, "test.audience").await;
    let load = load(&cluster).await;
    cluster.nats.stop();
    let before = load.acknowledged();
    tokio::time::sleep(outage()).await;
    assert!(load.acknowledged() > before, "orders do not wait for the bus");
    let order = cluster.order.database().await;
    assert!(number(&order, "SELECT COUNT(*) FROM outbox WHERE published_at IS NULL").await > 0, "the outbox grows");
    cluster.nats.start().await;
    let bought = recovered(load, &cluster).await;
    assert!(bought.refusals.is_empty(), "{:?}", bought.refusals[0]);
    audience.has_heard_everything(&cluster).await;
    cluster.stop().await;
}

/// P5: the bus loses all that it had, the acknowledged too.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_nats_is_filled_again() {
    let cluster = Cluster::start().await;
    let witness = Audience::of(&cluster, "test.witness").await;
    let load = load(&cluster).await;
    cluster.nats.wipe().await;
    let bought = recovered(load, &cluster).await;
    assert!(bought.refusals.is_empty(), "{:?}", bought.refusals[0]);
    // A consumer whose place on the bus was lost too.
    witness.has_heard_everything(&cluster).await;
    // It comes after everything, and hears what was published before the loss from the outbox alone.
    Audience::of(&cluster, "test.audience").await.has_heard_everything(&cluster).await;
    cluster.stop().await;
}

/// A consumer of every event of orders, with a memory of its own.
struct Audience {
    kernel: Kernel,
    memory: TestDatabase,
}

struct Remember;

impl Handler for Remember {
    async fn handle(&self, tx: &mut Tx, event: &Event) -> Result<(), HandlerError> {
        sql("INSERT INTO heard (place, event_id, aggregate, version) SELECT COUNT(*) + 1, $1, $2, $3 FROM heard")
            .bind(event.id)
            .bind(&event.aggregate)
            .bind(event.version)
            .execute(tx)
            .await?;
        Ok(())
    }
}

impl Audience {
    async fn of(cluster: &Cluster, name: &'static str) -> Self {
        let kernel = Kernel::new(Clock::system());
        let memory = sqlite().await;
        memory.migrate(&[&souk_db::MIGRATIONS, &souk_events::MIGRATIONS]).await.unwrap();
        let mut tx = memory.write().await.unwrap();
        let table = "CREATE TABLE heard (place INTEGER NOT NULL PRIMARY KEY, event_id BLOB NOT NULL UNIQUE, aggregate TEXT NOT NULL,
             version INTEGER NOT NULL)";
        sql(table).execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        let consumer = Consumer {
            name,
            subjects: &["souk.order.order.>"],
            db: memory.clone(),
            kernel: kernel.clone(),
            config: ConsumerConfig::default(),
        };
        let bus = Bus::connect(&kernel, &BusConfig::at(cluster.nats.url())).await.unwrap();
        bus.subscribe(consumer, Remember).unwrap();
        Self { kernel, memory }
    }

    /// What is in the outbox, each of it once, and the events of an order in the order of its versions.
    async fn has_heard_everything(self, cluster: &Cluster) {
        let order = cluster.order.database().await;
        let told = number(&order, "SELECT COUNT(*) FROM outbox").await;
        eventually("every event has come", async || number(&self.memory, "SELECT COUNT(*) FROM heard").await == told)
            .await;
        assert!(self.kernel.tasks.stop(PATIENCE).await);
        let mut tx = order.read().await.unwrap();
        let text = "SELECT aggregate, version FROM outbox ORDER BY aggregate, version";
        let told: Vec<(String, i64)> = sql(text).fetch_all(&mut tx).await.unwrap();
        let mut tx = self.memory.read().await.unwrap();
        let heard: Vec<(String, i64)> =
            sql("SELECT aggregate, version FROM heard ORDER BY aggregate, place").fetch_all(&mut tx).await.unwrap();
        assert!(told.iter().any(|(_, version)| *version > 1), "no order has changed");
        assert!(heard == told, "out of order: {:?}", heard.iter().zip(&told).find(|(heard, told)| heard != told));
    }
}
