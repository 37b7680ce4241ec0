//! Between the contract and the domain: parsing is validation.

use std::collections::HashMap;

use prost::Message;
use souk_proto_common::time::{parse as parse_time, timestamp};
use souk_proto_common::v1::Reason;
use souk_proto_common::validation::{known_enum, page_size, uuid, within};
use souk_proto_common::{Check, FieldError, IdempotencyKey, InvalidRequest, Money, PageToken};
use souk_proto_order::v1 as pb;

use crate::domain::commands::{ITEMS_MAX, Position, QUANTITY_MAX};
use crate::domain::{
    CancelOrder, Etag, Item, ListOrders, Order, OrderId, OrderLine, OrderState, PlaceOrder, Sku, UserId, WatchOrder,
};
use crate::error::Error;

/// States that a list may be filtered by: all there are.
const STATES_MAX: usize = 6;

impl TryFrom<pb::PlaceOrderRequest> for PlaceOrder {
    type Error = InvalidRequest;

    fn try_from(request: pb::PlaceOrderRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let command = place_order(&mut check, request);
        check.finish(|| command)
    }
}

impl TryFrom<pb::PlaceOrdersRequest> for PlaceOrder {
    type Error = InvalidRequest;

    fn try_from(request: pb::PlaceOrdersRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let command = match request.order {
            Some(order) => check.inside("order", |check| place_order(check, order)),
            None => check.field("order", Err(FieldError::required())),
        };
        check.finish(|| command)
    }
}

fn place_order(check: &mut Check, mut request: pb::PlaceOrderRequest) -> Option<PlaceOrder> {
    let key = key(check, &std::mem::take(&mut request.request_id), &request);
    let parsed = check.list("items", &request.items, ITEMS_MAX, item);
    let items = parsed.and_then(|parsed| sum(check, parsed));
    let expected_total = match &request.expected_total {
        Some(money) => check.inside("expected_total", |check| expected_total(check, money)).map(Some),
        None => Some(None),
    };
    Some(PlaceOrder { key: key?, items: items?, expected_total: expected_total? })
}

fn item(check: &mut Check, item: &pb::OrderItem) -> Option<(Sku, i64)> {
    let sku = check.field("sku", sku(&item.sku));
    let quantity = check.field("quantity", within(item.quantity, 1..=QUANTITY_MAX));
    Some((sku?, quantity?))
}

/// Sums the lines of each sku, in the order in which the skus first stand. Each line that lifts a sum past the limit is bad.
fn sum(check: &mut Check, parsed: Vec<(Sku, i64)>) -> Option<Vec<Item>> {
    let mut places: HashMap<Sku, usize> = HashMap::with_capacity(parsed.len());
    let mut items: Vec<Item> = Vec::with_capacity(parsed.len());
    let mut all_good = true;
    for (index, (sku, quantity)) in parsed.into_iter().enumerate() {
        let place = *places.entry(sku.clone()).or_insert(items.len());
        let Some(item) = items.get_mut(place) else {
            items.push(Item { sku, quantity, index });
            continue;
        };
        if item.quantity + quantity > QUANTITY_MAX {
            let message = format!("must leave at most {QUANTITY_MAX} of the sku in all lines together");
            check.bad(&format!("items[{index}].quantity"), FieldError::new(Reason::OutOfBounds, message));
            all_good = false;
        } else {
            item.quantity += quantity;
        }
    }
    all_good.then_some(items)
}

/// A total may be more than a price may be.
fn expected_total(check: &mut Check, money: &souk_proto_common::v1::Money) -> Option<Money> {
    let currency = check.field("currency_code", souk_proto_common::Currency::parse(&money.currency_code));
    let amount_minor = check.field("amount_minor", within(money.amount_minor, 0..=i64::MAX));
    Some(Money { currency: currency?, amount_minor: amount_minor? })
}

impl TryFrom<pb::CancelOrderRequest> for CancelOrder {
    type Error = InvalidRequest;

    fn try_from(mut request: pb::CancelOrderRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let key = key(&mut check, &std::mem::take(&mut request.request_id), &request);
        let order_id = check.field("order_id", order_id(&request.order_id));
        let etag = check.field("etag", Etag::parse_if_set(&request.etag));
        check.finish(|| Some(Self { key: key?, order_id: order_id?, etag: etag? }))
    }
}

impl TryFrom<pb::GetOrderRequest> for OrderId {
    type Error = InvalidRequest;

    fn try_from(request: pb::GetOrderRequest) -> Result<Self, InvalidRequest> {
        order_id(&request.order_id).map_err(|error| InvalidRequest::one("order_id", error))
    }
}

impl TryFrom<pb::WatchOrderRequest> for WatchOrder {
    type Error = InvalidRequest;

    fn try_from(request: pb::WatchOrderRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let order_id = check.field("order_id", order_id(&request.order_id));
        let after_version = check.field("after_version", within(request.after_version, 0..=i64::MAX));
        check.finish(|| Some(Self { order_id: order_id?, after_version: after_version? }))
    }
}

impl TryFrom<pb::ListOrdersRequest> for ListOrders {
    type Error = InvalidRequest;

    fn try_from(request: pb::ListOrdersRequest) -> Result<Self, InvalidRequest> {
        let mut check = Check::new();
        let page_size = check.field("page_size", page_size(request.page_size));
        let after = check.field("page_token", position(&request));
        let states = states(&mut check, &request.states);
        let mut time = |name: &str, value: &Option<pbjson_types::Timestamp>| {
            check.field(name, value.as_ref().map(parse_time).transpose())
        };
        let created_from = time("created_from", &request.created_from);
        let created_before = time("created_before", &request.created_before);
        let owner_id = check.field("owner_id", owner_id(&request.owner_id));
        check.finish(|| {
            Some(Self {
                owner_id: owner_id?,
                states: states?,
                created_from: created_from?,
                created_before: created_before?,
                page_size: page_size?,
                after: after?,
            })
        })
    }
}

fn states(check: &mut Check, states: &[i32]) -> Option<Vec<OrderState>> {
    if states.len() > STATES_MAX {
        check.bad("states", FieldError::new(Reason::TooMany, format!("must have at most {STATES_MAX} entries")));
        return None;
    }
    let parse = |(index, state): (usize, &i32)| {
        check.field(&format!("states[{index}]"), known_enum::<pb::OrderState>(*state)).and_then(state_of)
    };
    let parsed: Vec<Option<OrderState>> = states.iter().enumerate().map(parse).collect();
    parsed.into_iter().collect()
}

/// What the tokens of a list are bound to: the request without its page.
pub fn filters(request: &pb::ListOrdersRequest) -> pb::ListOrdersRequest {
    pb::ListOrdersRequest { page_size: 0, page_token: String::new(), ..request.clone() }
}

/// The token of the page after `last`.
pub fn page_token(last: Position, filters: &pb::ListOrdersRequest) -> String {
    last.token().encode(filters)
}

fn position(request: &pb::ListOrdersRequest) -> Result<Option<Position>, FieldError> {
    let invalid = || FieldError::new(Reason::InvalidPageToken, "must be a next_page_token of this list");
    let token = PageToken::parse(&request.page_token, &filters(request))?;
    token.map(|token| Position::parse(&token).ok_or_else(invalid)).transpose()
}

/// The key of a request whose `request_id` was taken out of it.
fn key(check: &mut Check, request_id: &str, request: &impl Message) -> Option<IdempotencyKey> {
    check.field("request_id", IdempotencyKey::parse(request_id, request))
}

fn sku(text: &str) -> Result<Sku, FieldError> {
    Ok(Sku::parse(text)?)
}

fn order_id(text: &str) -> Result<OrderId, FieldError> {
    uuid(text).map(OrderId)
}

fn owner_id(text: &str) -> Result<Option<UserId>, FieldError> {
    if text.is_empty() { Ok(None) } else { uuid(text).map(|id| Some(UserId(id))) }
}

fn state_of(wire: pb::OrderState) -> Option<OrderState> {
    match wire {
        pb::OrderState::Unspecified => None,
        pb::OrderState::Pending => Some(OrderState::Pending),
        pb::OrderState::Confirmed => Some(OrderState::Confirmed),
        pb::OrderState::Rejected => Some(OrderState::Rejected),
        pb::OrderState::Expired => Some(OrderState::Expired),
        pb::OrderState::Cancelled => Some(OrderState::Cancelled),
        pb::OrderState::Completed => Some(OrderState::Completed),
    }
}

impl From<OrderState> for pb::OrderState {
    fn from(state: OrderState) -> Self {
        match state {
            OrderState::Pending => Self::Pending,
            OrderState::Confirmed => Self::Confirmed,
            OrderState::Rejected => Self::Rejected,
            OrderState::Expired => Self::Expired,
            OrderState::Cancelled => Self::Cancelled,
            OrderState::Completed => Self::Completed,
        }
    }
}

impl From<&Order> for pb::Order {
    fn from(order: &Order) -> Self {
        Self {
            order_id: order.id.to_string(),
            owner_id: order.owner_id.to_string(),
            state: pb::OrderState::from(order.state).into(),
            state_reason: order.state_reason.clone(),
            lines: order.lines.iter().map(Into::into).collect(),
            total: Some(order.total.into()),
            version: order.version,
            etag: order.etag().to_string(),
            create_time: Some(timestamp(order.created_at)),
            update_time: Some(timestamp(order.updated_at)),
        }
    }
}

impl From<&OrderLine> for pb::OrderLine {
    fn from(line: &OrderLine) -> Self {
        Self {
            sku: line.sku.as_str().to_owned(),
            name: line.name.clone(),
            quantity: line.quantity,
            unit_price: Some(line.unit_price.into()),
            tax_basis_points: line.tax_basis_points,
            tax: Some(line.tax.into()),
            total: Some(line.total.into()),
        }
    }
}

/// An order as one of its versions has it.
pub fn order(snapshot: &[u8]) -> Result<pb::Order, Error> {
    pb::Order::decode(snapshot).map_err(|_| Error::Bug("a stored version cannot be read"))
}

#[cfg(test)]
mod tests;
