//! P1, P3 and P4: the process is killed at every named step of an order's way, and started again on what it left; as a cluster, another
//! replica goes on with it.
//!
//! Whatever the step: an order that was acknowledged is there, the key gives the one answer, the order comes to its end, and no unit of
//! stock is held for nobody.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod place;

use std::time::Duration;

use place::Place;
use souk_db::Db;
use souk_inventory::ops::change_stock;
use souk_order::failpoints;
use souk_proto_order::v1::order_service_client::OrderServiceClient;
use souk_proto_order::v1::{
    CancelOrderRequest, ListOrdersRequest, Order, OrderItem, OrderState, PlaceOrderRequest, WatchOrderRequest,
};
use souk_testkit::form::Form;
use souk_testkit::process::owed;
use souk_testkit::shop::Client;
use souk_testkit::suite::assert_invariants;
use souk_testkit::{PATIENCE, within};
use tokio::runtime::Handle;
use tonic::Status;

use place::SKU;
const KEY: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const CANCEL_KEY: &str = "01890a5d-ac96-774b-bcce-b302099a8058";
/// A hold that nobody comes back for ends so soon.
const SHORT_HOLD: [(&str, &str); 1] = [("order.limits.hold_ttl_ms", "3000")];
const HOLD: Duration = Duration::from_secs(3);
/// How often a [`Place`] has the inventory look for them.
const SWEEP: Duration = Duration::from_millis(200);
/// For the start of the process, on a slow machine.
const SPARE: Duration = Duration::from_secs(5);
/// What a killed process had taken up is taken up by the next so soon.
const SHORT_LEASES: [(&str, &str); 3] =
    [("order.saga.lease_ms", "3000"), ("order.inventory.timeout_ms", "2500"), ("order.relay.lease_ttl_ms", "2000")];

async fn send(orders: &mut OrderServiceClient<Client>) -> Result<Order, Status> {
    let items = vec![OrderItem { sku: SKU.into(), quantity: 3 }];
    let request = PlaceOrderRequest { request_id: KEY.into(), items, expected_total: None };
    Ok(orders.place_order(request).await?.into_inner().order.unwrap())
}

async fn cancel(orders: &mut OrderServiceClient<Client>, order_id: &str) -> Result<Order, Status> {
    let request = CancelOrderRequest { request_id: CANCEL_KEY.into(), order_id: order_id.into(), etag: String::new() };
    Ok(orders.cancel_order(request).await?.into_inner().order.unwrap())
}

/// Watches until the order is in `state`.
async fn reaches(orders: &mut OrderServiceClient<Client>, order_id: &str, state: OrderState) {
    let request = WatchOrderRequest { order_id: order_id.into(), after_version: 0 };
    let mut versions = orders.watch_order(request).await.unwrap().into_inner();
    let watching = async {
        while let Some(message) = versions.message().await.unwrap() {
            let order = message.order.unwrap();
            if order.state() == state {
                return;
            }
        }
        panic!("the order has ended, and not as {state:?}");
    };
    // A step whose process was killed is taken up when its lease has run out.
    tokio::time::timeout(Duration::from_mins(1), watching).await.expect("the order reaches its state");
}

/// `held` and `allocated` of the product.
async fn stock(inventory: &Db) -> (i64, i64) {
    let mut tx = inventory.read().await.unwrap();
    let text = "SELECT held, allocated FROM stock WHERE sku = $1";
    let row = souk_db::sql(text).bind(SKU).fetch_one(&mut tx).await.unwrap();
    tx.rollback().await.unwrap();
    row
}

fn of_cancelling(failpoint: &str) -> bool {
    failpoint.starts_with("cancel") || failpoint.contains("release")
}

/// Killed at `failpoint`; the key is sent again to whoever goes on. Whether it was killed.
async fn survives(form: Form, failpoint: String) -> bool {
    let failpoint = failpoint.as_str();
    let mut place = Place::start(form, failpoint, &SHORT_LEASES).await;
    let alice = place.alice().await;
    let mut orders = place.orders(&alice);
    let acknowledged = send(&mut orders).await.ok();
    if of_cancelling(failpoint) {
        let order_id = acknowledged.clone().expect("the order is placed before it is cancelled").order_id;
        reaches(&mut orders, &order_id, OrderState::Confirmed).await;
        drop(cancel(&mut orders, &order_id).await); // the answer may be lost
    }
    let killed = place.killed().await;

    place.go_on(&SHORT_LEASES).await;
    let alice = place.alice().await;
    let mut orders = place.orders(&alice);
    let answer = send(&mut orders).await.unwrap();
    if let Some(acknowledged) = acknowledged {
        assert_eq!(answer, acknowledged, "{failpoint}: the key has two answers");
    }
    assert_eq!(send(&mut orders).await.unwrap(), answer, "{failpoint}: the key has two answers");
    if of_cancelling(failpoint) {
        cancel(&mut orders, &answer.order_id).await.unwrap();
    }
    let (end, allocated) =
        if of_cancelling(failpoint) { (OrderState::Cancelled, 0) } else { (OrderState::Confirmed, 3) };
    reaches(&mut orders, &answer.order_id, end).await;
    let all = orders.list_orders(ListOrdersRequest::default()).await.unwrap().into_inner().orders;
    assert_eq!(all.len(), 1, "{failpoint}: one key is one order");
    at_rest(&place, (0, allocated), PATIENCE, failpoint).await;
    place.stop().await;
    assert!(killed, "{failpoint} was not reached");
    killed
}

/// Within `limit`, nothing is held for nobody, and nothing is owed. The equations hold all the time.
async fn at_rest(place: &Place, expected: (i64, i64), limit: Duration, failpoint: &str) {
    let (inventory, order) = (place.inventory().await, place.order().await);
    let what = format!("{failpoint}: {expected:?} held and allocated, and nothing owed");
    within(limit, &what, async || {
        assert_invariants(&inventory).await;
        stock(&inventory).await == expected && owed(&order).await == 0
    })
    .await;
}

/// Every named step of an order's way: those of the order service, and the two changes of the stock, each before its commit.
fn steps(form: Form) -> Vec<String> {
    let before = Place::stock_changes_before(form);
    let stock = [before + 1, before + 2].map(|hit| format!("{}:{hit}", change_stock::BEFORE_COMMIT));
    failpoints::ALL.iter().map(|name| (*name).to_owned()).chain(stock).collect()
}

async fn an_order_survives_a_kill_at_every_step(form: Form) {
    let steps = steps(form);
    let mut tests = tokio::task::JoinSet::new();
    let mut killed = 0;
    for step in steps.iter().cloned() {
        // Each on a thread of its own, which waits for the processes, and waits more than it works.
        let runtime = Handle::current();
        tests.spawn_blocking(move || runtime.block_on(survives(form, step)));
        if tests.len() == 4 {
            killed += usize::from(tests.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(result) = tests.join_next().await {
        killed += usize::from(result.unwrap());
    }
    assert_eq!(killed, steps.len(), "processes that died by signal 9");
    assert!(killed >= 10, "only {killed} kills");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_survives_a_kill_at_every_step_and_a_restart() {
    an_order_survives_a_kill_at_every_step(Form::Suite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_survives_a_kill_at_every_step_and_another_replica_goes_on() {
    an_order_survives_a_kill_at_every_step(Form::Cluster).await;
}

/// Killed with the stock held, and nobody comes back for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_nobody_comes_back_for_ends() {
    for form in [Form::Suite, Form::Cluster] {
        let mut place = Place::start(form, failpoints::PLACE_AFTER_RESERVE, &SHORT_HOLD).await;
        let alice = place.alice().await;
        send(&mut place.orders(&alice)).await.unwrap_err();
        assert!(place.killed().await);
        let killed_at = tokio::time::Instant::now();
        assert_eq!(stock(&place.inventory().await).await, (3, 0), "the stock is held");
        place.go_on(&SHORT_HOLD).await;
        let end = killed_at + HOLD + SWEEP + SPARE;
        at_rest(&place, (0, 0), end.duration_since(tokio::time::Instant::now()), "an abandoned hold").await;
        place.stop().await;
    }
}
