//! The user service as a process of its own.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use souk_events::{Bus, commands};
use souk_runtime::{App, Subcommand};
use souk_user::config::Process;
use souk_user::{Deps, FirstAdministrator, for_operators, migrate, start};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    App::new("souk-user", "The user service of Souk.")
        .subcommand(Subcommand::migrate(async |config: Process| migrate(&config.user).await))
        .subcommand(commands::events(async |config: Process| for_operators(&config.user).await))
        .run(async |kernel, config: Process, _| {
            let bus = Bus::connect(&kernel, &config.bus).await?;
            let deps = Deps { show_first_administrator: Arc::new(show), ..Deps::new(bus.clone()) };
            let running = start(kernel, config.user, deps).await?;
            bus.open(); // everybody has subscribed
            tracing::info!(address = %running.address, "user listens");
            Ok(())
        })
}

/// To the terminal, this once, and never to a log.
fn show(first: &FirstAdministrator) -> anyhow::Result<()> {
    let mut terminal = std::io::stdout().lock();
    writeln!(terminal, "administrator: {}  password: {}", first.email, first.password.expose())?;
    Ok(terminal.flush()?)
}
