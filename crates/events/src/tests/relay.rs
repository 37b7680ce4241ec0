//! The relay: who is it, when does it look, what holds it back, what it keeps.

use std::time::Duration;

use chrono::{DateTime, Utc};
use souk_db::sql;
use souk_runtime::Kernel;

use super::plan::Plan;
use super::{Plot, World, event, events, on_both};
use crate::steps::{RELAY_READ, Steps};
use crate::{Consumer, ConsumerConfig, RelayConfig, outbox};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_wake_is_prompt_and_needs_no_clock() {
    on_both(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let relay = world.relay();
        for version in 1..=3 {
            world.append(&[event("a", version)]).await;
            relay.wake();
            world.until(|| async { world.unpublished().await == 0 }).await;
        }
        assert_eq!(world.applied("a").await, [1, 2, 3]);
        assert_eq!(world.kernel.clock.now(), super::start());
    })
    .await;
}

#[tokio::test]
async fn what_another_replica_wrote_is_found_by_the_poll() {
    on_both(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let plan = Plan::watching();
        world.relay_at(RelayConfig::default(), plan.steps());
        plan.reached(RELAY_READ, 1).await;
        world.append(&[event("a", 1)]).await;
        world.until_with(SECOND, || async { world.applied("a").await == [1] }).await;
    })
    .await;
}

#[tokio::test]
async fn of_two_relays_one_publishes_and_the_other_takes_over() {
    on_both(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let (first, running) = world.relay_at(RelayConfig::default(), Steps::default());
        let standby = World {
            db: world.db.clone(),
            kernel: Kernel::new(world.kernel.clock.clone()),
            bus: world.bus.clone(),
            nats: None,
        };
        world.append(&events(&["a"], 1..=3)).await;
        first.wake();
        world.until(|| async { world.unpublished().await == 0 }).await;
        let second = standby.relay();
        world.append(&events(&["a"], 4..=6)).await;
        second.wake();
        first.wake();
        world.until(|| async { world.unpublished().await == 0 }).await;
        world.until(|| async { world.shows(r#"outbox_published_total{service="test"} 6"#) }).await;
        assert!(standby.shows(r#"outbox_published_total{service="test"} 0"#));

        // An orderly end gives the lease up, so that the other need not wait until it has run out.
        world.kernel.tasks.shutdown().cancel();
        running.await.unwrap();
        let mut tx = world.db.read().await.unwrap();
        let (expires_at,): (DateTime<Utc>,) = sql("SELECT expires_at FROM leases").fetch_one(&mut tx).await.unwrap();
        assert!(expires_at <= world.kernel.clock.now());
        world.append(&events(&["a"], 7..=9)).await;
        world.until_with(SECOND, || async { world.unpublished().await == 0 }).await;
        world.until(|| async { standby.shows(r#"outbox_published_total{service="test"} 3"#) }).await;
        assert_eq!(world.applied("a").await, (1..=9).collect::<Vec<i64>>());
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_loses_its_lease_stops() {
    on_both(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let relay = world.relay();
        let shown = || async { world.kernel.metrics.encode().contains(r#"outbox_unpublished{service="test"}"#) };
        world.until(shown).await;
        let mut tx = world.db.write().await.unwrap();
        let stolen = world.kernel.clock.now() + HOUR;
        let text = "UPDATE leases SET holder = $1, epoch = epoch + 1, expires_at = $2";
        sql(text).bind(uuid::Uuid::from_u128(1)).bind(stolen).execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        world.kernel.clock.advance(5 * SECOND); // when it would have renewed it
        world.until(|| async { !shown().await }).await;
        world.append(&[event("a", 1)]).await;
        for _ in 0..20 {
            relay.wake();
            world.kernel.clock.advance(SECOND);
            assert_eq!(world.unpublished().await, 1);
        }
        world.until_with(HOUR, || async { world.unpublished().await == 0 }).await;
        assert!(world.kernel.clock.now() >= stolen);
    })
    .await;
}

#[tokio::test]
async fn an_aggregate_that_cannot_be_published_holds_back_only_itself() {
    on_both(|world| async move {
        let sick = |event: &crate::Event, nth: u32| {
            if event.aggregate == "sick" && event.version == 2 && nth < 4 { Plot::Unavailable } else { Plot::Apply }
        };
        world.subscribe(sick);
        let relay = world.relay();
        world.append(&events(&["sick", "well"], 1..=3)).await;
        relay.wake();
        world.until(|| async { world.unpublished().await == 2 }).await;
        assert_eq!((world.applied("sick").await, world.applied("well").await), (vec![1], vec![1, 2, 3]));
        // Nor does it come again before its time, however often others wake the relay.
        world.append(&[event("well", 4)]).await;
        relay.wake();
        world.until(|| async { world.unpublished().await == 2 }).await;
        assert!(world.shows(r#"outbox_publish_failures_total{service="test"} 1"#), "{}", world.kernel.metrics.encode());
        world.until_with(SECOND, || async { world.unpublished().await == 0 }).await;
        assert_eq!(world.applied("sick").await, [1, 2, 3]);
        assert_eq!(world.count("dead_letters").await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_an_aggregate_gets_while_it_is_published_is_read_when_it_has_landed() {
    on_both(|world| async move {
        let config = ConsumerConfig { backoff_first_ms: 10_000, ..ConsumerConfig::default() };
        let late = |event: &crate::Event, nth: u32| {
            if (event.aggregate.as_str(), event.version, nth) == ("late", 1, 1) { Plot::Retry } else { Plot::Apply }
        };
        world.subscribe_at(Consumer { config, ..world.consumer() }, Steps::default(), late);
        let relay = world.relay();
        world.append(&events(&["late", "soon"], 1..=1)).await;
        relay.wake();
        world.until(|| async { world.unpublished().await == 1 }).await;
        world.append(&events(&["late", "soon"], 2..=2)).await;
        world.kernel.clock.advance(4 * SECOND); // the relay looks, and passes over the one that is being published
        world.until(|| async { world.unpublished().await == 2 }).await;
        world.kernel.clock.advance(10 * SECOND);
        world.until(|| async { world.unpublished().await == 0 }).await;
        assert_eq!(world.applied("late").await, [1, 2]);
    })
    .await;
}

#[tokio::test]
async fn when_every_place_is_taken_the_relay_waits_and_goes_on() {
    on_both(|world| async move {
        world.subscribe(|_, nth| if nth < 3 { Plot::Unavailable } else { Plot::Apply });
        let config = RelayConfig { aggregates_max: 2, ..RelayConfig::default() };
        world.append(&events(&["a", "b", "c", "d", "e"], 1..=2)).await;
        world.relay_at(config, Steps::default());
        world.until_with(SECOND, || async { world.unpublished().await == 0 }).await;
        for aggregate in ["a", "b", "c", "d", "e"] {
            assert_eq!(world.applied(aggregate).await, [1, 2]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_long_backlog_of_one_aggregate_does_not_hide_the_others() {
    on_both(|world| async move {
        world.subscribe(|event, _| if event.aggregate == "long" { Plot::Retry } else { Plot::Apply });
        let config = RelayConfig { aggregates_max: 4, chain_max: 3, batch_max: 8, ..RelayConfig::default() };
        world.append(&events(&["long"], 1..=40)).await;
        world.append(&events(&["short", "small"], 50..=53)).await;
        world.relay_at(config, Steps::default());
        world.until(|| async { world.unpublished().await == 40 }).await;
        assert_eq!(world.applied("short").await, [50, 51, 52, 53]);
    })
    .await;
}

#[tokio::test]
async fn published_events_stay_for_their_time_and_unpublished_ones_for_ever() {
    on_both(|world| async move {
        let sick =
            |event: &crate::Event, _: u32| if event.aggregate == "sick" { Plot::Unavailable } else { Plot::Apply };
        world.subscribe(sick);
        let config = RelayConfig { keep_hours: 24, sweep_batch_max: 3, ..RelayConfig::default() };
        let (relay, _running) = world.relay_at(config, Steps::default());
        world.append(&events(&["well"], 1..=10)).await;
        world.append(&events(&["sick"], 1..=2)).await;
        relay.wake();
        world.until(|| async { world.unpublished().await == 2 }).await;
        world.kernel.clock.advance(23 * HOUR);
        world.append(&[event("well", 11)]).await;
        relay.wake();
        world.until(|| async { world.unpublished().await == 2 }).await;
        assert_eq!(world.count("outbox").await, 13);
        world.kernel.clock.advance(2 * HOUR);
        // In portions, none of which waits for the next sweep: the clock stands.
        world.until(|| async { world.count("outbox").await == 3 }).await;
        assert_eq!(world.unpublished().await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_lost_bus_is_refilled_and_whoever_knows_the_events_applies_them_once() {
    on_both(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let relay = world.relay();
        world.append(&events(&["a", "b"], 1..=4)).await;
        relay.wake();
        world.until(|| async { world.unpublished().await == 0 }).await;
        let mut heard = world.bus.listen(&["souk.test.a.>"]).await.unwrap();
        let mut tx = world.db.write().await.unwrap();
        outbox::republish(&mut tx, None).await.unwrap();
        tx.commit().await.unwrap();
        world.until_with(SECOND, || async { world.shows(r#"outbox_published_total{service="test"} 16"#) }).await;
        for version in 1..=4 {
            assert_eq!(heard.next().await, Some(crate::Heard::Event(event("a", version).into())));
        }
        assert_eq!(world.applied("a").await, [1, 2, 3, 4]);
        assert!(world.shows(r#"consumer_repeated_total{consumer="effects"} 8"#), "{}", world.kernel.metrics.encode());
        assert!(world.shows(r#"outbox_republished_total{service="test"} 8"#), "{}", world.kernel.metrics.encode());
        assert_eq!(world.unpublished().await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_was_published_before_the_time_that_is_named_is_not_published_again() {
    on_both(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let relay = world.relay();
        for version in 1..=3 {
            world.append(&[event("a", version)]).await;
            relay.wake();
            world.until_with(SECOND, || async { world.unpublished().await == 0 }).await;
            world.kernel.clock.advance(HOUR);
        }
        let mut heard = world.bus.listen(&["souk.test.>"]).await.unwrap();
        let mut tx = world.db.write().await.unwrap();
        outbox::republish(&mut tx, Some(super::start() + HOUR)).await.unwrap();
        tx.commit().await.unwrap();
        world.until_with(SECOND, || async { world.shows(r#"outbox_republished_total{service="test"} 2"#) }).await;
        for version in 2..=3 {
            assert_eq!(heard.next().await, Some(crate::Heard::Event(event("a", version).into())));
        }
    })
    .await;
}

#[tokio::test]
async fn the_backlog_and_its_age_are_shown() {
    on_both(|world| async move {
        world.subscribe(|_, _| Plot::Unavailable);
        world.append(&events(&["a", "b"], 1..=3)).await;
        world.relay();
        world.until(|| async { world.shows(r#"outbox_unpublished{service="test"} 6"#) }).await;
        // The oldest event is of the first millisecond.
        world.kernel.clock.advance(90 * SECOND);
        world.until(|| async { world.shows(r#"outbox_oldest_unpublished_seconds{service="test"} 89"#) }).await;
    })
    .await;
}
