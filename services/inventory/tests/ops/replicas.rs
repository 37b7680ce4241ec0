//! What two replicas on one database must agree on.

use futures::FutureExt;
use futures::future::join_all;
use souk_inventory::domain::command::{Keyed, Reserve};
use souk_inventory::domain::product::{Etag, Patch};
use souk_inventory::domain::query::UpdateProduct;
use souk_inventory::domain::{Refusal, Reservation};
use souk_inventory::error::Error;
use souk_inventory::ops::{self, App};

use crate::shop::{Shop, is_short, keyed, order, sku, staff};

async fn reserve_on(app: &App, command: Keyed<Reserve>) -> Result<Reservation, Error> {
    Ok(ops::reserve(app, &order(), command).await?.value)
}

#[tokio::test]
async fn two_replicas_never_oversell() {
    let shop = Shop::on(souk_testkit::postgres().await).await.stocked(&["TEA", "CUP"], 50).await;
    let other = shop.another().await;
    let buyers = (0..200).map(|buyer| {
        let app = if buyer % 2 == 0 { &shop.app } else { &other };
        // In both orders, so that careless locking would deadlock.
        let pairs = if buyer % 4 < 2 { [("TEA", 1), ("CUP", 1)] } else { [("CUP", 1), ("TEA", 1)] };
        let command = shop.reserve_command(&pairs);
        reserve_on(app, command).boxed()
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
        let other = shop.another().await;
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

#[tokio::test]
async fn a_reservation_that_is_just_being_made_is_resolved_with_its_units_or_not_at_all() {
    let shop = Shop::on(souk_testkit::postgres().await).await.stocked(&["TEA", "CUP"], 1_000).await;
    let other = shop.another().await;
    for round in 0..150 {
        let command = shop.reserve_command(&[("TEA", 1), ("CUP", 1)]);
        let id = command.command.reservation_id;
        let resolving = async {
            for _ in 0..6 {
                if round % 2 == 0 {
                    drop(ops::release_reservation(&other, &order(), shop.resolve(id)).await);
                } else {
                    drop(ops::commit_reservation(&other, &order(), shop.resolve(id)).await);
                }
            }
        };
        let (reserved, ()) = tokio::join!(reserve_on(&shop.app, command), resolving);
        reserved.unwrap();
    }
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_hold_that_two_replicas_end_at_once_ends_once() {
    let shop = Shop::on(souk_testkit::postgres().await).await.stocked(&["TEA"], 1).await;
    let other = shop.another().await;
    let mut outcomes = [0; 2];
    for round in 0..90 {
        let held = shop.reserve(&[("TEA", 1)]).await.unwrap();
        // Due in two rounds of three; in one of these only while the others are at it.
        shop.wait(if round % 3 == 0 { 10 } else { 9 });
        let tick = async {
            tokio::task::yield_now().await;
            shop.wait(u64::from(round % 3 == 1));
        };
        let resolving = async {
            if round % 2 == 0 {
                ops::commit_reservation(&other, &order(), shop.resolve(held.id)).await
            } else {
                ops::release_reservation(&other, &order(), shop.resolve(held.id)).await
            }
        };
        let swept = async { ops::expire_holds(&other, shop.kernel.clock.now()).await };
        let taking = async {
            if round % 4 < 2 {
                shop.level("TEA").await; // the others go first
            }
            shop.reserve(&[("TEA", 1)]).await
        };
        let (taken, resolved, swept, ()) = tokio::join!(taking, resolving, swept, tick);
        let released = round % 2 == 1 && resolved.is_ok();
        assert!(released || taken.is_err() || resolved.is_err(), "{taken:?} {resolved:?}");
        outcomes[0] += usize::from(taken.is_ok());
        outcomes[1] += usize::from(resolved.is_ok());
        swept.unwrap();
        for id in [Some(held.id), taken.ok().map(|taken| taken.id)].into_iter().flatten() {
            drop(ops::release_reservation(&shop.app, &order(), shop.resolve(id)).await);
        }
        shop.wait(10);
        ops::expire_holds(&shop.app, shop.kernel.clock.now()).await.unwrap();
        shop.assert_sound().await;
        assert_eq!(shop.level("TEA").await.stock.available(), 1, "round {round}");
    }
    assert!(outcomes.iter().all(|count| *count > 0), "each must have won: {outcomes:?}");
}

#[tokio::test]
async fn a_backlog_of_due_holds_is_reclaimed_by_two_replicas_at_once() {
    let shop = Shop::on(souk_testkit::postgres().await).await.stocked(&["TEA"], 20).await;
    let other = shop.another().await;
    for _ in 0..5 {
        let holds = join_all((0..20).map(|_| shop.reserve(&[("TEA", 1)]).boxed())).await;
        assert!(holds.iter().all(Result::is_ok));
        shop.wait(10);
        let commands = [shop.reserve_command(&[("TEA", 10)]), shop.reserve_command(&[("TEA", 10)])];
        let [first, second] = commands;
        let (first, second) = tokio::join!(reserve_on(&shop.app, first), reserve_on(&other, second));
        for held in [first.unwrap(), second.unwrap()] {
            ops::release_reservation(&shop.app, &order(), shop.resolve(held.id)).await.unwrap();
        }
    }
    shop.assert_sound().await;
}

#[tokio::test]
async fn one_key_is_one_update_from_however_many_replicas() {
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        let shop = Shop::on(database).await.stocked(&["TEA"], 0).await;
        let other = shop.another().await;
        let patch = Patch { name: Some("Green tea".into()), ..Patch::default() };
        let command = keyed(shop.id(), UpdateProduct { sku: sku("TEA"), etag: Some(Etag(1)), patch });
        let calls = (0..50).map(|call| {
            let (app, command) = (if call % 2 == 0 { &shop.app } else { &other }, command.clone());
            async move { ops::update_product(app, &staff(), command).await.unwrap() }.boxed()
        });
        let answers = join_all(calls).await;
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
        assert!(answers.iter().all(|answer| answer.value == answers[0].value));
        assert_eq!(answers[0].value.version, 2);
    }
}
