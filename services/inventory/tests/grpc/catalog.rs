//! CatalogService.

use std::time::Duration;

use pbjson_types::FieldMask;
use prost::Message;
use souk_proto_common::v1::Reason;
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::import_result::Outcome;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::{STAFF, Server, assert_refused, is_replay, product};

#[tokio::test]
async fn a_product_is_created_read_and_listed() {
    let server = Server::start().await;
    let mut staff = server.catalog("catalog.write");
    let request = pb::CreateProductRequest { request_id: server.id(), product: Some(product("TEA")) };
    let created = staff.create_product(request.clone()).await.unwrap();
    assert!(!is_replay(&created));
    let created = created.into_inner().product.unwrap();
    assert!(!created.etag.is_empty() && created.create_time.is_some());
    let again = staff.create_product(request.clone()).await.unwrap();
    assert!(is_replay(&again));
    assert_eq!(again.into_inner().product.as_ref(), Some(&created));

    let mut anyone = server.anonymous_catalog();
    let read = anyone.get_product(pb::GetProductRequest { sku: "TEA".into() }).await.unwrap().into_inner();
    assert_eq!(read.product.as_ref(), Some(&created));
    let skus = ["NONE", "TEA", "TEA"].map(str::to_owned).to_vec();
    let batch =
        anyone.batch_get_products(pb::BatchGetProductsRequest { skus, fresh: false }).await.unwrap().into_inner();
    assert_eq!((batch.products, batch.missing_skus), (vec![created], vec!["NONE".to_owned()]));

    let other = pb::CreateProductRequest { product: Some(product("CUP")), ..request };
    assert_refused(staff.create_product(other).await, Code::FailedPrecondition, Reason::IdempotencyKeyReused);
    let taken = pb::CreateProductRequest { request_id: server.id(), product: Some(product("TEA")) };
    let taken = assert_refused(staff.create_product(taken).await, Code::AlreadyExists, Reason::ProductExists);
    assert_eq!(taken.get_details_resource_info().unwrap().resource_name, "TEA");
    let absent = anyone.get_product(pb::GetProductRequest { sku: "NONE".into() }).await;
    let absent = assert_refused(absent, Code::NotFound, Reason::ProductNotFound);
    assert_eq!(absent.get_details_resource_info().unwrap().resource_name, "NONE");
}

#[tokio::test]
async fn who_may_not_write_the_catalogue_is_told_why() {
    let server = Server::start().await;
    let create = || pb::CreateProductRequest { request_id: server.id(), product: Some(product("TEA")) };
    let nobody = server.anonymous_catalog().create_product(create()).await;
    assert_refused(nobody, Code::Unauthenticated, Reason::TokenMissing);
    let customer = server.catalog("orders.place").create_product(create()).await;
    assert_refused(customer, Code::PermissionDenied, Reason::ScopeMissing);
    let rows = futures::stream::iter([pb::ImportProductsRequest::default()]);
    let importer = server.catalog("stock.write").import_products(rows).await;
    assert_refused(importer, Code::PermissionDenied, Reason::ScopeMissing);
    let update = server.catalog("stock.write").update_product(pb::UpdateProductRequest::default()).await;
    assert_refused(update, Code::PermissionDenied, Reason::ScopeMissing);
}

#[tokio::test]
async fn a_list_goes_page_by_page_whatever_is_added_meanwhile() {
    let server = Server::start().await;
    for sku in ["C", "A", "E"] {
        server.with_stock(sku, 0).await;
    }
    let mut anyone = server.anonymous_catalog();
    let mut page_token = String::new();
    let mut listed = Vec::new();
    loop {
        let request = pb::ListProductsRequest { page_size: 2, page_token };
        let page = anyone.list_products(request).await.unwrap().into_inner();
        listed.extend(page.products.into_iter().map(|product| product.sku));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        server.with_stock("B", 0).await; // before the page that comes next
    }
    assert_eq!(listed, ["A", "C", "E"]);
}

#[tokio::test]
async fn an_update_takes_a_mask_and_an_etag() {
    let server = Server::start().await;
    server.with_stock("TEA", 0).await;
    let mut staff = server.catalog("catalog.write");
    let update = |etag: &str, name: &str, paths: &[&str]| pb::UpdateProductRequest {
        request_id: server.id(),
        product: Some(pb::Product {
            sku: "TEA".into(),
            etag: etag.into(),
            name: name.into(),
            ..pb::Product::default()
        }),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
    };
    let read = staff.get_product(pb::GetProductRequest { sku: "TEA".into() }).await.unwrap().into_inner();
    let before = read.product.unwrap();
    let request = update(&before.etag, "Green tea", &["name"]);
    let after = staff.update_product(request.clone()).await.unwrap().into_inner().product.unwrap();
    assert_eq!((after.name.as_str(), &after.price), ("Green tea", &before.price));
    assert_ne!(after.etag, before.etag);
    assert!(is_replay(&staff.update_product(request).await.unwrap()));
    let late = staff.update_product(update(&before.etag, "Black tea", &["name"])).await;
    assert_refused(late, Code::Aborted, Reason::EtagMismatch);
    let absent = pb::UpdateProductRequest {
        product: Some(pb::Product { sku: "NONE".into(), name: "x".into(), ..pb::Product::default() }),
        ..update("", "x", &["name"])
    };
    assert_refused(staff.update_product(absent).await, Code::NotFound, Reason::ProductNotFound);
}

#[tokio::test]
async fn whoever_has_changed_a_product_reads_what_they_wrote() {
    let server = Server::start().await;
    let mut staff = server.catalog("catalog.write");
    let mut anyone = server.anonymous_catalog();
    let get = || pb::GetProductRequest { sku: "TEA".into() };
    let skus = || pb::BatchGetProductsRequest { skus: vec!["TEA".into()], fresh: false };
    let absent = anyone.get_product(get()).await;
    assert_refused(absent, Code::NotFound, Reason::ProductNotFound);
    let create = pb::CreateProductRequest { request_id: server.id(), product: Some(product("TEA")) };
    let created = staff.create_product(create).await.unwrap().into_inner().product;
    assert_eq!(anyone.get_product(get()).await.unwrap().into_inner().product, created);
    let update = pb::UpdateProductRequest {
        request_id: server.id(),
        product: Some(pb::Product { sku: "TEA".into(), name: "Green tea".into(), ..pb::Product::default() }),
        update_mask: Some(FieldMask { paths: vec!["name".into()] }),
    };
    let updated = staff.update_product(update).await.unwrap().into_inner().product;
    assert_eq!(anyone.get_product(get()).await.unwrap().into_inner().product, updated);
    assert_eq!(anyone.batch_get_products(skus()).await.unwrap().into_inner().products, Vec::from_iter(updated));
    let rows = futures::stream::iter([pb::ImportProductsRequest { request_id: server.id(), ..row("TEA") }]);
    assert_eq!(staff.import_products(rows).await.unwrap().into_inner().updated_count, 1);
    let read = anyone.get_product(get()).await.unwrap().into_inner().product.unwrap();
    assert_eq!(read.name, "The TEA");
    assert_eq!(anyone.batch_get_products(skus()).await.unwrap().into_inner().products, [read]);
}

fn row(sku: &str) -> pb::ImportProductsRequest {
    pb::ImportProductsRequest { product: Some(product(sku)), ..Default::default() }
}

#[tokio::test]
async fn an_import_answers_every_row() {
    let server = Server::start().await;
    server.with_stock("OLD", 0).await;
    let mut staff = server.catalog("catalog.write");
    let mut rows: Vec<pb::ImportProductsRequest> = (0..1_000).map(|index| row(&format!("P{index}"))).collect();
    rows[0].request_id = server.id();
    rows[1] = row("OLD");
    rows[2] = row("not a sku");
    rows[3].product.as_mut().unwrap().etag = "v1".into();
    let import = |rows: &[pb::ImportProductsRequest]| futures::stream::iter(rows.to_vec());
    let response = staff.import_products(import(&rows)).await.unwrap().into_inner();
    let counts = (response.created_count, response.updated_count, response.unchanged_count, response.failed_count);
    assert_eq!(counts, (997, 0, 1, 2));
    assert_eq!(response.results.len(), 1_000);
    assert!(response.results.iter().zip(0..).all(|(result, index)| result.index == index));
    let Some(Outcome::Error(status)) = &response.results[2].outcome else { panic!("{:?}", response.results[2]) };
    assert_eq!((status.code, status.details.len()), (Code::InvalidArgument.into(), 2));
    let Some(Outcome::Error(status)) = &response.results[3].outcome else { panic!("{:?}", response.results[3]) };
    assert_eq!(status.code, i32::from(Code::NotFound));

    // The same again, with one row mended: what was written is answered as before.
    let mut mended = rows.clone();
    mended[0].failures_only = true;
    mended[2] = row("A-SKU");
    let again = staff.import_products(import(&mended)).await.unwrap().into_inner();
    assert_eq!((again.created_count, again.failed_count, again.results.len()), (998, 1, 1));
    let mut other = rows[..2].to_vec();
    other[1] = row("OTHER");
    let reused = staff.import_products(import(&other)).await.unwrap().into_inner();
    let Some(Outcome::Error(status)) = &reused.results[1].outcome else { panic!("{:?}", reused.results[1]) };
    assert_eq!(status.code, i32::from(Code::FailedPrecondition));
}

#[tokio::test]
async fn an_import_is_bounded_and_named() {
    let server = Server::start_with(|config| config.limits.import_rows_max = 3).await;
    let mut staff = server.catalog("catalog.write");
    let mut rows: Vec<pb::ImportProductsRequest> = (0..5).map(|index| row(&format!("P{index}"))).collect();
    let unnamed = staff.import_products(futures::stream::iter(rows.clone())).await;
    assert_refused(unnamed, Code::InvalidArgument, Reason::InvalidRequest);
    rows[0].request_id = server.id();
    let long = staff.import_products(futures::stream::iter(rows)).await;
    let long = assert_refused(long, Code::InvalidArgument, Reason::InvalidRequest);
    let violation = &long.get_details_bad_request().unwrap().field_violations[0];
    assert_eq!((violation.field.as_str(), violation.reason.as_str()), ("rows", "TOO_MANY"));
    let listed = staff.list_products(pb::ListProductsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.products.len(), 3, "the rows before the limit are written");
    let empty = staff.import_products(futures::stream::iter(Vec::new())).await;
    assert_refused(empty, Code::InvalidArgument, Reason::InvalidRequest);
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let server = Server::start().await;
    let mut large = product("TEA");
    large.description = "x".repeat(1024 * 1024);
    let request = pb::CreateProductRequest { request_id: server.id(), product: Some(large) };
    let refused = server.catalog(STAFF).create_product(request).await;
    assert_refused(refused, Code::ResourceExhausted, Reason::MessageTooLarge);
    // In a stream too, whatever comes of the rest of it.
    let mut rows = vec![row("TEA"), row("CUP"), row("LATE")];
    rows[0].request_id = server.id();
    rows[1].product.as_mut().unwrap().description = "x".repeat(1024 * 1024);
    let refused = server.catalog(STAFF).import_products(futures::stream::iter(rows)).await;
    assert_refused(refused, Code::ResourceExhausted, Reason::MessageTooLarge);
}

/// As large as a product can be.
fn largest(sku: &str) -> pb::Product {
    let attributes = (0..50).map(|index| (format!("{index:0>64}"), "ü".repeat(100)));
    let mut product = pb::Product { name: "😀".repeat(200), attributes: attributes.collect(), ..product(sku) };
    product.description = "x".repeat(16 * 1_024 - 50 * (64 + 200));
    product
}

#[tokio::test]
async fn a_hundred_of_the_largest_products_are_one_answer() {
    let server = Server::start().await;
    let mut staff = server.catalog("catalog.write");
    let skus: Vec<String> = (0..100).map(|index| format!("{index:0>64}")).collect();
    let mut rows: Vec<pb::ImportProductsRequest> = skus.iter().map(|sku| row(sku)).collect();
    for row in &mut rows {
        row.product = row.product.take().map(|product| largest(&product.sku));
    }
    rows[0].request_id = server.id();
    let imported = staff.import_products(futures::stream::iter(rows)).await.unwrap().into_inner();
    assert_eq!(imported.created_count, 100);
    let batch = staff.batch_get_products(pb::BatchGetProductsRequest { skus, fresh: true }).await.unwrap().into_inner();
    assert_eq!(batch.products.len(), 100);
    assert!(batch.encoded_len() < 2 * 1_024 * 1_024, "far below the 4 MiB that clients take: {}", batch.encoded_len());
}

#[tokio::test]
async fn an_import_is_told_of_the_end_and_what_was_written_stays() {
    let server = Server::start().await;
    let (sender, sent) = mpsc::channel(1);
    sender.send(pb::ImportProductsRequest { request_id: server.id(), ..row("TEA") }).await.unwrap();
    let mut staff = server.catalog("catalog.write");
    let importing = tokio::spawn(async move { staff.import_products(ReceiverStream::new(sent)).await });
    let mut anyone = server.anonymous_catalog();
    while anyone.get_product(pb::GetProductRequest { sku: "TEA".into() }).await.is_err() {}
    assert!(server.kernel.tasks.stop(Duration::from_secs(10)).await);
    assert_refused(importing.await.unwrap(), Code::Unavailable, Reason::ShuttingDown);
    drop(sender);
}
