//! Logs and traces: what the process says of itself while it runs, one line an event to standard error, and spans to a collector if there
//! is one.

mod export;
mod filter;
mod lines;

use std::io::{IsTerminal, Write};

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::info;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::check_bounds;
use crate::kernel::Kernel;
use crate::trace::Tracer;
use export::Export;
pub use export::ExportConfig;
use filter::{LogFilter, TraceFilter};
use lines::{Form, Lines};

/// What is logged and traced, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// What is logged: a level (error, warn, info, debug, trace), or levels by module, as `info,souk_order=debug`.
    pub log: String,
    /// How: `auto` is `human` in a terminal and `json` elsewhere.
    pub log_format: LogFormat,
    /// Where traces go, by OTLP over gRPC: `http://collector:4317`, or https with `otlp_ca_file`. Empty: where OTEL_EXPORTER_OTLP_ENDPOINT
    /// says; without that nothing is recorded or sent.
    pub otlp_endpoint: String,
    /// The certificates that vouch for the collector, a PEM file. Needed for https.
    pub otlp_ca_file: String,
    /// Of a thousand traces that begin here, so many are recorded. One that another service has begun is recorded if that one records it.
    pub sample_permille: u32,
    /// So many calls in a second are recorded because their `traceparent` asks for it. Of more, the trace does not go on here.
    pub sample_asked_per_second_max: u32,
    /// The bounds of what is on its way.
    pub export: ExportConfig,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_format: LogFormat::Auto,
            otlp_endpoint: String::new(),
            otlp_ca_file: String::new(),
            sample_permille: 100,
            sample_asked_per_second_max: 1_000,
            export: ExportConfig::default(),
        }
    }
}

impl TelemetryConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        check_bounds(problems, at, 0..=1_000, &[("sample_permille", self.sample_permille.into())]);
        let asked = [("sample_asked_per_second_max", self.sample_asked_per_second_max.into())];
        check_bounds(problems, at, 0..=1_000_000, &asked);
        let endpoint = &self.otlp_endpoint;
        if !endpoint.is_empty() && !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            problems.push(format!("{at}.otlp_endpoint must begin with http:// or https://"));
        }
        self.export.validate(&format!("{at}.export"), problems);
    }

    /// Where traces go, if anywhere.
    fn endpoint(&self, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
        let standard = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let ours = Some(self.otlp_endpoint.clone());
        std::iter::once(ours).chain(standard.map(variable)).flatten().find(|endpoint| !endpoint.is_empty())
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

/// The logs and traces of a process.
#[derive(Debug)]
pub struct Telemetry {
    /// What begins spans.
    pub tracer: Tracer,
    export: Option<Export>,
}

impl Telemetry {
    /// Logs go to standard error and traces to the collector from here on, under the name of the process. To be called on a runtime, once
    /// in a process; the kernel's tracer is to be the one that comes of it.
    pub fn start(config: &TelemetryConfig, name: &'static str, kernel: &Kernel) -> anyhow::Result<Self> {
        let Some(endpoint) = config.endpoint(|name| std::env::var(name).ok()) else {
            start_logs(config)?;
            return Ok(Self { tracer: Tracer::off(kernel.ids.clone()).with_our_log(), export: None });
        };
        let export = Export::start(name, kernel, &endpoint, &config.otlp_ca_file, &config.export)?;
        let spans = tracing_opentelemetry::layer()
            .with_tracer(export.provider.tracer("souk"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_context_activation(false)
            .with_tracked_inactivity(false)
            .with_filter(TraceFilter);
        Registry::default().with(log(config)?).with(spans).try_init().context("logging cannot be set up")?;
        info!(endpoint, "traces are exported");
        let (permille, asked) = (config.sample_permille, config.sample_asked_per_second_max);
        let tracer = Tracer::sampling(kernel.ids.clone(), kernel.clock.clone(), permille, asked).with_our_log();
        Ok(Self { tracer, export: Some(export) })
    }

    /// Sends what waits to be sent, for no longer than the time-out of an export.
    pub async fn close(self) {
        if let Some(export) = self.export {
            export.close().await;
        }
    }
}

/// Logs go to standard error from here on, and nothing is traced: for what ends soon.
pub(crate) fn start_logs(config: &TelemetryConfig) -> anyhow::Result<()> {
    Registry::default().with(log(config)?).try_init().context("logging cannot be set up")
}

fn log<S>(config: &TelemetryConfig) -> anyhow::Result<impl Layer<S> + use<S>>
where
    S: tracing::Subscriber + for<'l> tracing_subscriber::registry::LookupSpan<'l>,
{
    let filter = EnvFilter::try_new(&config.log).context("telemetry.log is not a filter")?;
    let terminal = std::io::stderr().is_terminal();
    let form = match config.log_format {
        LogFormat::Auto | LogFormat::Human if terminal => Form::HumanInColours,
        LogFormat::Human => Form::Human,
        LogFormat::Auto | LogFormat::Json => Form::Json,
    };
    // A line that cannot be written is lost: there is nobody left to tell.
    let write = |line: &str| drop(std::io::stderr().write_all(line.as_bytes()));
    Ok(Lines::new(form, write).with_filter(LogFilter(filter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let usual = TelemetryConfig::default();
        let bad = [
            ("sample_permille must be ", TelemetryConfig { sample_permille: 1_001, ..usual.clone() }),
            (
                "sample_asked_per_second_max must be ",
                TelemetryConfig { sample_asked_per_second_max: 1_000_001, ..usual.clone() },
            ),
            ("otlp_endpoint must begin ", TelemetryConfig { otlp_endpoint: "collector:4317".into(), ..usual.clone() }),
            (
                "export.queue_max must be ",
                TelemetryConfig { export: ExportConfig { queue_max: 0, ..ExportConfig::default() }, ..usual.clone() },
            ),
        ];
        for (told, config) in bad {
            let mut problems = Vec::new();
            config.validate("telemetry", &mut problems);
            assert_eq!(problems.len(), 1, "{told}: {problems:?}");
            assert!(problems[0].starts_with(&format!("telemetry.{told}")), "{problems:?}");
        }
        let mut problems = Vec::new();
        usual.validate("telemetry", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn traces_go_where_the_setting_says_or_else_the_standard_variables_or_nowhere() {
        let usual = TelemetryConfig::default();
        let set = TelemetryConfig { otlp_endpoint: "http://ours:4317".into(), ..usual.clone() };
        let environment = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some(String::new()),
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://theirs:4317".to_owned()),
            _ => None,
        };
        assert_eq!(set.endpoint(environment).as_deref(), Some("http://ours:4317"));
        assert_eq!(usual.endpoint(environment).as_deref(), Some("http://theirs:4317"));
        assert_eq!(usual.endpoint(|_| None), None);
    }
}
