//! Logins, refresh tokens, and the keys behind access tokens.

use std::time::Duration;

use souk_db::sql;
use souk_interceptors::token::Verifier;
use souk_proto_common::REPLAY_HEADER;
use souk_proto_common::v1::Reason;
use souk_proto_user::v1 as pb;
use souk_runtime::Clock;
use souk_user::domain::command::Login;
use souk_user::domain::{Email, Password};
use souk_user::ops;
use tonic::{Code, Status};

use crate::harness::{PASSWORD, Server, refused, violations};

const DAY: u64 = 24 * 60 * 60;

/// A user with a session.
async fn signed_in() -> (Server, pb::TokenPair) {
    let server = Server::start().await;
    server.register("ada@x.example").await;
    let tokens = server.login("ada@x.example").await;
    (server, tokens)
}

fn reused<T: std::fmt::Debug>(result: Result<T, Status>) {
    refused(result, Code::Unauthenticated, Reason::RefreshTokenReused);
}

fn revoked<T: std::fmt::Debug>(result: Result<T, Status>) {
    refused(result, Code::Unauthenticated, Reason::SessionRevoked);
}

#[tokio::test]
async fn an_access_token_is_good_for_ten_minutes() {
    let (server, tokens) = signed_in().await;
    let mut users = server.users(&tokens.access_token);
    assert_eq!(users.get_me(pb::GetMeRequest {}).await.unwrap().into_inner().user.unwrap().email, "ada@x.example");
    server.advance(599);
    users.get_me(pb::GetMeRequest {}).await.unwrap();
    server.advance(1 + 30);
    refused(users.get_me(pb::GetMeRequest {}).await, Code::Unauthenticated, Reason::TokenExpired);
}

#[tokio::test]
async fn a_login_is_remembered_with_who_and_from_where() {
    let (server, tokens) = signed_in().await;
    let mut users = server.users(&tokens.access_token);
    let ada = users.get_me(pb::GetMeRequest {}).await.unwrap().into_inner().user.unwrap();
    let mut tx = server.database.read().await.unwrap();
    let subject = format!("session/{}", tokens.session_id);
    let audited: (String, String, String) = sql("SELECT actor, action, peer FROM audit_events WHERE subject = $1")
        .bind(subject)
        .fetch_one(&mut tx)
        .await
        .unwrap();
    assert_eq!(audited, (ada.user_id, "LOGGED_IN".into(), "127.0.0.1".into()));
}

#[tokio::test]
async fn a_call_that_needs_a_token_says_so() {
    let (server, tokens) = signed_in().await;
    let me = pb::GetMeRequest {};
    refused(server.anonymous().get_me(me).await, Code::Unauthenticated, Reason::TokenMissing);
    refused(server.users(&tokens.refresh_token).get_me(me).await, Code::Unauthenticated, Reason::TokenInvalid);
}

#[tokio::test]
async fn a_login_fails_alike_whatever_the_cause() {
    let (server, _) = signed_in().await;
    let mut told = Vec::new();
    for (email, password) in [("ada@x.example", "wrong"), ("nobody@x.example", PASSWORD), ("no address", PASSWORD)] {
        let status =
            refused(server.try_login(email, password).await, Code::Unauthenticated, Reason::InvalidCredentials);
        told.push((status.message().to_owned(), status.details().to_vec()));
    }
    told.dedup();
    assert_eq!(told.len(), 1);
    assert_eq!(violations(server.try_login("", "").await).len(), 2);
}

#[tokio::test]
async fn failed_logins_slow_down_and_never_lock_for_good() {
    let (server, _) = signed_in().await;
    for _ in 0..10 {
        let wrong = server.try_login("ada@x.example", "wrong").await;
        refused(wrong, Code::Unauthenticated, Reason::InvalidCredentials);
    }
    let slowed = server.try_login("ada@x.example", PASSWORD).await;
    refused(slowed, Code::Unauthenticated, Reason::InvalidCredentials);
    server.advance(5 * 60);
    server.login("ada@x.example").await;
    server.login("ada@x.example").await;
}

#[tokio::test]
async fn a_login_that_nobody_decided_is_no_failure() {
    let (server, _) = signed_in().await;
    let set_hash = async |from: &str, to: &str| {
        let mut tx = server.database.write().await.unwrap();
        let update = sql("UPDATE users SET password_hash = replace(password_hash, $1, $2)").bind(from).bind(to);
        assert_ne!(update.execute(&mut tx).await.unwrap(), 0);
        tx.commit().await.unwrap();
    };
    // A hash that cannot be read: no password is right or wrong.
    set_hash("$argon2id$", "broken").await;
    for _ in 0..20 {
        let undecided = server.try_login("ada@x.example", PASSWORD).await;
        refused(undecided, Code::Internal, Reason::Internal);
    }
    set_hash("broken", "$argon2id$").await;
    server.login("ada@x.example").await;
}

#[tokio::test]
async fn passwords_cannot_be_tried_by_registering_again() {
    let server = Server::start().await;
    let right = server.register_request("ada@x.example");
    server.auth().register(right.clone()).await.unwrap();
    let wrong = pb::RegisterRequest { password: "another password".into(), ..right.clone() };
    for request in std::iter::repeat_n(wrong, 10).chain([right.clone()]) {
        refused(server.auth().register(request).await, Code::FailedPrecondition, Reason::IdempotencyKeyReused);
    }
    let slowed = server.try_login("ada@x.example", PASSWORD).await;
    refused(slowed, Code::Unauthenticated, Reason::InvalidCredentials);
    server.advance(5 * 60);
    server.auth().register(right).await.unwrap();
    server.login("ada@x.example").await;
}

#[tokio::test]
async fn a_refresh_brings_new_tokens_of_the_same_session() {
    let (server, first) = signed_in().await;
    server.advance(3_600);
    let second = server.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(second.session_id, first.session_id);
    assert_ne!(second.refresh_token, first.refresh_token);
    server.users(&second.access_token).get_me(pb::GetMeRequest {}).await.unwrap();
    server.refresh(&second.refresh_token).await.unwrap();
}

#[tokio::test]
async fn what_is_no_refresh_token_is_refused() {
    let (server, tokens) = signed_in().await;
    for token in ["x", &tokens.access_token, &tokens.refresh_token.replace("srt_", "srt-")] {
        refused(server.refresh(token).await, Code::Unauthenticated, Reason::TokenInvalid);
    }
    assert_eq!(violations(server.refresh("").await), [("refresh_token".to_owned(), "REQUIRED".to_owned())]);
}

#[tokio::test]
async fn a_lost_answer_is_given_again_within_thirty_seconds() {
    let (server, first) = signed_in().await;
    let lost = server.refresh(&first.refresh_token).await.unwrap();
    server.advance(29);
    let second = server.refresh(&first.refresh_token).await.unwrap();
    assert_ne!(second.refresh_token, lost.refresh_token);
    server.refresh(&second.refresh_token).await.unwrap();
    // Now the successor is used, so whoever comes with the first has stolen it, or was stolen from.
    reused(server.refresh(&first.refresh_token).await);
}

#[tokio::test]
async fn the_answer_that_was_lost_is_void() {
    let (server, first) = signed_in().await;
    let lost = server.refresh(&first.refresh_token).await.unwrap();
    let second = server.refresh(&first.refresh_token).await.unwrap();
    server.advance(31);
    server.refresh(&second.refresh_token).await.unwrap();
    reused(server.refresh(&lost.refresh_token).await);
}

#[tokio::test]
async fn two_parties_cannot_take_turns_with_lost_answers() {
    let (server, first) = signed_in().await;
    let lost = server.refresh(&first.refresh_token).await.unwrap();
    let second = server.refresh(&first.refresh_token).await.unwrap();
    reused(server.refresh(&lost.refresh_token).await);
    revoked(server.refresh(&second.refresh_token).await);
}

#[tokio::test]
async fn a_late_second_use_ends_the_session_for_everyone() {
    let (server, first) = signed_in().await;
    let second = server.refresh(&first.refresh_token).await.unwrap();
    server.advance(30);
    reused(server.refresh(&first.refresh_token).await);
    revoked(server.refresh(&second.refresh_token).await);
    revoked(server.refresh(&first.refresh_token).await);
    let audited = server.audit(&format!("session/{}", first.session_id)).await;
    assert_eq!(audited, ["LOGGED_IN", "REFRESH_TOKEN_REUSED"]);
    // Another login is another session.
    server.login("ada@x.example").await;
}

#[tokio::test]
async fn a_session_ends_when_idle_and_at_the_latest_after_ninety_days() {
    let (server, mut tokens) = signed_in().await;
    for _ in 0..8 {
        server.advance(11 * DAY);
        tokens = server.refresh(&tokens.refresh_token).await.unwrap();
    }
    server.advance(2 * DAY);
    refused(server.refresh(&tokens.refresh_token).await, Code::Unauthenticated, Reason::TokenExpired);

    let idle = server.login("ada@x.example").await;
    server.advance(14 * DAY);
    refused(server.refresh(&idle.refresh_token).await, Code::Unauthenticated, Reason::TokenExpired);
}

#[tokio::test]
async fn what_is_over_is_swept_bit_by_bit_and_nothing_else() {
    let (server, mut tokens) = signed_in().await;
    for _ in 0..4 {
        tokens = server.refresh(&tokens.refresh_token).await.unwrap();
    }
    // On a clock of its own, so that the sweeper of the server sleeps.
    let clock = Clock::fake(server.kernel.clock.now());
    let mut app = ops::App { clock: clock.clone(), ..server.running.app.clone() };
    app.limits.sweep_batch_max = 2;
    let left = async || {
        let rows = server.rows().await;
        ["sessions", "refresh_tokens", "idempotency_keys"]
            .map(|table| rows.iter().find(|row| row.0 == table).unwrap().1)
    };
    clock.advance(Duration::from_secs(90 * DAY));
    assert!(!ops::sweep(&app).await.unwrap());
    assert_eq!(left().await, [1, 5, 0], "the key of the registration is older than 72 hours");
    clock.advance(Duration::from_secs(7 * DAY + 1));
    let email = Email::parse("ada@x.example").ok();
    ops::login(&app, Login { email, password: Password::attempt(PASSWORD).unwrap() }).await.unwrap();
    assert!(ops::sweep(&app).await.unwrap());
    assert_eq!(left().await, [2, 4, 0]);
    assert!(ops::sweep(&app).await.unwrap());
    assert!(!ops::sweep(&app).await.unwrap());
    assert_eq!(left().await, [1, 1, 0]);
}

#[tokio::test]
async fn a_logout_ends_the_session_and_may_be_repeated() {
    let (server, tokens) = signed_in().await;
    let other = server.login("ada@x.example").await;
    let request = pb::LogoutRequest { request_id: server.id(), refresh_token: tokens.refresh_token.clone() };
    let first = server.auth().logout(request.clone()).await.unwrap();
    let again = server.auth().logout(request).await.unwrap();
    assert!(first.metadata().get(REPLAY_HEADER).is_none());
    assert_eq!(again.metadata().get(REPLAY_HEADER).unwrap(), "true");
    revoked(server.refresh(&tokens.refresh_token).await);
    let unknown = pb::LogoutRequest { request_id: server.id(), refresh_token: "x".into() };
    server.auth().logout(unknown).await.unwrap();
    server.refresh(&other.refresh_token).await.unwrap();
    let audited = server.audit(&format!("session/{}", tokens.session_id)).await;
    assert_eq!(audited, ["LOGGED_IN", "LOGGED_OUT"]);
}

#[tokio::test]
async fn a_refresh_brings_the_roles_of_today() {
    let server = Server::start().await;
    let ada = server.register("ada@x.example").await;
    let tokens = server.login("ada@x.example").await;
    let (_, mut admin) = server.admin().await;
    let request = pb::SetRolesRequest {
        request_id: server.id(),
        user_id: ada.user_id,
        roles: vec![pb::Role::Staff.into()],
        etag: String::new(),
    };
    admin.set_roles(request).await.unwrap();
    let list = pb::ListUsersRequest::default();
    let old = server.users(&tokens.access_token).list_users(list.clone()).await;
    refused(old, Code::PermissionDenied, Reason::ScopeMissing);
    let tokens = server.refresh(&tokens.refresh_token).await.unwrap();
    server.users(&tokens.access_token).list_users(list).await.unwrap();
}

async fn kids(server: &Server) -> Vec<String> {
    let keys = server.auth().get_jwks(pb::GetJwksRequest {}).await.unwrap().into_inner().keys;
    for key in &keys {
        assert_eq!(
            (key.kty.as_str(), key.crv.as_str(), key.alg.as_str(), key.r#use.as_str()),
            ("OKP", "Ed25519", "EdDSA", "sig")
        );
        assert_eq!(key.x.len(), 43);
    }
    keys.into_iter().map(|key| key.kid).collect()
}

#[tokio::test]
async fn a_rotation_of_keys_fails_no_token() {
    let (server, _) = signed_in().await;
    let app = server.running.app.clone();
    // Another service, which knows the keys only by what is listed.
    let verifier = Verifier::new(server.kernel.clock.clone(), "souk", "souk", app.issuer.key_source());
    let maintain = async || ops::maintain_keys(&app).await.unwrap();
    let first = kids(&server).await;
    assert_eq!(first.len(), 1);

    server.advance(30 * DAY - 15 * 60);
    maintain().await;
    let both = kids(&server).await;
    assert_eq!((both.len(), &both[0]), (2, &first[0]));
    let old = server.login("ada@x.example").await;
    verifier.verify(&old.access_token).await.unwrap();

    server.advance(15 * 60);
    maintain().await;
    let new = server.login("ada@x.example").await;
    assert_ne!(header(&old), header(&new), "signed by the next key");
    verifier.verify(&new.access_token).await.unwrap();
    assert_eq!(kids(&server).await.len(), 2);

    server.advance(60 * 60);
    maintain().await;
    assert_eq!(kids(&server).await, [both[1].clone()], "the old one is gone when its last token has long expired");
    assert_eq!(server.audit(&format!("key/{}", first[0])).await, ["KEY_CREATED", "KEY_DROPPED", "KEY_MOVED"]);
}

fn header(tokens: &pb::TokenPair) -> &str {
    tokens.access_token.split_once('.').unwrap().0
}

#[tokio::test]
async fn replicas_share_their_keys() {
    let (server, tokens) = signed_in().await;
    let other = server.start_again(|_| {}).await;
    assert_eq!(other.app.issuer.public_keys(), server.running.app.issuer.public_keys());
    let verifier = Verifier::new(server.kernel.clock.clone(), "souk", "souk", other.app.issuer.key_source());
    verifier.verify(&tokens.access_token).await.unwrap();
}
