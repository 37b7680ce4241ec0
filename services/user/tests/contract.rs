//! The store on both engines.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use chrono::{DateTime, TimeDelta, Utc};
use souk_db::{Db, Kind, MigrationSet, schema, sql};
use souk_testkit::on_both;
use souk_user::domain::keys::{KeyState, TokenKey};
use souk_user::domain::session::{StoredToken, Used};
use souk_user::domain::{Email, PasswordHash, RefreshToken, Role, Roles, Session, SessionRules, User};
use souk_user::store::{self, Account, AuditEvent, Origin};
use uuid::Uuid;

const MIGRATIONS: &[&MigrationSet] = &[&souk_db::MIGRATIONS, &store::MIGRATIONS];
const RULES: SessionRules =
    SessionRules { idle: TimeDelta::days(14), absolute: TimeDelta::days(90), replay: TimeDelta::seconds(30) };

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_800_000_000_123_456 + seconds * 1_000_000).unwrap()
}

fn email(name: &str) -> Email {
    Email::parse(&format!("{name}@x.example")).unwrap()
}

fn account(id: u128, name: &str, roles: &[Role]) -> Account {
    let roles = Roles::new(roles.iter().copied()).unwrap();
    Account {
        user: User::new(Uuid::from_u128(id), email(name), format!("{name} — ü"), roles, at(0)),
        password_hash: PasswordHash::stored(format!("hash of {name}")),
        origin: Origin { request_id: Uuid::from_u128(id + 1_000), fingerprint: [9; 32] },
    }
}

async fn with_accounts(db: &Db, accounts: &[Account]) {
    let mut tx = db.write().await.unwrap();
    for account in accounts {
        assert!(store::insert_account(&mut tx, account).await.unwrap());
    }
    tx.commit().await.unwrap();
}

async fn with_session(db: &Db) -> (Session, StoredToken) {
    with_accounts(db, &[account(1, "ada", &[Role::Customer])]).await;
    let session = Session::begin(Uuid::from_u128(5), Uuid::from_u128(1), &RULES, at(0));
    let token = session.issue(&RefreshToken::new([1; 32]), &RULES, at(0));
    let mut tx = db.write().await.unwrap();
    store::insert_session(&mut tx, &session).await.unwrap();
    store::insert_token(&mut tx, &token).await.unwrap();
    tx.commit().await.unwrap();
    (session, token)
}

#[tokio::test]
async fn both_engines_have_one_schema() {
    let mut schemas = Vec::new();
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        database.migrate(MIGRATIONS).await.unwrap();
        schemas.push(schema::columns(&mut database.read().await.unwrap()).await.unwrap());
    }
    assert!(schemas[0].len() > 30);
    assert_eq!(schemas[0], schemas[1]);
}

#[tokio::test]
async fn an_account_is_kept_as_it_was_given() {
    on_both(MIGRATIONS, async |db| {
        let ada = account(1, "ada", &[Role::Customer, Role::Staff]);
        with_accounts(&db, std::slice::from_ref(&ada)).await;
        let mut tx = db.read().await.unwrap();
        assert_eq!(store::account_by_email(&mut tx, &email("ada")).await.unwrap(), Some(ada.clone()));
        assert_eq!(store::user(&mut tx, ada.user.id).await.unwrap(), Some(ada.user));
        assert_eq!(store::account_by_email(&mut tx, &email("bob")).await.unwrap(), None);
        assert_eq!(store::user(&mut tx, Uuid::from_u128(2)).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn an_address_is_taken_once_and_the_transaction_goes_on() {
    on_both(MIGRATIONS, async |db| {
        let ada = account(1, "ada", &[Role::Customer]);
        with_accounts(&db, std::slice::from_ref(&ada)).await;
        let mut tx = db.write().await.unwrap();
        assert!(!store::insert_account(&mut tx, &account(2, "ada", &[Role::Admin])).await.unwrap());
        assert_eq!(store::account_by_email(&mut tx, &email("ada")).await.unwrap(), Some(ada));
        assert!(store::administrators_to_change(&mut tx).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_user_is_saved_over_the_version_before_only() {
    on_both(MIGRATIONS, async |db| {
        let ada = account(1, "ada", &[Role::Customer, Role::Admin]);
        with_accounts(&db, std::slice::from_ref(&ada)).await;
        let roles = Roles::new([Role::Staff, Role::Admin]).unwrap();
        let renamed = ada.user.renamed("Countess", at(1)).unwrap();
        let changed = renamed.with_roles(&roles, &[ada.user.id], at(2)).unwrap().unwrap();
        let mut tx = db.write().await.unwrap();
        assert_eq!(store::user_to_change(&mut tx, ada.user.id).await.unwrap(), Some(ada.user.clone()));
        store::save_user(&mut tx, &renamed).await.unwrap();
        store::save_user(&mut tx, &changed).await.unwrap();
        assert_eq!(store::user(&mut tx, ada.user.id).await.unwrap(), Some(changed));
        let stale = store::save_user(&mut tx, &renamed).await.unwrap_err();
        assert_eq!(stale.kind(), Kind::Conflict);
    })
    .await;
}

#[tokio::test]
async fn administrators_are_found_and_nobody_else() {
    on_both(MIGRATIONS, async |db| {
        let accounts = [
            account(3, "ada", &[Role::Admin]),
            account(1, "bob", &[Role::Staff]),
            account(2, "cy", &[Role::Customer, Role::Admin]),
        ];
        with_accounts(&db, &accounts).await;
        let found = store::administrators_to_change(&mut db.write().await.unwrap()).await.unwrap();
        assert_eq!(found, [Uuid::from_u128(2), Uuid::from_u128(3)]);
    })
    .await;
}

#[tokio::test]
async fn pages_go_on_where_the_one_before_ended() {
    on_both(MIGRATIONS, async |db| {
        let accounts: Vec<Account> = (1..=5).map(|id| account(id, &format!("u{id}"), &[Role::Customer])).collect();
        with_accounts(&db, &accounts).await;
        let mut tx = db.read().await.unwrap();
        let mut seen = Vec::new();
        loop {
            let page = store::list_users(&mut tx, seen.last().map(|user: &User| user.id), 2).await.unwrap();
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, accounts.into_iter().map(|account| account.user).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_better_hash_replaces_the_one_that_it_was_made_for() {
    on_both(MIGRATIONS, async |db| {
        let ada = account(1, "ada", &[Role::Customer]);
        with_accounts(&db, std::slice::from_ref(&ada)).await;
        let (better, other) = (PasswordHash::stored("better".into()), PasswordHash::stored("other".into()));
        let mut tx = db.write().await.unwrap();
        store::update_password_hash(&mut tx, ada.user.id, &ada.password_hash, &better).await.unwrap();
        store::update_password_hash(&mut tx, ada.user.id, &ada.password_hash, &other).await.unwrap();
        let kept = store::account_by_email(&mut tx, &email("ada")).await.unwrap().unwrap();
        assert_eq!(kept.password_hash, better);
    })
    .await;
}

#[tokio::test]
async fn a_token_is_found_with_its_session() {
    on_both(MIGRATIONS, async |db| {
        let (session, token) = with_session(&db).await;
        let mut tx = db.write().await.unwrap();
        let found = Some((session.clone(), token.clone()));
        assert_eq!(store::session_of(&mut tx, &token.hash).await.unwrap(), found);
        assert_eq!(store::session_to_change(&mut tx, &token.hash).await.unwrap(), found);
        assert_eq!(store::session_to_change(&mut tx, &[0; 32]).await.unwrap(), None);
        assert!(!store::token_used(&mut tx, &token.hash).await.unwrap());

        let used = Used { at: at(1), successor: [2; 32] };
        store::mark_used(&mut tx, &token.hash, &used).await.unwrap();
        assert!(store::token_used(&mut tx, &token.hash).await.unwrap());
        let (_, stored) = store::session_of(&mut tx, &token.hash).await.unwrap().unwrap();
        assert_eq!(stored, StoredToken { used: Some(used), ..token });
        let unknown = store::mark_used(&mut tx, &[0; 32], &used).await.unwrap_err();
        assert_eq!(unknown.kind(), Kind::Conflict);
    })
    .await;
}

#[tokio::test]
async fn a_session_is_ended_once() {
    on_both(MIGRATIONS, async |db| {
        let (session, token) = with_session(&db).await;
        let mut tx = db.write().await.unwrap();
        assert!(store::revoke_session(&mut tx, session.id, at(1)).await.unwrap());
        assert!(!store::revoke_session(&mut tx, session.id, at(2)).await.unwrap());
        let (ended, _) = store::session_of(&mut tx, &token.hash).await.unwrap().unwrap();
        assert_eq!(ended.revoked_at, Some(at(1)));
    })
    .await;
}

#[tokio::test]
async fn sessions_that_are_over_go_after_their_tokens() {
    on_both(MIGRATIONS, async |db| {
        let (session, token) = with_session(&db).await;
        let mut tx = db.write().await.unwrap();
        let second = session.issue(&RefreshToken::new([2; 32]), &RULES, at(0));
        store::insert_token(&mut tx, &second).await.unwrap();
        assert_eq!(store::delete_ended_tokens(&mut tx, session.expires_at, 10).await.unwrap(), 0);
        assert_eq!(store::delete_ended_sessions(&mut tx, session.expires_at, 10).await.unwrap(), 0);
        let after = session.expires_at + TimeDelta::seconds(1);
        assert_eq!(store::delete_ended_tokens(&mut tx, after, 1).await.unwrap(), 1, "no more than asked for");
        assert_eq!(store::delete_ended_sessions(&mut tx, after, 10).await.unwrap(), 0, "it has a token");
        assert_eq!(store::delete_ended_tokens(&mut tx, after, 10).await.unwrap(), 1);
        assert_eq!(store::delete_ended_sessions(&mut tx, after, 0).await.unwrap(), 0, "no more than asked for");
        assert_eq!(store::delete_ended_sessions(&mut tx, after, 10).await.unwrap(), 1);
        assert_eq!(store::session_of(&mut tx, &token.hash).await.unwrap(), None);
        let (left,): (i64,) = sql("SELECT COUNT(*) FROM refresh_tokens").fetch_one(&mut tx).await.unwrap();
        assert_eq!(left, 0);
    })
    .await;
}

#[tokio::test]
async fn keys_go_through_their_states() {
    on_both(MIGRATIONS, async |db| {
        let mut tx = db.write().await.unwrap();
        let first = TokenKey::new([1; 32], KeyState::Signing, at(0));
        let second = TokenKey::new([2; 32], KeyState::Published, at(1));
        store::insert_key(&mut tx, &second).await.unwrap();
        store::insert_key(&mut tx, &first).await.unwrap();
        assert_eq!(store::token_keys(&mut tx).await.unwrap(), [first.clone(), second.clone()]);
        store::move_key(&mut tx, &first.kid, KeyState::Retired, at(2)).await.unwrap();
        store::move_key(&mut tx, &second.kid, KeyState::Signing, at(3)).await.unwrap();
        store::delete_key(&mut tx, &first.kid).await.unwrap();
        let signing = TokenKey { state: KeyState::Signing, since: at(3), ..second };
        assert_eq!(store::token_keys(&mut tx).await.unwrap(), [signing]);
        assert_eq!(store::delete_key(&mut tx, &first.kid).await.unwrap_err().kind(), Kind::Conflict);
    })
    .await;
}

#[tokio::test]
async fn two_keys_never_sign() {
    on_both(MIGRATIONS, async |db| {
        let mut tx = db.write().await.unwrap();
        store::insert_key(&mut tx, &TokenKey::new([1; 32], KeyState::Signing, at(0))).await.unwrap();
        let second = TokenKey::new([2; 32], KeyState::Signing, at(0));
        assert_eq!(store::insert_key(&mut tx, &second).await.unwrap_err().kind(), Kind::Bug);
    })
    .await;
}

#[tokio::test]
async fn an_audit_event_is_kept_as_it_was_given() {
    type Row = (Uuid, DateTime<Utc>, String, String, String, Option<String>, String);
    on_both(MIGRATIONS, async |db| {
        for (id, peer) in [(1, None), (2, Some("192.0.2.1"))] {
            let event = AuditEvent {
                audit_id: Uuid::from_u128(id),
                happened_at: at(1),
                actor: "anonymous".into(),
                action: "REGISTERED".into(),
                subject: "user/1".into(),
                peer: peer.map(str::to_owned),
                detail: "ü".into(),
            };
            let mut tx = db.write().await.unwrap();
            store::append_audit(&mut tx, &event).await.unwrap();
            let kept: Row = sql("SELECT audit_id, happened_at, actor, action, subject, peer, detail FROM audit_events
                 WHERE audit_id = $1")
            .bind(event.audit_id)
            .fetch_one(&mut tx)
            .await
            .unwrap();
            let AuditEvent { audit_id, happened_at, actor, action, subject, peer, detail } = event;
            assert_eq!(kept, (audit_id, happened_at, actor, action, subject, peer, detail));
        }
    })
    .await;
}
