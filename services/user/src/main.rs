//! The user service as a process of its own.

use std::io::Write;
use std::process::ExitCode;

use souk_events::Bus;
use souk_runtime::config::App;
use souk_user::config::Process;
use souk_user::{Deps, start};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let app = App { name: "souk-user", about: "The user service of Souk.", flags: Vec::new() };
    souk_runtime::run(
        &app,
        |config: &Process| config.process.clone(),
        async |kernel, config: Process, _| {
            let running = start(kernel, config.user, Deps { bus: Bus::memory() }).await?;
            if let Some(first) = running.first_administrator {
                // To the terminal, this once, and never to a log.
                writeln!(std::io::stdout(), "administrator: {}  password: {}", first.email, first.password.expose())?;
            }
            tracing::info!(address = %running.address, "user listens");
            Ok(())
        },
    )
}
