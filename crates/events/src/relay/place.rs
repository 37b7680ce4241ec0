//! Where a relay publishes: whether the bus is there, whether it is the one that has what was published, and what follows if not.

use souk_db::Error;
use souk_runtime::story;
use tracing::{info, warn};

use super::term::Term;
use crate::bus::{BusError, Link, Place};
use crate::pause::after;
use crate::position::Position;
use crate::{outbox, position};

impl Term<'_> {
    /// Whether events can be published, as far as the bus is concerned; `place` is where.
    pub(super) async fn settle(&mut self) -> Result<bool, Error> {
        if self.bus_until.is_some_and(|until| until > self.now()) {
            return Ok(false);
        }
        self.bus_until = None;
        let link = self.link.borrow_and_update().clone();
        match link {
            Link::Down => self.place = None,
            Link::Up(place) if self.place.as_ref() == Some(&place) => {}
            // What was begun at the place before must land first: it is marked, and then republished with the rest.
            Link::Up(_) if !self.chains.is_empty() => self.place = None,
            Link::Up(place) => self.take_place(place).await?,
        }
        Ok(self.place.is_some())
    }

    async fn take_place(&mut self, place: Place) -> Result<(), Error> {
        let position = position::read(&mut self.relay.db.read_one().await?).await?;
        let kept = match position.as_ref().filter(|position| position.is_at(&place)) {
            None => false,
            Some(position) => match (u64::try_from(position.sequence), position.event_id) {
                (Ok(sequence), Some(event)) => match self.relay.bus.has_kept(&place, sequence, event).await {
                    Ok(kept) => kept,
                    Err(error) => {
                        self.pause_all(&error);
                        return Ok(());
                    }
                },
                _ => true,
            },
        };
        if kept || self.refill(&place).await? {
            self.place = Some(place);
        }
        Ok(())
    }

    /// Lets everything that was published be published again, before anything else is: so events keep their order. `false`: the lease was
    /// lost on the way; whoever has it begins anew.
    async fn refill(&mut self, place: &Place) -> Result<bool, Error> {
        let relay = self.relay;
        let limit = relay.config.sweep_batch_max.max(1);
        let mut tx = relay.db.write().await?;
        let from = position::read(&mut tx).await?.and_then(|position| position.republish_from);
        // From here on nobody marks anything, until the new position is there.
        position::lose(&mut tx, from).await?;
        tx.commit().await?;
        let mut republished = 0;
        loop {
            if !self.keep_lease().await? {
                self.lost_lease = true;
                return Ok(false);
            }
            let mut tx = relay.db.write().await?;
            let portion = outbox::unmark(&mut tx, from, limit).await?;
            let done = portion < u64::from(limit);
            if done {
                position::begin(&mut tx, place).await?;
            }
            tx.commit().await?;
            republished += portion;
            relay.meters.republished.inc_by(portion);
            if done {
                break;
            }
        }
        (self.unread, self.since) = (true, None);
        if republished > 0 {
            warn!(republished, stream = place.stream, "bus without what was published: it is published again");
        } else {
            info!(stream = place.stream, "relay publishes on a bus that is new to it");
        }
        Ok(true)
    }

    /// Whether somebody wants everything published again: the position is not where we publish.
    pub(super) fn heed_request(&mut self, position: Option<&Position>) {
        if self.place.as_ref().is_some_and(|place| !position.is_some_and(|position| position.is_at(place))) {
            self.forget_place();
        }
    }

    /// The place is looked at anew before anything is published.
    pub(super) fn forget_place(&mut self) {
        self.place = None;
    }

    /// Nothing is published for a while: the bus takes no events, whichever they are.
    pub(super) fn pause_all(&mut self, error: &BusError) {
        let now = self.now();
        if self.bus_until.is_some_and(|until| until > now) {
            return; // one failure, told by several
        }
        self.bus_failures = self.bus_failures.saturating_add(1);
        self.bus_until = Some(after(now, self.relay.backoff(self.bus_failures)));
        warn!(failures = self.bus_failures, error = story(error), "bus takes no events");
    }
}
