//! The tool as its users start it, against a Souk in the test's own process.

use std::process::Output;

use serde_json::Value;
use souk_testkit::eventually;
use souk_testkit::suite::Suite;
use tokio::process::Command;

/// A run of a few calls.
async fn bench(suite: &Suite, password: &str, arguments: &[&str]) -> Output {
    let running = &suite.running;
    let mut command = Command::new(env!("CARGO_BIN_EXE_souk-bench"));
    command.arg("run").args(arguments).args(["--quiet", "--products", "6", "--customers", "2"]);
    for (flag, address) in [
        ("--user-address", running.user.address),
        ("--order-address", running.order.address),
        ("--inventory-address", running.inventory.address),
    ] {
        command.args([flag.to_owned(), address.to_string()]);
    }
    command.env("SOUK_BENCH_PASSWORD", password).kill_on_drop(true).output().await.expect("the tool runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_placed_measured_and_found_again() {
    let suite = Suite::start().await;
    let password = suite.running.first_administrator().expect("a first start").password.expose().to_owned();
    let arguments =
        ["place-order", "--spread", "zipf", "--lines", "5", "--seconds", "1", "--warm-up", "0.2", "--in-flight", "8"];
    let output = bench(&suite, &password, &[&arguments[..], &["--json", "-"]].concat()).await;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    assert!(!said.contains(&password) && !complained.contains(&password), "the password is shown");
    let reports: Value = serde_json::from_str(&said).expect("it is JSON");
    let report = &reports[0];
    assert_eq!(report["violations"], Value::Array(Vec::new()));
    assert_eq!(report["failures"], Value::Array(Vec::new()));
    assert!(report["answered"].as_u64().expect("a number") > 0, "{report}");
    let latency = |name: &str| report["latency"][name].as_f64().expect("a number");
    assert!(latency("mean_us") > 0.0 && latency("mean_us") <= latency("max_us"), "{report}");
    assert!(latency("count") > 0.0, "{report}");
    suite.assert_invariants().await;
    suite.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_has_answers_and_they_are_right() {
    let suite = Suite::start().await;
    let password = suite.running.first_administrator().expect("a first start").password.expose().to_owned();
    for scenario in [
        &["get-product"][..],
        &["get-user"],
        &["list-orders"],
        &["login", "--rate", "20"], // who logs in many times at once is taken for somebody who guesses
        &["shop"],
        &["watch", "--streams", "20", "--slow-streams", "2", "--rate", "50"],
    ] {
        let arguments =
            [scenario, &["--in-flight", "8", "--seconds", "0.3", "--warm-up", "0.1", "--json", "-"]].concat();
        let output = bench(&suite, &password, &arguments).await;
        assert!(output.status.success(), "{scenario:?}: {output:?}");
        let reports: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        // On a busy machine answers may come after the window; they come.
        assert!(reports[0]["latency"]["max_us"].as_f64().expect("a number") > 0.0, "{reports}");
        assert_eq!(reports[0]["failures"], Value::Array(Vec::new()), "{scenario:?}");
    }
    suite.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_administrator_is_told_so() {
    let suite = Suite::start().await;
    let output = bench(&suite, "a guess", &["get-product", "--seconds", "1"]).await;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("admin@souk.example cannot log in"), "{output:?}");
    suite.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_nobody_has_ordered_is_found_and_the_exit_code_says_so() {
    let suite = Suite::start().await;
    let password = suite.running.first_administrator().expect("a first start").password.expose().to_owned();
    let inventory = &suite.running.inventory.app.db;
    let take = "UPDATE stock SET allocated = allocated + 1 WHERE on_hand > 0 AND sku LIKE 'BENCH-%-000003'";
    let taken = eventually("a unit is taken", async || {
        let mut tx = inventory.write().await.expect("a transaction");
        let rows = souk_db::sql(take).execute(&mut tx).await.expect("the stock can be changed");
        tx.commit().await.expect("the stock can be changed");
        rows == 1
    });
    let arguments = ["place-order", "--seconds", "1", "--warm-up", "0.1", "--in-flight", "4", "--json", "-"];
    let (output, ()) = tokio::join!(bench(&suite, &password, &arguments), taken);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let reports: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let violations = reports[0]["violations"].as_array().expect("a list");
    assert!(violations[0].as_str().is_some_and(|text| text.contains("-000003 are allocated")), "{violations:?}");
    assert_eq!(violations.len(), 1, "{violations:?}");
    suite.stop().await;
}

#[tokio::test]
async fn a_souk_that_is_not_there_is_said_to_be_not_there() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_souk-bench"));
    command.args(["run", "get-user", "--user-address", "127.0.0.1:9"]).env("SOUK_BENCH_PASSWORD", "any");
    let output = command.kill_on_drop(true).output().await.expect("the tool runs");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(complained.contains("the user service does not answer at 127.0.0.1:9"), "{complained}");
}

#[tokio::test]
async fn a_comparison_says_what_it_has_compared_and_under_which_circumstances() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_souk-bench"));
    command.args(["compare", "place-uniform-embedded", "--pairs", "1", "--seconds", "1", "--warm-up", "0.2"]);
    command.args(["--in-flight", "8", "--products", "6", "--customers", "2", "--debug-binaries", "--quiet"]);
    command.args(["--set", "user.tokens.access_ms=3000000", "--json", "-"]);
    let output = command.kill_on_drop(true).output().await.expect("the tool runs");
    let compared: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let compared = &compared[0];
    assert_eq!(compared["problems"], Value::Array(Vec::new()), "{compared}");
    assert_eq!(compared["made_under"]["settings"][0], "user.tokens.access_ms=3000000");
    let missed = !compared["goals"][0]["median"].as_f64().is_some_and(|median| median >= 3.0);
    assert_eq!(output.status.code(), Some(i32::from(missed)), "{compared}");
    for runs in compared["runs"].as_array().expect("a list") {
        assert_eq!(runs["reports"][0]["violations"], Value::Array(Vec::new()), "{runs}");
    }
}
