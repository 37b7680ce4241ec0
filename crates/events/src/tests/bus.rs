//! The bus in memory.

use futures::FutureExt;

use super::{Plot, World, event, on_both};
use crate::{Bus, BusError, Heard};

#[tokio::test]
async fn a_closed_bus_delivers_nothing_until_every_consumer_has_subscribed() {
    on_both(|world| async move {
        let world = World { bus: Bus::memory_closed(), ..world };
        let event = event("a", 1);
        let mut publishing = Box::pin(world.bus.publish(&event));
        assert!(publishing.as_mut().now_or_never().is_none());
        world.subscribe(|_, _| Plot::Apply);
        world.bus.open();
        publishing.await.unwrap();
        assert_eq!(world.applied("a").await, [1]);
    })
    .await;
}

#[tokio::test]
async fn a_consumer_that_subscribes_again_takes_its_former_place() {
    on_both(|world| async move {
        world.subscribe(|_, _| Plot::Park);
        world.subscribe(|_, _| Plot::Apply);
        world.bus.publish(&event("a", 1)).await.unwrap();
        assert_eq!((world.applied("a").await, world.count("dead_letters").await), (vec![1], 0));
    })
    .await;
}

#[tokio::test]
async fn what_no_consumer_asked_for_is_published_all_the_same() {
    on_both(|world| async move {
        let consumer = crate::Consumer { subjects: &["souk.test.b.*", "souk.other.>"], ..world.consumer() };
        world.subscribe_at(consumer, crate::steps::Steps::default(), |_, _| Plot::Apply);
        world.bus.publish(&event("a", 1)).await.unwrap();
        world.bus.publish(&event("b", 1)).await.unwrap();
        assert_eq!((world.applied("a").await, world.applied("b").await), (vec![], vec![1]));
    })
    .await;
}

#[tokio::test]
async fn a_listener_hears_what_matches_and_is_told_what_it_missed() {
    let bus = Bus::memory();
    let mut listener = bus.listen(&["souk.test.a.>", "souk.test.b.happened"]).await.unwrap();
    for (aggregate, version) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
        bus.publish(&event(aggregate, version)).await.unwrap();
    }
    for expected in [event("a", 1), event("b", 2), event("a", 4)] {
        assert_eq!(listener.next().await, Some(Heard::Event(expected.into())));
    }
    for version in 0..1_100 {
        bus.publish(&event("c", version)).await.unwrap(); // others' events are not held against it
        bus.publish(&event("a", version)).await.unwrap();
    }
    assert_eq!(listener.next().await, Some(Heard::Lagged(1_100 - 1_024)));
    assert_eq!(listener.next().await, Some(Heard::Event(event("a", 1_100 - 1_024).into())));
    drop(bus);
    for version in 1_100 - 1_023..1_100 {
        assert_eq!(listener.next().await, Some(Heard::Event(event("a", version).into())));
    }
    assert_eq!(listener.next().await, None);
}

#[tokio::test]
async fn a_subject_that_is_no_pattern_is_refused() {
    let bus = Bus::memory();
    assert!(matches!(bus.listen(&["souk.>.test"]).await, Err(BusError::Pattern(_))));
}
