//! The bus: from a publisher to every durable consumer and every listener whose pattern matches.

use std::error::Error as StdError;
use std::sync::Arc;

use souk_runtime::Kernel;
use tokio::sync::watch;
use uuid::Uuid;

use crate::config::BusConfig;
use crate::consumer::{Consumer, Handler, Subscription};
use crate::event::Event;
use crate::listener::Listener;
use crate::memory::MemoryBus;
use crate::nats::NatsBus;
use crate::steps::Steps;
use crate::subject::PatternError;

/// A bus. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Bus {
    /// Within one process.
    Memory(MemoryBus),
    /// NATS JetStream.
    Nats(NatsBus),
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
    /// The bus takes no events now, whichever they are. It may have taken this one: publish it again later.
    #[error("the bus takes no events")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
    /// The bus is not the one that it was: what was published may be gone with it.
    #[error("the bus is another than before")]
    Moved,
    /// The bus does not take this event, because of what it is.
    #[error("the bus refuses the event")]
    Refused(#[source] Box<dyn StdError + Send + Sync>),
    /// The settings name no bus.
    #[error("bus.url must be set: nats://host:port, or memory: for a process whose events nobody else is to hear")]
    Unnamed,
    /// The settings do not lead to a bus.
    #[error("the bus cannot be set up")]
    Settings(#[source] Box<dyn StdError + Send + Sync>),
    /// A consumer or a listener asks for something that is no pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl BusError {
    /// Other events will fare no better.
    pub(crate) fn concerns_all(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Moved => true,
            Self::Consumer { .. } | Self::Refused(_) | Self::Unnamed | Self::Settings(_) | Self::Pattern(_) => false,
        }
    }
}

/// Where events are kept. Another place has none of those that were published before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The stream.
    pub(crate) stream: String,
    /// When it was made, in microseconds since 1970.
    pub(crate) created_us: i64,
    /// The connection over which it was found. Over another one it may have less than before.
    pub(crate) connection: u64,
}

/// Whether the bus takes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// It does not answer, or is not ready.
    Down,
    /// It does, and keeps them here.
    Up(Place),
}

impl Bus {
    /// The bus that the settings name. One within this process is [closed](Self::open); NATS need not be there yet: it is looked for until
    /// it is, and again whenever it goes away.
    ///
    /// # Errors
    ///
    /// If the settings name no bus, or files that cannot be used.
    pub async fn connect(kernel: &Kernel, config: &BusConfig) -> Result<Self, BusError> {
        if config.url.is_empty() {
            return Err(BusError::Unnamed);
        }
        if config.is_memory() {
            return Ok(Self::memory_closed());
        }
        // What a connection begins with is large, and most processes of a test have none.
        Ok(Self::Nats(Box::pin(NatsBus::connect(kernel, config)).await?))
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

    /// Lets events through: every consumer has subscribed. NATS keeps events for those who come late, and is always open.
    pub fn open(&self) {
        match self {
            Self::Memory(bus) => bus.open(),
            Self::Nats(_) => {}
        }
    }

    /// Delivers an event to whoever has subscribed. `Ok`: it will not be lost any more. In memory that is once every consumer has
    /// committed its effect, or parked it; on NATS once the stream has it.
    pub async fn publish(&self, event: &Event) -> Result<(), BusError> {
        let place = match &*self.link().borrow() {
            Link::Up(place) => place.clone(),
            Link::Down => return Err(BusError::Unavailable("it does not answer".into())),
        };
        self.publish_at(event, &place).await.map(drop)
    }

    /// As [`publish`](Self::publish), and only there; the event's number in the stream.
    pub(crate) async fn publish_at(&self, event: &Event, place: &Place) -> Result<u64, BusError> {
        match self {
            Self::Memory(bus) => bus.publish(event).await.map(|()| 0),
            Self::Nats(bus) => bus.publish(event, place).await,
        }
    }

    /// Whether events can be published, and where. It changes as that does.
    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        match self {
            Self::Memory(bus) => bus.link(),
            Self::Nats(bus) => bus.link(),
        }
    }

    /// Whether the bus still has what it has acknowledged: `event` under the number `sequence`, or, if that is long ago, later ones. A
    /// stream that loses anything loses its end.
    pub(crate) async fn has_kept(&self, place: &Place, sequence: u64, event: Uuid) -> Result<bool, BusError> {
        match self {
            Self::Memory(_) => Ok(true),
            Self::Nats(bus) => bus.has_kept(place, sequence, event).await,
        }
    }

    /// Delivers events to `handler` from now on, each at least once; the inbox makes it once. A consumer that subscribes a second time
    /// takes its former place; on NATS, replicas that subscribe under one name share the events, one event at a time.
    pub fn subscribe(&self, consumer: Consumer, handler: impl Handler) -> Result<Arc<Subscription>, BusError> {
        self.subscribe_at(consumer, handler, Steps::default())
    }

    pub(crate) fn subscribe_at(
        &self,
        consumer: Consumer,
        handler: impl Handler,
        steps: Steps,
    ) -> Result<Arc<Subscription>, BusError> {
        let subscription = Arc::new(Subscription::new(consumer, handler, steps)?);
        match self {
            Self::Memory(bus) => bus.subscribe(subscription.clone()),
            Self::Nats(bus) => bus.subscribe(subscription.clone()),
        }
        subscription.start_sweep();
        Ok(subscription)
    }

    /// Hears events of the subjects from now on, without any promise: some may be missed, and it is told so
    /// ([`Heard::Lagged`](crate::Heard::Lagged)); some may come twice. For caches and watchers of this process.
    pub async fn listen(&self, subjects: &[&str]) -> Result<Listener, BusError> {
        match self {
            Self::Memory(bus) => Ok(bus.listen(subjects)?),
            Self::Nats(bus) => bus.listen(subjects).await,
        }
    }
}
