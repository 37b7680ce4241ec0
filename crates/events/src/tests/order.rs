//! P5: in order per aggregate, whatever the order of commits, of times, and of ids.

use std::sync::Arc;

use chrono::TimeDelta;
use souk_db::{Db, sql};
use tokio::task::JoinSet;

use super::{Plot, World, event, on_every_bus, start};
use crate::{RelayConfig, outbox};

/// One change: the next version of the aggregate, and an event whose time says the opposite of its version.
async fn change(db: &Db, aggregate: &'static str) {
    let mut tx = db.write().await.unwrap();
    let text = "UPDATE counters SET version = version + 1 WHERE aggregate = $1 RETURNING version";
    let (version,): (i64,) = sql(text).bind(aggregate).fetch_one(&mut tx).await.unwrap();
    let mut event = event(aggregate, version);
    event.time = start() - TimeDelta::milliseconds(version);
    outbox::append(&mut tx, &[event]).await.unwrap();
    tokio::task::yield_now().await;
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_an_aggregate_come_in_the_order_of_its_versions() {
    const AGGREGATES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    const WRITERS: i64 = 4;
    const CHANGES: i64 = 8;
    on_every_bus(|world| async move {
        let mut tx = world.db.write().await.unwrap();
        sql("CREATE TABLE counters (aggregate TEXT PRIMARY KEY, version BIGINT)").execute(&mut tx).await.unwrap();
        for aggregate in AGGREGATES {
            sql("INSERT INTO counters VALUES ($1, 0)").bind(aggregate).execute(&mut tx).await.unwrap();
        }
        tx.commit().await.unwrap();
        world.subscribe(|_, _| Plot::Apply);
        // Bounds that cut every read short.
        let config = RelayConfig { batch_max: 5, aggregates_max: 3, chain_max: 2, ..RelayConfig::default() };
        let (relay, _running) = world.relay_at(config, crate::steps::Steps::default());
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (db, relay) = (world.db.clone(), relay.clone());
            writers.spawn(async move {
                for turn in 0..CHANGES {
                    for shift in 0..AGGREGATES.len() {
                        let index = usize::try_from(writer + turn).unwrap() + shift;
                        change(&db, AGGREGATES[index % AGGREGATES.len()]).await;
                        relay.wake();
                    }
                }
            });
        }
        writers.join_all().await;
        let world = Arc::new(world);
        world.until(|| async { world.unpublished().await == 0 }).await;
        let all = WRITERS * CHANGES * i64::try_from(AGGREGATES.len()).unwrap();
        world.until(|| async { world.count("inbox").await == all }).await;
        for aggregate in AGGREGATES {
            assert_eq!(world.applied(aggregate).await, (1..=WRITERS * CHANGES).collect::<Vec<i64>>());
        }
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_not_passed_over() {
    let database = souk_testkit::postgres().await;
    database.migrate(&[&souk_db::MIGRATIONS, &crate::MIGRATIONS]).await.unwrap();
    let world = World::new(database.clone()).await;
    world.subscribe(|_, _| Plot::Apply);
    let relay = world.relay();
    let mut late = world.db.write().await.unwrap();
    outbox::append(&mut late, &[event("late", 1)]).await.unwrap();
    world.append(&[event("early", 2), event("early", 3)]).await;
    relay.wake();
    world.until(|| async { world.unpublished().await == 0 }).await;
    assert!(world.applied("late").await.is_empty());
    late.commit().await.unwrap();
    relay.wake();
    world.until(|| async { world.applied("late").await == [1] }).await;
}
