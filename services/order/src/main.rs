//! The order service as a process of its own.

use std::process::ExitCode;

use souk_events::{Bus, commands};
use souk_order::config::Process;
use souk_order::{Deps, for_operators, migrate, start};
use souk_runtime::{App, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    App::new("souk-order", "The order service of Souk.")
        .subcommand(Subcommand::migrate(async |config: Process| migrate(&config.order).await))
        .subcommand(commands::events(async |config: Process| for_operators(&config.order).await))
        .subcommand(commands::dead_letters(async |config: Process| for_operators(&config.order).await))
        .run(async |kernel, config: Process, _| {
            let bus = Bus::connect(&kernel, &config.bus).await?;
            let running = start(kernel, config.order, Deps { bus: bus.clone() }).await?;
            bus.open(); // everybody has subscribed
            tracing::info!(address = %running.address, "order listens");
            Ok(())
        })
}
