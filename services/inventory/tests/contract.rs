//! The store on both engines.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use souk_db::{Db, Kind, MigrationSet, schema, sql};
use souk_events::outbox;
use souk_inventory::domain::book::{AnswerKey, Changed, Origin};
use souk_inventory::domain::command::{Adjust, Answer, CallKey, Change, Receive, Reserve, Resolve, Stamp};
use souk_inventory::domain::movement::{Operation, Reason};
use souk_inventory::domain::product::Details;
use souk_inventory::domain::reservation::{Lines, State};
use souk_inventory::domain::{Book, Command, Location, Product, Refusal, Reply, Sku, Stock, StockKey};
use souk_inventory::store::{self, SavedProduct, invariants};
use souk_proto_common::{Currency, IdempotencyKey, Money};
use souk_testkit::on_both;
use uuid::Uuid;

const MIGRATIONS: &[&MigrationSet] = &[&souk_db::MIGRATIONS, &store::MIGRATIONS];

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn sku(text: &str) -> Sku {
    Sku::parse(text).unwrap()
}

fn key(text: &str) -> StockKey {
    StockKey::new(sku(text), Location::main())
}

fn details(name: &str) -> Details {
    Details {
        name: name.into(),
        description: "a\nb — ü".into(),
        price: Money { currency: Currency::parse("EUR").unwrap(), amount_minor: 1_999 },
        tax_basis_points: 1_900,
        attributes: BTreeMap::from([("colour".into(), "\"green\"".into())]),
    }
}

fn saved(text: &str) -> SavedProduct {
    let request_id = Uuid::new_v5(&Uuid::nil(), text.as_bytes());
    let origin = Origin { caller: "someone".into(), request_id, fingerprint: [7; 32] };
    SavedProduct { product: Product::new(sku(text), details(text), at(0)), origin }
}

async fn with_products(db: &Db, skus: &[&str]) {
    let mut tx = db.write().await.unwrap();
    for text in skus {
        assert!(store::insert_product(&mut tx, &saved(text)).await.unwrap());
    }
    tx.commit().await.unwrap();
}

fn stamp(id: u128, now: DateTime<Utc>) -> Stamp {
    let key = IdempotencyKey { request_id: Uuid::from_u128(id), fingerprint: [0; 32] };
    Stamp { actor: "someone".into(), key: Some(CallKey::new("/test", key)), now }
}

/// One batch, one transaction.
async fn apply(db: &Db, commands: &[(u128, Command)], now: DateTime<Utc>) -> Vec<Result<Answer<Reply>, Refusal>> {
    let mut tx = db.write().await.unwrap();
    let only: Vec<&Command> = commands.iter().map(|(_, command)| command).collect();
    let due = store::due_among(&mut tx, &only, now, 1_000).await.unwrap();
    let keys = commands.iter().map(|(id, _)| (stamp(*id, now).key.unwrap(), "someone"));
    let keys: Vec<AnswerKey> = keys.map(|(call, caller)| AnswerKey::new(caller, &call)).collect();
    let mut book = Book::open(store::load(&mut tx, &only, &due, &keys).await.unwrap(), now);
    let results = commands.iter().map(|(id, command)| book.apply(command, &stamp(*id, now))).collect();
    store::save(&mut tx, &book.close(), outbox::insert(&[]), now).await.unwrap();
    tx.commit().await.unwrap();
    results
}

fn lines(pairs: &[(&str, i64)]) -> Lines {
    Lines::sum(pairs.iter().map(|(text, quantity)| (key(text), *quantity))).unwrap()
}

fn receive(text: &str, quantity: i64) -> Command {
    Command::Receive(Receive { key: key(text), quantity, reason: Reason::Purchase, reference: "note 1".into() })
}

fn reserve(id: u128, pairs: &[(&str, i64)], ttl_s: u64) -> Command {
    let ttl = Duration::from_secs(ttl_s);
    Command::Reserve(Reserve { reservation_id: Uuid::from_u128(id), lines: lines(pairs), ttl })
}

fn resolve(id: u128) -> Resolve {
    Resolve { reservation_id: Uuid::from_u128(id), lines: None }
}

async fn stock(db: &Db, text: &str) -> Stock {
    let mut tx = db.read().await.unwrap();
    store::levels(&mut tx, &[key(text)]).await.unwrap().remove(&key(text)).unwrap_or_default()
}

async fn assert_sound(db: &Db) {
    let mut tx = db.read().await.unwrap();
    assert_eq!(invariants::check(&mut tx).await.unwrap(), []);
}

#[tokio::test]
async fn both_engines_have_the_same_schema() {
    let mut schemas = Vec::new();
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        database.migrate(MIGRATIONS).await.unwrap();
        schemas.push(schema::columns(&mut database.read().await.unwrap()).await.unwrap());
    }
    assert!(schemas[0].len() > 50);
    assert_eq!(schemas[0], schemas[1]);
}

#[tokio::test]
async fn a_product_is_kept_as_it_was_given() {
    on_both(MIGRATIONS, async |db| {
        with_products(&db, &["TEA"]).await;
        let mut tx = db.write().await.unwrap();
        assert!(!store::insert_product(&mut tx, &saved("TEA")).await.unwrap(), "a sku is taken once");
        assert_eq!(store::product(&mut tx, &sku("TEA")).await.unwrap(), Some(saved("TEA").product));
        assert_eq!(store::product(&mut tx, &sku("tea")).await.unwrap(), None);
        assert_eq!(store::product_to_change(&mut tx, &sku("TEA")).await.unwrap(), Some(saved("TEA")));
    })
    .await;
}

#[tokio::test]
async fn a_product_that_has_moved_on_is_not_overwritten() {
    on_both(MIGRATIONS, async |db| {
        with_products(&db, &["TEA"]).await;
        let mut tx = db.write().await.unwrap();
        let now = saved("TEA").product.with(details("Green tea"), at(5)).unwrap();
        let changed = Changed { now, version_before: 1 };
        store::update_product(&mut tx, &changed).await.unwrap();
        assert_eq!(store::product(&mut tx, &sku("TEA")).await.unwrap(), Some(changed.now.clone()));
        let late = store::update_product(&mut tx, &changed).await.unwrap_err();
        assert_eq!(late.kind(), Kind::Conflict);
        let late = store::save_products(&mut tx, &[saved("NEW"), saved("TEA")], &[]).await.unwrap_err();
        assert_eq!(late.kind(), Kind::Conflict);
    })
    .await;
}

#[tokio::test]
async fn a_product_that_is_being_changed_can_get_its_first_stock() {
    let database = souk_testkit::postgres().await;
    database.migrate(MIGRATIONS).await.unwrap();
    with_products(&database, &["TEA"]).await;
    let mut tx = database.write().await.unwrap();
    store::product_to_change(&mut tx, &sku("TEA")).await.unwrap();
    assert!(apply(&database, &[(1, receive("TEA", 1))], at(0)).await[0].is_ok());
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn products_are_listed_by_the_bytes_of_their_skus() {
    on_both(MIGRATIONS, async |db| {
        with_products(&db, &["b", "A", "a-1", "B", "a", "1"]).await;
        let mut tx = db.read().await.unwrap();
        let mut listed = Vec::new();
        let mut after = None;
        loop {
            let page = store::list_products(&mut tx, after.as_ref(), 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.sku.clone());
            listed.extend(page.into_iter().map(|product| product.sku.as_str().to_owned()));
        }
        assert_eq!(listed, ["1", "A", "B", "a", "a-1", "b"]);
        let both = store::products(&mut tx, &[sku("b"), sku("none"), sku("A")]).await.unwrap();
        assert_eq!(both.len(), 2);
        let known = store::known_skus(&mut tx, &[sku("b"), sku("none")]).await.unwrap();
        assert_eq!(known, BTreeSet::from([sku("b")]));
        let elsewhere = Location::parse("moon").unwrap();
        let asked = BTreeSet::from([Location::main(), elsewhere.clone()]);
        assert_eq!(store::unknown_locations(&mut tx, &asked).await.unwrap(), BTreeSet::from([elsewhere]));
    })
    .await;
}

#[tokio::test]
async fn an_order_goes_from_hold_to_allocation() {
    on_both(MIGRATIONS, async |db| {
        with_products(&db, &["TEA", "CUP"]).await;
        apply(&db, &[(1, receive("TEA", 10)), (2, receive("CUP", 3))], at(0)).await;
        let held = apply(&db, &[(3, reserve(1, &[("TEA", 4), ("CUP", 3)], 60))], at(1)).await;
        let [Ok(Answer { value: Reply::Reservation(reservation), replayed: false })] = &held[..] else {
            panic!("{held:?}")
        };
        assert_eq!((reservation.state, reservation.lines.len()), (State::Held, 2));
        assert_eq!((stock(&db, "TEA").await.available(), stock(&db, "CUP").await.available()), (6, 0));
        let committed = apply(&db, &[(4, Command::Commit(resolve(1))), (5, Command::Commit(resolve(1)))], at(2)).await;
        assert!(committed[0].is_ok());
        assert_eq!(committed[1], Err(Refusal::AlreadyCommitted(Uuid::from_u128(1))));
        let tea = stock(&db, "TEA").await;
        assert_eq!((tea.on_hand, tea.held, tea.allocated, tea.version, tea.on_hand_version), (10, 0, 4, 3, 1));
        let mut tx = db.read().await.unwrap();
        let ledger = store::list_movements(&mut tx, &key("TEA"), None, 10).await.unwrap();
        let operations: Vec<(i64, Operation)> = ledger.iter().map(|row| (row.seq, row.operation)).collect();
        assert_eq!(operations, [(3, Operation::Commit), (2, Operation::Reserve), (1, Operation::Receive)]);
        assert_eq!((ledger[2].reason, ledger[2].reference.as_str()), (Some(Reason::Purchase), "note 1"));
        assert_eq!(store::list_movements(&mut tx, &key("TEA"), Some(2), 10).await.unwrap(), ledger[2..]);
        drop(tx);
        assert_sound(&db).await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_is_given_again_under_its_key() {
    on_both(MIGRATIONS, async |db| {
        with_products(&db, &["TEA"]).await;
        let twice = [(1, receive("TEA", 10)), (1, receive("TEA", 10))];
        let first = apply(&db, &twice, at(0)).await;
        let first: Vec<&Answer<Reply>> = first.iter().map(|answer| answer.as_ref().unwrap()).collect();
        assert_eq!((first[0].replayed, first[1].replayed), (false, true), "two equal keys in one batch are one effect");
        let again = apply(&db, &[(1, receive("TEA", 10))], at(500)).await.remove(0).unwrap();
        assert_eq!((again.replayed, &again.value), (true, &first[0].value));
        assert_eq!(stock(&db, "TEA").await.on_hand, 10);
        assert_sound(&db).await;
    })
    .await;
}

#[tokio::test]
async fn due_holds_are_found_by_the_record_that_needs_them() {
    on_both(MIGRATIONS, async |db| {
        with_products(&db, &["TEA", "CUP"]).await;
        apply(&db, &[(1, receive("TEA", 10)), (2, receive("CUP", 10))], at(0)).await;
        apply(&db, &[(3, reserve(1, &[("TEA", 9), ("CUP", 9)], 5)), (4, reserve(2, &[("TEA", 1)], 500))], at(0)).await;
        let mut tx = db.read().await.unwrap();
        let wanted = reserve(3, &[("TEA", 8)], 5);
        assert_eq!(store::due_among(&mut tx, &[&wanted], at(4), 10).await.unwrap(), BTreeSet::new());
        let due = BTreeSet::from([Uuid::from_u128(1)]);
        assert_eq!(store::due_among(&mut tx, &[&wanted], at(5), 10).await.unwrap(), due);
        assert_eq!(store::due_reservations(&mut tx, at(4), 10).await.unwrap(), Vec::<Uuid>::new());
        assert_eq!(store::due_reservations(&mut tx, at(5), 10).await.unwrap(), Vec::from_iter(due));
        drop(tx);
        assert!(apply(&db, &[(5, wanted)], at(5)).await.remove(0).is_ok(), "a due hold is as good as none");
        assert_eq!(stock(&db, "CUP").await.held, 0, "a hold ends as a whole");
        assert_sound(&db).await;
    })
    .await;
}

#[tokio::test]
async fn batches_larger_than_a_statement_are_whole() {
    on_both(MIGRATIONS, async |db| {
        let names: Vec<String> = (0..700).map(|index| format!("P{index}")).collect();
        let new: Vec<SavedProduct> = names.iter().map(|name| saved(name)).collect();
        let mut tx = db.write().await.unwrap();
        store::save_products(&mut tx, &new, &[]).await.unwrap();
        tx.commit().await.unwrap();
        let received: Vec<(u128, Command)> = (1..).zip(&names).map(|(id, name)| (id, receive(name, 1))).collect();
        assert!(apply(&db, &received, at(0)).await.iter().all(Result::is_ok));
        let reserved: Vec<(u128, Command)> =
            (1_001..).zip(&names).map(|(id, name)| (id, reserve(id, &[(name.as_str(), 1)], 60))).collect();
        assert!(apply(&db, &reserved, at(0)).await.iter().all(Result::is_ok));
        assert!(apply(&db, &received, at(0)).await.iter().all(|answer| answer.as_ref().is_ok_and(|a| a.replayed)));
        let swept = Command::Expire(reserved.iter().map(|(id, _)| Uuid::from_u128(*id)).collect());
        let swept = apply(&db, &[(9_999, swept)], at(60)).await;
        assert_eq!(swept, [Ok(Answer::fresh(Reply::Expired(700)))]);
        assert_sound(&db).await;
    })
    .await;
}

#[tokio::test]
async fn whoever_saves_second_starts_anew() {
    on_both(MIGRATIONS, async |db| {
        with_products(&db, &["TEA"]).await;
        let now = at(0);
        let mut stale = Vec::new();
        for command in [receive("TEA", 1), reserve(1, &[("TEA", 1)], 60)] {
            let mut tx = db.write().await.unwrap();
            let loaded = store::load(&mut tx, &[&command], &BTreeSet::new(), &[]).await.unwrap();
            let mut book = Book::open(loaded, now);
            book.apply(&command, &stamp(1, now)).unwrap();
            let changes = book.close();
            store::save(&mut tx, &changes, outbox::insert(&[]), now).await.unwrap();
            tx.commit().await.unwrap();
            stale.push(changes);
            // The reservation needs a key of its own.
            let mut tx = db.write().await.unwrap();
            sql("DELETE FROM idempotency_keys").execute(&mut tx).await.unwrap();
            tx.commit().await.unwrap();
        }
        for mut changes in stale {
            changes.movements.clear();
            let mut tx = db.write().await.unwrap();
            assert_eq!(
                store::save(&mut tx, &changes, outbox::insert(&[]), now).await.unwrap_err().kind(),
                Kind::Conflict,
                "a record"
            );
            tx.rollback().await.unwrap();
            changes.stocks.clear();
            if !changes.reservations.is_empty() {
                let mut tx = db.write().await.unwrap();
                let late = store::save(&mut tx, &changes, outbox::insert(&[]), now).await.unwrap_err();
                assert_eq!(late.kind(), Kind::Conflict, "a reservation");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_broken_equation_is_named() {
    const COPY: &str =
        "INSERT INTO movements (sku, location, seq, operation, on_hand_delta, held_delta, allocated_delta, safety_delta,
             incoming_delta, reason, reference, actor, request_id, reservation_id, created_at)
         SELECT sku, location, seq + n, operation, on_hand_delta, held_delta, allocated_delta, safety_delta,
             incoming_delta, reason, reference, actor, request_id, reservation_id, created_at
         FROM movements CROSS JOIN (SELECT 100 AS n UNION ALL SELECT 200) AS copies";
    let committed = format!("{COPY} WHERE operation = 'COMMIT' AND n = 100");
    let received = format!("{COPY} WHERE operation = 'RECEIVE'");
    let breaks = [
        ("I2", "held is the sum", "UPDATE stock SET held = held + 1"),
        ("I2", "only a held", "UPDATE reservations SET state = 'EXPIRED' WHERE state = 'HELD'"),
        (
            "I2",
            "only a held",
            "UPDATE reservation_lines SET expires_at = created_at FROM reservations WHERE reservation_id = id",
        ),
        ("I2", "each line has", "DELETE FROM reservations"),
        ("I2", "each reservation has", "DELETE FROM reservation_lines"),
        ("I3", "allocated is the sum", "UPDATE stock SET allocated = allocated - 1 WHERE allocated > 0"),
        ("I3", "only a committed", "UPDATE reservations SET state = 'HELD' WHERE state = 'COMMITTED'"),
        ("I4", "", "UPDATE stock SET on_hand = 1"),
        ("I5", "", "UPDATE movements SET on_hand_delta = 1 WHERE operation = 'RECEIVE'"),
        ("I6", "", "UPDATE stock SET on_hand = on_hand + 1"),
        ("I6", "", "UPDATE stock SET incoming = incoming + 1"),
        ("I6", "", "DELETE FROM stock"),
        ("I7", "", "DELETE FROM movements WHERE seq = 2"),
        ("I7", "", "DELETE FROM movements WHERE seq = 1"),
        ("I7", "", "UPDATE stock SET version = version + 1"),
        ("I7", "", "UPDATE stock SET on_hand_version = on_hand_version + 1"),
        ("I9", "", "UPDATE reservation_lines SET released = released + 1"),
        ("I9", "", "UPDATE reservation_lines SET requested = requested + 1"),
        ("I11", "each record of it once", &committed),
        (
            "I11",
            "moved one reservation",
            "UPDATE movements SET request_id = (SELECT request_id FROM movements WHERE operation = 'COMMIT')
             WHERE operation = 'RESERVE'",
        ),
        ("I11", "Receive or Adjust", &received),
        (
            "I11",
            "one reservation",
            "UPDATE reservations SET request_id = (SELECT request_id FROM reservations WHERE state = 'HELD')",
        ),
        ("I11", "one product", "UPDATE products SET request_id = (SELECT request_id FROM products WHERE sku = 'TEA')"),
    ];
    on_both(MIGRATIONS, async |db| {
        with_products(&db, &["TEA", "CUP"]).await;
        apply(&db, &[(1, receive("TEA", 10)), (5, receive("CUP", 10))], at(0)).await;
        let two = [(2, reserve(1, &[("TEA", 4)], 60)), (3, reserve(2, &[("CUP", 2)], 60))];
        apply(&db, &two, at(0)).await;
        apply(&db, &[(4, Command::Commit(resolve(1)))], at(0)).await;
        assert_sound(&db).await;
        for (invariant, rule, statement) in breaks {
            let mut tx = db.write().await.unwrap();
            assert!(sql(statement.to_owned()).execute(&mut tx).await.unwrap() > 0, "{statement}");
            let violations = invariants::check(&mut tx).await.unwrap();
            let named =
                violations.iter().any(|violation| violation.invariant == invariant && violation.rule.contains(rule));
            assert!(named, "{statement}: {violations:?}");
            tx.rollback().await.unwrap();
        }
        assert_sound(&db).await;
    })
    .await;
}

#[tokio::test]
async fn a_negative_bucket_is_refused_by_the_tables_and_named_by_the_check() {
    on_both(MIGRATIONS, async |db| {
        with_products(&db, &["TEA"]).await;
        apply(&db, &[(1, receive("TEA", 1))], at(0)).await;
        let negative = || sql("UPDATE stock SET incoming = -1");
        let mut tx = db.write().await.unwrap();
        assert!(negative().execute(&mut tx).await.is_err());
        tx.rollback().await.unwrap();
        let unchecked = match db.engine() {
            souk_db::Engine::Sqlite => "PRAGMA ignore_check_constraints = ON",
            souk_db::Engine::Postgres => "ALTER TABLE stock DROP CONSTRAINT stock_incoming_check",
        };
        let mut tx = db.write().await.unwrap();
        sql(unchecked).execute(&mut tx).await.unwrap();
        negative().execute(&mut tx).await.unwrap();
        let violations = invariants::check(&mut tx).await.unwrap();
        assert!(violations.iter().any(|violation| violation.invariant == "I1"), "{violations:?}");
    })
    .await;
}

#[tokio::test]
async fn a_count_is_taken_against_the_stock_it_saw() {
    on_both(MIGRATIONS, async |db| {
        with_products(&db, &["TEA"]).await;
        apply(&db, &[(1, receive("TEA", 10)), (2, reserve(1, &[("TEA", 4)], 60))], at(0)).await;
        let count = |on_hand, etag| {
            let change = Change::Count { on_hand, etag };
            Command::Adjust(Adjust { key: key("TEA"), change, reason: Reason::Count, reference: String::new() })
        };
        let results = apply(&db, &[(3, count(9, 1)), (4, count(8, 1)), (5, count(3, 3))], at(1)).await;
        assert!(results[0].is_ok(), "a hold does not disturb a count");
        assert_eq!(results[1], Err(Refusal::EtagMismatch { key: key("TEA"), current: 3 }));
        let stranded = Refusal::WouldStrand { key: key("TEA"), on_hand: 9, promised: 4, asked: 3 };
        assert_eq!(results[2], Err(stranded));
        assert!(apply(&db, &[(6, count(3, 3))], at(1) + TimeDelta::minutes(2)).await[0].is_ok(), "a due hold is none");
        assert_sound(&db).await;
    })
    .await;
}
