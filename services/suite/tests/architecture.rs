//! The arrows between the crates, read from `cargo metadata`: what ARCHITECTURE.md says of them is checked here.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Workspace crate -> the workspace crates it depends on when it is not being tested.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let ours = &ours;
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let used = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
            let used = used.filter_map(|dependency| dependency["name"].as_str()).filter(|name| ours.contains(name));
            (package["name"].as_str().expect("a name").to_owned(), used.map(str::to_owned).collect())
        })
        .collect()
}

const SERVICES: [&str; 3] = ["souk-user", "souk-order", "souk-inventory"];

#[test]
fn services_do_not_depend_on_one_another() {
    let arrows = arrows();
    for service in SERVICES {
        let others: Vec<&str> = SERVICES.into_iter().filter(|other| *other != service).collect();
        let wrong: Vec<&&str> = others.iter().filter(|other| arrows[service].contains(**other)).collect();
        assert!(wrong.is_empty(), "{service} depends on {wrong:?}: services meet only in the contract");
    }
}

#[test]
fn contracts_depend_on_nothing_but_the_shared_contract() {
    let arrows = arrows();
    assert!(arrows["souk-proto-common"].is_empty());
    for area in ["user", "inventory", "order"] {
        let expected = BTreeSet::from(["souk-proto-common".to_owned()]);
        assert_eq!(arrows[&format!("souk-proto-{area}")], expected);
    }
}

#[test]
fn the_shared_crates_know_no_service_and_no_contract_of_one() {
    for (name, used) in arrows() {
        let shared = ["souk-db", "souk-runtime", "souk-interceptors", "souk-events"].contains(&name.as_str());
        let of_a_service = |used: &String| {
            SERVICES.contains(&used.as_str()) || (used.starts_with("souk-proto-") && used != "souk-proto-common")
        };
        assert!(!shared || !used.iter().any(of_a_service), "{name} depends on {used:?}");
    }
}

#[test]
fn nothing_that_ships_depends_on_the_testkit() {
    for (name, used) in arrows() {
        assert!(!used.contains("souk-testkit"), "{name} ships the testkit");
    }
}
