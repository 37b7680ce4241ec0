//! The events that the inventory publishes. Each goes to the outbox in the transaction of what it tells.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use prost::{Message, Name};
use souk_events::Event;
use souk_proto_inventory::v1 as pb;
use souk_runtime::{Ids, TraceContext, trace};

use crate::domain::book::{Changed, Changes, Notice};
use crate::domain::{Product, Reservation, Sku, StockLevel};

/// The `source` of every event of this service.
pub const SOURCE: &str = "souk.inventory";
/// The subject of [`pb::StockChanged`].
pub const STOCK_CHANGED: &str = "souk.inventory.stock.changed";
/// The subjects of events about products.
pub const PRODUCT_SUBJECTS: &str = "souk.inventory.product.>";
/// What the aggregates of products begin with.
const PRODUCT: &str = "product/";

/// A product was added.
pub fn product_created(product: &Product, ids: &Ids) -> Event {
    let payload = pb::ProductCreated { product: Some(product.into()) };
    event(ids, "souk.inventory.product.created", about_product(product), product.updated_at, &payload)
}

/// A product was changed.
pub fn product_updated(product: &Product, ids: &Ids) -> Event {
    let payload = pb::ProductUpdated { product: Some(product.into()) };
    event(ids, "souk.inventory.product.updated", about_product(product), product.updated_at, &payload)
}

/// Which product the event is about.
pub fn product_of(event: &Event) -> Option<Sku> {
    Sku::parse(event.aggregate.strip_prefix(PRODUCT)?).ok()
}

/// In which traces the events of a batch happened.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Of each notice, in order.
    notices: Vec<Option<TraceContext>>,
    /// Those of all calls.
    calls: HashSet<Option<TraceContext>>,
}

impl Origins {
    /// A call at this position has been done; by now there are so many notices.
    pub fn note(&mut self, notices: usize, position: Option<TraceContext>) {
        self.notices.resize(notices, position);
        self.calls.insert(position);
    }

    fn of_notice(&self, place: usize) -> Option<String> {
        Some(self.notices.get(place).copied()??.to_string())
    }

    /// That of the one call; many have no trace in common.
    fn of_all(&self) -> Option<String> {
        let mut calls = self.calls.iter();
        let only = calls.next().filter(|_| calls.next().is_none()).copied()??;
        Some(only.to_string())
    }
}

/// Everything that a batch of changes of stock did: each step of each reservation, and the level of each record at the end.
pub fn of_changes(changes: &Changes, origins: &Origins, ids: &Ids, now: DateTime<Utc>) -> Vec<Event> {
    let notice = |(place, notice)| reservation_event(notice, ids).traced(origins.of_notice(place));
    let notices = changes.notices.iter().enumerate().map(notice);
    let level = |changed: &Changed<StockLevel>| stock_changed(&changed.now, ids, now).traced(origins.of_all());
    let levels = changes.stocks.iter().map(level);
    notices.chain(levels).collect()
}

fn reservation_event(notice: &Notice, ids: &Ids) -> Event {
    let wire = |reservation: &Reservation| Some(pb::Reservation::from(reservation));
    match notice {
        Notice::Held(at) => {
            let payload = pb::ReservationHeld { reservation: wire(at) };
            event(ids, "souk.inventory.reservation.held", about_reservation(at), at.updated_at, &payload)
        }
        Notice::Committed(at) => {
            let payload = pb::ReservationCommitted { reservation: wire(at) };
            event(ids, "souk.inventory.reservation.committed", about_reservation(at), at.updated_at, &payload)
        }
        Notice::Released(at) => {
            let payload = pb::ReservationReleased { reservation: wire(at) };
            event(ids, "souk.inventory.reservation.released", about_reservation(at), at.updated_at, &payload)
        }
        Notice::Expired(at) => {
            let payload = pb::ReservationExpired { reservation: wire(at) };
            event(ids, "souk.inventory.reservation.expired", about_reservation(at), at.updated_at, &payload)
        }
    }
}

fn stock_changed(level: &StockLevel, ids: &Ids, now: DateTime<Utc>) -> Event {
    let about = (format!("stock/{}/{}", level.key.location, level.key.sku), level.stock.version);
    event(ids, STOCK_CHANGED, about, now, &pb::StockChanged { level: Some(level.into()) })
}

/// Aggregate and version.
type About = (String, i64);

fn about_product(product: &Product) -> About {
    (format!("{PRODUCT}{}", product.sku), product.version)
}

fn about_reservation(reservation: &Reservation) -> About {
    (format!("reservation/{}", reservation.id), reservation.version)
}

fn event<M: Message + Name>(
    ids: &Ids,
    subject: &str,
    (aggregate, version): About,
    time: DateTime<Utc>,
    payload: &M,
) -> Event {
    let event = Event::new(ids.new_id(), SOURCE, subject, (aggregate, version), time, payload);
    event.traced(trace::current().map(|position| position.to_string()))
}

#[cfg(test)]
mod tests {
    use souk_runtime::Clock;

    use super::*;

    #[test]
    fn an_event_of_a_batch_belongs_to_the_call_that_made_it() {
        let mut origins = Origins::default();
        let ids = Ids::seeded(Clock::system(), 1);
        let (first, third) = (TraceContext::new(&ids), TraceContext::new(&ids));
        let told = |position: TraceContext| Some(position.to_string());
        origins.note(2, Some(first));
        assert_eq!(origins.of_all(), told(first));
        origins.note(2, None); // refused, and in no trace
        origins.note(3, Some(third));
        let places: Vec<Option<String>> = (0..4).map(|place| origins.of_notice(place)).collect();
        assert_eq!(places, [told(first), told(first), told(third), None]);
        assert_eq!(origins.of_all(), None);
    }
}
