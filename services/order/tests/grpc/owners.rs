//! Nobody sees, watches, lists or cancels what is another's, nor learns whether it exists.

use souk_proto_common::v1::Reason;
use souk_proto_order::v1::{CancelOrderRequest, GetOrderRequest, ListOrdersRequest, OrderState, WatchOrderRequest};
use souk_testkit::suite::{Person, new_id};
use tonic::{Code, Status};

use super::{Shop, items, state, why};

/// What somebody is told who tries everything with an order.
async fn tried(shop: &Shop, person: &Person, order_id: &str) -> [Result<(), Status>; 3] {
    let order_id = order_id.to_owned();
    let mut orders = shop.orders(person);
    [
        orders.get_order(GetOrderRequest { order_id: order_id.clone() }).await.map(drop),
        orders.watch_order(WatchOrderRequest { order_id: order_id.clone(), after_version: 0 }).await.map(drop),
        orders.cancel_order(CancelOrderRequest { request_id: new_id(), order_id, etag: String::new() }).await.map(drop),
    ]
}

#[tokio::test]
async fn an_order_of_another_and_one_that_is_not_there_look_the_same() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let (alice, bob) = (shop.suite.customer("alice").await, shop.suite.customer("bob").await);
    let placed = shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
    let of_another = tried(&shop, &bob, &placed.order_id).await;
    let of_nobody = tried(&shop, &bob, &new_id()).await;
    for (of_another, of_nobody) in of_another.into_iter().zip(of_nobody) {
        let (of_another, of_nobody) = (of_another.unwrap_err(), of_nobody.unwrap_err());
        assert_eq!(why(&of_another), (Code::PermissionDenied, Some(Reason::NotOwner)));
        assert_eq!(of_another.message(), of_nobody.message());
        assert_eq!((of_another.code(), of_another.details()), (of_nobody.code(), of_nobody.details()));
    }
    assert_eq!(state(&shop.settled(&alice, &placed).await), OrderState::Confirmed);
}

#[tokio::test]
async fn staff_see_any_order_and_are_told_what_is_not_there() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 10).await;
    let alice = shop.suite.customer("alice").await;
    let admin = shop.suite.admin().clone();
    let placed = shop.place(&alice, items(&[("TEA", 1)])).await.unwrap();
    for told in tried(&shop, &admin, &new_id()).await {
        assert_eq!(why(&told.unwrap_err()), (Code::NotFound, Some(Reason::OrderNotFound)));
    }
    let request = GetOrderRequest { order_id: placed.order_id.clone() };
    let seen = shop.orders(&admin).get_order(request).await.unwrap().into_inner().order.unwrap();
    assert_eq!(seen.order_id, placed.order_id);
    let cancelled = shop.cancel(&admin, &placed).await.unwrap();
    assert_eq!(cancelled.state_reason, "CANCELLED_BY_STAFF");
}

#[tokio::test]
async fn a_list_is_of_ones_own_orders_page_by_page() {
    let shop = Shop::open().await;
    shop.suite.product("TEA", 100, 100).await;
    let (alice, bob) = (shop.suite.customer("alice").await, shop.suite.customer("bob").await);
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.insert(0, shop.place(&alice, items(&[("TEA", 1)])).await.unwrap().order_id);
        shop.clock.advance(std::time::Duration::from_millis(1));
    }
    shop.place(&bob, items(&[("TEA", 1)])).await.unwrap();
    let first = ListOrdersRequest { page_size: 2, ..Default::default() };
    let mut request = first.clone();
    let (mut listed, mut pages) = (Vec::new(), 0);
    loop {
        let page = shop.orders(&alice).list_orders(request.clone()).await.unwrap().into_inner();
        listed.extend(page.orders.into_iter().map(|order| order.order_id));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request = ListOrdersRequest { page_token: page.next_page_token, ..first.clone() };
    }
    assert_eq!((listed, pages), (placed, 3));

    let of = |owner_id: &str| ListOrdersRequest { owner_id: owner_id.to_owned(), ..Default::default() };
    let count = async |person: &Person, request| {
        shop.orders(person).list_orders(request).await.map(|page| page.into_inner().orders.len())
    };
    assert_eq!(count(&alice, of(&alice.user_id)).await.unwrap(), 5);
    let refused = count(&alice, of(&bob.user_id)).await.unwrap_err();
    assert_eq!(why(&refused), (Code::PermissionDenied, Some(Reason::NotOwner)));
    let admin = shop.suite.admin();
    assert_eq!(count(admin, of("")).await.unwrap(), 6);
    assert_eq!(count(admin, of(&bob.user_id)).await.unwrap(), 1);
    // A token of one list is no token of another.
    let token = ListOrdersRequest { page_token: request.page_token, states: vec![1], ..Default::default() };
    let refused = count(&alice, token).await.unwrap_err();
    assert_eq!(why(&refused), (Code::InvalidArgument, Some(Reason::InvalidRequest)));
}
