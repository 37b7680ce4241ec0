//! An event as a message of NATS: CloudEvents 1.0 in binary mode, as the [NATS protocol
//! binding](https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md) has it. Attributes are headers
//! `ce-…`, percent-encoded; the body is the payload and nothing else.

use async_nats::header::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use chrono::{DateTime, SecondsFormat, Utc};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use uuid::Uuid;

use crate::event::Event;

const ID: &str = "ce-id";
const SOURCE: &str = "ce-source";
const SPEC_VERSION: &str = "ce-specversion";
const TYPE: &str = "ce-type";
const SUBJECT: &str = "ce-subject";
const TIME: &str = "ce-time";
const SEQUENCE: &str = "ce-sequence";
const TRACEPARENT: &str = "traceparent";
const CONTENT_TYPE: &str = "content-type";

/// What the binding encodes: everything but printable ASCII, and of that the blank, the quote and the per cent.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// A message that is no event of Souk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header {0} is missing or cannot be read")]
pub(crate) struct Foreign(&'static str);

/// The event as it is published on `stream`, and refused by any other.
pub(super) fn outbound(event: &Event, stream: &str) -> PublishMessage {
    let mut headers = HeaderMap::new();
    let id = event.id.to_string();
    let time = event.time.to_rfc3339_opts(SecondsFormat::Micros, true);
    let version = event.version.to_string();
    let attributes = [
        (SPEC_VERSION, "1.0"),
        (ID, &id),
        (SOURCE, &event.source),
        (TYPE, &event.kind),
        (SUBJECT, &event.aggregate),
        (TIME, &time),
        (SEQUENCE, &version),
        (CONTENT_TYPE, "application/protobuf"),
    ];
    for (name, value) in attributes {
        headers.insert(name, encoded(value));
    }
    if let Some(traceparent) = &event.traceparent {
        headers.insert(TRACEPARENT, encoded(traceparent));
    }
    // Headers first: `headers` replaces what the others have set.
    PublishMessage::build().headers(headers).message_id(&id).expected_stream(stream).payload(event.data.clone().into())
}

/// The event of a message.
pub(super) fn event(message: &async_nats::Message) -> Result<Event, Foreign> {
    let headers = message.headers.as_ref().ok_or(Foreign(ID))?;
    let text = |name: &'static str| decoded(headers, name).ok_or(Foreign(name));
    if message.subject.contains('\0') {
        return Err(Foreign("subject"));
    }
    let time = DateTime::parse_from_rfc3339(&text(TIME)?).map_err(|_| Foreign(TIME))?;
    Ok(Event {
        id: Uuid::parse_str(&text(ID)?).map_err(|_| Foreign(ID))?,
        source: text(SOURCE)?,
        kind: text(TYPE)?,
        subject: message.subject.to_string(),
        aggregate: text(SUBJECT)?,
        version: text(SEQUENCE)?.parse().map_err(|_| Foreign(SEQUENCE))?,
        time: time.with_timezone(&Utc),
        traceparent: decoded(headers, TRACEPARENT),
        data: message.payload.to_vec(),
    })
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn decoded(headers: &HeaderMap, name: &'static str) -> Option<String> {
    let value = percent_decode_str(headers.get(name)?.as_str()).decode_utf8().ok()?;
    // PostgreSQL has no text with it: not even a dead letter could be made of the event.
    if value.contains('\0') { None } else { Some(value.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Event {
        Event {
            id: Uuid::from_u128(7),
            source: "souk.inventory".into(),
            kind: "souk.inventory.v1.StockChanged".into(),
            subject: "souk.inventory.stock.changed".into(),
            aggregate: "stock/main/Käse 100 %\r\n\"x\"".into(),
            version: 42,
            time: DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap(),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            data: vec![0, 1, 255],
        }
    }

    fn sent(event: &Event) -> async_nats::Message {
        let message = outbound(event, "SOUK-1").outbound_message(event.subject.clone());
        async_nats::Message {
            subject: message.subject,
            reply: None,
            length: message.payload.len(),
            payload: message.payload,
            headers: message.headers,
            status: None,
            description: None,
        }
    }

    #[test]
    fn an_event_comes_back_as_it_was_sent() {
        for event in [sample(), Event { traceparent: None, data: Vec::new(), ..sample() }] {
            assert_eq!(super::event(&sent(&event)), Ok(event));
        }
    }

    #[test]
    fn its_attributes_are_headers_by_the_names_of_cloud_events() {
        let headers = sent(&sample()).headers.unwrap();
        let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned()).unwrap_or_default();
        assert_eq!(header("ce-id"), "00000000-0000-0000-0000-000000000007");
        assert_eq!(header("Nats-Msg-Id"), header("ce-id"));
        assert_eq!(header("Nats-Expected-Stream"), "SOUK-1");
        assert_eq!((header("ce-specversion"), header("ce-sequence")), ("1.0".into(), "42".into()));
        assert_eq!(header("ce-type"), "souk.inventory.v1.StockChanged");
        assert_eq!(header("ce-subject"), "stock/main/K%C3%A4se%20100%20%25%0D%0A%22x%22");
        assert_eq!(header("ce-time"), "2023-11-14T22:13:20.000001Z");
        assert_eq!(header("content-type"), "application/protobuf");
        assert!(header("traceparent").starts_with("00-0af7"));
    }

    #[test]
    fn what_is_no_event_is_refused_by_the_name_of_what_is_missing() {
        let mut message = sent(&sample());
        message.headers.as_mut().unwrap().insert(SEQUENCE, "many");
        assert_eq!(event(&message), Err(Foreign(SEQUENCE)));
        for bad in ["a\0b", "a%00b", "%ff"] {
            let mut message = sent(&sample());
            message.headers.as_mut().unwrap().insert(TYPE, bad);
            assert_eq!(event(&message), Err(Foreign(TYPE)), "{bad:?}");
        }
        let mut message = sent(&sample());
        message.subject = "souk.a\0b".into();
        assert_eq!(event(&message), Err(Foreign("subject")));
        message.headers = None;
        assert_eq!(event(&message), Err(Foreign(ID)));
    }
}
