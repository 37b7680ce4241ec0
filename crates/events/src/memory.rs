//! The bus within one process. It stores nothing: the publisher's outbox does, until every consumer has acknowledged.

use std::sync::{Arc, PoisonError, RwLock};

use futures::future::join_all;
use tokio::sync::{broadcast, watch};

use crate::bus::{BusError, Link, Place};
use crate::consumer::Subscription;
use crate::event::Event;
use crate::listener::{self, Heard, Listener};
use crate::subject::{Pattern, PatternError};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemoryBus(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    open: watch::Sender<bool>,
    link: watch::Sender<Link>,
    consumers: RwLock<Vec<Arc<Subscription>>>,
    listeners: RwLock<Vec<Ear>>,
}

/// The bus' end of a listener.
#[derive(Debug)]
struct Ear {
    patterns: Vec<Pattern>,
    sender: broadcast::Sender<Heard>,
}

impl Default for MemoryBus {
    fn default() -> Self {
        // What was acknowledged in an earlier process is done: it is one place for ever.
        let place = Place { stream: "memory".to_owned(), created_us: 0, connection: 0 };
        Self(Arc::new(Shared {
            open: watch::Sender::default(),
            link: watch::Sender::new(Link::Up(place)),
            consumers: RwLock::default(),
            listeners: RwLock::default(),
        }))
    }
}

impl MemoryBus {
    pub(crate) fn open(&self) {
        self.0.open.send_replace(true);
    }

    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.0.link.subscribe()
    }

    pub(crate) fn subscribe(&self, subscription: Arc<Subscription>) {
        let mut consumers = self.0.consumers.write().unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|consumer| consumer.name() != subscription.name());
        consumers.push(subscription);
    }

    pub(crate) fn listen(&self, subjects: &[&str]) -> Result<Listener, PatternError> {
        let patterns = Pattern::parse_all(subjects)?;
        let (sender, listener) = listener::pair();
        let mut listeners = self.0.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|ear| ear.sender.receiver_count() > 0);
        listeners.push(Ear { patterns, sender });
        Ok(listener)
    }

    pub(crate) async fn publish(&self, event: &Event) -> Result<(), BusError> {
        // `self` holds the sender, so the channel cannot close.
        drop(self.0.open.subscribe().wait_for(|open| *open).await);
        // First, because a cache must not show the old price for as long as some consumer retries.
        self.tell_listeners(event);
        let deliveries = self.consumers_of(&event.subject);
        let outcomes = join_all(deliveries.iter().map(|consumer| consumer.deliver(event))).await;
        outcomes.into_iter().collect()
    }

    fn tell_listeners(&self, event: &Event) {
        let listeners = self.0.listeners.read().unwrap_or_else(PoisonError::into_inner);
        let mut told = None;
        for ear in listeners.iter().filter(|ear| ear.patterns.iter().any(|pattern| pattern.matches(&event.subject))) {
            let heard = told.get_or_insert_with(|| Heard::Event(Arc::new(event.clone())));
            // Nobody listens any more: the ear goes with the next `listen`.
            drop(ear.sender.send(heard.clone()));
        }
    }

    fn consumers_of(&self, subject: &str) -> Vec<Arc<Subscription>> {
        let consumers = self.0.consumers.read().unwrap_or_else(PoisonError::into_inner);
        consumers.iter().filter(|consumer| consumer.takes(subject)).cloned().collect()
    }
}
