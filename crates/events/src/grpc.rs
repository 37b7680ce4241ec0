//! `souk.event.v1.DeadLetterService` over the consumers of one service: any service that has some can add it to its routes.

use std::sync::Arc;

use chrono::DateTime;
use souk_db::Db;
use souk_interceptors::accept;
use souk_interceptors::context::database;
use souk_proto_common::time::timestamp;
use souk_proto_common::validation::{page_size, text, uuid};
use souk_proto_common::{Answer, Check, Failure, FieldError, IdempotencyKey, InvalidRequest, PageToken, Reason};
use souk_proto_event::v1 as pb;
use souk_proto_event::v1::dead_letter_service_server::DeadLetterService;
use souk_runtime::story;
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};
use uuid::Uuid;

use crate::consumer::{ReplayError, Subscription};
use crate::dead_letters::{self, After, DeadLetter};

const CONSUMER_CHARS_MAX: usize = 100;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DeadLetterGrpc {
    db: Db,
    consumers: Vec<Arc<Subscription>>,
}

impl DeadLetterGrpc {
    /// The service over the `consumers` whose effects go to `db`.
    pub fn new(db: Db, consumers: Vec<Arc<Subscription>>) -> Self {
        Self { db, consumers }
    }

    async fn find(&self, which: &Which) -> Result<DeadLetter, Failure> {
        let mut tx = self.db.read_one().await.map_err(|error| database(&error))?;
        let found =
            dead_letters::show(&mut tx, &which.consumer, which.event_id).await.map_err(|error| database(&error))?;
        found.ok_or_else(|| which.not_found())
    }
}

#[tonic::async_trait]
impl DeadLetterService for DeadLetterGrpc {
    async fn list_dead_letters(
        &self,
        request: Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        let filters = filters(request.get_ref());
        let (_, List { consumer, limit, after }) = accept(request)?;
        let mut tx = self.db.read_one().await.map_err(|error| database(&error))?;
        let page = dead_letters::list(&mut tx, consumer.as_deref(), after.as_ref(), limit).await;
        let page = page.map_err(|error| database(&error))?;
        let is_full = page.len() >= limit as usize;
        let next = page.last().filter(|_| is_full).map(|last| token(&After::from(last)).encode(&filters));
        let dead_letters = page.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListDeadLettersResponse { dead_letters, next_page_token: next.unwrap_or_default() }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<pb::GetDeadLetterRequest>,
    ) -> Result<Response<pb::GetDeadLetterResponse>, Status> {
        let (_, which): (_, Which) = accept(request)?;
        let dead_letter = self.find(&which).await?;
        Ok(Response::new(pb::GetDeadLetterResponse { dead_letter: Some(dead_letter.into()) }))
    }

    async fn replay_dead_letter(
        &self,
        request: Request<pb::ReplayDeadLetterRequest>,
    ) -> Result<Response<pb::ReplayDeadLetterResponse>, Status> {
        let (caller, which): (_, Which) = accept(request)?;
        let consumer = self.consumers.iter().find(|consumer| consumer.name() == which.consumer);
        let replayed = match consumer.ok_or_else(|| which.not_found())?.replay(which.event_id).await {
            Ok(()) => {
                info!(operator = caller.subject(), consumer = which.consumer, event = %which.event_id, "dead letter replayed");
                Answer::fresh(())
            }
            Err(ReplayError::AlreadyReplayed) => Answer::replayed(()),
            Err(error) => return Err(failed(&which, &error).into()),
        };
        let dead_letter = self.find(&which).await?;
        Ok(replayed.into_response(|()| pb::ReplayDeadLetterResponse { dead_letter: Some(dead_letter.into()) }))
    }
}

/// One dead letter.
struct Which {
    consumer: String,
    event_id: Uuid,
}

impl Which {
    fn parse(check: &mut Check, consumer: &str, event_id: &str) -> Option<Self> {
        let consumer = check.field("consumer", text(consumer, 1..=CONSUMER_CHARS_MAX));
        let event_id = check.field("event_id", uuid(event_id));
        Some(Self { consumer: consumer?, event_id: event_id? })
    }

    fn not_found(&self) -> Failure {
        let name = format!("{}/{}", self.consumer, self.event_id);
        Failure::not_found(Reason::DeadLetterNotFound, "souk.event.v1.DeadLetter", name)
    }
}

impl TryFrom<pb::GetDeadLetterRequest> for Which {
    type Error = InvalidRequest;

    fn try_from(request: pb::GetDeadLetterRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let which = Self::parse(&mut check, &request.consumer, &request.event_id);
        check.finish(|| which)
    }
}

impl TryFrom<pb::ReplayDeadLetterRequest> for Which {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::ReplayDeadLetterRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        // Only its form: the dead letter itself remembers that it was replayed.
        let key = std::mem::take(&mut request.request_id);
        let key = check.field("request_id", IdempotencyKey::parse(&key, &request));
        let which = Self::parse(&mut check, &request.consumer, &request.event_id);
        check.finish(|| key.and(which))
    }
}

/// A page.
struct List {
    consumer: Option<String>,
    limit: u32,
    after: Option<After>,
}

impl TryFrom<pb::ListDeadLettersRequest> for List {
    type Error = InvalidRequest;

    fn try_from(request: pb::ListDeadLettersRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let consumer = check.field("consumer", text(&request.consumer, 0..=CONSUMER_CHARS_MAX));
        let limit = check.field("page_size", page_size(request.page_size));
        let after = check.field("page_token", position(&request));
        check.finish(|| {
            let limit = u32::try_from(limit?).unwrap_or(u32::MAX);
            Some(Self { consumer: consumer.filter(|consumer| !consumer.is_empty()), limit, after: after? })
        })
    }
}

fn filters(request: &pb::ListDeadLettersRequest) -> pb::ListDeadLettersRequest {
    pb::ListDeadLettersRequest { page_size: 0, page_token: String::new(), ..request.clone() }
}

fn token(after: &After) -> PageToken {
    PageToken { after: format!("{}.{}.{}", after.parked_at.timestamp_micros(), after.event_id, after.consumer) }
}

fn position(request: &pb::ListDeadLettersRequest) -> Result<Option<After>, FieldError> {
    let invalid = || FieldError::new(Reason::InvalidPageToken, "must be a next_page_token of this list");
    let token = PageToken::parse(&request.page_token, &filters(request))?;
    token.map(|token| parse(&token.after).ok_or_else(invalid)).transpose()
}

fn parse(after: &str) -> Option<After> {
    let mut parts = after.splitn(3, '.');
    let parked_at = DateTime::from_timestamp_micros(parts.next()?.parse().ok()?)?;
    let event_id = parts.next()?.parse().ok()?;
    Some(After { parked_at, event_id, consumer: parts.next()?.to_owned() })
}

impl From<DeadLetter> for pb::DeadLetter {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter { consumer, event, error, tries, parked_at, replayed_at } = letter;
        Self {
            consumer,
            event_id: event.id.to_string(),
            r#type: event.kind,
            source: event.source,
            subject: event.subject,
            aggregate: event.aggregate,
            version: event.version,
            event_time: Some(timestamp(event.time)),
            traceparent: event.traceparent.unwrap_or_default(),
            data: event.data,
            error,
            tries,
            park_time: Some(timestamp(parked_at)),
            replay_time: replayed_at.map(timestamp),
        }
    }
}

fn failed(which: &Which, error: &ReplayError) -> Failure {
    match error {
        ReplayError::NotFound => which.not_found(),
        // Its answer is the first one's: see the caller.
        ReplayError::AlreadyReplayed => Failure::new(Code::FailedPrecondition, Reason::ReplayFailed, "replayed before"),
        ReplayError::Failed(_) => {
            warn!(consumer = which.consumer, event = %which.event_id, error = story(error), "replay failed");
            Failure::new(Code::FailedPrecondition, Reason::ReplayFailed, "the consumer has failed at the event again")
        }
        ReplayError::Db(error) => database(error),
    }
}
