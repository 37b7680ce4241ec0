//! The stream that keeps the events: found by its subjects, made where there is none, brought to its settings.
//!
//! Its name ends in a random part, and every event is published under the condition that the stream has the name that the publisher knows.
//! So nothing is ever published on a stream that somebody has made anew, before the publisher has noticed that the old one is gone: it
//! would overtake what must be published again. And nothing is published over a new connection before consumers that have seen more than
//! the stream has are gone: they would take it for seen (docs/decisions/0009).

use std::error::Error as StdError;
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamByNameErrorKind};
use async_nats::jetstream::stream::{
    Config, ConsumerErrorKind, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{Context, ErrorCode, consumer};
use futures::TryStreamExt;
use souk_runtime::{Ids, story};
use tracing::{info, warn};

use crate::bus::Place;
use crate::config::StreamConfig;

/// The subjects of all events.
const SUBJECTS: &str = "souk.>";
/// Whoever makes it at the same time is found at the second look.
const LOOKS_MAX: u32 = 3;

type Failure = Box<dyn StdError + Send + Sync>;

/// The stream, as it should be, over a connection.
pub(super) async fn ensure(
    jetstream: &Context,
    config: &StreamConfig,
    ids: &Ids,
    connection: u64,
) -> Result<Place, Failure> {
    for _ in 0..LOOKS_MAX {
        if let Some(mut stream) = find(jetstream).await? {
            remove_consumers_ahead(&mut stream).await?;
            adapt(jetstream, config, stream.cached_info()).await?;
            return Ok(place(stream.cached_info(), connection));
        }
        let wanted = wanted(config, Config { name: new_name(config, ids), ..Config::default() });
        match jetstream.create_stream(wanted).await {
            Ok(stream) => {
                let place = place(stream.cached_info(), connection);
                info!(stream = place.stream, "stream made: there was none");
                return Ok(place);
            }
            Err(error) if is_overlap(&error.kind()) => {}
            Err(error) if has_error_code(&error.kind(), ErrorCode::STORAGE_RESOURCES_EXCEEDED) => {
                return Err(format!(
                    "it has not the storage for bus.stream.bytes_max={}: {}",
                    config.bytes_max,
                    story(&error)
                )
                .into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err("other publishers make and remove the stream".into())
}

/// The stream with our subjects, whoever has made it.
pub(super) async fn find(jetstream: &Context) -> Result<Option<Stream>, Failure> {
    match jetstream.stream_by_subject(SUBJECTS).await {
        Ok(name) => Ok(Some(jetstream.get_stream(name).await?)),
        Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes consumers that have seen more than there is. The stream has lost its end; it gives the numbers of what it lost to other events,
/// which they would pass over. Whoever takes their events makes them anew.
async fn remove_consumers_ahead(stream: &mut Stream) -> Result<(), Failure> {
    let consumers: Vec<consumer::Info> = stream.consumers().try_collect().await?;
    // Asked for later: what comes in between they have not seen.
    let last = stream.info().await?.state.last_sequence;
    for consumer in consumers.iter().filter(|consumer| consumer.delivered.stream_sequence > last) {
        let seen = consumer.delivered.stream_sequence;
        warn!(consumer = consumer.name, seen, last, "stream has lost events: the consumer begins anew");
        match stream.delete_consumer(&consumer.name).await {
            Ok(_) => {}
            // Somebody else has seen it too.
            Err(error) if is_no_consumer(&error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_no_consumer(kind: &ConsumerErrorKind) -> bool {
    matches!(kind, ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

fn place(info: &Info, connection: u64) -> Place {
    let created_us = i64::try_from(info.created.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
    Place { stream: info.config.name.clone(), created_us, connection }
}

fn new_name(config: &StreamConfig, ids: &Ids) -> String {
    let end: [u8; 6] = ids.random_bytes();
    format!("{}-{}", config.name, end.map(|byte| format!("{byte:02x}")).concat())
}

fn is_overlap(kind: &CreateStreamErrorKind) -> bool {
    has_error_code(kind, ErrorCode::STREAM_SUBJECT_OVERLAP)
}

fn has_error_code(kind: &CreateStreamErrorKind, code: ErrorCode) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error) if error.error_code() == code)
}

/// The settings, over what the stream has beyond them.
fn wanted(config: &StreamConfig, has: Config) -> Config {
    Config {
        subjects: vec![SUBJECTS.to_owned()],
        storage: StorageType::File,
        // Kept for a while whoever has had them: a consumer may come late, and a listener's cache is no consumer.
        retention: RetentionPolicy::Limits,
        // Full, it refuses, and events wait in the outboxes. It never drops one that a consumer has not had.
        discard: DiscardPolicy::New,
        num_replicas: config.replicas,
        duplicate_window: Duration::from_millis(config.duplicate_window_ms),
        max_age: Duration::from_hours(config.keep_hours.into()),
        max_bytes: i64::try_from(config.bytes_max).unwrap_or(i64::MAX),
        ..has
    }
}

/// Brings the stream to the settings. One that cannot be is used as it is, for events matter more than how long they are kept; but not if
/// it drops events that nobody has had: they are better off in the outboxes.
async fn adapt(jetstream: &Context, config: &StreamConfig, info: &Info) -> Result<(), Failure> {
    let wanted = wanted(config, info.config.clone());
    if wanted == info.config {
        return Ok(());
    }
    match jetstream.update_stream(&wanted).await {
        Ok(_) => info!(stream = wanted.name, "stream brought to the settings"),
        Err(error) if drops_events(&info.config) => {
            return Err(format!("stream {} drops events that nobody has had: {}", wanted.name, story(&error)).into());
        }
        Err(error) => warn!(stream = wanted.name, error = story(&error), "stream keeps other settings"),
    }
    Ok(())
}

/// Somebody has made it for something else: it forgets with its server, when it is full, or when one consumer has had an event.
fn drops_events(config: &Config) -> bool {
    let is_bounded =
        [config.max_messages, config.max_messages_per_subject, config.max_bytes].iter().any(|max| *max > 0);
    config.storage == StorageType::Memory
        || config.retention != RetentionPolicy::Limits
        || (config.discard == DiscardPolicy::Old && is_bounded)
}
