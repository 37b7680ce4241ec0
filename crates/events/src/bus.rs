//! The bus: from the relays to the consumers.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::broadcast;

use crate::consumer::Consumer;
use crate::event::Event;
use crate::subject::matches;

/// Carries events. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Bus {
    /// Within one process.
    Memory(MemoryBus),
}

/// The bus did not take the event: publish it again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("not every consumer has acknowledged the event")]
pub struct BusError;

impl Bus {
    /// A bus within this process.
    pub fn memory() -> Self {
        Self::Memory(MemoryBus::default())
    }

    /// Hands an event over. When this returns, the bus answers for it.
    pub async fn publish(&self, event: &Event) -> Result<(), BusError> {
        match self {
            Self::Memory(bus) => bus.publish(event).await,
        }
    }

    /// From here on `consumer` is given the events of its subjects, until it has acknowledged them.
    pub fn subscribe(&self, consumer: Consumer) {
        match self {
            Self::Memory(bus) => bus.consumers.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(consumer)),
        }
    }

    /// Events as they pass, for what a process keeps in its memory: a cache to invalidate, a watcher to wake. Nothing is kept for a
    /// listener; one that is too slow is told that it has missed some.
    pub fn listen(&self, pattern: &'static str) -> Listener {
        match self {
            Self::Memory(bus) => Listener { pattern, events: bus.passing.subscribe() },
        }
    }
}

/// Events that a listener may be behind.
const PASSING_MAX: usize = 1_024;

/// A bus within one process. It has no store of its own: an event is handed over once every consumer has committed it or parked it, and
/// until then it stays in the outbox that it came from.
#[derive(Clone, Debug)]
pub struct MemoryBus {
    consumers: Arc<RwLock<Vec<Arc<Consumer>>>>,
    passing: broadcast::Sender<Arc<Event>>,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self { consumers: Arc::default(), passing: broadcast::Sender::new(PASSING_MAX) }
    }
}

impl MemoryBus {
    async fn publish(&self, event: &Event) -> Result<(), BusError> {
        // No listener is no error.
        drop(self.passing.send(Arc::new(event.clone())));
        let consumers = self.consumers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut acknowledged = true;
        // One that fails does not keep the event from the others; those that have it will know it again.
        for consumer in consumers.iter().filter(|consumer| consumer.wants(&event.subject)) {
            acknowledged &= consumer.deliver(event).await;
        }
        if acknowledged { Ok(()) } else { Err(BusError) }
    }
}

/// Hears events as they pass.
#[derive(Debug)]
pub struct Listener {
    pattern: &'static str,
    events: broadcast::Receiver<Arc<Event>>,
}

/// What a listener hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event of its pattern.
    Event(Arc<Event>),
    /// Some were missed: whatever they would have changed must be looked up.
    Missed,
}

impl Listener {
    /// The next event; `None` once the bus is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            match self.events.recv().await {
                Ok(event) if matches(self.pattern, &event.subject) => return Some(Heard::Event(event)),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return Some(Heard::Missed),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
