//! The bus over NATS JetStream.
//!
//! A stream keeps the events; the publisher's outbox keeps them too, for when the stream is lost. The connection is looked after in the
//! background: whatever happens to NATS, this process goes on, and takes up where it was.
//!
//! It lives in the machine's time, whatever clock a test moves.

mod connection;
mod consume;
mod lag;
mod listen;
mod message;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, Event as Signal};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use souk_runtime::{Check, Clock, Kernel, Readiness, story};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::bus::{BusError, Link, Place};
use crate::config::BusConfig;
use crate::consumer::Subscription;
use crate::event::Event;
use crate::listener::Listener;

/// As readiness knows the bus: the process serves without it.
const READINESS: &str = "bus";

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct NatsBus(Arc<Shared>);

struct Shared {
    kernel: Kernel,
    /// The machine's.
    clock: Clock,
    config: BusConfig,
    client: Client,
    jetstream: Context,
    signals: Signals,
}

/// What the connection tells us, and what follows from it.
#[derive(Clone)]
struct Signals {
    link: watch::Sender<Link>,
    /// Grows whenever listeners may have missed something.
    gaps: watch::Sender<u64>,
    /// The stream must be looked at anew.
    check: Arc<Notify>,
    /// Grows with every connection, and with every end of one.
    turn: Arc<AtomicU64>,
    readiness: Readiness,
    connected: Gauge,
    connections: Counter,
}

impl fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBus").field("url", &self.0.config.url).finish_non_exhaustive()
    }
}

impl Signals {
    fn new(kernel: &Kernel) -> Self {
        let metrics = &kernel.metrics;
        kernel.readiness.set_optional(READINESS, Check::NotReady("it was not reached yet".to_owned()));
        Self {
            readiness: kernel.readiness.clone(),
            link: watch::Sender::new(Link::Down),
            gaps: watch::Sender::new(0),
            check: Arc::default(),
            turn: Arc::default(),
            connected: metrics.register("bus_up", "Whether events can be published: 1 or 0"),
            connections: metrics.register("bus_connections", "Connections to NATS that were made"),
        }
    }

    /// Must not wait: the connection's own task calls it.
    fn hear(&self, signal: &Signal) {
        match signal {
            Signal::Connected => {
                self.turn.fetch_add(1, Ordering::SeqCst);
                self.connections.inc();
                self.check.notify_one();
            }
            Signal::Disconnected | Signal::Closed => {
                self.turn.fetch_add(1, Ordering::SeqCst);
                self.down("NATS does not answer");
                warn!("connection to NATS lost");
            }
            // A listener's messages were dropped; which listener's makes no difference.
            Signal::SlowConsumer(_) => self.gaps.send_modify(|gaps| *gaps += 1),
            other => debug!(signal = %other, "NATS tells"),
        }
    }

    fn down(&self, why: &str) {
        self.connected.set(0);
        self.readiness.set_optional(READINESS, Check::NotReady(why.to_owned()));
        self.link.send_replace(Link::Down);
    }

    /// Unless the connection has changed since `turn`.
    fn up(&self, place: Place, turn: u64) {
        self.link.send_if_modified(|link| {
            let current = self.turn.load(Ordering::SeqCst) == turn;
            if current {
                self.connected.set(1);
                self.readiness.set_optional(READINESS, Check::Ready);
                *link = Link::Up(place);
            }
            current
        });
    }
}

impl NatsBus {
    pub(crate) async fn connect(kernel: &Kernel, config: &BusConfig) -> Result<Self, BusError> {
        let signals = Signals::new(kernel);
        let hears = signals.clone();
        let options = connection::options(config)?.event_callback(move |signal| {
            hears.hear(&signal);
            std::future::ready(())
        });
        let addresses = connection::addresses(config)?;
        let client = options.connect(addresses).await.map_err(|error| BusError::Settings(error.into()))?;
        let timeout = Duration::from_millis(config.publish_timeout_ms);
        let jetstream = ContextBuilder::new()
            .timeout(timeout)
            .ack_timeout(timeout)
            .max_ack_inflight(config.publishes_in_flight_max)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let clock = Clock::system();
        let shared = Shared { kernel: kernel.clone(), clock, config: config.clone(), client, jetstream, signals };
        let bus = Self(Arc::new(shared));
        kernel.tasks.spawn_until_shutdown("bus", bus.clone().look_after());
        Ok(bus)
    }

    /// After every connection, and whenever somebody doubts it: is the stream there, and is it the one that we know?
    async fn look_after(self) {
        let Shared { signals, clock, config, .. } = &*self.0;
        let mut told = None;
        loop {
            signals.check.notified().await;
            let turn = signals.turn.load(Ordering::SeqCst);
            match stream::ensure(&self.0.jetstream, &config.stream, &self.0.kernel.ids, turn).await {
                Ok(place) => {
                    info!(stream = place.stream, "NATS is there");
                    signals.up(place, turn);
                    // NATS has answered on this connection, so by now it knows our subscriptions: what happened before was missed.
                    if told.replace(turn) != Some(turn) {
                        signals.gaps.send_modify(|gaps| *gaps += 1);
                    }
                }
                Err(error) => {
                    warn!(error = story(&*error), "NATS has no stream for us");
                    signals.down("NATS has no stream for us");
                    clock.sleep(Duration::from_millis(config.reconnect_pause_max_ms)).await;
                    signals.check.notify_one();
                }
            }
        }
    }

    /// Something is wrong with the stream: nothing is published until it was looked at.
    fn doubt(&self) {
        self.0.signals.down("the stream is another than before");
        self.0.signals.check.notify_one();
    }

    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.0.signals.link.subscribe()
    }

    /// Where events are kept, as soon as NATS is there.
    async fn place(&self) -> Place {
        let mut link = self.link();
        loop {
            if let Link::Up(place) = &*link.borrow_and_update() {
                return place.clone();
            }
            // The sender is ours, and lives.
            drop(link.changed().await);
        }
    }

    fn is_at(&self, place: &Place) -> bool {
        matches!(&*self.0.signals.link.borrow(), Link::Up(now) if now == place)
    }

    /// Ends when events are kept elsewhere, or over another connection, or nowhere for now.
    async fn moved(&self, place: &Place) {
        let here = Link::Up(place.clone());
        drop(self.link().wait_for(|link| *link != here).await);
    }

    pub(crate) async fn publish(&self, event: &Event, place: &Place) -> Result<u64, BusError> {
        match &*self.0.signals.link.borrow() {
            Link::Down => return Err(BusError::Unavailable("it does not answer".into())),
            Link::Up(now) if now != place => return Err(BusError::Moved),
            Link::Up(_) => {}
        }
        let publishing = async {
            let message = message::outbound(event, &place.stream);
            self.0.jetstream.send_publish(event.subject.clone(), message).await?.await
        };
        tokio::select! {
            published = publishing => published.map(|ack| ack.sequence).map_err(|error| self.refused(error)),
            // Else it would wait for an answer that does not come.
            () = self.moved(place) => Err(BusError::Unavailable("it went away".into())),
        }
    }

    /// What follows from an event that was not taken.
    fn refused(&self, error: PublishError) -> BusError {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => BusError::Refused(error.into()),
            PublishErrorKind::StreamNotFound => {
                self.doubt();
                BusError::Moved
            }
            _ if code(&error) == Some(ErrorCode::STREAM_NOT_MATCH) => {
                self.doubt();
                BusError::Moved
            }
            _ => BusError::Unavailable(error.into()),
        }
    }

    pub(crate) async fn has_kept(&self, place: &Place, sequence: u64, event: Uuid) -> Result<bool, BusError> {
        let unavailable = |error: Box<dyn std::error::Error + Send + Sync>| BusError::Unavailable(error);
        let stream = self.0.jetstream.get_stream(&place.stream).await.map_err(|error| unavailable(error.into()))?;
        let state = &stream.cached_info().state;
        if sequence > state.last_sequence {
            return Ok(false);
        }
        if sequence < state.first_sequence {
            return Ok(true); // its time was up
        }
        match stream.get_raw_message(sequence).await {
            Ok(kept) => Ok(kept
                .headers
                .get(async_nats::header::NATS_MESSAGE_ID)
                .is_some_and(|id| id.as_str() == event.to_string())),
            // Somebody has deleted this one.
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(true),
            Err(error) => Err(unavailable(error.into())),
        }
    }

    pub(crate) fn subscribe(&self, subscription: Arc<Subscription>) {
        let tasks = &self.0.kernel.tasks;
        tasks.spawn_until_shutdown("consumer lag", lag::run(self.clone(), subscription.name()));
        tasks.spawn("consumer", consume::run(self.clone(), subscription));
    }

    pub(crate) async fn listen(&self, subjects: &[&str]) -> Result<Listener, BusError> {
        listen::listen(&self.0, subjects).await
    }
}

/// The server's own number of an error.
fn code(error: &PublishError) -> Option<ErrorCode> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<jetstream::Error>().map(jetstream::Error::error_code)
}
