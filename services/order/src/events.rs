//! What every change of an order leaves behind: its version, for watchers and repeats, and its event, for everyone else. Both are written
//! in the transaction of the change.

use prost::{Message, Name};
use souk_db::Many;
use souk_events::{Event, outbox};
use souk_proto_order::v1 as pb;
use souk_runtime::Ids;

use crate::domain::{Order, OrderId, OrderState};
use crate::store::{self, Version};

/// The `source` of every event of this service.
pub const SOURCE: &str = "souk.order";
/// The subjects of all events of this service.
pub const SUBJECTS: &str = "souk.order.order.>";
/// The events after which prices must be asked for anew.
pub const PRODUCT_SUBJECTS: &str = "souk.inventory.product.>";

/// The version and the event of one change.
#[derive(Clone, Debug)]
pub struct Record {
    /// The order after it.
    pub version: Version,
    /// The news of it.
    pub event: Event,
}

/// The record of an order as it is now. `traceparent` is the trace in which it became so.
pub fn record(order: &Order, ids: &Ids, traceparent: Option<String>) -> Record {
    let message = pb::Order::from(order);
    let snapshot = message.encode_to_vec();
    let wire = Some(message);
    let event = match order.state {
        OrderState::Pending => event(order, ids, "placed", &pb::OrderPlaced { order: wire }),
        OrderState::Confirmed => event(order, ids, "confirmed", &pb::OrderConfirmed { order: wire }),
        OrderState::Rejected => event(order, ids, "rejected", &pb::OrderRejected { order: wire }),
        OrderState::Expired => event(order, ids, "expired", &pb::OrderExpired { order: wire }),
        OrderState::Cancelled => event(order, ids, "cancelled", &pb::OrderCancelled { order: wire }),
        OrderState::Completed => event(order, ids, "completed", &pb::OrderCompleted { order: wire }),
    };
    let version = Version { order_id: order.id, version: order.version, snapshot, created_at: order.updated_at };
    Record { version, event: event.traced(traceparent) }
}

/// Writes records in the transaction of the changes that they are of: versions and events.
pub fn insert(records: Vec<Record>) -> [Many<'static>; 2] {
    let (versions, events): (Vec<Version>, Vec<Event>) =
        records.into_iter().map(|record| (record.version, record.event)).unzip();
    [store::insert_versions(&versions), outbox::insert(&events)]
}

/// The order that an event of ours is about.
pub fn order_of(event: &Event) -> Option<OrderId> {
    event.aggregate.strip_prefix("order/")?.parse().ok().map(OrderId)
}

fn event<M: Message + Name>(order: &Order, ids: &Ids, what: &str, payload: &M) -> Event {
    let about = (format!("order/{}", order.id), order.version);
    Event::new(ids.new_id(), SOURCE, format!("souk.order.order.{what}"), about, order.updated_at, payload)
}
