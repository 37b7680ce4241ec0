//! Holds: who gets which units, and what becomes of holds that run out.

use futures::FutureExt;
use futures::future::join_all;
use souk_db::sql;
use souk_inventory::domain::Refusal;
use souk_inventory::domain::reservation::State;
use souk_inventory::error::Error;
use souk_inventory::ops;

use crate::shop::{Shop, is_short, order};

#[tokio::test]
async fn a_due_hold_is_as_good_as_none_to_the_reserve_that_needs_it() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA", "CUP"], 5).await;
    let first = shop.reserve(&[("TEA", 5), ("CUP", 5)]).await.unwrap();
    assert!(is_short(&shop.reserve(&[("TEA", 1)]).await));
    shop.wait(10);
    shop.reserve(&[("TEA", 5)]).await.unwrap();
    assert_eq!(shop.level("CUP").await.stock.held, 0, "a hold ends as a whole");
    assert!(matches!(shop.commit(first.id).await, Err(Error::Refused(Refusal::Expired(_)))));
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_backlog_of_due_holds_is_reclaimed_however_long_it_is() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 20).await;
    for _ in 0..20 {
        shop.reserve(&[("TEA", 1)]).await.unwrap();
    }
    shop.wait(10);
    shop.reserve(&[("TEA", 20)]).await.unwrap(); // far more than due_holds_max
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_commit_that_races_the_expiry_has_one_winner() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 1).await;
    let (mut commits, mut expiries) = (0, 0);
    for round in 0..60_u8 {
        let held = shop.reserve(&[("TEA", 1)]).await.unwrap();
        // In every third round the hold is due before, in every third after the race; between these, who knows.
        shop.wait(if round % 3 == 0 { 10 } else { 9 });
        let tick = async {
            for _ in 0..round % 5 {
                tokio::task::yield_now().await;
            }
            shop.wait(u64::from(round % 3 == 1));
        };
        let (committed, taken, ()) = tokio::join!(shop.commit(held.id), shop.reserve(&[("TEA", 1)]), tick);
        match (&committed, &taken) {
            (Ok(_), taken) if is_short(taken) => commits += 1,
            (Err(Error::Refused(Refusal::Expired(_))), taken) => {
                // Before the hold was due, the other Reserve was refused; from then on it got the unit.
                assert!(taken.is_ok() || is_short(taken), "{taken:?}");
                expiries += 1;
            }
            both => panic!("{both:?}"),
        }
        shop.assert_sound().await;
        let winner = taken.map_or(held.id, |taken| taken.id);
        let release = shop.resolve(winner);
        drop(ops::release_reservation(&shop.app, &order(), release).await);
        shop.wait(10);
    }
    assert!(commits > 0 && expiries > 0, "both must have happened: {commits} commits, {expiries} expiries");
}

#[tokio::test]
async fn of_n_reserves_on_s_units_exactly_as_many_succeed_as_there_are_units() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 100).await;
    let results = join_all((0..200).map(|_| shop.reserve(&[("TEA", 1)]).boxed())).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 100);
    assert_eq!(results.iter().filter(|result| is_short(result)).count(), 100);
    assert_eq!(shop.level("TEA").await.stock.available(), 0);
    let stats = shop.app.stock.stats();
    assert!(stats.batches() < stats.commands(), "concurrent commands share transactions");
    shop.assert_sound().await;
}

#[tokio::test]
async fn a_reservation_is_recognised_by_its_name_under_another_key() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 5).await;
    let mut command = shop.reserve_command(&[("TEA", 2)]);
    let first = ops::reserve(&shop.app, &order(), command.clone()).await.unwrap();
    command.key.request_id = shop.id();
    let again = ops::reserve(&shop.app, &order(), command.clone()).await.unwrap();
    assert_eq!((again.replayed, again.value), (true, first.value));
    shop.commit(command.command.reservation_id).await.unwrap();
    let late = ops::reserve(&shop.app, &order(), command).await;
    assert!(matches!(late, Err(Error::Refused(Refusal::AlreadyCommitted(_)))), "{late:?}");
}

#[tokio::test]
async fn a_commit_is_answered_the_same_again_even_after_the_expiry() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 5).await;
    let held = shop.reserve(&[("TEA", 2)]).await.unwrap();
    let command = shop.resolve(held.id);
    let first = ops::commit_reservation(&shop.app, &order(), command.clone()).await.unwrap();
    shop.wait(1_000);
    let again = ops::commit_reservation(&shop.app, &order(), command).await.unwrap();
    assert_eq!((again.replayed, again.value), (true, first.value));
}

#[tokio::test]
async fn the_sweeper_leaves_no_hold_that_is_due() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 50).await;
    for _ in 0..7 {
        shop.reserve(&[("TEA", 1)]).await.unwrap();
    }
    shop.wait(5);
    let live = shop.reserve(&[("TEA", 1)]).await.unwrap();
    shop.wait(5);
    let ended = ops::expire_holds(&shop.app, shop.kernel.clock.now()).await.unwrap();
    assert_eq!((ended, shop.level("TEA").await.stock.held), (7, 1));
    assert_eq!(ops::expire_holds(&shop.app, shop.kernel.clock.now()).await.unwrap(), 0);
    assert_eq!(shop.commit(live.id).await.unwrap().state, State::Committed);
    shop.assert_sound().await;
}

#[tokio::test]
async fn old_keys_are_forgotten_however_many_there_are() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 5).await;
    for _ in 0..9 {
        shop.receive("TEA", 1).await.unwrap(); // with those of the product and its stock far more than sweep_batch_max
    }
    assert_eq!(ops::forget_keys(&shop.app, shop.kernel.clock.now()).await.unwrap(), 0);
    shop.wait(73 * 3_600);
    assert_eq!(ops::forget_keys(&shop.app, shop.kernel.clock.now()).await.unwrap(), 11);
}

#[tokio::test]
async fn a_sweep_ends_holds_even_if_keys_cannot_be_forgotten() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 5).await;
    shop.reserve(&[("TEA", 5)]).await.unwrap();
    shop.wait(10);
    let mut tx = shop.database.write().await.unwrap();
    sql("DROP TABLE idempotency_keys").execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert!(ops::sweep(&shop.app, shop.id()).await.is_err());
    assert_eq!(shop.level("TEA").await.stock.held, 0);
}

#[tokio::test]
async fn a_sweeper_that_was_killed_is_replaced_by_the_next_sweep() {
    let shop = Shop::on_sqlite().await.stocked(&["TEA"], 5).await;
    let mut app = shop.app.clone();
    app.limits.sweep_interval_ms = 10_000;
    let (killed, next) = (shop.id(), shop.id());
    ops::sweep(&app, killed).await.unwrap();
    shop.reserve(&[("TEA", 5)]).await.unwrap();
    shop.wait(9);
    assert_eq!(ops::sweep(&app, next).await.unwrap(), 0, "one at a time");
    shop.wait(1);
    assert_eq!(ops::sweep(&app, next).await.unwrap(), 1);
}
