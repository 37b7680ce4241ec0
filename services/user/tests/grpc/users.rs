//! Profiles, lists and roles.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use souk_proto_common::REPLAY_HEADER;
use souk_proto_common::v1::Reason;
use souk_proto_user::v1 as pb;
use tonic::Code;

use crate::harness::{Server, get, refused, violations};

const NOBODY: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn rename(server: &Server, user: &pb::User, name: &str) -> pb::UpdateUserRequest {
    pb::UpdateUserRequest {
        request_id: server.id(),
        user: Some(pb::User { display_name: name.into(), ..user.clone() }),
        update_mask: Some(pbjson_types::FieldMask { paths: vec!["display_name".into()] }),
    }
}

fn set_roles(server: &Server, user: &pb::User, roles: &[pb::Role]) -> pb::SetRolesRequest {
    pb::SetRolesRequest {
        request_id: server.id(),
        user_id: user.user_id.clone(),
        roles: roles.iter().map(|role| i32::from(*role)).collect(),
        etag: String::new(),
    }
}

#[tokio::test]
async fn one_sees_oneself_and_nobody_else() {
    let server = Server::start().await;
    let (ada, mut as_ada) = server.customer("ada@x.example").await;
    let bob = server.register("bob@x.example").await;
    assert_eq!(as_ada.get_user(get(&ada.user_id)).await.unwrap().into_inner().user, Some(ada));
    // Whether the other exists is not told.
    for other in [bob.user_id.as_str(), NOBODY] {
        refused(as_ada.get_user(get(other)).await, Code::PermissionDenied, Reason::NotOwner);
    }
    let (_, mut admin) = server.admin().await;
    assert_eq!(admin.get_user(get(&bob.user_id)).await.unwrap().into_inner().user, Some(bob));
    refused(admin.get_user(get(NOBODY)).await, Code::NotFound, Reason::UserNotFound);
    assert_eq!(violations(admin.get_user(get("1")).await), [("user_id".to_owned(), "INVALID_FORMAT".to_owned())]);
}

#[tokio::test]
async fn one_changes_oneself_and_nobody_else() {
    let server = Server::start().await;
    let (ada, mut as_ada) = server.customer("ada@x.example").await;
    let (bob, _) = server.customer("bob@x.example").await;
    let renamed = as_ada.update_user(rename(&server, &ada, "Countess")).await.unwrap().into_inner().user.unwrap();
    assert_eq!(renamed.display_name, "Countess");
    assert_ne!(renamed.etag, ada.etag);
    for other in [&bob, &pb::User { user_id: NOBODY.into(), ..bob.clone() }] {
        let refusal = as_ada.update_user(rename(&server, other, "x")).await;
        refused(refusal, Code::PermissionDenied, Reason::NotOwner);
    }
    let (_, mut admin) = server.admin().await;
    admin.update_user(rename(&server, &bob, "Bobby")).await.unwrap();
}

#[tokio::test]
async fn a_stale_etag_is_noticed() {
    let server = Server::start().await;
    let (ada, mut as_ada) = server.customer("ada@x.example").await;
    as_ada.update_user(rename(&server, &ada, "Countess")).await.unwrap();
    refused(as_ada.update_user(rename(&server, &ada, "x")).await, Code::Aborted, Reason::EtagMismatch);
    let whatever = pb::User { etag: String::new(), ..ada };
    as_ada.update_user(rename(&server, &whatever, "x")).await.unwrap();
}

#[tokio::test]
async fn a_change_sent_again_is_done_once() {
    let server = Server::start().await;
    let (ada, mut as_ada) = server.customer("ada@x.example").await;
    let request = rename(&server, &ada, "Countess");
    let first = as_ada.update_user(request.clone()).await.unwrap();
    as_ada.update_user(rename(&server, &pb::User { etag: String::new(), ..ada.clone() }, "Lady")).await.unwrap();
    let again = as_ada.update_user(request.clone()).await.unwrap();
    assert_eq!(again.metadata().get(REPLAY_HEADER).unwrap(), "true");
    assert_eq!(again.into_inner(), first.into_inner(), "the answer of the first time");
    let other = pb::UpdateUserRequest { request_id: request.request_id, ..rename(&server, &ada, "x") };
    refused(as_ada.update_user(other).await, Code::FailedPrecondition, Reason::IdempotencyKeyReused);
    let audited = server.audit(&format!("user/{}", ada.user_id)).await;
    assert_eq!(audited, ["PROFILE_CHANGED", "PROFILE_CHANGED", "REGISTERED"]);
}

#[tokio::test]
async fn roles_given_again_under_the_same_key_are_given_once() {
    let server = Server::start().await;
    let ada = server.register("ada@x.example").await;
    let (_, mut admin) = server.admin().await;
    let request = pb::SetRolesRequest { etag: ada.etag.clone(), ..set_roles(&server, &ada, &[pb::Role::Staff]) };
    let first = admin.set_roles(request.clone()).await.unwrap();
    assert!(first.metadata().get(REPLAY_HEADER).is_none());
    admin.set_roles(set_roles(&server, &ada, &[pb::Role::Customer])).await.unwrap();
    let again = admin.set_roles(request.clone()).await.unwrap();
    assert_eq!(again.metadata().get(REPLAY_HEADER).unwrap(), "true");
    assert_eq!(again.into_inner(), first.into_inner(), "the answer of the first time");
    let now = admin.get_user(get(&ada.user_id)).await.unwrap().into_inner().user.unwrap();
    assert_eq!(now.roles, [i32::from(pb::Role::Customer)], "and nothing is done again");
    let other = pb::SetRolesRequest { roles: vec![pb::Role::Admin.into()], ..request };
    refused(admin.set_roles(other).await, Code::FailedPrecondition, Reason::IdempotencyKeyReused);
}

#[tokio::test]
async fn the_same_key_of_another_caller_is_another_key() {
    let server = Server::start().await;
    let (ada, mut as_ada) = server.customer("ada@x.example").await;
    let (bob, mut as_bob) = server.customer("bob@x.example").await;
    let (_, mut admin) = server.admin().await;
    let of_ada = rename(&server, &ada, "Countess");
    let request_id = of_ada.request_id.clone();
    let of_bob = pb::UpdateUserRequest { request_id: request_id.clone(), ..rename(&server, &bob, "Bobby") };
    let of_admin = pb::SetRolesRequest { request_id, ..set_roles(&server, &ada, &[pb::Role::Staff]) };
    let one = as_ada.update_user(of_ada).await.unwrap();
    let two = as_bob.update_user(of_bob).await.unwrap();
    let three = admin.set_roles(of_admin).await.unwrap();
    let replayed = [one.metadata(), two.metadata(), three.metadata()].map(|meta| meta.contains_key(REPLAY_HEADER));
    assert_eq!(replayed, [false; 3]);
    assert_eq!(two.into_inner().user.unwrap().display_name, "Bobby");
    assert_eq!(three.into_inner().user.unwrap().roles, [i32::from(pb::Role::Staff)]);
}

#[tokio::test]
async fn a_bad_mask_is_refused_path_by_path() {
    let server = Server::start().await;
    let (ada, mut as_ada) = server.customer("ada@x.example").await;
    let paths = vec!["email".into(), "nose".into()];
    let update_mask = Some(pbjson_types::FieldMask { paths });
    let request = pb::UpdateUserRequest { update_mask, ..rename(&server, &ada, "x") };
    let expected = [("update_mask.paths[0]", "IMMUTABLE"), ("update_mask.paths[1]", "UNKNOWN_FIELD_PATH")];
    let named = violations(as_ada.update_user(request).await);
    assert_eq!(named, expected.map(|(field, reason)| (field.to_owned(), reason.to_owned())));
}

#[tokio::test]
async fn a_list_in_pages_and_a_stream_tell_of_everybody_once() {
    let server = Server::start().await;
    let (admin_user, mut admin) = server.admin().await;
    let mut everybody = BTreeSet::from([admin_user.user_id]);
    for index in 0..7 {
        everybody.insert(server.register(&format!("u{index}@x.example")).await.user_id);
    }
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = admin.list_users(pb::ListUsersRequest { page_size: 3, page_token }).await.unwrap().into_inner();
        assert!(page.users.len() <= 3);
        listed.extend(page.users.into_iter().map(|user| user.user_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed.len(), 8);
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), everybody);

    let stream = admin.stream_users(pb::StreamUsersRequest::default()).await.unwrap().into_inner();
    let streamed: Vec<pb::StreamUsersResponse> = stream.try_collect().await.unwrap();
    let streamed: Vec<String> = streamed.into_iter().map(|message| message.user.unwrap().user_id).collect();
    assert_eq!(streamed, listed);
    let rest = pb::StreamUsersRequest { after_user_id: listed[5].clone() };
    let rest: Vec<_> = admin.stream_users(rest).await.unwrap().into_inner().try_collect().await.unwrap();
    assert_eq!(rest.len(), 2);
}

#[tokio::test]
async fn a_stream_longer_than_a_batch_misses_nobody() {
    let server = Server::start().await;
    for index in 0..6 {
        server.register(&format!("u{index}@x.example")).await;
    }
    // With batches of 1, 2, … the last one is sometimes full and sometimes not.
    for stream_batch_max in 1..=8 {
        let mut app = server.running.app.clone();
        app.limits.stream_batch_max = stream_batch_max;
        let all = souk_user::domain::command::StreamUsers { after: None };
        let users: Vec<_> = souk_user::ops::stream_users(app, all).try_collect().await.unwrap();
        assert_eq!(users.len(), 7);
    }
}

#[tokio::test]
async fn lists_need_the_scope() {
    let server = Server::start().await;
    let (_, mut as_ada) = server.customer("ada@x.example").await;
    let list = as_ada.list_users(pb::ListUsersRequest::default()).await;
    refused(list, Code::PermissionDenied, Reason::ScopeMissing);
    let stream = as_ada.stream_users(pb::StreamUsersRequest::default()).await;
    assert_eq!(stream.map(|_| ()).unwrap_err().code(), Code::PermissionDenied);
    let (_, mut admin) = server.admin().await;
    let bad = pb::ListUsersRequest { page_size: -1, page_token: "x".into() };
    let expected = [("page_size", "OUT_OF_BOUNDS"), ("page_token", "INVALID_PAGE_TOKEN")];
    let named = violations(admin.list_users(bad).await);
    assert_eq!(named, expected.map(|(field, reason)| (field.to_owned(), reason.to_owned())));
}

#[tokio::test]
async fn only_an_administrator_gives_roles() {
    let server = Server::start().await;
    let (ada, mut as_ada) = server.customer("ada@x.example").await;
    let request = set_roles(&server, &ada, &[pb::Role::Admin]);
    refused(as_ada.set_roles(request.clone()).await, Code::PermissionDenied, Reason::ScopeMissing);
    let (_, mut admin) = server.admin().await;
    let changed = admin.set_roles(request).await.unwrap().into_inner().user.unwrap();
    assert_eq!(changed.roles, [i32::from(pb::Role::Admin)]);
    let audited = server.audit(&format!("user/{}", ada.user_id)).await;
    assert_eq!(audited, ["REGISTERED", "ROLES_CHANGED"]);
    let stale = pb::SetRolesRequest { etag: ada.etag.clone(), ..set_roles(&server, &ada, &[pb::Role::Staff]) };
    refused(admin.set_roles(stale).await, Code::Aborted, Reason::EtagMismatch);
    let nobody = pb::User { user_id: NOBODY.into(), ..ada };
    let refusal = admin.set_roles(set_roles(&server, &nobody, &[pb::Role::Staff])).await;
    refused(refusal, Code::NotFound, Reason::UserNotFound);
}

#[tokio::test]
async fn the_last_administrator_keeps_the_role() {
    let server = Server::start().await;
    let (first, mut admin) = server.admin().await;
    let resign = admin.set_roles(set_roles(&server, &first, &[pb::Role::Customer])).await;
    refused(resign, Code::FailedPrecondition, Reason::InvalidStateTransition);
    let ada = server.register("ada@x.example").await;
    admin.set_roles(set_roles(&server, &ada, &[pb::Role::Admin])).await.unwrap();
    admin.set_roles(set_roles(&server, &first, &[pb::Role::Customer])).await.unwrap();
}
