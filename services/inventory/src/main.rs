//! The inventory service as a process of its own.

use std::process::ExitCode;

use souk_events::{Bus, commands};
use souk_inventory::config::Process;
use souk_inventory::{Deps, for_operators, migrate, start};
use souk_runtime::{App, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    App::new("souk-inventory", "The inventory service of Souk.")
        .subcommand(Subcommand::migrate(async |config: Process| migrate(&config.inventory).await))
        .subcommand(commands::events(async |config: Process| for_operators(&config.inventory).await))
        .run(async |kernel, config: Process, _| {
            let bus = Bus::connect(&kernel, &config.bus).await?;
            let running = start(kernel, config.inventory, Deps { bus: bus.clone() }).await?;
            bus.open(); // everybody has subscribed
            tracing::info!(address = %running.address, "inventory listens");
            Ok(())
        })
}
