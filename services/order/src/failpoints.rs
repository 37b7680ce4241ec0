//! The places at which a crash test kills this service, with the feature `failpoints`. Between any two of them is one thing that cannot be
//! undone or that somebody else can see.

/// Priced; nothing is held.
pub const PLACE_BEFORE_RESERVE: &str = "place_order.before_reserve";
/// Stock is held; nobody but the inventory knows.
pub const PLACE_AFTER_RESERVE: &str = "place_order.after_reserve";
/// Everything is written, nothing committed.
pub const PLACE_BEFORE_COMMIT: &str = "place_order.before_commit";
/// The order is durable; neither worker nor relay knows.
pub const PLACE_AFTER_COMMIT: &str = "place_order.after_commit";
/// Everybody knows but the caller.
pub const PLACE_BEFORE_REPLY: &str = "place_order.before_reply";
/// A cancellation is written and not committed.
pub const CANCEL_BEFORE_COMMIT: &str = "cancel_order.before_commit";
/// A cancellation is durable; its caller does not know.
pub const CANCEL_AFTER_COMMIT: &str = "cancel_order.after_commit";
/// A step is taken up, and nothing done.
pub const SAGA_AFTER_CLAIM: &str = "saga.after_claim";
/// The stock is about to be committed.
pub const SAGA_BEFORE_COMMIT_STOCK: &str = "saga.before_commit_stock";
/// The stock is committed; the order does not know.
pub const SAGA_AFTER_COMMIT_STOCK: &str = "saga.after_commit_stock";
/// The end of steps is written and not committed.
pub const SAGA_BEFORE_CONFIRM: &str = "saga.before_confirm";
/// The end of a step is durable; neither relay nor watchers know.
pub const SAGA_AFTER_CONFIRM: &str = "saga.after_confirm";
/// The stock of a cancelled order is about to be given back.
pub const SAGA_BEFORE_RELEASE_STOCK: &str = "saga.before_release_stock";
/// It is given back; the step does not know.
pub const SAGA_AFTER_RELEASE_STOCK: &str = "saga.after_release_stock";

/// All of them, for a test to walk.
pub const ALL: &[&str] = &[
    PLACE_BEFORE_RESERVE,
    PLACE_AFTER_RESERVE,
    PLACE_BEFORE_COMMIT,
    PLACE_AFTER_COMMIT,
    PLACE_BEFORE_REPLY,
    CANCEL_BEFORE_COMMIT,
    CANCEL_AFTER_COMMIT,
    SAGA_AFTER_CLAIM,
    SAGA_BEFORE_COMMIT_STOCK,
    SAGA_AFTER_COMMIT_STOCK,
    SAGA_BEFORE_CONFIRM,
    SAGA_AFTER_CONFIRM,
    SAGA_BEFORE_RELEASE_STOCK,
    SAGA_AFTER_RELEASE_STOCK,
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every source file under `folder`.
    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if !path.ends_with("failpoints.rs") {
                found.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn none_is_forgotten() {
        let declared: Vec<(&str, &str)> = include_str!("failpoints.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("pub const ")?.strip_suffix("\";")?.split_once(": &str = \""))
            .collect();
        assert_eq!(declared.iter().map(|(_, value)| *value).collect::<Vec<_>>(), ALL);
        let mut code = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
        for (name, _) in declared {
            let used = format!("failpoints::{name}");
            assert!(code.iter().any(|file| file.contains(&used)), "{name} is nowhere");
        }
        assert!(!code.iter().any(|file| file.contains("failpoint(\"")), "a failpoint without a name in here");
    }
}
