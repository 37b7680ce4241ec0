//! Registering, and the tokens of services.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use souk_db::sql;
use souk_proto_common::REPLAY_HEADER;
use souk_proto_common::v1::Reason;
use souk_proto_user::v1 as pb;
use souk_user::domain::{Email, RefreshToken};
use souk_user::{FirstAdministrator, ops};
use tonic::Code;

use crate::harness::{PASSWORD, SERVICE_SECRET, Server, auth_of, get, refused, violations};

#[tokio::test]
async fn a_registration_makes_a_customer() {
    let server = Server::start().await;
    let user = server.register("Ada@X.example").await;
    assert_eq!(
        (user.email.as_str(), user.roles.as_slice()),
        ("ada@x.example", [i32::from(pb::Role::Customer)].as_slice())
    );
    assert!(!user.etag.is_empty() && user.create_time == user.update_time);
    assert_eq!(server.audit(&format!("user/{}", user.user_id)).await, ["REGISTERED"]);
}

#[tokio::test]
async fn a_registration_sent_again_is_answered_as_the_first_time() {
    let server = Server::start().await;
    let request = server.register_request("ada@x.example");
    let first = server.auth().register(request.clone()).await.unwrap();
    assert!(first.metadata().get(REPLAY_HEADER).is_none());
    let again = server.auth().register(request.clone()).await.unwrap();
    assert_eq!(again.metadata().get(REPLAY_HEADER).unwrap(), "true");
    assert_eq!(first.into_inner(), again.into_inner());

    let named = pb::RegisterRequest { display_name: "Bob".into(), ..request.clone() };
    refused(server.auth().register(named).await, Code::FailedPrecondition, Reason::IdempotencyKeyReused);
    let secret = pb::RegisterRequest { password: "another password".into(), ..request.clone() };
    refused(server.auth().register(secret).await, Code::FailedPrecondition, Reason::IdempotencyKeyReused);
    // The key belongs to the address.
    let bob = pb::RegisterRequest { email: "bob@x.example".into(), ..request };
    assert!(server.auth().register(bob).await.unwrap().metadata().get(REPLAY_HEADER).is_none());
}

#[tokio::test]
async fn an_address_is_taken_in_any_case() {
    let server = Server::start().await;
    server.register("ada@x.example").await;
    let request = server.register_request("ADA@x.example");
    refused(server.auth().register(request).await, Code::AlreadyExists, Reason::UserExists);
}

#[tokio::test]
async fn all_bad_fields_are_named_at_once() {
    let server = Server::start().await;
    let request = pb::RegisterRequest {
        request_id: "1".into(),
        email: "nobody".into(),
        password: "password123".into(),
        display_name: "x".repeat(101),
    };
    let named = violations(server.auth().register(request).await);
    let expected = [
        ("email", "INVALID_FORMAT"),
        ("request_id", "INVALID_FORMAT"),
        ("password", "WEAK_PASSWORD"),
        ("display_name", "TOO_LONG"),
    ];
    assert_eq!(named, expected.map(|(field, reason)| (field.to_owned(), reason.to_owned())));
}

#[tokio::test]
async fn no_table_holds_a_password_or_a_token_of_a_user() {
    let server = Server::start().await;
    server.register("ada@x.example").await;
    let tokens = server.refresh(&server.login("ada@x.example").await.refresh_token).await.unwrap();
    let mut tx = server.database.read().await.unwrap();
    let names: Vec<(String,)> =
        sql("SELECT name FROM sqlite_master WHERE type = 'table'").fetch_all(&mut tx).await.unwrap();
    assert!(names.len() > 8);
    let random = URL_SAFE_NO_PAD.decode(tokens.refresh_token.strip_prefix("srt_").unwrap()).unwrap();
    assert_eq!(random.len(), 32);
    let texts = [PASSWORD, &tokens.refresh_token, &tokens.access_token].map(str::as_bytes);
    let secrets = texts.into_iter().chain([random.as_slice()]);
    let hash = RefreshToken::parse(&tokens.refresh_token).unwrap().hash();
    let mut hashes = 0;
    // SQLite gives any column as bytes, so whatever column it would be in, it would be found.
    for (table,) in names {
        let columns: Vec<(String,)> =
            sql(format!("SELECT name FROM pragma_table_info('{table}')")).fetch_all(&mut tx).await.unwrap();
        for (column,) in columns {
            let text = format!("SELECT COUNT(*) FROM {table} WHERE instr(CAST({column} AS BLOB), $1) > 0");
            for secret in secrets.clone() {
                let (rows,): (i64,) = sql(text.clone()).bind(secret).fetch_one(&mut tx).await.unwrap();
                assert_eq!(rows, 0, "{table}.{column}");
            }
            let (rows,): (i64,) = sql(text).bind(hash.as_slice()).fetch_one(&mut tx).await.unwrap();
            hashes += rows;
        }
    }
    assert_eq!(hashes, 2, "the token, and the successor of the one before: what is there is found");
}

#[tokio::test]
async fn a_change_and_its_event_commit_together() {
    let server = Server::start().await;
    let user = server.register("ada@x.example").await;
    let mut tx = server.database.read().await.unwrap();
    let events: Vec<(String,)> = sql("SELECT subject FROM outbox WHERE aggregate = $1 ORDER BY version")
        .bind(format!("user/{}", user.user_id))
        .fetch_all(&mut tx)
        .await
        .unwrap();
    assert_eq!(events, [("souk.user.user.registered".to_owned(),)]);
}

#[tokio::test]
async fn a_change_whose_event_cannot_be_kept_is_not_made() {
    let server = Server::start().await;
    let (ada, (_, mut admin)) = (server.register("ada@x.example").await, server.admin().await);
    let run = async |text: &'static str| {
        let mut tx = server.database.write().await.unwrap();
        sql(text).execute(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    };
    let register = server.register_request("bob@x.example");
    let rename = pb::UpdateUserRequest {
        request_id: server.id(),
        user: Some(pb::User { display_name: "Countess".into(), ..ada.clone() }),
        update_mask: Some(pbjson_types::FieldMask { paths: vec!["display_name".into()] }),
    };
    let (user_id, roles) = (ada.user_id.clone(), vec![pb::Role::Staff.into()]);
    let appoint = pb::SetRolesRequest { request_id: server.id(), user_id, roles, etag: String::new() };
    run("CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'full'); END").await;
    let before = server.rows().await;
    refused(server.auth().register(register.clone()).await, Code::Internal, Reason::Internal);
    refused(admin.update_user(rename.clone()).await, Code::Internal, Reason::Internal);
    refused(admin.set_roles(appoint.clone()).await, Code::Internal, Reason::Internal);
    assert_eq!(server.rows().await, before);
    assert_eq!(admin.get_user(get(&ada.user_id)).await.unwrap().into_inner().user, Some(ada));
    run("DROP TRIGGER full").await;
    server.auth().register(register).await.unwrap();
    admin.update_user(rename).await.unwrap();
    admin.set_roles(appoint).await.unwrap();
}

#[tokio::test]
async fn a_service_proves_itself_by_its_secret() {
    let server = Server::start().await;
    let ask = async |service: &str, secret: &str| {
        let request = pb::IssueServiceTokenRequest { service: service.into(), client_secret: secret.into() };
        server.auth().issue_service_token(request).await
    };
    let token = ask("order", SERVICE_SECRET).await.unwrap().into_inner().access_token;
    // A service is signed in, and is no user.
    refused(server.users(&token).get_me(pb::GetMeRequest {}).await, Code::NotFound, Reason::UserNotFound);
    let list = pb::ListUsersRequest::default();
    refused(server.users(&token).list_users(list).await, Code::PermissionDenied, Reason::ScopeMissing);
    for (service, secret) in [("order", "wrong"), ("nobody", SERVICE_SECRET), ("nobody", "")] {
        let refusal = ask(service, secret).await;
        if secret.is_empty() {
            assert_eq!(violations(refusal).len(), 1);
        } else {
            refused(refusal, Code::Unauthenticated, Reason::InvalidCredentials);
        }
    }
}

#[tokio::test]
async fn the_first_administrator_is_created_once() {
    let server = Server::start().await;
    let (admin, _) = server.admin().await;
    assert_eq!(admin.roles, [i32::from(pb::Role::Admin)]);
    assert_eq!(server.start_again(|_| {}).await.first_administrator, None);
    let first = format!("{:?}", server.running);
    assert!(!first.contains(server.running.first_administrator.as_ref().unwrap().password.expose()));
}

#[tokio::test]
async fn a_first_administrator_who_cannot_be_shown_is_not_created() {
    let server = Server::start().await;
    let mut tx = server.database.write().await.unwrap();
    for text in ["DELETE FROM user_roles", "DELETE FROM users", "DELETE FROM leases"] {
        sql(text).execute(&mut tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    let (app, before) = (&server.running.app, server.rows().await);
    let email = Email::parse("root@x.example").unwrap();
    let gone = |_: &FirstAdministrator| anyhow::bail!("the terminal is gone");
    ops::create_first_administrator(app, &email, gone).await.unwrap_err();
    assert_eq!(server.rows().await, before);

    let mut shown = Vec::new();
    let show = |first: &FirstAdministrator| {
        shown.push(first.clone());
        Ok(())
    };
    let created = ops::create_first_administrator(app, &email, show).await.unwrap();
    assert_eq!(shown, Vec::from_iter(created));
    server.try_login("root@x.example", shown[0].password.expose()).await.unwrap();
}

#[tokio::test]
async fn an_old_hash_is_replaced_at_the_next_login() {
    let server = Server::start().await;
    server.register("ada@x.example").await;
    let dearer = server.start_again(|config| config.passwords.passes = 2).await;
    let hash = async || {
        let mut tx = server.database.read().await.unwrap();
        let text = "SELECT password_hash FROM users WHERE email = 'ada@x.example'";
        let (hash,): (String,) = sql(text).fetch_one(&mut tx).await.unwrap();
        hash
    };
    server.login("ada@x.example").await;
    assert!(hash().await.starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
    let mut auth = auth_of(&dearer).await;
    let request = pb::LoginRequest { email: "ada@x.example".into(), password: PASSWORD.into() };
    auth.login(request).await.unwrap();
    assert!(hash().await.starts_with("$argon2id$v=19$m=64,t=2,p=1$"));
    server.login("ada@x.example").await;
}
