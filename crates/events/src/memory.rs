//! The bus within one process. It stores nothing: the publisher's outbox does, until every consumer has acknowledged.

use std::sync::{Arc, PoisonError, RwLock};

use futures::future::join_all;
use tokio::sync::{broadcast, watch};

use crate::bus::BusError;
use crate::consumer::Subscription;
use crate::event::Event;
use crate::subject::{Pattern, PatternError};

/// Events that a listener may be behind before it misses some.
const LISTENER_BEHIND_MAX: usize = 1_024;

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct MemoryBus(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    open: watch::Sender<bool>,
    consumers: RwLock<Vec<Arc<Subscription>>>,
    listeners: RwLock<Vec<Ear>>,
}

/// The bus' end of a listener.
#[derive(Debug)]
struct Ear {
    patterns: Vec<Pattern>,
    sender: broadcast::Sender<Arc<Event>>,
}

/// Hears events. Dropped, it hears no more.
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Arc<Event>>);

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event.
    Event(Arc<Event>),
    /// So many events were missed: whatever was concluded from events must be concluded anew.
    Lagged(u64),
}

impl Listener {
    /// The next event; `None`: the bus is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(event) => Some(Heard::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Heard::Lagged(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl MemoryBus {
    pub(crate) fn open(&self) {
        self.0.open.send_replace(true);
    }

    pub(crate) fn subscribe(&self, subscription: Arc<Subscription>) {
        let mut consumers = self.0.consumers.write().unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|consumer| consumer.name() != subscription.name());
        consumers.push(subscription);
    }

    pub(crate) fn listen(&self, subjects: &[&str]) -> Result<Listener, PatternError> {
        let patterns = Pattern::parse_all(subjects)?;
        let (sender, receiver) = broadcast::channel(LISTENER_BEHIND_MAX);
        let mut listeners = self.0.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|ear| ear.sender.receiver_count() > 0);
        listeners.push(Ear { patterns, sender });
        Ok(Listener(receiver))
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
            let event = told.get_or_insert_with(|| Arc::new(event.clone()));
            // Nobody listens any more: the ear goes with the next `listen`.
            drop(ear.sender.send(event.clone()));
        }
    }

    fn consumers_of(&self, subject: &str) -> Vec<Arc<Subscription>> {
        let consumers = self.0.consumers.read().unwrap_or_else(PoisonError::into_inner);
        consumers.iter().filter(|consumer| consumer.takes(subject)).cloned().collect()
    }
}
