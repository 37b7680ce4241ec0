//! The arrows between the crates, read from `cargo metadata`: what ARCHITECTURE.md says of them is checked here. And its rule that there is
//! no RPC without a rule, by a build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::{fs, io};

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
    for area in ["user", "inventory", "order", "event"] {
        let expected = BTreeSet::from(["souk-proto-common".to_owned()]);
        assert_eq!(arrows[&format!("souk-proto-{area}")], expected);
    }
}

#[test]
fn the_shared_crates_know_no_service_and_no_contract_of_one() {
    for (name, used) in arrows() {
        let shared = ["souk-db", "souk-runtime", "souk-interceptors", "souk-events"].contains(&name.as_str());
        let of_a_service = |used: &String| {
            SERVICES.contains(&used.as_str())
                || (used.starts_with("souk-proto-") && used != "souk-proto-common" && used != "souk-proto-event")
        };
        assert!(!shared || !used.iter().any(of_a_service), "{name} depends on {used:?}");
    }
}

#[test]
fn nothing_that_ships_depends_on_the_testkit_or_the_benchmark() {
    for (name, used) in arrows() {
        // The benchmark starts what tests start.
        let may = name == "souk-bench";
        assert!(may || !used.contains("souk-testkit"), "{name} ships the testkit");
        assert!(!used.contains("souk-bench"), "{name} ships the benchmark");
    }
}

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// The contract of the order service, as it stands in the workspace below.
const CONTRACT: &str = "proto/souk/order/v1/order_service.proto";

/// The build script, the contracts, and of the crates that are made from them one, without what its code needs: enough for the script to
/// run as it does for Souk. It is where it was the last time, so that little is built anew.
fn workspace_of_one_contract() -> io::Result<&'static Path> {
    let [root, workspace] = [ROOT, concat!(env!("CARGO_TARGET_TMPDIR"), "/contract-test/workspace")].map(Path::new);
    let crate_folder = workspace.join("crates/proto-order");
    fs::create_dir_all(crate_folder.join("src"))?;
    fs::write(crate_folder.join("src/lib.rs"), "")?;
    let manifest = fs::read_to_string(root.join("crates/proto-order/Cargo.toml"))?;
    let (head, rest) = manifest.split_once("[dependencies]").expect("it has dependencies");
    let (_, build) = rest.split_once("[build-dependencies]").expect("it has a build script");
    fs::write(crate_folder.join("Cargo.toml"), format!("{head}[build-dependencies]{build}"))?;
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let (_, rest) = manifest.split_once("[workspace.package]").expect("its crates have something in common");
    let members = "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n\n[workspace.package]";
    fs::write(workspace.join("Cargo.toml"), format!("{members}{rest}"))?;
    fs::copy(root.join("Cargo.lock"), workspace.join("Cargo.lock"))?;
    fs::copy(root.join("build.rs"), workspace.join("build.rs"))?;
    let proto = workspace.join("proto");
    if proto.exists() {
        fs::remove_dir_all(&proto)?; // contracts that are no more
    }
    copy_folder(&root.join("proto"), &proto)?;
    Ok(workspace)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn build(workspace: &Path) -> Output {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "--quiet", "--offline", "--target-dir", "../target"]).current_dir(workspace);
    cargo.output().expect("cargo runs")
}

#[test]
fn an_rpc_without_a_rule_does_not_build() {
    let workspace = workspace_of_one_contract().expect("a workspace");
    let whole = build(workspace);
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let contract = fs::read_to_string(workspace.join(CONTRACT)).expect("a contract");
    let rule = "option (souk.common.v1.rule) = {scope: \"orders.cancel\"};";
    assert_eq!(contract.matches(rule).count(), 1);
    for no_rule in ["", &rule.replace("orders.cancel", ""), &rule.replace("scope: \"orders.cancel\"", "public: false")]
    {
        fs::write(workspace.join(CONTRACT), contract.replace(rule, no_rule)).expect("a contract is changed");
        let refused = build(workspace);
        let told = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{no_rule:?} is no rule");
        assert!(told.contains("souk.order.v1.OrderService.CancelOrder has no access rule"), "{no_rule:?}: {told}");
    }
}
