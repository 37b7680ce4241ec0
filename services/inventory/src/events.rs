//! The events that the inventory publishes. Each goes to the outbox in the transaction of what it tells.

use chrono::{DateTime, Utc};
use prost::{Message, Name};
use souk_events::Event;
use souk_interceptors::context;
use souk_proto_inventory::v1 as pb;
use souk_runtime::Ids;

use crate::domain::book::{Changes, Notice};
use crate::domain::{Product, Reservation, StockLevel};

/// The `source` of every event of this service.
pub const SOURCE: &str = "souk.inventory";
/// The subject of [`pb::StockChanged`].
pub const STOCK_CHANGED: &str = "souk.inventory.stock.changed";

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

/// Everything that a batch of changes of stock did: each step of each reservation, and the level of each record at the end.
pub fn of_changes(changes: &Changes, ids: &Ids, now: DateTime<Utc>) -> Vec<Event> {
    let notices = changes.notices.iter().map(|notice| reservation_event(notice, ids));
    let levels = changes.stocks.iter().map(|changed| stock_changed(&changed.now, ids, now));
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
    (format!("product/{}", product.sku), product.version)
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
    // A batch belongs to many calls, and to no trace.
    event.traced(context::current().map(|context| context.trace.to_string()))
}
