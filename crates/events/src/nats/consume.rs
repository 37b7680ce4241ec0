//! A durable consumer on the stream, shared by all replicas that subscribe under its name.
//!
//! One event at a time, over all replicas (`max_ack_pending` 1): so the next of an aggregate is not handed out before the one before it is
//! applied or parked, whichever replica has it, and whether it was tried once or again and again. What that costs, and what else was
//! thought of, stands in docs/decisions/0009.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::pull::{Config, Stream as Messages};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::message::Message;
use futures::StreamExt;
use souk_runtime::story;
use tracing::{error, info, warn};

use super::{NatsBus, message};
use crate::bus::Place;
use crate::consumer::Subscription;
use crate::pause::backoff;

/// Handed out and not acknowledged.
const PENDING_MAX: i64 = 1;
/// So many messages a request; they are handed out one by one all the same.
const PULL_MAX: usize = 16;
/// A request for messages stands for so long, and shows a sign of life three times.
const PULL_EXPIRES: Duration = Duration::from_secs(15);
const PULL_HEARTBEAT: Duration = Duration::from_secs(5);

type Failure = Box<dyn StdError + Send + Sync>;

/// The name of a consumer as NATS can have it.
pub(super) fn durable_name(consumer: &str) -> String {
    consumer.replace('.', "-")
}

/// Takes events until the process ends. Whatever breaks, the consumer is opened anew; and so it is over every connection, because somebody
/// may have removed it (`stream::ensure`).
pub(super) async fn run(bus: NatsBus, subscription: Arc<Subscription>) {
    let shutdown = bus.0.kernel.tasks.shutdown().clone();
    let mut failures = 0;
    while !shutdown.is_cancelled() {
        let place = tokio::select! {
            place = bus.place() => place,
            () = shutdown.cancelled() => return,
        };
        if let Err(error) = take(&bus, &subscription, &place, &mut failures).await {
            warn!(consumer = subscription.name(), failures, error = story(&*error), "consumer is opened anew");
        }
        failures += 1;
        tokio::select! {
            () = bus.0.clock.sleep(pause(&bus, failures)) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

fn pause(bus: &NatsBus, failures: u32) -> Duration {
    backoff(failures, 50, bus.0.config.reconnect_pause_max_ms, bus.0.kernel.ids.random_fraction())
}

async fn take(bus: &NatsBus, subscription: &Subscription, place: &Place, failures: &mut u32) -> Result<(), Failure> {
    let shutdown = bus.0.kernel.tasks.shutdown();
    let mut messages = tokio::select! {
        opened = open(bus, subscription, place) => opened?,
        () = bus.moved(place) => return Ok(()),
        () = shutdown.cancelled() => return Ok(()),
    };
    loop {
        // An event that is begun is finished or handed back, so that no other replica waits for it in vain.
        let message = tokio::select! {
            message = messages.next() => message.ok_or("no more messages")??,
            () = bus.moved(place) => return Ok(()),
            () = shutdown.cancelled() => return Ok(()),
        };
        *failures = 0;
        handle(bus, subscription, place, &message).await?;
    }
}

/// The consumer, made where there is none and brought to its settings, and a standing request for its messages.
async fn open(bus: &NatsBus, subscription: &Subscription, place: &Place) -> Result<Messages, Failure> {
    let stream = bus.0.jetstream.get_stream_no_info(&place.stream).await?;
    let durable = stream.create_consumer(config(bus, subscription)).await?;
    info!(consumer = subscription.name(), stream = place.stream, "consumer takes events");
    let request = durable.stream().max_messages_per_batch(PULL_MAX).expires(PULL_EXPIRES).heartbeat(PULL_HEARTBEAT);
    Ok(request.messages().await?)
}

fn config(bus: &NatsBus, subscription: &Subscription) -> Config {
    let filters = subscription.subjects();
    let mut config = Config {
        durable_name: Some(durable_name(subscription.name())),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_millis(bus.0.config.ack_wait_ms),
        max_ack_pending: PENDING_MAX,
        ..Config::default()
    };
    match filters.as_slice() {
        [only] => config.filter_subject.clone_from(only),
        _ if bus.0.client.is_server_compatible(2, 10, 0) => config.filter_subjects = filters,
        // An older server has one filter: it gets the one that lets all of them pass, and the rest is left out here.
        _ => config.filter_subject = subscription.common_subject(),
    }
    config
}

/// Applies or parks the event, then acknowledges it; meanwhile, tells that it is being worked on.
async fn handle(bus: &NatsBus, subscription: &Subscription, place: &Place, message: &Message) -> Result<(), Failure> {
    let event = match message::event(message) {
        Ok(event) if subscription.takes(&event.subject) => event,
        Ok(_) => return message.ack().await,
        Err(foreign) => {
            error!(consumer = subscription.name(), subject = %message.subject, %foreign, "message is no event and is left out");
            return message.ack_with(AckKind::Term).await;
        }
    };
    let shutdown = bus.0.kernel.tasks.shutdown();
    let delivered = tokio::select! {
        delivered = subscription.deliver(&event) => delivered,
        lost = keep(bus, message) => return Err(lost),
        // What is not committed is undone; another replica may have it at once.
        () = shutdown.cancelled() => return message.double_ack_with(AckKind::Nak(None)).await,
    };
    if !bus.is_at(place) {
        // Its number may be another event's by now. It comes again, and is known.
        return Err("the connection over which the event came is gone".into());
    }
    match delivered {
        Ok(()) => message.double_ack().await,
        Err(error) => {
            let tries = message.info().map_or(1, |info| info.delivered);
            warn!(consumer = subscription.name(), event = %event.id, tries, error = story(&error), "event is handed back");
            message.ack_with(AckKind::Nak(Some(pause(bus, u32::try_from(tries).unwrap_or(1))))).await
        }
    }
}

/// Tells again and again that the message is being worked on. Ends only when that cannot be told.
async fn keep(bus: &NatsBus, message: &Message) -> Failure {
    loop {
        bus.0.clock.sleep(Duration::from_millis(bus.0.config.ack_wait_ms / 3)).await;
        if let Err(error) = message.ack_with(AckKind::Progress).await {
            return error;
        }
    }
}
