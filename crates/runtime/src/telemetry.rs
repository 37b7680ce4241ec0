//! Logs: one line an event, for people in a terminal, JSON elsewhere.

use std::io::IsTerminal;

use anyhow::Context;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// What is logged: a level (error, warn, info, debug, trace), or levels by module, as `info,souk_order=debug`.
    pub log: String,
    /// How: `auto` is `human` in a terminal and `json` elsewhere.
    pub log_format: LogFormat,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log: "info".to_owned(), log_format: LogFormat::Auto }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// By what standard error is.
    Auto,
    /// For people.
    Human,
    /// For machines: one JSON object a line.
    Json,
}

/// Logs go to standard error from here on.
pub(crate) fn init(config: &TelemetryConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).context("telemetry.log is not a filter")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A line that cannot be written is lost: telling so on standard error, which cannot be written, would panic.
    let builder = builder.log_internal_errors(false);
    let human = match config.log_format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let installed =
        if human { builder.try_init() } else { builder.json().flatten_event(true).with_span_list(false).try_init() };
    installed.map_err(|error| anyhow::anyhow!("logging cannot be set up: {error}"))
}
