//! Listeners: plain subscriptions, beside the stream. What is published while there is no connection is missed, and told.

use futures::{StreamExt, stream};
use tracing::debug;

use super::{Shared, message};
use crate::bus::BusError;
use crate::listener::{self, Heard, Listener};
use crate::subject::Pattern;

pub(super) async fn listen(bus: &Shared, subjects: &[&str]) -> Result<Listener, BusError> {
    Pattern::parse_all(subjects)?;
    let mut subscribers = Vec::with_capacity(subjects.len());
    for subject in subjects {
        let subscriber = bus.client.subscribe((*subject).to_owned()).await;
        subscribers.push(subscriber.map_err(|error| BusError::Unavailable(error.into()))?);
    }
    let mut messages = stream::select_all(subscribers);
    let mut gaps = bus.signals.gaps.subscribe();
    let (sender, listener) = listener::pair();
    bus.kernel.tasks.spawn_until_shutdown("bus listener", async move {
        loop {
            let heard = tokio::select! {
                () = sender.closed() => break,
                changed = gaps.changed() => match changed {
                    Ok(()) => Heard::Lagged(0),
                    Err(_) => break,
                },
                message = messages.next() => match message.as_ref().map(message::event) {
                    Some(Ok(event)) => Heard::Event(event.into()),
                    Some(Err(error)) => {
                        debug!(%error, "a message that is no event was heard");
                        continue;
                    }
                    None => break,
                },
            };
            // Nobody listens any more: `closed` tells.
            drop(sender.send(heard));
        }
    });
    Ok(listener)
}
