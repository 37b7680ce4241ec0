//! The bus: from a publisher to every durable consumer and every listener whose pattern matches.

use std::sync::Arc;

use souk_runtime::Kernel;

use crate::config::BusConfig;
use crate::consumer::{Consumer, Handler, Subscription};
use crate::event::Event;
use crate::memory::{Listener, MemoryBus};
use crate::steps::Steps;
use crate::subject::PatternError;

/// A bus. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Bus {
    /// Within one process.
    Memory(MemoryBus),
}

/// What went wrong on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// A consumer can neither apply nor park the event now, through no fault of the event. Publish it again later.
    #[error("consumer {consumer} cannot take events")]
    Consumer {
        /// Which.
        consumer: &'static str,
        /// Why.
        #[source]
        source: souk_db::Error,
    },
    /// There is no such bus.
    #[error("{0} cannot be used as a bus")]
    Unknown(String),
    /// A consumer or a listener asks for something that is no pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl Bus {
    /// The bus that the settings name, [closed](Self::open) if it is one within this process.
    #[expect(clippy::unused_async, reason = "a bus over the network must be connected")]
    pub async fn connect(_kernel: &Kernel, config: &BusConfig) -> Result<Self, BusError> {
        if config.is_memory() { Ok(Self::memory_closed()) } else { Err(BusError::Unknown(config.url.clone())) }
    }

    /// A bus within this process, which delivers at once. For several services in one process: [`memory_closed`](Self::memory_closed).
    pub fn memory() -> Self {
        let bus = Self::memory_closed();
        bus.open();
        bus
    }

    /// A bus within this process that delivers nothing until it is [opened](Self::open). It has no store of its own: a consumer that
    /// subscribes after an event was published never sees it. So whoever starts several services subscribes all, then opens.
    pub fn memory_closed() -> Self {
        Self::Memory(MemoryBus::default())
    }

    /// Lets events through: every consumer has subscribed.
    pub fn open(&self) {
        match self {
            Self::Memory(bus) => bus.open(),
        }
    }

    /// Delivers an event to whoever has subscribed. `Ok`: it will not be lost any more. In memory that is once every consumer has
    /// committed its effect, or parked it.
    pub async fn publish(&self, event: &Event) -> Result<(), BusError> {
        match self {
            Self::Memory(bus) => bus.publish(event).await,
        }
    }

    /// Delivers events to `handler` from now on, each at least once; the inbox makes it once. A consumer that subscribes a second time
    /// takes its former place.
    pub async fn subscribe(&self, consumer: Consumer, handler: impl Handler) -> Result<Arc<Subscription>, BusError> {
        self.subscribe_at(consumer, handler, Steps::default()).await
    }

    #[expect(clippy::unused_async, reason = "a bus over the network must be asked")]
    pub(crate) async fn subscribe_at(
        &self,
        consumer: Consumer,
        handler: impl Handler,
        steps: Steps,
    ) -> Result<Arc<Subscription>, BusError> {
        let subscription = Arc::new(Subscription::new(consumer, handler, steps)?);
        match self {
            Self::Memory(bus) => bus.subscribe(subscription.clone()),
        }
        subscription.start_sweep();
        Ok(subscription)
    }

    /// Hears events of the subjects from now on, without any promise: some may be missed, and it is told so
    /// ([`Heard::Lagged`](crate::Heard::Lagged)); some may come twice. For caches and watchers of this process.
    #[expect(clippy::unused_async, reason = "a bus over the network must be asked")]
    pub async fn listen(&self, subjects: &[&str]) -> Result<Listener, BusError> {
        match self {
            Self::Memory(bus) => Ok(bus.listen(subjects)?),
        }
    }
}
