//! What must hold, on both engines and on both buses.

mod bus;
mod consumer;
mod crash;
mod nats;
mod order;
pub(crate) mod plan;
mod relay;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use souk_db::{Db, Tx, sql};
use souk_runtime::{Clock, Kernel};
use souk_testkit::{Nats, TestDatabase};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::steps::Steps;
use crate::{
    Bus, BusConfig, Consumer, ConsumerConfig, Event, Handler, HandlerError, MIGRATIONS, Relay, RelayConfig,
    RelayHandle, Subscription, outbox,
};

const LOOK_INTERVAL: Duration = Duration::from_millis(2);
const START: i64 = 1_700_000_000_000_000;

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(START).unwrap()
}

/// An event about an aggregate; the same arguments are the same event.
fn event(aggregate: &str, version: i64) -> Event {
    let name = format!("{aggregate}@{version}");
    Event {
        id: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
        source: "souk.test".into(),
        kind: "souk.test.v1.Happened".into(),
        subject: format!("souk.test.{aggregate}.happened"),
        aggregate: aggregate.into(),
        version,
        time: start() + TimeDelta::milliseconds(version),
        traceparent: (version % 2 == 0).then(|| "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        data: version.to_be_bytes().to_vec(),
    }
}

fn events(aggregates: &[&str], versions: std::ops::RangeInclusive<i64>) -> Vec<Event> {
    versions.flat_map(|version| aggregates.iter().map(move |aggregate| event(aggregate, version))).collect()
}

/// What a handler does with an event at its nth try, after it has written its effect.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Plot {
    Apply,
    Retry,
    Park,
    Panic,
    Hang,
    Unavailable,
    Conflict,
    SwallowError,
    /// On PostgreSQL: a statement takes longer than it may.
    SlowStatement,
    /// On PostgreSQL: a statement takes longer than the handler may.
    Stall,
}

type Plotting = dyn Fn(&Event, u32) -> Plot + Send + Sync;

/// A handler that writes down what it applies, and in which order.
struct Effects {
    plot: Box<Plotting>,
    tries: Arc<Mutex<HashMap<Uuid, u32>>>,
}

impl Handler for Effects {
    async fn handle(&self, tx: &mut Tx, event: &Event) -> Result<(), HandlerError> {
        let nth = {
            let mut tries = self.tries.lock().unwrap();
            let nth = tries.entry(event.id).or_default();
            *nth += 1;
            *nth
        };
        sql("INSERT INTO effects (aggregate, place, version)
             SELECT $1, COUNT(*) + 1, $2 FROM effects WHERE aggregate = $1")
        .bind(&event.aggregate)
        .bind(event.version)
        .execute(tx)
        .await?;
        match (self.plot)(event, nth) {
            Plot::Apply => Ok(()),
            Plot::Retry => Err(HandlerError::retry("planted: not yet")),
            Plot::Park => Err(HandlerError::park("planted: never")),
            Plot::Panic => panic!("planted"),
            Plot::Hang => std::future::pending().await,
            Plot::Unavailable => Err(souk_db::Error::from(sqlx::Error::PoolTimedOut).into()),
            Plot::Conflict => Err(souk_db::Error::conflict("planted").into()),
            Plot::SwallowError => {
                drop(sql("SELECT no_such_column FROM effects").execute(tx).await);
                Ok(())
            }
            Plot::SlowStatement => {
                sql("SET LOCAL statement_timeout = '20ms'").execute(tx).await?;
                sql("SELECT pg_sleep(60)").execute(tx).await?;
                Ok(())
            }
            Plot::Stall => {
                sql("SELECT pg_sleep(60)").execute(tx).await?;
                Ok(())
            }
        }
    }
}

/// One database that is publisher's and consumer's, and a clock that stands.
#[derive(Clone)]
struct World {
    db: Db,
    kernel: Kernel,
    bus: Bus,
    /// What carries the bus, if it is one over the network.
    nats: Option<Arc<Nats>>,
}

/// A bus that notices soon when a consumer is dead.
async fn bus_on(nats: Option<&Nats>, kernel: &Kernel) -> Bus {
    let Some(nats) = nats else { return Bus::memory() };
    let config = BusConfig { ack_wait_ms: 600, lag_interval_ms: 50, ..BusConfig::at(nats.url()) };
    let bus = Bus::connect(kernel, &config).await.unwrap();
    bus.link().wait_for(|link| *link != crate::bus::Link::Down).await.unwrap();
    bus
}

impl World {
    async fn new(db: Db) -> Self {
        Self::on(db, None).await
    }

    async fn on(db: Db, nats: Option<Arc<Nats>>) -> Self {
        let mut tx = db.write().await.unwrap();
        sql("CREATE TABLE effects (aggregate TEXT, place BIGINT, version BIGINT)").execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        let kernel = Kernel::new(Clock::fake(start()));
        let bus = bus_on(nats.as_deref(), &kernel).await;
        Self { db, kernel, bus, nats }
    }

    /// The same database after a crash: nothing in memory is left, and the dead relay's lease has run out.
    async fn after_crash(self) -> Self {
        self.kernel.clock.advance(Duration::from_millis(RelayConfig::default().lease_ttl_ms));
        self.replica().await
    }

    /// Another process on the same database and the same bus.
    async fn replica(&self) -> Self {
        let kernel = Kernel::new(Clock::fake(self.kernel.clock.now()));
        let bus = bus_on(self.nats.as_deref(), &kernel).await;
        Self { db: self.db.clone(), kernel, bus, nats: self.nats.clone() }
    }

    /// Publishes an event and waits until the consumer is done with it.
    async fn deliver(&self, event: &Event) {
        self.bus.publish(event).await.unwrap();
        self.until(|| async { self.is_done(event).await }).await;
    }

    async fn is_done(&self, event: &Event) -> bool {
        let mut tx = self.db.read().await.unwrap();
        let text = "SELECT COUNT(*) FROM inbox WHERE event_id = $1";
        let (count,): (i64,) = sql(text).bind(event.id).fetch_one(&mut tx).await.unwrap();
        count > 0
    }

    fn consumer(&self) -> Consumer {
        let config = ConsumerConfig { tries_max: 3, ..ConsumerConfig::default() };
        Consumer {
            name: "effects",
            subjects: &["souk.test.>"],
            db: self.db.clone(),
            kernel: self.kernel.clone(),
            config,
        }
    }

    fn subscribe(&self, plot: impl Fn(&Event, u32) -> Plot + Send + Sync + 'static) -> Arc<Subscription> {
        self.subscribe_at(self.consumer(), Steps::default(), plot)
    }

    fn subscribe_at(
        &self,
        consumer: Consumer,
        steps: Steps,
        plot: impl Fn(&Event, u32) -> Plot + Send + Sync + 'static,
    ) -> Arc<Subscription> {
        let effects = Effects { plot: Box::new(plot), tries: Arc::default() };
        self.bus.subscribe_at(consumer, effects, steps).unwrap()
    }

    fn relay(&self) -> RelayHandle {
        self.relay_at(RelayConfig::default(), Steps::default()).0
    }

    fn relay_at(&self, config: RelayConfig, steps: Steps) -> (RelayHandle, JoinHandle<()>) {
        let relay = Relay::new(self.kernel.clone(), "test", self.db.clone(), self.bus.clone(), config, steps);
        (relay.handle(), tokio::spawn(relay.run()))
    }

    async fn append(&self, events: &[Event]) {
        let mut tx = self.db.write().await.unwrap();
        outbox::append(&mut tx, events).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn count(&self, what: &'static str) -> i64 {
        let mut tx = self.db.read().await.unwrap();
        let (count,): (i64,) = sql(format!("SELECT COUNT(*) FROM {what}")).fetch_one(&mut tx).await.unwrap();
        count
    }

    async fn unpublished(&self) -> i64 {
        self.count("outbox WHERE published_at IS NULL").await
    }

    /// The versions that were applied to an aggregate, in the order in which they were.
    async fn applied(&self, aggregate: &str) -> Vec<i64> {
        let mut tx = self.db.read().await.unwrap();
        let text = "SELECT version FROM effects WHERE aggregate = $1 ORDER BY place";
        let rows: Vec<(i64,)> = sql(text).bind(aggregate).fetch_all(&mut tx).await.unwrap();
        rows.into_iter().map(|(version,)| version).collect()
    }

    /// Waits, with the clock standing.
    async fn until<F: Future<Output = bool>>(&self, condition: impl Fn() -> F) {
        self.until_with(Duration::ZERO, condition).await;
    }

    /// Waits, and moves the clock by `step` between two looks: whoever sleeps on it may begin to do so at any time.
    async fn until_with<F: Future<Output = bool>>(&self, step: Duration, condition: impl Fn() -> F) {
        let begun = Instant::now();
        while !condition().await {
            assert!(begun.elapsed() < Duration::from_mins(1), "never came");
            self.kernel.clock.advance(step);
            // Looking without a pause would starve what is looked for.
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether the metric stands at that.
    fn shows(&self, line: &str) -> bool {
        self.kernel.metrics.encode().lines().any(|shown| shown == line)
    }
}

/// Runs `test` in a world on each engine.
async fn on_both<F: Future<Output = ()>>(test: impl Fn(World) -> F) {
    let test = &test;
    let migrations = [&souk_db::MIGRATIONS, &MIGRATIONS];
    souk_testkit::on_both(&migrations, |db| async move { test(World::new(db).await).await }).await;
}

/// Runs `test` on each engine with the bus in memory, and then with NATS.
async fn on_every_bus<F: Future<Output = ()>>(test: impl Fn(World) -> F) {
    on_both(&test).await;
    on_nats(test).await;
}

/// Runs `test` in a world with NATS.
async fn on_nats<F: Future<Output = ()>>(test: impl Fn(World) -> F) {
    on_nats_with(souk_testkit::postgres().await, test).await;
}

async fn on_nats_with<F: Future<Output = ()>>(database: TestDatabase, test: impl Fn(World) -> F) {
    database.migrate(&[&souk_db::MIGRATIONS, &MIGRATIONS]).await.unwrap();
    let nats = Arc::new(souk_testkit::nats().await);
    println!("on NATS");
    test(World::on(database.clone(), Some(nats)).await).await;
}

#[tokio::test]
async fn both_engines_have_the_same_schema() {
    let mut schemas = Vec::new();
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        database.migrate(&[&MIGRATIONS]).await.unwrap();
        schemas.push(souk_db::schema::columns(&mut database.read().await.unwrap()).await.unwrap());
    }
    assert!(schemas[0].iter().any(|column| column.table_name == "dead_letters"));
    assert_eq!(schemas[0], schemas[1]);
}

#[tokio::test]
async fn an_event_leaves_the_outbox_as_it_went_in() {
    on_both(|world| async move {
        let expected = events(&["a"], 1..=2);
        world.append(&expected).await;
        let mut tx = world.db.read().await.unwrap();
        let bounds = outbox::Bounds { aggregates: 9, chain: 9, events: 9, since: None };
        let read = outbox::unpublished(&mut tx, &[], bounds).await.unwrap();
        assert_eq!(read.chains["a"], expected);
        assert!(!read.may_be_more);
        let later = Some(expected[1].time + TimeDelta::microseconds(1));
        let read = outbox::unpublished(&mut tx, &[], outbox::Bounds { since: later, ..bounds }).await.unwrap();
        assert!(read.chains.is_empty(), "whoever has read up to then reads on from there");
    })
    .await;
}
