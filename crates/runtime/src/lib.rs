//! What every process of Souk stands on: configuration, logs and traces, time and ids, background tasks, the gRPC server, the admin
//! server and an orderly end.
//!
//! Never: anything that knows what is sold. Time, ids and randomness come from here and from nowhere else, so that a test can hold them.

pub mod admin;
mod app;
mod calls;
mod clock;
pub mod config;
pub mod deadline;
mod failpoint;
pub mod gather;
mod ids;
mod kernel;
mod metrics;
mod open_files;
mod process;
mod readiness;
mod remembered;
mod secret;
pub mod server;
mod story;
mod tasks;
pub mod telemetry;
pub mod tls;
pub mod trace;

pub use app::{App, Settings, Subcommand, say};
pub use calls::{Call, Calls, Entered, InFlight};
pub use clock::Clock;
pub use failpoint::failpoint;
pub use ids::Ids;
pub use kernel::Kernel;
pub use metrics::Metrics;
pub use process::{ProcessConfig, runtime};
pub use readiness::{Check, Dependency, Readiness, State};
pub use remembered::Remembered;
pub use secret::Secret;
pub use story::story;
pub use tasks::{Running, Tasks};
pub use telemetry::{LogFormat, TelemetryConfig};
pub use trace::{TraceContext, Tracer};
