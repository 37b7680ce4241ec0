//! What happens at once, on both engines: two replicas on one database, so that nothing but the database orders them.

use std::collections::BTreeSet;

use futures::future::join_all;
use souk_db::sql;
use souk_proto_user::v1 as pb;
use souk_user::Running;
use souk_user::domain::RefreshToken;
use tonic::Code;

use crate::harness::{Server, auth_of};

async fn on_both(test: impl AsyncFn(Server, Running)) {
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        let server = Server::start_on(database).await;
        let replica = server.start_again(|_| {}).await;
        test(server, replica).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_start_at_once_make_one_key_and_one_administrator() {
    for database in [souk_testkit::sqlite().await, souk_testkit::postgres().await] {
        let server = Server::start_on(database).await;
        let wipe = ["DELETE FROM token_keys", "DELETE FROM user_roles", "DELETE FROM users", "DELETE FROM leases"];
        let mut tx = server.database.write().await.unwrap();
        for text in wipe {
            sql(text).execute(&mut tx).await.unwrap();
        }
        tx.commit().await.unwrap();
        let replicas = join_all((0..4).map(|_| server.start_again(|_| {}))).await;
        let created = replicas.iter().filter(|replica| replica.first_administrator.is_some()).count();
        assert_eq!(created, 1);
        let keys = replicas[0].app.issuer.public_keys();
        assert_eq!(keys.len(), 1);
        assert!(replicas.iter().all(|replica| replica.app.issuer.public_keys() == keys));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn registrations_sent_at_once_make_one_account() {
    on_both(async |server, replica| {
        let request = server.register_request("ada@x.example");
        let clients = [server.auth(), auth_of(&replica).await];
        let calls = (0..8).map(|index| {
            let (mut auth, request) = (clients[index % 2].clone(), request.clone());
            async move { auth.register(request).await.unwrap().into_inner().user.unwrap().user_id }
        });
        let mut ids = join_all(calls).await;
        ids.dedup();
        assert_eq!(ids.len(), 1);
        assert_eq!(server.audit(&format!("user/{}", ids[0])).await, ["REGISTERED"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_refreshes_at_once_one_token_lives_on() {
    on_both(async |server, replica| {
        server.register("ada@x.example").await;
        let first = server.login("ada@x.example").await;
        let clients = [server.auth(), auth_of(&replica).await];
        let calls =
            (0..8).map(|index| {
                let (mut auth, refresh_token) = (clients[index % 2].clone(), first.refresh_token.clone());
                async move {
                    auth.refresh_token(pb::RefreshTokenRequest { refresh_token }).await.unwrap().into_inner().tokens
                }
            });
        let answered: BTreeSet<String> =
            join_all(calls).await.into_iter().map(|tokens| tokens.unwrap().refresh_token).collect();
        assert_eq!(answered.len(), 8);
        let mut tx = server.database.read().await.unwrap();
        let unused = "SELECT token_hash FROM refresh_tokens WHERE used_at IS NULL";
        let [(alive,)]: [(Vec<u8>,); 1] = sql(unused).fetch_all(&mut tx).await.unwrap().try_into().unwrap();
        let hash = |token: &String| RefreshToken::parse(token).unwrap().hash().to_vec();
        let token = answered.iter().find(|token| hash(token) == alive).unwrap();
        server.refresh(token).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_administrators_who_resign_at_once_one_stays() {
    on_both(async |server, replica| {
        let (first, mut admin) = server.admin().await;
        let ada = server.register("ada@x.example").await;
        for _ in 0..5 {
            for user in [&first, &ada] {
                let appoint = set_role(&server, &user.user_id, pb::Role::Admin);
                admin.set_roles(appoint).await.unwrap();
            }
            let token =
                server.running.app.issuer.service_token("test", &["roles.write"].into(), server.kernel.clock.now());
            let mut other = Server::users_of(&replica, &token.unwrap().token).await;
            let (one, two) = tokio::join!(
                admin.set_roles(set_role(&server, &first.user_id, pb::Role::Staff)),
                other.set_roles(set_role(&server, &ada.user_id, pb::Role::Staff)),
            );
            let refused = [one.map(|_| ()), two.map(|_| ())].into_iter().filter_map(Result::err);
            assert_eq!(refused.map(|status| status.code()).collect::<Vec<_>>(), [Code::FailedPrecondition]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_sent_many_times_at_once_is_made_once_and_answered_alike() {
    on_both(async |server, replica| {
        let ada = server.register("ada@x.example").await;
        let scopes = ["users.write", "roles.write"].into();
        let token = server.running.app.issuer.service_token("test", &scopes, server.kernel.clock.now()).unwrap().token;
        let clients = [server.users(&token), Server::users_of(&replica, &token).await];
        let rename = pb::UpdateUserRequest {
            request_id: server.id(),
            user: Some(pb::User { display_name: "Countess".into(), ..ada.clone() }),
            update_mask: Some(pbjson_types::FieldMask { paths: vec!["display_name".into()] }),
        };
        let calls = (0..20).map(|index| {
            let (mut users, rename) = (clients[index % 2].clone(), rename.clone());
            async move { users.update_user(rename).await.unwrap().into_inner().user.unwrap() }
        });
        let answers = join_all(calls).await;
        assert_eq!(answers[0].display_name, "Countess");
        assert!(answers.iter().all(|answer| *answer == answers[0]));

        let etag = answers[0].etag.clone();
        let appoint = pb::SetRolesRequest { etag, ..set_role(&server, &ada.user_id, pb::Role::Staff) };
        let calls = (0..20).map(|index| {
            let (mut users, appoint) = (clients[index % 2].clone(), appoint.clone());
            async move { users.set_roles(appoint).await.unwrap().into_inner().user.unwrap() }
        });
        let answers = join_all(calls).await;
        assert_eq!(answers[0].roles, [i32::from(pb::Role::Staff)]);
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        let audited = server.audit(&format!("user/{}", ada.user_id)).await;
        assert_eq!(audited, ["PROFILE_CHANGED", "REGISTERED", "ROLES_CHANGED"]);
    })
    .await;
}

fn set_role(server: &Server, user_id: &str, role: pb::Role) -> pb::SetRolesRequest {
    let roles = vec![role.into()];
    pb::SetRolesRequest { request_id: server.id(), user_id: user_id.into(), roles, etag: String::new() }
}
