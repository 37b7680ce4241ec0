//! Stock on the wire.

use std::time::Duration;

use souk_proto_common::time::timestamp;
use souk_proto_common::v1::Reason as Why;
use souk_proto_common::validation::{known_enum, page_size, text, uuid, within};
use souk_proto_common::{Check, FieldError, IdempotencyKey, InvalidRequest, PageToken};
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::adjust_request::Change as WireChange;
use souk_proto_inventory::v1::reservation_change::Change as WireReservationChange;
use souk_proto_inventory::v1::sync_movements_request::Movement as WireMovement;
use souk_runtime::TraceContext;

use super::{etag, key, location, sku, skus};
use crate::domain::command::{
    Adjust, CHANGES_MAX, Change, Command, Keyed, Receive, ReservationChange, Reserve, Resolve,
};
use crate::domain::movement::{Movement, Operation, Reason};
use crate::domain::product::Etag;
use crate::domain::query::{BATCH_MAX, BatchGetStock, ListMovements, WatchStock};
use crate::domain::reservation::{LINES_MAX, Line, Lines, State, TTL_DEFAULT, TTL_MAX, TTL_MIN};
use crate::domain::stock::{ON_HAND_MAX, QUANTITY_MAX};
use crate::domain::{Reservation, StockKey, StockLevel};

const REFERENCE_CHARS_MAX: usize = 128;

impl TryFrom<pb::GetStockRequest> for StockKey {
    type Error = InvalidRequest;

    fn try_from(request: pb::GetStockRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let key = stock_key(&mut check, &request.sku, &request.location);
        check.finish(|| key)
    }
}

impl TryFrom<pb::BatchGetStockRequest> for BatchGetStock {
    type Error = InvalidRequest;

    fn try_from(request: pb::BatchGetStockRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let skus = skus(&mut check, &request.skus, BATCH_MAX);
        let location = check.field("location", location(&request.location));
        check.finish(|| Some(Self { skus: skus?, location: location? }))
    }
}

impl TryFrom<pb::ReserveRequest> for Keyed<Reserve> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::ReserveRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let mut check = Check::new();
        let key = key(&mut check, &request_id, &request);
        let command = reserve(&mut check, &request);
        check.finish(|| Some(Self { key: key?, command: command? }))
    }
}

impl TryFrom<pb::CommitRequest> for Keyed<Resolve> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::CommitRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let mut check = Check::new();
        let key = key(&mut check, &request_id, &request);
        let command = resolve(&mut check, &request.reservation_id, &request.lines);
        check.finish(|| Some(Self { key: key?, command: command? }))
    }
}

impl TryFrom<pb::ReleaseRequest> for Keyed<Resolve> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::ReleaseRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let mut check = Check::new();
        let key = key(&mut check, &request_id, &request);
        let command = resolve(&mut check, &request.reservation_id, &request.lines);
        check.finish(|| Some(Self { key: key?, command: command? }))
    }
}

impl TryFrom<pb::ReservationChange> for ReservationChange {
    type Error = InvalidRequest;

    fn try_from(change: pb::ReservationChange) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let asked = match change.change {
            Some(WireReservationChange::Reserve(mut request)) => check.inside("reserve", |check| {
                let request_id = std::mem::take(&mut request.request_id);
                let key = key_or_name(check, &request_id, &request.reservation_id, &request);
                let command = reserve(check, &request);
                Some((key?, Command::Reserve(command?)))
            }),
            Some(WireReservationChange::Commit(mut request)) => check.inside("commit", |check| {
                let request_id = std::mem::take(&mut request.request_id);
                let key = key_or_name(check, &request_id, &request.reservation_id, &request);
                let command = resolve(check, &request.reservation_id, &request.lines);
                Some((key?, Command::Commit(command?)))
            }),
            Some(WireReservationChange::Release(mut request)) => check.inside("release", |check| {
                let request_id = std::mem::take(&mut request.request_id);
                let key = if request.lines.is_empty() {
                    key_or_name(check, &request_id, &request.reservation_id, &request)
                } else {
                    // Nothing tells a repeat of it by the reservation alone.
                    key(check, &request_id, &request).map(|key| (key, true))
                };
                let command = resolve(check, &request.reservation_id, &request.lines);
                Some((key?, Command::Release(command?)))
            }),
            None => check.field("change", Err(FieldError::required())),
        };
        check.finish(|| {
            let ((key, is_callers), command) = asked?;
            Some(Self { command, key, is_callers })
        })
    }
}

/// A change, and where whatever it is made for stands in a trace.
type TracedChange = (ReservationChange, Option<TraceContext>);

/// The changes of a call, each for itself: one that is not well-formed does not keep the others from being done.
pub fn reservation_changes(
    request: pb::BatchChangeReservationsRequest,
) -> Result<Vec<Result<TracedChange, InvalidRequest>>, InvalidRequest> {
    let refused = |error| Err(InvalidRequest::one("changes", error));
    match request.changes.len() {
        0 => return refused(FieldError::required()),
        1..=CHANGES_MAX => {}
        _ => return refused(FieldError::new(Why::TooMany, format!("must have at most {CHANGES_MAX} entries"))),
    }
    let parse = |change: pb::ReservationChange| {
        let position = TraceContext::parse(&change.traceparent);
        Ok((change.try_into()?, position))
    };
    Ok(request.changes.into_iter().map(parse).collect())
}

/// The caller's key; without one, a key made of the name of the reservation, and `false`.
fn key_or_name(
    check: &mut Check,
    request_id: &str,
    name: &str,
    request: &impl prost::Message,
) -> Option<(IdempotencyKey, bool)> {
    if !request_id.is_empty() {
        return key(check, request_id, request).map(|key| (key, true));
    }
    // A bad name is told of where the name is parsed.
    IdempotencyKey::parse(name, request).ok().map(|key| (key, false))
}

impl TryFrom<pb::ReceiveRequest> for Keyed<Receive> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::ReceiveRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let mut check = Check::new();
        let key = key(&mut check, &request_id, &request);
        let record = stock_key(&mut check, &request.sku, &request.location);
        let quantity = check.field("quantity", within(request.quantity, 1..=QUANTITY_MAX));
        let why = why(&mut check, request.reason, &request.reference);
        check.finish(|| {
            let (reason, reference) = why?;
            let command = Receive { key: record?, quantity: quantity?, reason, reference };
            Some(Self { key: key?, command })
        })
    }
}

impl TryFrom<pb::AdjustRequest> for Keyed<Adjust> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::AdjustRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let mut check = Check::new();
        let key = key(&mut check, &request_id, &request);
        let record = stock_key(&mut check, &request.sku, &request.location);
        let change = match &request.change {
            Some(WireChange::Delta(units)) => check.field("delta", delta(*units)),
            Some(WireChange::Count(counted)) => count(&mut check, counted),
            None => check.field("change", Err(FieldError::required())),
        };
        let why = why(&mut check, request.reason, &request.reference);
        check.finish(|| {
            let (reason, reference) = why?;
            Some(Self { key: key?, command: Adjust { key: record?, change: change?, reason, reference } })
        })
    }
}

impl TryFrom<pb::SyncMovementsRequest> for Keyed<Command> {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::SyncMovementsRequest) -> Result<Self, InvalidRequest> {
        let request_id = std::mem::take(&mut request.request_id);
        let mut check = Check::new();
        let key = key(&mut check, &request_id, &request);
        let record = stock_key(&mut check, &request.sku, &request.location);
        let moved = match &request.movement {
            Some(WireMovement::Received(units)) => {
                check.field("received", within(*units, 1..=QUANTITY_MAX)).map(Moved::Received)
            }
            Some(WireMovement::Delta(units)) => check.field("delta", delta(*units)).map(Moved::Adjusted),
            Some(WireMovement::Count(counted)) => count(&mut check, counted).map(Moved::Adjusted),
            None => check.field("movement", Err(FieldError::required())),
        };
        let why = why(&mut check, request.reason, &request.reference);
        check.finish(|| {
            let (reason, reference) = why?;
            let record = record?;
            let command = match moved? {
                Moved::Received(quantity) => Command::Receive(Receive { key: record, quantity, reason, reference }),
                Moved::Adjusted(change) => Command::Adjust(Adjust { key: record, change, reason, reference }),
            };
            Some(Self { key: key?, command })
        })
    }
}

enum Moved {
    Received(i64),
    Adjusted(Change),
}

impl TryFrom<pb::ListMovementsRequest> for ListMovements {
    type Error = InvalidRequest;

    fn try_from(request: pb::ListMovementsRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let key = stock_key(&mut check, &request.sku, &request.location);
        let size = check.field("page_size", page_size(request.page_size));
        let token = &request.page_token;
        // Without a good key there are no filters to hold the token against; the key is named then.
        let before = key.as_ref().map(|key| check.field("page_token", before(token, key)));
        check.finish(|| Some(Self { key: key?, size: size?, before: before?? }))
    }
}

fn before(token: &str, key: &StockKey) -> Result<Option<i64>, FieldError> {
    let Some(token) = PageToken::parse(token, &movement_filters(key))? else { return Ok(None) };
    let invalid = || FieldError::new(Why::InvalidPageToken, "must be a next_page_token of this list");
    token.after.parse().map(Some).map_err(|_| invalid())
}

/// The token of the page of older movements than `last`.
pub fn movement_page_token(key: &StockKey, last: i64) -> String {
    PageToken { after: last.to_string() }.encode(&movement_filters(key))
}

fn movement_filters(key: &StockKey) -> pb::ListMovementsRequest {
    let location = key.location.as_str().to_owned();
    pb::ListMovementsRequest { sku: key.sku.as_str().to_owned(), location, ..Default::default() }
}

impl TryFrom<pb::WatchStockRequest> for WatchStock {
    type Error = InvalidRequest;

    fn try_from(request: pb::WatchStockRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let watched = skus(&mut check, &request.skus, BATCH_MAX);
        let location = check.field("location", location(&request.location));
        let known = known(&mut check, &request.known);
        check.finish(|| {
            let (location, known) = (location?, known?);
            let version = |sku: &str| known.iter().filter(|known| known.sku == sku).map(|known| known.version).max();
            let keys = watched?.into_iter().map(|sku| {
                let version = version(sku.as_str());
                (StockKey::new(sku, location.clone()), version)
            });
            Some(Self { keys: keys.collect() })
        })
    }
}

/// Versions of products that are not watched do no harm: the watcher may have dropped some since.
fn known<'k>(check: &mut Check, entries: &'k [pb::KnownVersion]) -> Option<&'k [pb::KnownVersion]> {
    if entries.is_empty() {
        return Some(entries);
    }
    check.list("known", entries, BATCH_MAX, |check, known| {
        let sku = check.field("sku", sku(&known.sku));
        let version = check.field("version", within(known.version, 0..=i64::MAX));
        Some((sku?, version?))
    })?;
    Some(entries)
}

fn stock_key(check: &mut Check, sku_text: &str, location_text: &str) -> Option<StockKey> {
    let sku = check.field("sku", sku(sku_text));
    let location = check.field("location", location(location_text));
    Some(StockKey::new(sku?, location?))
}

fn lines(check: &mut Check, wire: &[pb::QuantityLine]) -> Option<Lines> {
    let parsed = check.list("lines", wire, LINES_MAX, |check, line| {
        let key = stock_key(check, &line.sku, &line.location);
        let quantity = check.field("quantity", within(line.quantity, 1..=QUANTITY_MAX));
        Some((key?, quantity?))
    })?;
    match Lines::sum(parsed) {
        Ok(lines) => Some(lines),
        Err(index) => {
            let most = format!("the lines of one product must sum to at most {QUANTITY_MAX}");
            check.bad(&format!("lines[{index}].quantity"), FieldError::new(Why::OutOfBounds, most));
            None
        }
    }
}

fn reserve(check: &mut Check, request: &pb::ReserveRequest) -> Option<Reserve> {
    let reservation_id = check.field("reservation_id", uuid(&request.reservation_id));
    let lines = lines(check, &request.lines);
    let ttl = check.field("ttl", request.ttl.as_ref().map_or(Ok(TTL_DEFAULT), ttl));
    Some(Reserve { reservation_id: reservation_id?, lines: lines?, ttl: ttl? })
}

fn resolve(check: &mut Check, reservation_id: &str, wire: &[pb::QuantityLine]) -> Option<Resolve> {
    let reservation_id = check.field("reservation_id", uuid(reservation_id));
    let lines = if wire.is_empty() { Some(None) } else { lines(check, wire).map(Some) };
    Some(Resolve { reservation_id: reservation_id?, lines: lines? })
}

fn ttl(wire: &pbjson_types::Duration) -> Result<Duration, FieldError> {
    let invalid = || FieldError::new(Why::OutOfBounds, "must be 1 second to 31 days");
    let seconds = u64::try_from(wire.seconds).map_err(|_| invalid())?;
    let nanos = u32::try_from(wire.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(invalid)?;
    // Cut to microseconds, as every time is.
    let ttl = Duration::new(seconds, nanos / 1_000 * 1_000);
    if (TTL_MIN..=TTL_MAX).contains(&ttl) { Ok(ttl) } else { Err(invalid()) }
}

fn delta(units: i64) -> Result<Change, FieldError> {
    if units == 0 {
        return Err(FieldError::new(Why::OutOfBounds, "must not be 0"));
    }
    within(units, -QUANTITY_MAX..=QUANTITY_MAX).map(Change::Delta)
}

fn count(check: &mut Check, counted: &pb::AbsoluteCount) -> Option<Change> {
    check.inside("count", |check| {
        let on_hand = check.field("on_hand", within(counted.on_hand, 0..=ON_HAND_MAX));
        let Etag(etag) = check.field("etag", etag(&counted.etag))?;
        Some(Change::Count { on_hand: on_hand?, etag })
    })
}

fn why(check: &mut Check, reason: i32, reference: &str) -> Option<(Reason, String)> {
    let reason = check.field("reason", known_enum::<pb::MovementReason>(reason));
    let reference = check.field("reference", text(reference, 0..=REFERENCE_CHARS_MAX));
    Some((reason.and_then(reason_of)?, reference?))
}

fn reason_of(wire: pb::MovementReason) -> Option<Reason> {
    match wire {
        pb::MovementReason::Unspecified => None,
        pb::MovementReason::Purchase => Some(Reason::Purchase),
        pb::MovementReason::Production => Some(Reason::Production),
        pb::MovementReason::CustomerReturn => Some(Reason::CustomerReturn),
        pb::MovementReason::Count => Some(Reason::Count),
        pb::MovementReason::Damage => Some(Reason::Damage),
        pb::MovementReason::Loss => Some(Reason::Loss),
        pb::MovementReason::Theft => Some(Reason::Theft),
        pb::MovementReason::Found => Some(Reason::Found),
        pb::MovementReason::Correction => Some(Reason::Correction),
        pb::MovementReason::Other => Some(Reason::Other),
    }
}

impl From<Reason> for pb::MovementReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Purchase => Self::Purchase,
            Reason::Production => Self::Production,
            Reason::CustomerReturn => Self::CustomerReturn,
            Reason::Count => Self::Count,
            Reason::Damage => Self::Damage,
            Reason::Loss => Self::Loss,
            Reason::Theft => Self::Theft,
            Reason::Found => Self::Found,
            Reason::Correction => Self::Correction,
            Reason::Other => Self::Other,
        }
    }
}

impl From<Operation> for pb::MovementOperation {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Reserve => Self::Reserve,
            Operation::Commit => Self::Commit,
            Operation::Release => Self::Release,
            Operation::Expire => Self::Expire,
            Operation::Receive => Self::Receive,
            Operation::Adjust => Self::Adjust,
        }
    }
}

impl From<State> for pb::ReservationState {
    fn from(state: State) -> Self {
        match state {
            State::Held => Self::Held,
            State::Committed => Self::Committed,
            State::Released => Self::Released,
            State::Expired => Self::Expired,
        }
    }
}

impl From<&StockLevel> for pb::StockLevel {
    fn from(level: &StockLevel) -> Self {
        let stock = level.stock;
        Self {
            sku: level.key.sku.as_str().to_owned(),
            location: level.key.location.as_str().to_owned(),
            on_hand: stock.on_hand,
            held: stock.held,
            allocated: stock.allocated,
            safety: stock.safety,
            incoming: stock.incoming,
            available: stock.available(),
            version: stock.version,
            etag: Etag(stock.on_hand_version).text(),
            update_time: stock.updated_at.map(timestamp),
        }
    }
}

impl From<&Reservation> for pb::Reservation {
    fn from(reservation: &Reservation) -> Self {
        Self {
            reservation_id: reservation.id.to_string(),
            state: pb::ReservationState::from(reservation.state).into(),
            lines: reservation.lines.iter().map(Into::into).collect(),
            expire_time: Some(timestamp(reservation.expires_at)),
            create_time: Some(timestamp(reservation.created_at)),
            update_time: Some(timestamp(reservation.updated_at)),
            version: reservation.version,
        }
    }
}

impl From<&Line> for pb::ReservationLine {
    fn from(line: &Line) -> Self {
        Self {
            sku: line.key.sku.as_str().to_owned(),
            location: line.key.location.as_str().to_owned(),
            requested: line.requested,
            held: line.held,
            committed: line.committed,
            released: line.released,
            expired: line.expired,
        }
    }
}

impl From<&Movement> for pb::Movement {
    fn from(movement: &Movement) -> Self {
        Self {
            seq: movement.seq,
            sku: movement.key.sku.as_str().to_owned(),
            location: movement.key.location.as_str().to_owned(),
            operation: pb::MovementOperation::from(movement.operation).into(),
            on_hand_delta: movement.delta.on_hand,
            held_delta: movement.delta.held,
            allocated_delta: movement.delta.allocated,
            safety_delta: movement.delta.safety,
            incoming_delta: movement.delta.incoming,
            reason: movement.reason.map_or(pb::MovementReason::Unspecified, Into::into).into(),
            reference: movement.reference.clone(),
            actor: movement.actor.clone(),
            request_id: movement.request_id.map(|id| id.to_string()).unwrap_or_default(),
            reservation_id: movement.reservation_id.map(|id| id.to_string()).unwrap_or_default(),
            create_time: Some(timestamp(movement.created_at)),
        }
    }
}
