//! Bad input, for every field of every request: INVALID_ARGUMENT that names all bad fields at once, and nothing changed.

use std::collections::BTreeSet;

use pbjson_types::FieldMask;
use souk_proto_common::v1::Reason;
use souk_proto_user::v1 as pb;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::harness::{PASSWORD, Server, Users, get, refused, violations};

const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// Every violation, as `field REASON`.
#[track_caller]
fn assert_named<T: std::fmt::Debug>(result: Result<T, Status>, expected: &[&str]) {
    let named: BTreeSet<String> =
        violations(result).into_iter().map(|(field, reason)| format!("{field} {reason}")).collect();
    assert_eq!(named, expected.iter().map(|text| (*text).to_owned()).collect());
}

fn long(length: usize) -> String {
    "x".repeat(length)
}

/// A server, and somebody who may do everything.
async fn with_admin() -> (Server, pb::User, Users) {
    let server = Server::start().await;
    let (user, admin) = server.admin().await;
    (server, user, admin)
}

#[tokio::test]
async fn bad_registrations_are_named_field_by_field() {
    let server = Server::start().await;
    let before = server.rows().await;
    let (mut auth, good) = (server.auth(), server.register_request("ada@x.example"));
    let nothing = auth.register(pb::RegisterRequest::default()).await;
    assert_named(nothing, &["request_id REQUIRED", "email REQUIRED", "password REQUIRED"]);
    let bad = |email: &str, password: &str, display_name: &str| pb::RegisterRequest {
        request_id: NIL.into(),
        email: email.into(),
        password: password.into(),
        display_name: display_name.into(),
    };
    let host = format!("ada@{}.example", ["x"; 130].join("."));
    let overlong = auth.register(bad(&host, &long(129), &long(101))).await;
    let expected = ["request_id INVALID_FORMAT", "email TOO_LONG", "password TOO_LONG", "display_name TOO_LONG"];
    assert_named(overlong, &expected);
    for email in ["nobody", "a@b", "a b@x.example", "ä@x.example", &format!("{}@x.example", long(65))] {
        let request = pb::RegisterRequest { email: email.into(), ..good.clone() };
        assert_named(auth.register(request).await, &["email INVALID_FORMAT"]);
    }
    for (password, reason) in [("x4%Gz_1", "OUT_OF_BOUNDS"), ("Password123!", "WEAK_PASSWORD")] {
        let request = pb::RegisterRequest { password: password.into(), ..good.clone() };
        assert_named(auth.register(request).await, &[&format!("password {reason}")]);
    }
    for display_name in [" ada", "ada ", "a\nb", "a\tb", "a\u{0}b", "\u{7}"] {
        let request = pb::RegisterRequest { display_name: display_name.into(), ..good.clone() };
        assert_named(auth.register(request).await, &["display_name INVALID_FORMAT"]);
    }
    let huge = pb::RegisterRequest { display_name: long(100_000), ..good };
    refused(auth.register(huge).await, Code::ResourceExhausted, Reason::MessageTooLarge);
    assert_eq!(server.rows().await, before);
}

#[tokio::test]
async fn bad_logins_and_tokens_are_named() {
    let server = Server::start().await;
    let before = server.rows().await;
    let mut auth = server.auth();
    assert_named(server.try_login("", "").await, &["email REQUIRED", "password REQUIRED"]);
    assert_named(server.try_login("ada@x.example", &long(129)).await, &["password TOO_LONG"]);
    // What can be no address of an account is one that there is not.
    for email in ["x".to_owned(), long(10_000), "\u{0}".into()] {
        let refusal = server.try_login(&email, PASSWORD).await;
        refused(refusal, Code::Unauthenticated, Reason::InvalidCredentials);
    }
    assert_named(server.refresh("").await, &["refresh_token REQUIRED"]);
    for token in ["x".to_owned(), long(10_000), format!("srt_{}", "!".repeat(43)), "srt_\u{0}".into()] {
        refused(server.refresh(&token).await, Code::Unauthenticated, Reason::TokenInvalid);
        // Nothing is left to end.
        auth.logout(pb::LogoutRequest { request_id: server.id(), refresh_token: token }).await.unwrap();
    }
    let nothing = auth.logout(pb::LogoutRequest::default()).await;
    assert_named(nothing, &["request_id REQUIRED", "refresh_token REQUIRED"]);
    let bad = pb::LogoutRequest { request_id: long(36), refresh_token: "x".into() };
    assert_named(auth.logout(bad).await, &["request_id INVALID_FORMAT"]);
    let ask =
        |service: &str, client_secret: String| pb::IssueServiceTokenRequest { service: service.into(), client_secret };
    let nothing = auth.issue_service_token(ask("", String::new())).await;
    assert_named(nothing, &["service REQUIRED", "client_secret REQUIRED"]);
    let overlong = auth.issue_service_token(ask(&long(65), long(1_025))).await;
    assert_named(overlong, &["service TOO_LONG", "client_secret TOO_LONG"]);
    assert_named(auth.issue_service_token(ask("\u{7}", long(1))).await, &["service INVALID_FORMAT"]);
    assert_eq!(server.rows().await, before);
}

#[tokio::test]
async fn bad_reads_of_users_are_named() {
    let (_server, _, mut admin) = with_admin().await;
    for (id, reason) in [("", "REQUIRED"), ("1", "INVALID_FORMAT"), (NIL, "INVALID_FORMAT")] {
        assert_named(admin.get_user(get(id)).await, &[&format!("user_id {reason}")]);
    }
    assert_named(admin.get_user(get(&long(10_000))).await, &["user_id INVALID_FORMAT"]);
    let list = |page_size, page_token: String| pb::ListUsersRequest { page_size, page_token };
    let worst = admin.list_users(list(i32::MIN, long(10_000))).await;
    assert_named(worst, &["page_size OUT_OF_BOUNDS", "page_token INVALID_PAGE_TOKEN"]);
    assert_named(admin.list_users(list(-1, String::new())).await, &["page_size OUT_OF_BOUNDS"]);
    for token in ["x", "AAAA", "ä", "\u{0}"] {
        assert_named(admin.list_users(list(0, token.into())).await, &["page_token INVALID_PAGE_TOKEN"]);
    }
    for after in ["1".to_owned(), NIL.into(), long(10_000)] {
        let refusal = admin.stream_users(pb::StreamUsersRequest { after_user_id: after }).await.map(|_| ());
        assert_named(refusal, &["after_user_id INVALID_FORMAT"]);
    }
}

#[tokio::test]
async fn bad_updates_are_named_field_by_field() {
    let (server, user, mut admin) = with_admin().await;
    let before = server.rows().await;
    let update = |user: pb::User, paths: &[&str]| pb::UpdateUserRequest {
        request_id: server.id(),
        user: Some(user),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
    };
    let nothing = admin.update_user(pb::UpdateUserRequest::default()).await;
    assert_named(nothing, &["request_id REQUIRED", "update_mask REQUIRED", "user REQUIRED"]);
    let empty = pb::UpdateUserRequest { request_id: "x".into(), ..update(pb::User::default(), &[]) };
    let expected = ["request_id INVALID_FORMAT", "update_mask REQUIRED", "user.user_id REQUIRED"];
    assert_named(admin.update_user(empty).await, &expected);
    let bad = pb::User {
        user_id: NIL.into(),
        etag: long(10_000),
        display_name: long(101),
        email: long(300),
        roles: vec![99],
        ..user.clone()
    };
    let paths = ["display_name", "user_id", "email", "roles", "nose", "display_name", ""];
    let expected = [
        "update_mask.paths[1] IMMUTABLE",
        "update_mask.paths[2] IMMUTABLE",
        "update_mask.paths[3] IMMUTABLE",
        "update_mask.paths[4] UNKNOWN_FIELD_PATH",
        "update_mask.paths[5] DUPLICATE",
        "update_mask.paths[6] UNKNOWN_FIELD_PATH",
        "user.user_id INVALID_FORMAT",
        "user.etag INVALID_FORMAT",
        "user.display_name TOO_LONG",
    ];
    assert_named(admin.update_user(update(bad, &paths)).await, &expected);
    let immutable = admin.update_user(update(user.clone(), &["etag", "create_time", "update_time", "*"])).await;
    let expected = [
        "update_mask.paths[0] IMMUTABLE",
        "update_mask.paths[1] IMMUTABLE",
        "update_mask.paths[2] IMMUTABLE",
        "update_mask.paths[3] UNKNOWN_FIELD_PATH",
    ];
    assert_named(immutable, &expected);
    for etag in ["1", "v0", "v01", "v-1", "V1", "v99999999999999999999", "\u{0}"] {
        let stale = pb::User { etag: etag.into(), ..user.clone() };
        assert_named(admin.update_user(update(stale, &["display_name"])).await, &["user.etag INVALID_FORMAT"]);
    }
    for display_name in [" a", "a\nb", "\u{0}"] {
        let renamed = pb::User { display_name: display_name.into(), ..user.clone() };
        let named = ["user.display_name INVALID_FORMAT"];
        assert_named(admin.update_user(update(renamed, &["display_name"])).await, &named);
    }
    let many = admin.update_user(update(user, &vec!["a"; 10_000])).await;
    assert_named(many, &["update_mask TOO_MANY"]);
    assert_eq!(server.rows().await, before);
}

#[tokio::test]
async fn bad_roles_are_named_one_by_one() {
    let (server, user, mut admin) = with_admin().await;
    let before = server.rows().await;
    let set = |roles: &[i32]| pb::SetRolesRequest {
        request_id: server.id(),
        user_id: user.user_id.clone(),
        roles: roles.to_vec(),
        etag: String::new(),
    };
    let nothing = admin.set_roles(pb::SetRolesRequest::default()).await;
    assert_named(nothing, &["request_id REQUIRED", "user_id REQUIRED", "roles REQUIRED"]);
    let worst = pb::SetRolesRequest { request_id: NIL.into(), user_id: long(36), roles: vec![0], etag: "1".into() };
    let expected =
        ["request_id INVALID_FORMAT", "user_id INVALID_FORMAT", "etag INVALID_FORMAT", "roles[0] INVALID_ENUM"];
    assert_named(admin.set_roles(worst).await, &expected);
    let unknown = ["roles[0] INVALID_ENUM", "roles[1] INVALID_ENUM", "roles[2] INVALID_ENUM"];
    assert_named(admin.set_roles(set(&[99, -1, i32::MIN])).await, &unknown);
    assert_named(admin.set_roles(set(&[1, 3, 3])).await, &["roles[2] DUPLICATE"]);
    for roles in [vec![1, 2, 3, 1], vec![3; 10_000]] {
        assert_named(admin.set_roles(set(&roles)).await, &["roles TOO_MANY"]);
    }
    assert_eq!(server.rows().await, before);
}

/// Any request, with bytes where it has texts and messages.
#[derive(Clone, PartialEq, prost::Message)]
struct Raw {
    #[prost(bytes = "vec", tag = "1")]
    one: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    two: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    three: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    four: Vec<u8>,
}

#[tokio::test]
async fn a_text_that_is_no_utf8_is_refused() {
    let server = Server::start().await;
    let first = server.running.first_administrator.clone().unwrap();
    let tokens = server.try_login(&first.email, first.password.expose()).await.unwrap();
    let before = server.rows().await;
    // Every field that is a text, or a message whose first field is one. What cannot be decoded cannot be named.
    let texts: [(&str, &[usize]); 10] = [
        ("AuthService/Register", &[1, 2, 3, 4]),
        ("AuthService/Login", &[1, 2]),
        ("AuthService/RefreshToken", &[1]),
        ("AuthService/Logout", &[1, 2]),
        ("AuthService/IssueServiceToken", &[1, 2]),
        ("UserService/GetUser", &[1]),
        ("UserService/UpdateUser", &[1, 2, 3]),
        ("UserService/ListUsers", &[2]),
        ("UserService/StreamUsers", &[1]),
        ("UserService/SetRoles", &[1, 2, 4]),
    ];
    for (method, fields) in texts {
        for field in fields {
            let mut raw = Raw::default();
            let nested = method == "UserService/UpdateUser" && *field > 1;
            let bytes = if nested { vec![0x0a, 2, 0xff, 0xfe] } else { vec![0xff, 0xfe] };
            *[&mut raw.one, &mut raw.two, &mut raw.three, &mut raw.four][field - 1] = bytes;
            let path = PathAndQuery::try_from(format!("/souk.user.v1.{method}")).unwrap();
            let mut client = server.raw(&tokens.access_token);
            client.ready().await.unwrap();
            let refusal = client.unary(Request::new(raw), path, ProstCodec::<Raw, ()>::default()).await;
            assert_eq!(refusal.unwrap_err().code(), Code::InvalidArgument, "{method} {field}");
        }
    }
    assert_eq!(server.rows().await, before);
}
