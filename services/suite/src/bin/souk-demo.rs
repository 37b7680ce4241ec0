//! Loads the demonstration into services that run as processes of their own, and ends.

use std::io::Write;
use std::process::ExitCode;

use clap::Command;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk::demo;
use souk_interceptors::client::ClientConfig;
use souk_runtime::config::{self, Loaded};
use souk_runtime::{Clock, Kernel, Secret, story};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The settings of the loader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The user service.
    user: ClientConfig,
    /// The inventory service.
    inventory: ClientConfig,
    /// What the user service knows as the secret of the account `demo`.
    client_secret: Secret,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user: ClientConfig::to("127.0.0.1:50051"),
            inventory: ClientConfig::to("127.0.0.1:50053"),
            client_secret: Secret::default(),
        }
    }
}

impl config::Config for Config {
    fn validate(&self, problems: &mut Vec<String>) {
        self.user.validate("user", problems);
        self.inventory.validate("inventory", problems);
        if self.client_secret.expose().is_empty() {
            problems.push("client_secret must be set".to_owned());
        }
    }
}

fn main() -> ExitCode {
    let (text, code) = match run() {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (format!("error: {}", story(&*error)), ExitCode::FAILURE),
    };
    // Whoever has gone away need not be told.
    drop(writeln!(std::io::stderr(), "{text}"));
    code
}

/// What there is to say in the end.
fn run() -> anyhow::Result<String> {
    let about = "Loads Souk's demonstration into services that run: a small catalogue with stock, and two customers. What is there \
                 already stays as it is.";
    let config: Config = match config::load(Command::new("souk-demo").about(about), std::env::args_os())? {
        Loaded::Run(config, _) => config,
        Loaded::Print(text) => return Ok(text),
    };
    let kernel = Kernel::new(Clock::system());
    let loading = demo::load_into(&kernel, &config.user, &config.inventory, config.client_secret);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(loading)?;
    Ok("the demonstration is loaded".to_owned())
}
