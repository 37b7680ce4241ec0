//! What two replicas on one database must agree on.

use futures::FutureExt;
use futures::future::join_all;
use souk_events::Bus;
use souk_inventory::domain::Refusal;
use souk_inventory::error::Error;
use souk_inventory::ops;

use crate::shop::{Shop, is_short, order, replica, staff};

#[tokio::test]
async fn two_replicas_never_oversell() {
    let shop = Shop::on(souk_testkit::postgres().await).await.stocked(&["TEA", "CUP"], 50).await;
    let other = replica(&shop.kernel, &shop.database, &Bus::memory()).await;
    let buyers = (0..200).map(|buyer| {
        let app = if buyer % 2 == 0 { &shop.app } else { &other };
        // In both orders, so that careless locking would deadlock.
        let pairs = if buyer % 4 < 2 { [("TEA", 1), ("CUP", 1)] } else { [("CUP", 1), ("TEA", 1)] };
        let command = shop.reserve_command(&pairs);
        async move { ops::reserve(app, &order(), command).await.map(|answer| answer.value) }.boxed()
    });
    let results = join_all(buyers).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 50, "{results:?}");
    assert_eq!(results.iter().filter(|result| is_short(result)).count(), 150);
    shop.assert_sound().await;
}

#[tokio::test]
async fn one_key_is_one_effect_from_however_many_replicas() {
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        let shop = Shop::on(database).await.stocked(&["TEA"], 50).await;
        let other = replica(&shop.kernel, &shop.database, &Bus::memory()).await;
        let command = shop.reserve_command(&[("TEA", 2)]);
        let calls = (0..50).map(|call| {
            let (app, command) = (if call % 2 == 0 { &shop.app } else { &other }, command.clone());
            async move { ops::reserve(app, &order(), command).await.unwrap() }.boxed()
        });
        let answers = join_all(calls).await;
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
        assert!(answers.iter().all(|answer| answer.value == answers[0].value));
        assert_eq!(shop.level("TEA").await.stock.held, 2);
        let mut other_body = command.clone();
        other_body.key.fingerprint = [2; 32];
        let refused = ops::reserve(&shop.app, &order(), other_body).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::KeyReused("request_id")))), "{refused:?}");
        let anothers = ops::reserve(&shop.app, &staff(), command).await;
        assert!(matches!(anothers, Err(Error::Refused(Refusal::KeyReused("reservation_id")))), "{anothers:?}");
        shop.assert_sound().await;
    }
}
