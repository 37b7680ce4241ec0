//! The inventory service as a process of its own.

use std::process::ExitCode;

use souk_events::Bus;
use souk_inventory::config::Process;
use souk_inventory::{Deps, start};
use souk_runtime::config::App;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let app = App { name: "souk-inventory", about: "The inventory service of Souk.", flags: Vec::new() };
    souk_runtime::run(
        &app,
        |config: &Process| config.process.clone(),
        async |kernel, config: Process, _| {
            let bus = Bus::connect(&kernel, &config.bus).await?;
            let running = start(kernel, config.inventory, Deps { bus: bus.clone() }).await?;
            bus.open(); // everybody has subscribed
            tracing::info!(address = %running.address, "inventory listens");
            Ok(())
        },
    )
}
