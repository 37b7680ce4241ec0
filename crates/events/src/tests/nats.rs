//! P5 and P8 on a real NATS: stopped, robbed of its store, shared by replicas, and not there at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use souk_runtime::{Clock, Kernel, State};
use souk_testkit::eventually;
use tokio::task::JoinHandle;

use super::{Plot, World, event, events, on_nats, start};
use crate::bus::Link;
use crate::{Bus, BusConfig, BusError, Event, Heard, Listener, RelayHandle};

const AGGREGATES: [&str; 4] = ["a", "b", "c", "d"];
const STEP: Duration = Duration::from_millis(20);

/// Writes versions of every aggregate, one after the other, as fast as the database takes them.
fn load(world: &World, relay: &RelayHandle, versions: i64) -> JoinHandle<()> {
    let (world, relay) = (world.clone(), relay.clone());
    tokio::spawn(async move {
        for version in 1..=versions {
            world.append(&events(&AGGREGATES, version..=version)).await;
            relay.wake();
        }
    })
}

/// Waits until everything is published and applied, and looks at the order.
async fn assert_all_came_in_order(world: &World, versions: i64) {
    let all = versions * i64::try_from(AGGREGATES.len()).unwrap();
    let is_done = || async { world.unpublished().await == 0 && world.count("inbox").await == all };
    world.until_with(STEP, is_done).await;
    for aggregate in AGGREGATES {
        assert_eq!(world.applied(aggregate).await, (1..=versions).collect::<Vec<i64>>(), "{aggregate}");
    }
}

/// Waits until so many events of the load are applied: what follows happens in its midst.
async fn in_the_midst(world: &World, applied: i64) {
    world.until_with(STEP, || async { world.count("inbox").await >= applied }).await;
}

async fn jetstream(world: &World) -> jetstream::Context {
    let client = async_nats::connect(world.nats.as_ref().unwrap().url()).await.unwrap();
    jetstream::new(client)
}

fn stream_of(world: &World) -> String {
    match &*world.bus.link().borrow() {
        Link::Up(place) => place.stream.clone(),
        Link::Down => panic!("the bus is down"),
    }
}

async fn next_event(listener: &mut Listener) -> Arc<Event> {
    loop {
        if let Heard::Event(event) = listener.next().await.unwrap() {
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_goes_away_and_comes_back_loses_nothing_and_keeps_the_order() {
    on_nats(|world| async move {
        let nats = world.nats.clone().unwrap();
        world.subscribe(|_, _| Plot::Apply);
        let relay = world.relay();
        let writing = load(&world, &relay, 60);
        for applied in [20, 120] {
            in_the_midst(&world, applied).await;
            nats.stop();
            world.until(|| async { *world.bus.link().borrow() == Link::Down }).await;
            assert!(world.shows("bus_up 0"));
            assert_eq!(world.kernel.readiness.dependencies()["bus"].state, State::Degraded);
            nats.start().await;
        }
        writing.await.unwrap();
        assert_all_came_in_order(&world, 60).await;
        assert!(world.shows("bus_up 1"));
        assert_eq!(world.kernel.readiness.dependencies()["bus"].state, State::Ready);
        assert!(world.shows(r#"outbox_republished_total{service="test"} 0"#), "{}", world.kernel.metrics.encode());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_lost_its_store_is_refilled_and_keeps_the_order() {
    on_nats(|world| async move {
        let nats = world.nats.clone().unwrap();
        world.subscribe(|_, _| Plot::Apply);
        let relay = world.relay();
        let writing = load(&world, &relay, 60);
        for applied in [20, 120] {
            in_the_midst(&world, applied).await;
            let before = stream_of(&world);
            nats.wipe().await;
            world
                .until(|| async { matches!(&*world.bus.link().borrow(), Link::Up(place) if place.stream != before) })
                .await;
        }
        writing.await.unwrap();
        assert_all_came_in_order(&world, 60).await;
        assert!(!world.shows(r#"outbox_republished_total{service="test"} 0"#), "nothing was lost");
        // Whatever was published is on the new stream, for consumers that are yet to come.
        let mut stream = jetstream(&world).await.get_stream(stream_of(&world)).await.unwrap();
        world.until_with(STEP, || async { world.unpublished().await == 0 }).await;
        assert_eq!(stream.info().await.unwrap().state.messages, 60 * 4);
    })
    .await;
}

#[tokio::test]
async fn a_publisher_does_not_publish_on_a_stream_that_somebody_has_made_anew() {
    on_nats(|world| async move {
        let Link::Up(place) = world.bus.link().borrow().clone() else { panic!("the bus is down") };
        world.bus.publish_at(&event("a", 1), &place).await.unwrap();
        let jetstream = jetstream(&world).await;
        let config = jetstream.get_stream(&place.stream).await.unwrap().cached_info().config.clone();
        jetstream.delete_stream(&place.stream).await.unwrap();
        let anew = jetstream::stream::Config { name: "ANEW".to_owned(), ..config };
        let mut stream = jetstream.create_stream(anew).await.unwrap();
        // The bus has noticed nothing yet: it is the stream itself that refuses.
        assert!(matches!(world.bus.publish_at(&event("a", 2), &place).await, Err(BusError::Moved)));
        assert_eq!(stream.info().await.unwrap().state.messages, 0);
        world
            .until(|| async { matches!(&*world.bus.link().borrow(), Link::Up(place) if place.stream == "ANEW") })
            .await;
        assert!(matches!(world.bus.publish_at(&event("a", 2), &place).await, Err(BusError::Moved)));
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_somebody_has_removed_is_made_again_and_refilled() {
    on_nats(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let relay = world.relay();
        world.append(&events(&AGGREGATES, 1..=3)).await;
        relay.wake();
        assert_all_came_in_order(&world, 3).await;
        jetstream(&world).await.delete_stream(stream_of(&world)).await.unwrap();
        world.append(&events(&AGGREGATES, 4..=4)).await;
        relay.wake();
        assert_all_came_in_order(&world, 4).await;
        let stream = jetstream(&world).await.get_stream(stream_of(&world)).await.unwrap();
        assert_eq!(stream.cached_info().state.messages, 16);
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_drops_events_is_not_used() {
    let nats = souk_testkit::nats().await;
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let made_for_something_else = jetstream::stream::Config {
        name: "OTHER".to_owned(),
        subjects: vec!["souk.>".to_owned()],
        storage: jetstream::stream::StorageType::Memory,
        ..Default::default()
    };
    jetstream.create_stream(made_for_something_else).await.unwrap();
    let kernel = Kernel::new(Clock::system());
    let bus = Bus::connect(&kernel, &BusConfig::at(nats.url())).await.unwrap();
    let why = || kernel.readiness.dependencies()["bus"].why.clone().unwrap_or_default();
    eventually("it is refused", async || why() == "NATS has no stream for us").await;
    assert!(matches!(&*bus.link().borrow(), Link::Down));
    jetstream.delete_stream("OTHER").await.unwrap();
    eventually("there is one of ours", async || matches!(&*bus.link().borrow(), Link::Up(_))).await;
    kernel.tasks.stop(STEP * 100).await;
}

#[tokio::test]
async fn a_stream_that_lost_its_end_is_refilled() {
    on_nats(|world| async move {
        let nats = world.nats.clone().unwrap();
        world.subscribe(|_, _| Plot::Apply);
        let relay = world.relay();
        world.append(&events(&AGGREGATES, 1..=2)).await;
        relay.wake();
        world.until_with(STEP, || async { world.unpublished().await == 0 }).await;
        let early = nats.saved().await;
        world.append(&events(&AGGREGATES, 3..=4)).await;
        relay.wake();
        world.until_with(STEP, || async { world.unpublished().await == 0 }).await;
        let stream = stream_of(&world);
        nats.restore(&early).await;
        world.until_with(STEP, || async { world.shows(r#"outbox_republished_total{service="test"} 16"#) }).await;
        world.until_with(STEP, || async { world.unpublished().await == 0 }).await;
        assert_eq!(stream_of(&world), stream, "it is the same stream");
        assert_all_came_in_order(&world, 4).await;
        let stream = jetstream(&world).await.get_stream(stream).await.unwrap();
        assert_eq!(stream.cached_info().state.messages, 16);
    })
    .await;
}

/// What was lost was one service's, and it is another that publishes first, more than was lost: under numbers that the consumer has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_has_seen_more_than_the_stream_has_misses_nothing() {
    on_nats(|world| async move {
        let nats = world.nats.clone().unwrap();
        let database = souk_testkit::sqlite().await;
        database.migrate(&[&souk_db::MIGRATIONS, &crate::MIGRATIONS]).await.unwrap();
        let other = World::on(database.clone(), world.nats.clone()).await;
        let consuming = world.replica().await;
        consuming.subscribe(|_, _| Plot::Apply);
        other.append(&events(&["x"], 1..=2)).await;
        let (relay, others_relay) = (world.relay(), other.relay());
        other.until_with(STEP, || async { other.unpublished().await == 0 }).await;
        let early = nats.saved().await;
        world.append(&events(&AGGREGATES, 1..=3)).await;
        relay.wake();
        in_the_midst(&world, 14).await;
        assert!(consuming.kernel.tasks.stop(Duration::from_secs(10)).await);
        // Nobody has told the relay, and its clock stands: it publishes when it is woken.
        other.append(&events(&["x"], 3..=30)).await;
        nats.lose_events_since(&early).await;
        others_relay.wake();
        other.until_with(STEP, || async { other.unpublished().await == 0 }).await;
        // It comes when nobody can tell by the numbers any more that some were used twice.
        world.subscribe(|_, _| Plot::Apply);
        in_the_midst(&world, 42).await;
        assert_eq!(world.applied("x").await, (1..=30).collect::<Vec<i64>>());
        for aggregate in AGGREGATES {
            assert_eq!(world.applied(aggregate).await, [1, 2, 3]);
        }
        assert!(other.shows(r#"outbox_republished_total{service="test"} 0"#), "nothing of its own was lost");
    })
    .await;
}

/// However short it was away: what it has may be less.
#[tokio::test]
async fn every_connection_is_a_place_of_its_own() {
    on_nats(|world| async move {
        let Link::Up(before) = world.bus.link().borrow().clone() else { panic!("the bus is down") };
        let nats = world.nats.clone().unwrap();
        nats.stop();
        nats.start().await;
        let is_back = |link: &Link| matches!(link, Link::Up(place) if *place != before);
        let after = world.bus.link().wait_for(is_back).await.unwrap().clone();
        assert!(matches!(after, Link::Up(place) if place.stream == before.stream));
        assert!(matches!(world.bus.publish_at(&event("a", 1), &before).await, Err(BusError::Moved)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_events_of_a_consumer_and_keep_the_order() {
    on_nats(|world| async move {
        let other = world.replica().await;
        let handled: [Arc<AtomicU32>; 2] = Default::default();
        for (replica, count) in [&world, &other].into_iter().zip(handled.clone()) {
            // Every fifth event is failed at first, and tried again.
            let plot = move |event: &Event, nth: u32| {
                count.fetch_add(1, Ordering::SeqCst);
                if event.version % 5 == 0 && nth == 1 { Plot::Unavailable } else { Plot::Apply }
            };
            replica.subscribe(plot);
        }
        let relay = world.relay();
        load(&world, &relay, 25).await.unwrap();
        assert_all_came_in_order(&world, 25).await;
        assert!(handled.iter().all(|count| count.load(Ordering::SeqCst) > 0), "{handled:?}");
    })
    .await;
}

#[tokio::test]
async fn a_process_starts_without_its_bus_and_events_wait_for_it() {
    on_nats(|world| async move {
        let nats = world.nats.clone().unwrap();
        nats.stop();
        let bus = Bus::connect(&world.kernel, &BusConfig::at(nats.url())).await.unwrap();
        let world = World { bus, ..world };
        assert!(matches!(world.bus.publish(&event("a", 1)).await, Err(BusError::Unavailable(_))));
        world.subscribe(|_, _| Plot::Apply);
        let mut listener = world.bus.listen(&["souk.test.>"]).await.unwrap();
        let relay = world.relay();
        world.append(&events(&AGGREGATES, 1..=5)).await;
        relay.wake();
        world.until_with(Duration::ZERO, || async { world.shows(r#"outbox_unpublished{service="test"} 20"#) }).await;
        assert!(world.shows(r#"outbox_publish_failures_total{service="test"} 0"#), "nothing was tried in vain");
        nats.start().await;
        assert_all_came_in_order(&world, 5).await;
        assert_eq!(listener.next().await, Some(Heard::Lagged(0)));
    })
    .await;
}

#[tokio::test]
async fn listeners_of_every_replica_hear_and_are_told_of_every_gap() {
    on_nats(|world| async move {
        let nats = world.nats.clone().unwrap();
        let other = world.replica().await;
        let mut listeners =
            [world.bus.listen(&["souk.test.a.>"]).await.unwrap(), other.bus.listen(&["souk.test.a.*"]).await.unwrap()];
        for bus in [&world.bus, &other.bus] {
            // Whoever has an answer on a connection has told what was said on it before.
            bus.publish(&event("z", 1)).await.unwrap();
        }
        world.bus.publish(&event("a", 1)).await.unwrap();
        for listener in &mut listeners {
            assert_eq!(*next_event(listener).await, event("a", 1));
        }
        nats.stop();
        world.until(|| async { *world.bus.link().borrow() == Link::Down }).await;
        nats.start().await;
        for listener in &mut listeners {
            assert_eq!(listener.next().await, Some(Heard::Lagged(0)));
        }
        // From then on it hears again.
        world.until(|| async { *world.bus.link().borrow() != Link::Down }).await;
        world.bus.publish(&event("a", 2)).await.unwrap();
        for listener in &mut listeners {
            assert_eq!(*next_event(listener).await, event("a", 2));
        }
    })
    .await;
}

#[tokio::test]
async fn a_repetition_that_the_stream_does_not_know_is_known_by_the_inbox() {
    on_nats(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let event = event("a", 1);
        world.deliver(&event).await;
        let jetstream = jetstream(&world).await;
        let kept = jetstream.get_stream(stream_of(&world)).await.unwrap().get_raw_message(1).await.unwrap();
        let mut headers = kept.headers;
        headers.insert("Nats-Msg-Id", "another");
        let ack =
            jetstream.publish_with_headers(event.subject.clone(), headers, kept.payload).await.unwrap().await.unwrap();
        assert!(!ack.duplicate);
        world.until(|| async { world.shows(r#"consumer_repeated_total{consumer="effects"} 1"#) }).await;
        assert_eq!(world.applied("a").await, [1]);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_event_is_left_out() {
    on_nats(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let jetstream = jetstream(&world).await;
        jetstream.publish("souk.test.a.happened", "noise".into()).await.unwrap().await.unwrap();
        world.deliver(&event("a", 1)).await;
        assert_eq!(world.applied("a").await, [1]);
    })
    .await;
}

#[tokio::test]
async fn an_event_that_is_too_large_holds_back_only_its_aggregate() {
    on_nats(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let relay = world.relay();
        let large = Event { data: vec![0; 2 << 20], ..event("large", 1) };
        world.append(&[large, event("a", 1), event("a", 2)]).await;
        relay.wake();
        world.until(|| async { world.unpublished().await == 1 && world.applied("a").await == [1, 2] }).await;
        assert!(world.shows(r#"outbox_publish_failures_total{service="test"} 1"#), "{}", world.kernel.metrics.encode());
    })
    .await;
}

#[tokio::test]
async fn how_far_a_consumer_is_behind_is_shown() {
    on_nats(|world| async move {
        let consumer = world.subscribe(|_, _| Plot::Unavailable);
        for version in 1..=3 {
            world.bus.publish(&event("a", version)).await.unwrap();
        }
        let shown = || async {
            world.shows(r#"consumer_pending{consumer="effects"} 2"#)
                && world.shows(r#"consumer_ack_pending{consumer="effects"} 1"#)
        };
        world.until(shown).await;
        world.until(|| async { world.shows(r#"consumer_redelivered{consumer="effects"} 1"#) }).await;
        assert_eq!((consumer.name(), world.count("dead_letters").await), ("effects", 0));
    })
    .await;
}

#[tokio::test]
async fn a_consumer_takes_the_place_of_its_former_self_and_what_it_does_not_ask_for_passes() {
    on_nats(|world| async move {
        let subjects: &[&str] = &["souk.test.b.happened", "souk.test.c.happened"];
        let consumer = crate::Consumer { subjects, ..world.consumer() };
        world.subscribe_at(consumer, crate::steps::Steps::default(), |_, _| Plot::Apply);
        for aggregate in ["a", "b", "c"] {
            world.bus.publish(&event(aggregate, 1)).await.unwrap();
        }
        world.until(|| async { world.count("inbox").await == 2 }).await;
        assert_eq!((world.applied("a").await, world.applied("b").await), (vec![], vec![1]));
        // Now it asks for more: of what comes from now on, and of nothing that it was done with.
        world.kernel.tasks.stop(Duration::from_secs(10)).await;
        let again = world.replica().await;
        again.subscribe(|_, _| Plot::Apply);
        again.deliver(&event("a", 2)).await;
        assert_eq!((again.applied("a").await.last(), again.applied("b").await), (Some(&2), vec![1]));
    })
    .await;
}

#[tokio::test]
async fn an_end_hands_back_what_was_begun() {
    on_nats(|world| async move {
        let config = BusConfig { ack_wait_ms: 3_600_000, ..BusConfig::at(world.nats.as_ref().unwrap().url()) };
        let bus = Bus::connect(&world.kernel, &BusConfig { lag_interval_ms: 50, ..config }).await.unwrap();
        bus.link().wait_for(|link| *link != Link::Down).await.unwrap();
        let world = World { bus, ..world };
        world.subscribe(|_, _| Plot::Hang);
        world.bus.publish(&event("a", 1)).await.unwrap();
        world.until(|| async { world.shows(r#"consumer_ack_pending{consumer="effects"} 1"#) }).await;
        assert!(world.kernel.tasks.stop(Duration::from_secs(10)).await);
        let other = world.replica().await;
        other.subscribe(|_, _| Plot::Apply);
        other.until(|| async { other.applied("a").await == [1] }).await;
        assert_eq!(other.kernel.clock.now(), start());
    })
    .await;
}
