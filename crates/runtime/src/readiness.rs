//! Whether the process can serve, and if not, what is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// One thing that must be well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "why", rename_all = "snake_case")]
pub enum Check {
    /// It is well.
    Ready,
    /// It is not, and why: for people, without secrets.
    NotReady(String),
}

/// The named checks of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, Check>>>);

impl Readiness {
    /// Says how `name` is.
    pub fn set(&self, name: impl Into<String>, check: Check) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), check);
    }

    /// Every check.
    pub fn checks(&self) -> BTreeMap<String, Check> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// There are checks, and all are well.
    pub fn is_ready(&self) -> bool {
        let checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !checks.is_empty() && checks.values().all(|check| *check == Check::Ready)
    }
}
