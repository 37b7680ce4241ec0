//! The consumer: once, however often; again, but not for ever; and what an operator can do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use souk_runtime::{TraceContext, trace};

use super::{Plot, World, event, events, on_both, on_every_bus};
use crate::steps::Steps;
use crate::{BusError, ConsumerConfig, DeadLetter, Event, ReplayError, dead_letters};

const SECOND: Duration = Duration::from_secs(1);

impl World {
    async fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut tx = self.db.read().await.unwrap();
        dead_letters::list(&mut tx, Some("effects"), None, 100).await.unwrap()
    }

    async fn dead_letter(&self, version: i64) -> DeadLetter {
        let mut tx = self.db.read().await.unwrap();
        dead_letters::show(&mut tx, "effects", event("a", version).id).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn an_event_is_applied_once_however_often_it_comes() {
    on_every_bus(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let event = event("a", 1);
        world.deliver(&event).await;
        let again = futures::future::join_all((0..10).map(|_| world.bus.publish(&event))).await;
        assert!(again.into_iter().all(|published| published.is_ok()));
        assert_eq!(world.applied("a").await, [1]);
    })
    .await;
}

#[tokio::test]
async fn copies_that_come_at_once_are_one() {
    on_every_bus(|world| async move {
        world.subscribe(|_, _| Plot::Apply);
        let event = event("a", 1);
        let copies = futures::future::join_all((0..10).map(|_| world.bus.publish(&event))).await;
        assert!(copies.into_iter().all(|published| published.is_ok()));
        world.until(|| async { world.is_done(&event).await }).await;
        assert_eq!(world.applied("a").await, [1]);
    })
    .await;
}

#[tokio::test]
async fn a_failure_is_tried_again_and_leaves_no_effect() {
    on_every_bus(|world| async move {
        world.subscribe(|_, nth| if nth < 3 { Plot::Retry } else { Plot::Apply });
        world.append(&events(&["a"], 1..=2)).await;
        world.relay();
        world.until_with(SECOND, || async { world.unpublished().await == 0 }).await;
        world.until_with(SECOND, || async { world.applied("a").await == [1, 2] }).await;
        assert_eq!(world.dead_letters().await, []);
    })
    .await;
}

#[tokio::test]
async fn a_poisoned_event_is_parked_after_its_tries_and_blocks_nobody_else() {
    on_both(|world| async move {
        world.subscribe(|event, _| if event == &super::event("a", 2) { Plot::Retry } else { Plot::Apply });
        world.append(&events(&["a", "b"], 1..=3)).await;
        world.relay();
        // The clock stands, so the poisoned event waits for its second try: the other aggregate does not.
        world.until(|| async { world.applied("b").await == [1, 2, 3] && world.applied("a").await == [1] }).await;
        world.until_with(SECOND, || async { world.unpublished().await == 0 }).await;
        assert_eq!(world.applied("a").await, [1, 3]);
        let letters = world.dead_letters().await;
        let without_payload = crate::Event { data: Vec::new(), ..event("a", 2) };
        assert_eq!((letters.len(), letters[0].tries, &letters[0].event), (1, 3, &without_payload));
        assert_eq!(world.dead_letter(2).await.event, event("a", 2));
        assert_eq!(letters[0].error, "event cannot be handled yet: planted: not yet");
        assert!(world.shows(r#"consumer_parked_total{consumer="effects"} 1"#), "{}", world.kernel.metrics.encode());
    })
    .await;
}

#[tokio::test]
async fn what_can_never_be_handled_is_parked_at_once() {
    on_every_bus(|world| async move {
        world.subscribe(|_, _| Plot::Park);
        world.deliver(&event("a", 1)).await;
        assert_eq!(world.dead_letter(1).await.tries, 1);
        assert!(world.applied("a").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_panic_and_a_hang_are_failures() {
    on_every_bus(|world| async move {
        let config = ConsumerConfig { tries_max: 1, handle_timeout_ms: 500, ..ConsumerConfig::default() };
        let consumer = crate::Consumer { config, ..world.consumer() };
        let plot = |event: &crate::Event, _: u32| if event.version == 1 { Plot::Panic } else { Plot::Hang };
        world.subscribe_at(consumer, Steps::default(), plot);
        world.deliver(&event("a", 1)).await;
        world.deliver(&event("a", 2)).await;
        assert_eq!(world.dead_letter(1).await.error, "event cannot be handled yet: handler panicked");
        assert_eq!(world.dead_letter(2).await.error, "event cannot be handled yet: handler timed out");
        assert!(world.applied("a").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_swallowed_error_does_not_pass_for_success() {
    on_every_bus(|world| async move {
        world.subscribe(|_, nth| if nth == 1 { Plot::SwallowError } else { Plot::Apply });
        world.append(&[event("a", 1)]).await;
        world.relay();
        world.until_with(SECOND, || async { world.unpublished().await == 0 }).await;
        world.until_with(SECOND, || async { world.applied("a").await == [1] }).await;
        assert!(world.shows(r#"consumer_retried_total{consumer="effects"} 1"#), "the first try was undone");
    })
    .await;
}

#[tokio::test]
async fn an_event_is_not_parked_for_a_fault_of_the_database() {
    on_both(|world| async move {
        world.subscribe(|event, _| if event.version == 1 { Plot::Unavailable } else { Plot::Conflict });
        for version in 1..=2 {
            let refused = world.bus.publish(&event("a", version)).await;
            assert!(matches!(refused, Err(BusError::Consumer { consumer: "effects", .. })));
        }
        assert_eq!((world.dead_letters().await, world.count("inbox").await), (vec![], 0));
    })
    .await;
}

#[tokio::test]
async fn an_event_is_not_parked_for_a_database_that_stalls() {
    let database = souk_testkit::postgres().await;
    database.migrate(&[&souk_db::MIGRATIONS, &crate::MIGRATIONS]).await.unwrap();
    let world = World::new(database.clone()).await;
    let config = ConsumerConfig { tries_max: 1, handle_timeout_ms: 500, ..ConsumerConfig::default() };
    let consumer = crate::Consumer { config, ..world.consumer() };
    let plot = |event: &Event, nth: u32| match (event.aggregate.as_str(), nth) {
        ("slow", 1..=3) => Plot::SlowStatement,
        ("stalled", 1..=2) => Plot::Stall,
        _ => Plot::Apply,
    };
    world.subscribe_at(consumer, Steps::default(), plot);
    for (aggregate, stalls) in [("slow", 3), ("stalled", 2)] {
        for _ in 0..stalls {
            let refused = world.bus.publish(&event(aggregate, 1)).await;
            assert!(matches!(refused, Err(BusError::Consumer { consumer: "effects", .. })), "{refused:?}");
        }
        world.bus.publish(&event(aggregate, 1)).await.unwrap();
        assert_eq!(world.applied(aggregate).await, [1]);
    }
    assert_eq!(world.dead_letters().await, []);
}

#[tokio::test]
async fn a_replay_applies_a_dead_letter_once() {
    on_every_bus(|world| async move {
        let mended = Arc::new(AtomicBool::new(false));
        let is_mended = mended.clone();
        let broken = move |_: &crate::Event, _: u32| {
            if is_mended.load(Ordering::SeqCst) { Plot::Apply } else { Plot::Park }
        };
        let consumer = world.subscribe(broken);
        world.deliver(&event("a", 1)).await;
        let id = event("a", 1).id;
        assert!(matches!(consumer.replay(event("a", 9).id).await, Err(ReplayError::NotFound)));
        assert!(matches!(consumer.replay(id).await, Err(ReplayError::Failed(_))));
        let letter = world.dead_letter(1).await;
        assert_eq!((letter.tries, letter.replayed_at), (2, None));

        mended.store(true, Ordering::SeqCst);
        world.kernel.clock.advance(SECOND);
        let replays = futures::future::join_all((0..5).map(|_| consumer.replay(id))).await;
        assert_eq!(replays.iter().filter(|replayed| replayed.is_ok()).count(), 1);
        assert!(matches!(consumer.replay(id).await, Err(ReplayError::AlreadyReplayed)));
        let letter = world.dead_letter(1).await;
        assert_eq!((letter.tries, letter.replayed_at), (3, Some(super::start() + SECOND)));
        assert_eq!(world.dead_letters().await, []);
        // Delivered again, it is known.
        world.bus.publish(&event("a", 1)).await.unwrap();
        assert_eq!(world.applied("a").await, [1]);
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_listed_page_by_page_oldest_first() {
    on_every_bus(|world| async move {
        world.subscribe(|_, _| Plot::Park);
        for version in 1..=5 {
            world.deliver(&event("a", version)).await;
            world.kernel.clock.advance(SECOND / 2 * u32::from(version % 2 == 0)); // some at the same time
        }
        let mut tx = world.db.read().await.unwrap();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = dead_letters::list(&mut tx, None, after.as_ref(), 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(dead_letters::After::from(last));
            seen.extend(page);
        }
        assert_eq!(seen, dead_letters::list(&mut tx, Some("effects"), None, 100).await.unwrap());
        assert_eq!(seen.len(), 5);
        assert!(seen.is_sorted_by_key(|letter| letter.parked_at));
        assert_eq!(dead_letters::list(&mut tx, Some("another"), None, 100).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn the_inbox_is_forgotten_after_its_time_and_dead_letters_are_not() {
    on_both(|world| async move {
        let config = ConsumerConfig { inbox_keep_hours: 24, sweep_batch_max: 2, ..ConsumerConfig::default() };
        let consumer = crate::Consumer { config, ..world.consumer() };
        let plot = |event: &crate::Event, _: u32| if event.version == 1 { Plot::Park } else { Plot::Apply };
        world.subscribe_at(consumer, Steps::default(), plot);
        for version in 1..=5 {
            world.bus.publish(&event("a", version)).await.unwrap();
        }
        world.kernel.clock.advance(23 * 3_600 * SECOND);
        world.bus.publish(&event("a", 6)).await.unwrap();
        assert_eq!(world.count("inbox").await, 6);
        world.until_with(600 * SECOND, || async { world.count("inbox").await < 6 }).await;
        world.until(|| async { world.count("inbox").await == 1 }).await;
        assert_eq!(world.dead_letters().await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_handler_works_in_the_trace_of_the_event() {
    on_every_bus(|world| async move {
        let seen: Arc<Mutex<Option<TraceContext>>> = Arc::default();
        let sink = seen.clone();
        let plot = move |_: &Event, _| {
            *sink.lock().unwrap() = trace::current();
            Plot::Apply
        };
        world.subscribe(plot);
        let event = event("a", 2);
        world.deliver(&event).await;
        let (happened, handled) = (event.position().unwrap(), seen.lock().unwrap().unwrap());
        assert_eq!(handled.trace_id().to_string(), happened.trace_id().to_string());
        assert_ne!(handled, happened, "at a place of its own");
    })
    .await;
}
