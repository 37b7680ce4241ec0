//! P5: every change is published at least once and applied once, in order, wherever publisher or consumer are killed.

use std::time::Duration;

use futures::future::join_all;
use souk_db::{Db, DbConfig, Error, Tx, sql};
use souk_testkit::{PATIENCE, eventually};

use super::plan::Plan;
use super::{Plot, World, events, on_both, on_nats_with};
use crate::RelayConfig;
use crate::steps::{
    CONSUMER_CLAIMED, CONSUMER_COMMITTED, CONSUMER_HANDLED, CONSUMER_PARKED, RELAY_ACKNOWLEDGED, RELAY_MARKED,
    RELAY_READ,
};

const AGGREGATES: [&str; 3] = ["a", "b", "c"];

/// Small, so that there are several reads and several marks.
fn small() -> RelayConfig {
    RelayConfig { batch_max: 4, aggregates_max: 3, chain_max: 2, ..RelayConfig::default() }
}

/// The event that no handler takes.
const POISON: (&str, i64) = ("b", 2);

fn plot(event: &crate::Event, _: u32) -> Plot {
    if (event.aggregate.as_str(), event.version) == POISON { Plot::Park } else { Plot::Apply }
}

/// Lives in a runtime of its own, which ends with everything that is in it, tasks, transactions and sockets, as a process does.
async fn die(world: World, step: &'static str, hit: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let living = runtime.spawn(async move {
        let doomed = world.replica().await;
        let plan = Plan::crashing(step, hit);
        doomed.subscribe_at(doomed.consumer(), plan.steps(), plot);
        doomed.relay_at(small(), plan.steps());
        plan.crashed().await;
    });
    living.await.unwrap();
    // Not before its threads have ended: a connection that is given back later would be taken for one that lives.
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
}

/// The dead have shared our pool, as no process would. A socket of a runtime that has ended answers now and then, so all connections are
/// ended by the server, and then held all at once, so that each is asked.
async fn forget_connections_of_the_dead(db: &Db) {
    let end_all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()";
    eventually("the server is asked", async || {
        let Ok(mut tx) = db.read().await else { return false };
        drop(sql(end_all).execute(&mut tx).await); // it ends itself; SQLite does not know what that is
        true
    })
    .await;
    let all = usize::try_from(DbConfig::default().connections_max).unwrap();
    eventually("every connection lives", async || {
        join_all((0..all).map(|_| asked(db))).await.iter().all(Result::is_ok)
    })
    .await;
}

async fn asked(db: &Db) -> Result<Tx, Error> {
    let mut tx = db.read().await?;
    let (_,): (i64,) = sql("SELECT COUNT(*) FROM inbox").fetch_one(&mut tx).await?;
    Ok(tx)
}

/// Runs until the crash, and then, with nothing but the database and what the bus has, to the end.
async fn crash_and_recover(world: World, step: &'static str, hit: u32) {
    world.append(&events(&AGGREGATES, 1..=5)).await;
    die(world.clone(), step, hit).await;
    forget_connections_of_the_dead(&world.db).await;
    let is_done = world.unpublished().await == 0 && world.count("inbox").await == 15;
    assert!(!is_done, "the crash at {step} came too late to tell anything");

    let world = world.after_crash().await;
    world.subscribe(plot);
    world.relay_at(small(), crate::steps::Steps::default());
    let is_done = || async { world.unpublished().await == 0 && world.count("inbox").await == 15 };
    world.until_with(Duration::from_millis(10), is_done).await;
    for aggregate in AGGREGATES {
        let expected: Vec<i64> = (1..=5).filter(|version| (aggregate, *version) != POISON).collect();
        assert_eq!(world.applied(aggregate).await, expected, "{aggregate} after a crash at {step}, hit {hit}");
    }
    assert_eq!(world.count("dead_letters").await, 1);
    assert_eq!(world.count("inbox").await, 15);
}

async fn at_any_hit(step: &'static str, hits: &[u32]) {
    for hit in hits {
        on_both(|world| crash_and_recover(world, step, *hit)).await;
        // On SQLite, whose connections live in no runtime and so outlive the one that ends.
        on_nats_with(souk_testkit::sqlite().await, |world| crash_and_recover(world, step, *hit)).await;
    }
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_after_a_read() {
    at_any_hit(RELAY_READ, &[1, 3]).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_after_the_bus_acknowledged() {
    at_any_hit(RELAY_ACKNOWLEDGED, &[1, 2]).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_after_a_mark() {
    at_any_hit(RELAY_MARKED, &[1, 2]).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_after_the_inbox_row() {
    at_any_hit(CONSUMER_CLAIMED, &[1, 7]).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_after_the_effect() {
    at_any_hit(CONSUMER_HANDLED, &[1, 7]).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_after_the_consumers_commit() {
    at_any_hit(CONSUMER_COMMITTED, &[1, 7]).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_after_parking() {
    at_any_hit(CONSUMER_PARKED, &[1]).await;
}
