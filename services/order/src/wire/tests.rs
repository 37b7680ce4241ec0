//! What a caller may send, and what every bad field is told.

use souk_proto_common::v1::Money as WireMoney;

use super::*;

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn place(items: Vec<pb::OrderItem>) -> pb::PlaceOrderRequest {
    pb::PlaceOrderRequest { request_id: ID.into(), items, expected_total: None }
}

fn item(sku: &str, quantity: i64) -> pb::OrderItem {
    pb::OrderItem { sku: sku.into(), quantity }
}

/// Every bad field, in the order in which they are told.
fn bad<P, C>(request: P) -> Vec<(String, Reason)>
where
    C: TryFrom<P, Error = InvalidRequest>,
{
    let Err(invalid) = C::try_from(request) else { panic!("the request was taken") };
    invalid.violations().iter().map(|(field, error)| (field.clone(), error.reason)).collect()
}

fn named(expected: &[(&str, Reason)]) -> Vec<(String, Reason)> {
    expected.iter().map(|(field, reason)| ((*field).to_owned(), *reason)).collect()
}

#[test]
fn lines_of_one_sku_are_summed_in_the_order_in_which_they_first_stand() {
    let command = PlaceOrder::try_from(place(vec![item("B", 2), item("A", 1), item("B", 3)])).unwrap();
    let items: Vec<(&str, i64, usize)> =
        command.items.iter().map(|item| (item.sku.as_str(), item.quantity, item.index)).collect();
    assert_eq!(items, [("B", 5, 0), ("A", 1, 1)]);
}

#[test]
fn every_bad_field_of_an_order_is_named_at_once() {
    let mut request = place(vec![
        item("", 1),
        item(&"A".repeat(65), 1),
        item("A B", 1),
        item("A", 0),
        item("A", -1),
        item("A", i64::MAX),
        item("A", 1_000_001),
        item("A\u{0}", i64::MIN),
    ]);
    request.request_id = "42".into();
    request.expected_total = Some(WireMoney { currency_code: "EURO".into(), amount_minor: -1 });
    let expected = [
        ("request_id", Reason::InvalidFormat),
        ("items[0].sku", Reason::Required),
        ("items[1].sku", Reason::TooLong),
        ("items[2].sku", Reason::InvalidFormat),
        ("items[3].quantity", Reason::OutOfBounds),
        ("items[4].quantity", Reason::OutOfBounds),
        ("items[5].quantity", Reason::OutOfBounds),
        ("items[6].quantity", Reason::OutOfBounds),
        ("items[7].sku", Reason::InvalidFormat),
        ("items[7].quantity", Reason::OutOfBounds),
        ("expected_total.currency_code", Reason::UnknownCurrency),
        ("expected_total.amount_minor", Reason::OutOfBounds),
    ];
    assert_eq!(bad::<_, PlaceOrder>(request), named(&expected));
}

#[test]
fn a_list_of_lines_is_bounded_and_not_empty() {
    assert_eq!(bad::<_, PlaceOrder>(place(Vec::new())), named(&[("items", Reason::Required)]));
    let many = place(vec![item("A", 0); 10_000]);
    assert_eq!(bad::<_, PlaceOrder>(many), named(&[("items", Reason::TooMany)]));
    assert!(PlaceOrder::try_from(place((0..100).map(|index| item(&format!("A{index}"), 1)).collect())).is_ok());
    assert_eq!(bad::<_, PlaceOrder>(place(vec![item("A", 1); 101])), named(&[("items", Reason::TooMany)]));
}

#[test]
fn a_sum_of_lines_is_bounded_as_a_line_is() {
    let most = place(vec![item("A", 999_999), item("B", 1), item("A", 1)]);
    assert!(PlaceOrder::try_from(most).is_ok());
    let more = place(vec![item("A", 999_999), item("A", 2), item("A", 1)]);
    assert_eq!(bad::<_, PlaceOrder>(more), named(&[("items[1].quantity", Reason::OutOfBounds)]));
}

#[test]
fn an_order_of_a_stream_is_named_inside_its_message() {
    assert_eq!(bad::<_, PlaceOrder>(pb::PlaceOrdersRequest { order: None }), named(&[("order", Reason::Required)]));
    let order = Some(place(vec![item("A", 0)]));
    let expected = named(&[("order.items[0].quantity", Reason::OutOfBounds)]);
    assert_eq!(bad::<_, PlaceOrder>(pb::PlaceOrdersRequest { order }), expected);
}

#[test]
fn the_fingerprint_is_of_what_is_asked_for_and_not_of_the_key() {
    let key = |request: pb::PlaceOrderRequest| PlaceOrder::try_from(request).unwrap().key;
    let first = key(place(vec![item("A", 1)]));
    let mut other_id = place(vec![item("A", 1)]);
    other_id.request_id = "01890a5d-ac96-774b-bcce-b302099a8058".into();
    assert_eq!(key(other_id).fingerprint, first.fingerprint);
    assert_ne!(key(place(vec![item("A", 2)])).fingerprint, first.fingerprint);
    let mut expecting = place(vec![item("A", 1)]);
    expecting.expected_total = Some(WireMoney { currency_code: "EUR".into(), amount_minor: i64::MAX });
    assert_ne!(key(expecting).fingerprint, first.fingerprint);
}

#[test]
fn every_bad_field_of_a_cancellation_and_of_a_watch_is_named() {
    let request = pb::CancelOrderRequest { request_id: String::new(), order_id: "x".into(), etag: "yesterday".into() };
    let expected =
        [("request_id", Reason::Required), ("order_id", Reason::InvalidFormat), ("etag", Reason::InvalidFormat)];
    assert_eq!(bad::<_, CancelOrder>(request), named(&expected));
    let request = pb::WatchOrderRequest { order_id: String::new(), after_version: -1 };
    let expected = [("order_id", Reason::Required), ("after_version", Reason::OutOfBounds)];
    assert_eq!(bad::<_, WatchOrder>(request), named(&expected));
    let request = pb::GetOrderRequest { order_id: "00000000-0000-0000-0000-000000000000".into() };
    assert_eq!(bad::<_, OrderId>(request), named(&[("order_id", Reason::InvalidFormat)]));
}

#[test]
fn every_bad_field_of_a_list_is_named() {
    let out_of_time = pbjson_types::Timestamp { seconds: i64::MAX, nanos: -1 };
    let request = pb::ListOrdersRequest {
        page_size: -1,
        page_token: "nonsense".into(),
        states: vec![0, 1, 99],
        created_from: Some(out_of_time),
        created_before: Some(out_of_time),
        owner_id: "me".into(),
    };
    let expected = [
        ("page_size", Reason::OutOfBounds),
        ("page_token", Reason::InvalidPageToken),
        ("states[0]", Reason::InvalidEnum),
        ("states[2]", Reason::InvalidEnum),
        ("created_from", Reason::InvalidFormat),
        ("created_before", Reason::InvalidFormat),
        ("owner_id", Reason::InvalidFormat),
    ];
    assert_eq!(bad::<_, ListOrders>(request), named(&expected));
    let request = pb::ListOrdersRequest { states: vec![1; 7], ..Default::default() };
    assert_eq!(bad::<_, ListOrders>(request), named(&[("states", Reason::TooMany)]));
}

#[test]
fn a_page_token_is_good_for_its_filters_whatever_the_size_of_the_page() {
    let request = |page_size, state| pb::ListOrdersRequest { page_size, states: vec![state], ..Default::default() };
    let last = Position {
        created_at: chrono::DateTime::from_timestamp_micros(1_800_000_000_123_456).unwrap(),
        order_id: OrderId(ID.parse().unwrap()),
    };
    let page_token = page_token(last, &filters(&request(10, 1)));
    let with_token = |request| pb::ListOrdersRequest { page_token: page_token.clone(), ..request };
    assert_eq!(ListOrders::try_from(with_token(request(20, 1))).unwrap().after, Some(last));
    assert_eq!(bad::<_, ListOrders>(with_token(request(10, 2))), named(&[("page_token", Reason::InvalidPageToken)]));
    // A token of ours for these filters, but of another list.
    let foreign = PageToken { after: "TEA".into() }.encode(&filters(&request(10, 1)));
    let request = pb::ListOrdersRequest { page_token: foreign, ..request(10, 1) };
    assert_eq!(bad::<_, ListOrders>(request), named(&[("page_token", Reason::InvalidPageToken)]));
}

#[test]
fn states_have_the_names_of_the_contract() {
    for state in OrderState::ALL {
        let wire = pb::OrderState::from(state);
        assert_eq!(wire.as_str_name(), format!("ORDER_STATE_{}", state.name()));
        assert_eq!(state_of(wire), Some(state));
    }
}
