//! What a start needs, and what it shows.

use std::sync::Arc;

use souk_proto_order::v1::{OrderItem, OrderState, PlaceOrderRequest};
use souk_runtime::{Clock, Kernel};
use souk_testkit::suite::{Suite, config, new_id};

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_that_cannot_be_shown_is_not_stored() {
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let kernel = Kernel::new(Clock::system());
    let hidden = Arc::new(|_: &souk_user::FirstAdministrator| anyhow::bail!("nobody reads the terminal"));
    assert!(souk::start(kernel.clone(), config(folder.path()), hidden).await.is_err());
    assert!(kernel.tasks.stop(std::time::Duration::from_secs(20)).await);
    // The next start makes one, and shows it: with what it shows somebody logs in.
    let suite = Suite::start_in(folder.path(), Clock::system()).await;
    assert!(!suite.admin().token.is_empty());
    suite.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_service_has_its_account_under_its_configured_name() {
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let mut config = config(folder.path());
    config.order.token.service_name = "orders-of-souk".into();
    let suite = Suite::start_with(config, Clock::system()).await;
    suite.product("TEA", 690, 5).await;
    let alice = suite.customer("alice").await;
    let items = vec![OrderItem { sku: "TEA".into(), quantity: 1 }];
    let request = PlaceOrderRequest { request_id: new_id(), items, expected_total: None };
    let placed = suite.orders(Some(&alice)).place_order(request).await.unwrap().into_inner().order.unwrap();
    assert_eq!(suite.settled(&alice, &placed.order_id).await.state(), OrderState::Confirmed);
    suite.stop().await;
}
