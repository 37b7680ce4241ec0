//! A call whose key is in use: it waits a little, and is then told to come again.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use souk_db::Tx;
use souk_db::idempotency::Key;
use souk_proto_common::v1::Reason;
use souk_proto_user::v1 as pb;
use souk_user::domain::RefreshToken;
use souk_user::store;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::harness::{Server, Users, auth_of, refused};

#[track_caller]
fn in_progress<T: std::fmt::Debug>(result: Result<T, Status>) {
    let status = refused(result, Code::Aborted, Reason::RequestInProgress);
    assert!(status.get_details_retry_info().is_some());
}

/// With the scopes that every change of a user takes.
async fn clerk(server: &Server, replica: &souk_user::Running) -> Users {
    let scopes = ["users.write", "roles.write"].into();
    let token = server.running.app.issuer.service_token("clerk", &scopes, server.kernel.clock.now()).unwrap();
    Server::users_of(replica, &token.token).await
}

fn rename(server: &Server, user: &pb::User) -> pb::UpdateUserRequest {
    pb::UpdateUserRequest {
        request_id: server.id(),
        user: Some(pb::User { display_name: "Countess".into(), ..user.clone() }),
        update_mask: Some(pbjson_types::FieldMask { paths: vec!["display_name".into()] }),
    }
}

fn appoint(server: &Server, user: &pb::User) -> pb::SetRolesRequest {
    let (user_id, roles) = (user.user_id.clone(), vec![pb::Role::Staff.into()]);
    pb::SetRolesRequest { request_id: server.id(), user_id, roles, etag: String::new() }
}

#[tokio::test]
async fn a_repeat_beside_the_first_is_told_to_come_again() {
    let server = Server::start().await;
    let ada = server.register("ada@x.example").await;
    let refresh_token = server.login("ada@x.example").await.refresh_token;
    let replica = server.start_again(|config| config.limits.duplicate_wait_ms = 20).await;
    let (mut auth, mut users) = (auth_of(&replica).await, clerk(&server, &replica).await);
    let first = async |caller: &str, method: &str, request_id: &str| {
        let (caller, method) = (caller.to_owned(), format!("/souk.user.v1.{method}"));
        let key = Key { caller, method, request_id: Uuid::try_parse(request_id).unwrap() };
        replica.app.in_flight.enter(key, Instant::now() + Duration::from_secs(1)).await.unwrap()
    };

    let register = server.register_request("bob@x.example");
    let turn = first("register:bob@x.example", "AuthService/Register", &register.request_id).await;
    in_progress(auth.register(register.clone()).await);
    drop(turn);
    auth.register(register).await.unwrap();

    let rename = rename(&server, &ada);
    let turn = first("service:clerk", "UserService/UpdateUser", &rename.request_id).await;
    in_progress(users.update_user(rename.clone()).await);
    drop(turn);
    users.update_user(rename).await.unwrap();

    let appoint = appoint(&server, &ada);
    let turn = first("service:clerk", "UserService/SetRoles", &appoint.request_id).await;
    in_progress(users.set_roles(appoint.clone()).await);
    drop(turn);
    users.set_roles(appoint).await.unwrap();

    let whose = format!("token:{}", URL_SAFE_NO_PAD.encode(RefreshToken::parse(&refresh_token).unwrap().hash()));
    let logout = pb::LogoutRequest { request_id: server.id(), refresh_token };
    let turn = first(&whose, "AuthService/Logout", &logout.request_id).await;
    in_progress(auth.logout(logout.clone()).await);
    drop(turn);
    auth.logout(logout).await.unwrap();
}

/// What another replica has locked, in the middle of the same call.
async fn lock(tx: &mut Tx, user: &pb::User, token: &RefreshToken) {
    store::user_to_change(tx, Uuid::try_parse(&user.user_id).unwrap()).await.unwrap();
    store::session_to_change(tx, &token.hash()).await.unwrap();
}

#[tokio::test]
async fn a_repeat_beside_the_first_in_another_replica_is_told_to_come_again() {
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        let server = Server::start_on(database).await;
        let ada = server.register("ada@x.example").await;
        let refresh_token = server.login("ada@x.example").await.refresh_token;
        let replica = server.start_again(|config| config.database.lock_timeout_ms = 50).await;
        let (mut auth, mut users) = (auth_of(&replica).await, clerk(&server, &replica).await);
        let (rename, appoint) = (rename(&server, &ada), appoint(&server, &ada));
        let logout = pb::LogoutRequest { request_id: server.id(), refresh_token };

        let mut tx = server.database.write().await.unwrap();
        lock(&mut tx, &ada, &RefreshToken::parse(&logout.refresh_token).unwrap()).await;
        in_progress(users.update_user(rename.clone()).await);
        in_progress(users.set_roles(appoint.clone()).await);
        in_progress(auth.logout(logout.clone()).await);
        tx.rollback().await.unwrap();

        users.update_user(rename).await.unwrap();
        users.set_roles(appoint).await.unwrap();
        auth.logout(logout).await.unwrap();
    }
}
