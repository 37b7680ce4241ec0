//! An event and its envelope.

use chrono::{DateTime, Utc};
use prost::{Message, Name};
use souk_runtime::TraceContext;
use uuid::Uuid;

/// Something that happened to one aggregate.
///
/// The fields are the attributes of [CloudEvents 1.0](https://github.com/cloudevents/spec), under the names that Souk has for them:
///
/// | field | CloudEvents | example |
/// |---|---|---|
/// | `id` | `id` | unique per `source`; the same whenever it is told again |
/// | `source` | `source` | `souk.order` |
/// | `kind` | `type` | `souk.order.v1.OrderPlaced`, the full name of the payload's message |
/// | `aggregate` | `subject` | `order/0197…`: what it happened to |
/// | `version` | `sequence` (extension) | the version of the aggregate after it |
/// | `time` | `time` | when it happened, in microseconds |
/// | `traceparent` | `traceparent` (extension) | the W3C trace context in which it happened |
/// | `data` | `data`, with `datacontenttype: application/protobuf` | the encoded message |
/// | `subject` | none: it is the address on the bus | `souk.order.order.placed` |
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Event {
    /// The event. Consumers tell a repetition by it.
    #[sqlx(rename = "event_id")]
    pub id: Uuid,
    /// The service that tells it.
    pub source: String,
    /// The full name of the payload's message.
    pub kind: String,
    /// Where it is sent to on the bus.
    pub subject: String,
    /// What it happened to, unique within the service.
    pub aggregate: String,
    /// The version of the aggregate after it: at most one event for each, and a later one has a greater one.
    pub version: i64,
    /// When it happened.
    pub time: DateTime<Utc>,
    /// The trace context in which it happened.
    pub traceparent: Option<String>,
    /// The encoded payload.
    pub data: Vec<u8>,
}

/// The payload is not what the consumer takes it for.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Another message.
    #[error("payload is {found}, not {expected}")]
    Kind {
        /// The name of the message that was asked for.
        expected: String,
        /// The name of the message that it is.
        found: String,
    },
    /// Broken.
    #[error("payload cannot be decoded")]
    Data(#[from] prost::DecodeError),
}

impl Event {
    /// An event about the aggregate at a version, with `payload`; its kind is the payload's full name.
    pub fn new<M: Message + Name>(
        id: Uuid,
        source: impl Into<String>,
        subject: impl Into<String>,
        (aggregate, version): (impl Into<String>, i64),
        time: DateTime<Utc>,
        payload: &M,
    ) -> Self {
        Self {
            id,
            source: source.into(),
            kind: M::full_name(),
            subject: subject.into(),
            aggregate: aggregate.into(),
            version,
            time,
            traceparent: None,
            data: payload.encode_to_vec(),
        }
    }

    /// The same, as part of a trace.
    #[must_use]
    pub fn traced(self, traceparent: Option<String>) -> Self {
        Self { traceparent, ..self }
    }

    /// Where it happened in a trace.
    pub fn position(&self) -> Option<TraceContext> {
        TraceContext::parse(self.traceparent.as_deref()?)
    }

    /// The payload.
    pub fn decode<M: Message + Name + Default>(&self) -> Result<M, DecodeError> {
        let expected = M::full_name();
        if self.kind != expected {
            return Err(DecodeError::Kind { expected, found: self.kind.clone() });
        }
        Ok(M::decode(self.data.as_slice())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Placed {
        #[prost(string, tag = "1")]
        order: String,
    }

    impl Name for Placed {
        const NAME: &'static str = "Placed";
        const PACKAGE: &'static str = "souk.test.v1";
    }

    #[derive(Clone, PartialEq, Message)]
    struct Other {}

    impl Name for Other {
        const NAME: &'static str = "Other";
        const PACKAGE: &'static str = "souk.test.v1";
    }

    #[test]
    fn a_payload_comes_back_as_the_message_that_it_is_and_as_no_other() {
        let placed = Placed { order: "o1".into() };
        let event =
            Event::new(Uuid::nil(), "souk.test", "souk.test.placed", ("order/o1", 3), DateTime::UNIX_EPOCH, &placed);
        assert_eq!(
            (event.kind.as_str(), event.aggregate.as_str(), event.version),
            ("souk.test.v1.Placed", "order/o1", 3)
        );
        assert_eq!(event.decode::<Placed>().unwrap(), placed);
        assert!(matches!(event.decode::<Other>(), Err(DecodeError::Kind { .. })));
        let broken = Event { data: vec![0xff], ..event };
        assert!(matches!(broken.decode::<Placed>(), Err(DecodeError::Data(_))));
    }
}
