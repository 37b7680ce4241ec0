//! What is written of the settings is what they are.

use std::process::Command;

#[test]
fn the_page_of_settings_is_not_stale() {
    let output = Command::new(env!("CARGO_BIN_EXE_souk")).arg("--print-settings").output().expect("the binary runs");
    let made = String::from_utf8(output.stdout).expect("it is text");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md"));
    let page = page.expect("there is a page");
    let stale = made.lines().find(|line| !page.lines().any(|other| other == *line));
    assert_eq!(stale, None, "run ./scripts/settings");
    assert_eq!(page, made, "run ./scripts/settings");
}
