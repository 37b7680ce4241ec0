//! The event: CloudEvents attributes around a protobuf message.

use chrono::{DateTime, Utc};
use prost::{Message, Name};
use uuid::Uuid;

/// Something that happened to an aggregate.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Event {
    /// CloudEvents `id`: the same for every delivery.
    pub id: Uuid,
    /// CloudEvents `source`: the service, `souk.order`.
    pub source: String,
    /// CloudEvents `type`: the message in `data`, `souk.order.v1.OrderPlaced`.
    pub kind: String,
    /// CloudEvents `subject`, and the bus's: `souk.order.order.placed`.
    pub subject: String,
    /// What it happened to: `order/<id>`. Events of one aggregate are delivered in the order of `version`.
    pub aggregate: String,
    /// The aggregate's version after it. One event a version.
    pub version: i64,
    /// CloudEvents `time`.
    pub occurred_at: DateTime<Utc>,
    /// CloudEvents `traceparent`: the call that made it happen.
    pub traceparent: Option<String>,
    /// CloudEvents `data`: the encoded message.
    pub data: Vec<u8>,
}

impl Event {
    /// An event that tells `message`.
    pub fn new<M: Message + Name>(
        id: Uuid,
        source: &str,
        subject: &str,
        (aggregate, version): (String, i64),
        occurred_at: DateTime<Utc>,
        message: &M,
    ) -> Self {
        Self {
            id,
            source: source.to_owned(),
            kind: M::full_name(),
            subject: subject.to_owned(),
            aggregate,
            version,
            occurred_at,
            traceparent: None,
            data: message.encode_to_vec(),
        }
    }

    /// The same event, as part of a trace.
    #[must_use]
    pub fn traced(self, traceparent: Option<String>) -> Self {
        Self { traceparent, ..self }
    }
}
