//! The demonstration, loaded again and again.

use souk::demo;
use souk_proto_inventory::v1 as inventory;
use souk_proto_user::v1::{IssueServiceTokenRequest, RegisterRequest};
use souk_testkit::suite::{Person, Suite, new_id};
use uuid::Uuid;

const SKU: &str = "TEA-GREEN-100G";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_already_stays_as_it_is() {
    let suite = Suite::start().await;
    demo::load(&suite.kernel, &suite.running).await.unwrap();
    let loaded = suite.level(SKU).await;
    assert!(loaded.on_hand > 0);
    demo::load(&suite.kernel, &suite.running).await.unwrap();
    assert_eq!(suite.level(SKU).await, loaded);
    suite.stop().await;
}

/// An earlier build loaded other data, under request ids that were derived from their names.
#[tokio::test(flavor = "multi_thread")]
async fn data_that_have_changed_since_they_were_loaded_do_not_stop_the_start() {
    let suite = Suite::start().await;
    let request_id =
        |name: &str| Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("https://souk.dev/demo/{name}").as_bytes()).to_string();
    let (_, email, password) = demo::CUSTOMERS[0];
    let register = RegisterRequest {
        request_id: request_id(email),
        email: email.into(),
        password: password.into(),
        display_name: "Somebody".into(),
    };
    suite.auth().register(register).await.unwrap();
    let secret = suite.running.demo_secret.expose().to_owned();
    let request = IssueServiceTokenRequest { service: demo::ACCOUNT.into(), client_secret: secret };
    let token = suite.auth().issue_service_token(request).await.unwrap().into_inner().access_token;
    let loader = Person { user_id: new_id(), token, refresh_token: String::new() };
    let price = Some(souk_proto_common::v1::Money { currency_code: "EUR".into(), amount_minor: 1 });
    let product = inventory::Product { sku: SKU.into(), name: "Tea".into(), price, ..Default::default() };
    let create = inventory::CreateProductRequest { request_id: request_id(SKU), product: Some(product) };
    suite.catalog(Some(&loader)).create_product(create).await.unwrap();

    demo::load(&suite.kernel, &suite.running).await.unwrap();
    assert!(suite.level(SKU).await.on_hand > 0, "the product that was there has its stock");
    suite.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_its_own_loads_it_into_services_that_run() {
    let suite = Suite::start().await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    let (user, inventory) = (suite.running.user.address, suite.running.inventory.address);
    let load = async |text: &str| {
        std::fs::write(secret.path(), text).unwrap();
        let mut loader = tokio::process::Command::new(env!("CARGO_BIN_EXE_souk-demo"));
        loader
            .arg(format!("--user.addresses=[http://{user}]"))
            .arg(format!("--inventory.addresses=[http://{inventory}]"));
        loader.env("SOUK_CLIENT_SECRET_FILE", secret.path()).output().await.unwrap()
    };
    let wrong = load("somebody else's, and long enough for one").await;
    let told = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && told.contains("cannot be loaded"), "{told}");
    assert!(!told.contains("somebody"), "{told}");

    for _ in 0..2 {
        let loaded = load(suite.running.demo_secret.expose()).await;
        assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    }
    assert_eq!(suite.level(SKU).await.on_hand, 500);
    suite.stop().await;
}
