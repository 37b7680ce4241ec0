//! Bad input, for every field of every request: INVALID_ARGUMENT that names all bad fields at once, and nothing changed.

use std::collections::{BTreeMap, BTreeSet};

use pbjson_types::{Duration, FieldMask};
use prost::Message;
use souk_proto_common::google_rpc;
use souk_proto_common::v1::{Money, Reason};
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::adjust_request::Change;
use souk_proto_inventory::v1::import_result::Outcome as ImportOutcome;
use souk_proto_inventory::v1::sync_movements_request::Movement;
use souk_proto_inventory::v1::sync_movements_response::Outcome as SyncOutcome;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{STAFF, Server, assert_refused, product, quantities};

/// Every violation, as `field REASON`.
#[track_caller]
pub(crate) fn assert_named<T: std::fmt::Debug>(result: Result<T, Status>, expected: &[&str]) {
    let status = assert_refused(result, Code::InvalidArgument, Reason::InvalidRequest);
    assert_violations(&status, expected);
}

/// The same of the outcome of one row of a stream.
#[track_caller]
pub(crate) fn assert_named_in(status: google_rpc::Status, expected: &[&str]) {
    let details = status.encode_to_vec().into();
    assert_named(Err::<(), _>(Status::with_details(Code::from(status.code), status.message, details)), expected);
}

#[track_caller]
fn assert_violations(status: &Status, expected: &[&str]) {
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let named: BTreeSet<String> =
        violations.into_iter().map(|violation| format!("{} {}", violation.field, violation.reason)).collect();
    assert_eq!(named, expected.iter().map(|text| (*text).to_owned()).collect());
}

fn long(length: usize) -> String {
    "x".repeat(length)
}

/// Each of 512 bytes.
fn attributes(count: usize) -> BTreeMap<String, String> {
    (0..count).map(|index| (format!("{index:0>12}"), "ü".repeat(250))).collect()
}

#[tokio::test]
async fn bad_products_are_named_field_by_field() {
    let server = Server::start().await;
    let mut staff = server.catalog(STAFF);
    let before = server.rows().await;
    let create = |request_id: &str, product| pb::CreateProductRequest { request_id: request_id.into(), product };
    assert_named(staff.create_product(create("", None)).await, &["request_id REQUIRED", "product REQUIRED"]);
    let empty = create("nonsense", Some(pb::Product::default()));
    let expected =
        ["request_id INVALID_FORMAT", "product.sku REQUIRED", "product.name REQUIRED", "product.price REQUIRED"];
    assert_named(staff.create_product(empty).await, &expected);
    let worst = pb::Product {
        sku: long(65),
        name: long(201),
        description: long(5_001),
        price: Some(Money { currency_code: "EURO".into(), amount_minor: -1 }),
        tax_basis_points: 10_001,
        attributes: [("UPPER".to_owned(), long(1)), ("ok".to_owned(), long(251)), (long(65), long(1))].into(),
        ..Default::default()
    };
    let expected = [
        "product.sku TOO_LONG",
        "product.name TOO_LONG",
        "product.description TOO_LONG",
        "product.price.currency_code UNKNOWN_CURRENCY",
        "product.price.amount_minor OUT_OF_BOUNDS",
        "product.tax_basis_points OUT_OF_BOUNDS",
        "product.attributes[UPPER] INVALID_FORMAT",
        "product.attributes[ok] TOO_LONG",
        &format!("product.attributes[{}] TOO_LONG", long(65)),
    ];
    assert_named(staff.create_product(create(&server.id(), Some(worst))).await, &expected);
    let more = pb::Product {
        sku: "a/b".into(),
        name: " x".into(),
        description: "\u{0}".into(),
        price: Some(Money { currency_code: String::new(), amount_minor: i64::MAX }),
        tax_basis_points: -1,
        attributes: (0..51).map(|index| (format!("k{index}"), String::new())).collect(),
        ..product("x")
    };
    let expected = [
        "product.sku INVALID_FORMAT",
        "product.name INVALID_FORMAT",
        "product.description INVALID_FORMAT",
        "product.price.currency_code REQUIRED",
        "product.price.amount_minor OUT_OF_BOUNDS",
        "product.tax_basis_points OUT_OF_BOUNDS",
        "product.attributes TOO_MANY",
    ];
    assert_named(staff.create_product(create(&server.id(), Some(more))).await, &expected);
    let described = pb::Product { description: "😀".repeat(4_097), ..product("TEA") };
    let described = staff.create_product(create(&server.id(), Some(described))).await;
    assert_named(described, &["product.description TOO_LONG"]);
    let attributed = pb::Product { attributes: attributes(50), ..product("TEA") };
    let attributed = staff.create_product(create(&server.id(), Some(attributed))).await;
    assert_named(attributed, &["product.attributes TOO_LONG"]);
    assert_eq!(server.rows().await, before);
}

#[tokio::test]
async fn bad_updates_and_reads_of_the_catalogue_are_named() {
    let server = Server::start().await;
    let mut staff = server.catalog(STAFF);
    server.with_stock("TEA", 0).await;
    let before = server.rows().await;
    let update = |product, paths: &[&str]| pb::UpdateProductRequest {
        request_id: server.id(),
        product: Some(product),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
    };
    let nothing = staff.update_product(pb::UpdateProductRequest::default()).await;
    assert_named(nothing, &["request_id REQUIRED", "product REQUIRED", "update_mask REQUIRED"]);
    let bad = pb::Product { sku: "TEA".into(), etag: "nonsense".into(), ..Default::default() };
    let bad = update(bad, &["name", "sku", "colour", "name", "price.amount_minor", "etag", "price"]);
    let expected = [
        "update_mask.paths[1] IMMUTABLE",
        "update_mask.paths[2] UNKNOWN_FIELD_PATH",
        "update_mask.paths[3] DUPLICATE",
        "update_mask.paths[4] UNKNOWN_FIELD_PATH",
        "update_mask.paths[5] IMMUTABLE",
        "product.etag INVALID_FORMAT",
        "product.name REQUIRED",
        "product.price REQUIRED",
    ];
    assert_named(staff.update_product(bad).await, &expected);
    let many = update(product("TEA"), &vec!["name"; 10_000]);
    assert_named(staff.update_product(many).await, &["update_mask TOO_MANY"]);
    let masked = pb::Product { description: long(5_001), tax_basis_points: i32::MIN, ..product("") };
    let expected = ["product.sku REQUIRED", "product.description TOO_LONG", "product.tax_basis_points OUT_OF_BOUNDS"];
    assert_named(staff.update_product(update(masked, &["description", "tax_basis_points"])).await, &expected);

    assert_named(staff.get_product(pb::GetProductRequest { sku: "é".into() }).await, &["sku INVALID_FORMAT"]);
    let batch = |skus: Vec<String>| pb::BatchGetProductsRequest { skus, fresh: false };
    assert_named(staff.batch_get_products(batch(Vec::new())).await, &["skus REQUIRED"]);
    assert_named(staff.batch_get_products(batch(vec!["A".into(); 10_000])).await, &["skus TOO_MANY"]);
    let mixed = batch(vec!["A".into(), String::new(), long(65)]);
    assert_named(staff.batch_get_products(mixed).await, &["skus[1] REQUIRED", "skus[2] TOO_LONG"]);
    let list = pb::ListProductsRequest { page_size: -1, page_token: "nonsense".into() };
    assert_named(staff.list_products(list).await, &["page_size OUT_OF_BOUNDS", "page_token INVALID_PAGE_TOKEN"]);
    assert_eq!(server.rows().await, before);
}

#[tokio::test]
async fn an_update_cannot_make_a_product_too_long_field_by_field() {
    let server = Server::start().await;
    let mut staff = server.catalog(STAFF);
    server.with_stock("TEA", 0).await;
    let update = |path: &str, product| pb::UpdateProductRequest {
        request_id: server.id(),
        product: Some(product),
        update_mask: Some(FieldMask { paths: vec![path.to_owned()] }),
    };
    let described = |chars| pb::Product { description: "😀".repeat(chars), ..product("TEA") };
    let attributed = |count| pb::Product { attributes: attributes(count), ..product("TEA") };
    staff.update_product(update("description", described(2_048))).await.unwrap();
    staff.update_product(update("attributes", attributed(16))).await.unwrap();
    let before = server.rows().await;
    let longer = staff.update_product(update("attributes", attributed(17))).await;
    assert_named(longer, &["product.attributes TOO_LONG"]);
    let longer = staff.update_product(update("description", described(2_049))).await;
    assert_named(longer, &["product.description TOO_LONG"]);
    assert_eq!(server.rows().await, before);
}

#[tokio::test]
async fn bad_rows_of_an_import_are_named_row_by_row() {
    let server = Server::start().await;
    let mut staff = server.catalog(STAFF);
    let before = server.rows().await;
    let row = |product| pb::ImportProductsRequest { product: Some(product), ..Default::default() };
    let rows = [
        pb::ImportProductsRequest { request_id: server.id(), ..Default::default() },
        pb::ImportProductsRequest { request_id: "another".into(), ..row(pb::Product::default()) },
        row(pb::Product {
            name: long(201),
            description: "\u{0}".into(),
            price: Some(Money { currency_code: "EURO".into(), amount_minor: -1 }),
            tax_basis_points: 10_001,
            attributes: [("UPPER".to_owned(), long(251))].into(),
            etag: "nonsense".into(),
            ..product("a b")
        }),
        row(pb::Product { attributes: attributes(50), ..product("TEA") }),
    ];
    let expected: [&[&str]; 4] = [
        &["product REQUIRED"],
        &["request_id INVALID_FORMAT", "product.sku REQUIRED", "product.name REQUIRED", "product.price REQUIRED"],
        &[
            "product.sku INVALID_FORMAT",
            "product.etag INVALID_FORMAT",
            "product.name TOO_LONG",
            "product.description INVALID_FORMAT",
            "product.price.currency_code UNKNOWN_CURRENCY",
            "product.price.amount_minor OUT_OF_BOUNDS",
            "product.tax_basis_points OUT_OF_BOUNDS",
            "product.attributes[UPPER] INVALID_FORMAT",
        ],
        &["product.attributes TOO_LONG"],
    ];
    let response = staff.import_products(futures::stream::iter(rows)).await.unwrap().into_inner();
    assert_eq!(usize::try_from(response.failed_count).unwrap(), expected.len());
    for (result, expected) in response.results.into_iter().zip(expected) {
        match result.outcome {
            Some(ImportOutcome::Error(status)) => assert_named_in(status, expected),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.rows().await, before);
}

#[tokio::test]
async fn bad_reservations_are_named_line_by_line() {
    let server = Server::start().await;
    let mut order = server.stock(STAFF);
    server.with_stock("TEA", 5).await;
    let before = server.rows().await;
    let nothing = order.reserve(pb::ReserveRequest::default()).await;
    assert_named(nothing, &["request_id REQUIRED", "reservation_id REQUIRED", "lines REQUIRED"]);
    let bad = [("TEA", 0), ("TEA", -1), ("TEA", i64::MAX), ("TEA", i64::MIN), ("", 1), ("TEA", 1_000_000_001)];
    let mut lines = quantities(&bad);
    lines[0].location = "Moon".into();
    let worst = pb::ReserveRequest {
        request_id: "x".into(),
        reservation_id: "00000000-0000-0000-0000-000000000000".into(),
        lines,
        ttl: Some(Duration { seconds: 0, nanos: 999_999_999 }),
    };
    let expected = [
        "request_id INVALID_FORMAT",
        "reservation_id INVALID_FORMAT",
        "lines[0].location INVALID_FORMAT",
        "lines[0].quantity OUT_OF_BOUNDS",
        "lines[1].quantity OUT_OF_BOUNDS",
        "lines[2].quantity OUT_OF_BOUNDS",
        "lines[3].quantity OUT_OF_BOUNDS",
        "lines[4].sku REQUIRED",
        "lines[5].quantity OUT_OF_BOUNDS",
        "ttl OUT_OF_BOUNDS",
    ];
    assert_named(order.reserve(worst).await, &expected);
    let many = server.reserve(&vec![("TEA", 1); 10_000]);
    assert_named(order.reserve(many).await, &["lines TOO_MANY"]);
    let sum = server.reserve(&[("TEA", 1_000_000_000), ("CUP", 1), ("TEA", 1)]);
    assert_named(order.reserve(sum).await, &["lines[2].quantity OUT_OF_BOUNDS"]);
    let month_and_more = Duration { seconds: 31 * 24 * 3_600, nanos: 1_000 };
    let bad_ttls = [
        month_and_more,
        Duration { seconds: -1, nanos: 0 },
        Duration { seconds: i64::MAX, nanos: 0 },
        Duration { seconds: 5, nanos: -1 },
        Duration { seconds: 5, nanos: i32::MAX },
    ];
    for ttl in bad_ttls {
        let request = pb::ReserveRequest { ttl: Some(ttl), ..server.reserve(&[("TEA", 1)]) };
        assert_named(order.reserve(request).await, &["ttl OUT_OF_BOUNDS"]);
    }
    let lines = quantities(&[("TEA", 0)]);
    let commit = pb::CommitRequest { request_id: String::new(), reservation_id: "x".into(), lines: lines.clone() };
    let expected = ["request_id REQUIRED", "reservation_id INVALID_FORMAT", "lines[0].quantity OUT_OF_BOUNDS"];
    assert_named(order.commit(commit).await, &expected);
    let release = pb::ReleaseRequest { request_id: String::new(), reservation_id: "x".into(), lines };
    assert_named(order.release(release).await, &expected);
    let lines = quantities(&[("TEA", 1); 101]);
    let commit = pb::CommitRequest { request_id: server.id(), reservation_id: server.id(), lines: lines.clone() };
    assert_named(order.commit(commit).await, &["lines TOO_MANY"]);
    let release = pb::ReleaseRequest { request_id: server.id(), reservation_id: server.id(), lines };
    assert_named(order.release(release).await, &["lines TOO_MANY"]);
    assert_eq!(server.rows().await, before);
}

#[tokio::test]
async fn bad_movements_are_named() {
    let server = Server::start().await;
    let mut staff = server.stock(STAFF);
    server.with_stock("TEA", 5).await;
    let before = server.rows().await;
    let nothing = ["request_id REQUIRED", "sku REQUIRED", "quantity OUT_OF_BOUNDS", "reason INVALID_ENUM"];
    assert_named(staff.receive(pb::ReceiveRequest::default()).await, &nothing);
    let worst = pb::ReceiveRequest {
        request_id: "x".into(),
        sku: long(65),
        location: long(33),
        quantity: i64::MIN,
        reason: 99,
        reference: long(129),
    };
    let expected = [
        "request_id INVALID_FORMAT",
        "sku TOO_LONG",
        "location TOO_LONG",
        "quantity OUT_OF_BOUNDS",
        "reason INVALID_ENUM",
        "reference TOO_LONG",
    ];
    assert_named(staff.receive(worst).await, &expected);
    let nothing = ["request_id REQUIRED", "sku REQUIRED", "change REQUIRED", "reason INVALID_ENUM"];
    assert_named(staff.adjust(pb::AdjustRequest::default()).await, &nothing);
    let adjust = |change| pb::AdjustRequest {
        request_id: server.id(),
        sku: "TEA".into(),
        change: Some(change),
        reason: pb::MovementReason::Count.into(),
        reference: "\u{7}".into(),
        ..Default::default()
    };
    for delta in [0, 1_000_000_001, -1_000_000_001, i64::MIN, i64::MAX] {
        let bad = staff.adjust(adjust(Change::Delta(delta))).await;
        assert_named(bad, &["delta OUT_OF_BOUNDS", "reference INVALID_FORMAT"]);
    }
    let count = |on_hand, etag: &str| Change::Count(pb::AbsoluteCount { on_hand, etag: etag.into() });
    let expected = ["count.on_hand OUT_OF_BOUNDS", "count.etag REQUIRED", "reference INVALID_FORMAT"];
    assert_named(staff.adjust(adjust(count(-1, ""))).await, &expected);
    let expected = ["count.on_hand OUT_OF_BOUNDS", "count.etag INVALID_FORMAT", "reference INVALID_FORMAT"];
    assert_named(staff.adjust(adjust(count(1_000_000_000_001, "1"))).await, &expected);

    let empty = pb::SyncMovementsRequest::default();
    let worst = |movement| pb::SyncMovementsRequest {
        request_id: "x".into(),
        sku: long(65),
        location: "Moon".into(),
        movement: Some(movement),
        reason: 99,
        reference: long(129),
    };
    let count = pb::AbsoluteCount { on_hand: -1, etag: "nonsense".into() };
    let movements = [empty, worst(Movement::Received(0)), worst(Movement::Delta(0)), worst(Movement::Count(count))];
    let mut acknowledged = staff.sync_movements(futures::stream::iter(movements)).await.unwrap().into_inner();
    let nothing = ["request_id REQUIRED", "sku REQUIRED", "movement REQUIRED", "reason INVALID_ENUM"];
    let everywhere = [
        "request_id INVALID_FORMAT",
        "sku TOO_LONG",
        "location INVALID_FORMAT",
        "reason INVALID_ENUM",
        "reference TOO_LONG",
    ];
    let and = |more: &[&'static str]| [&everywhere, more].concat();
    let expected = [
        nothing.to_vec(),
        and(&["received OUT_OF_BOUNDS"]),
        and(&["delta OUT_OF_BOUNDS"]),
        and(&["count.on_hand OUT_OF_BOUNDS", "count.etag INVALID_FORMAT"]),
    ];
    for expected in expected {
        match acknowledged.message().await.unwrap().unwrap().outcome {
            Some(SyncOutcome::Error(status)) => assert_named_in(status, &expected),
            other => panic!("{other:?}"),
        }
    }
    assert!(acknowledged.message().await.unwrap().is_none());
    assert_eq!(server.rows().await, before);
}

#[tokio::test]
async fn bad_reads_of_stock_are_named() {
    let server = Server::start().await;
    let mut staff = server.stock(STAFF);
    let get = pb::GetStockRequest { sku: String::new(), location: "-".into() };
    assert_named(staff.get_stock(get).await, &["sku REQUIRED", "location INVALID_FORMAT"]);
    let batch = pb::BatchGetStockRequest { skus: vec!["A".into(); 10_000], location: long(33) };
    assert_named(staff.batch_get_stock(batch).await, &["skus TOO_MANY", "location TOO_LONG"]);
    let list = pb::ListMovementsRequest { page_size: i32::MIN, page_token: long(2_000), ..Default::default() };
    assert_named(staff.list_movements(list).await, &["sku REQUIRED", "page_size OUT_OF_BOUNDS"]);
    let list = pb::ListMovementsRequest { sku: "TEA".into(), page_token: long(2_000), ..Default::default() };
    assert_named(staff.list_movements(list).await, &["page_token INVALID_PAGE_TOKEN"]);
    let watch = pb::WatchStockRequest::default();
    assert_named(staff.watch_stock(watch).await, &["skus REQUIRED"]);
    let known = |sku: &str, version| pb::KnownVersion { sku: sku.into(), version };
    let watch = pb::WatchStockRequest {
        skus: vec!["A".into(), "a b".into()],
        location: "UP".into(),
        known: vec![known("", 1), known("A", -1), known("A", i64::MIN)],
    };
    let expected = [
        "skus[1] INVALID_FORMAT",
        "location INVALID_FORMAT",
        "known[0].sku REQUIRED",
        "known[1].version OUT_OF_BOUNDS",
        "known[2].version OUT_OF_BOUNDS",
    ];
    assert_named(staff.watch_stock(watch).await, &expected);
    let watch =
        pb::WatchStockRequest { skus: vec!["A".into()], known: vec![known("A", 1); 10_000], ..Default::default() };
    assert_named(staff.watch_stock(watch).await, &["known TOO_MANY"]);
}
