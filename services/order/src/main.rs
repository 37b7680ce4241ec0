//! The order service as a process of its own.

use std::process::ExitCode;

use souk_events::Bus;
use souk_order::config::Process;
use souk_order::{Deps, start};
use souk_runtime::config::App;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let app = App { name: "souk-order", about: "The order service of Souk.", flags: Vec::new() };
    souk_runtime::run(
        &app,
        |config: &Process| config.process.clone(),
        async |kernel, config: Process, _| {
            let bus = Bus::connect(&kernel, &config.bus).await?;
            let running = start(kernel, config.order, Deps { bus: bus.clone() }).await?;
            bus.open(); // everybody has subscribed
            tracing::info!(address = %running.address, "order listens");
            Ok(())
        },
    )
}
