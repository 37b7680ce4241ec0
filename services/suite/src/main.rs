//! Souk in one process.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, ArgAction, ArgMatches};
use souk::{Config, Running, demo};
use souk_runtime::{App, Kernel, Subcommand};
use souk_user::FirstAdministrator;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEMO: &str = "demo";

fn main() -> ExitCode {
    let demo = Arg::new(DEMO).long(DEMO).action(ArgAction::SetTrue);
    let demo = demo.help("Load a small catalogue with stock, and two customers");
    App::new("souk", "Souk: users, inventory and orders over gRPC, in one process on embedded SQLite.")
        .flag(demo)
        .subcommand(Subcommand::migrate(async |config| souk::migrate(&config).await))
        .run(start)
}

async fn start(kernel: Kernel, config: Config, flags: ArgMatches) -> anyhow::Result<()> {
    let admin = config.process.admin.listen;
    let running = souk::start(kernel.clone(), config, Arc::new(show_first_administrator)).await?;
    if flags.get_flag(DEMO) {
        demo::load(&kernel, &running).await?;
    }
    write_banner(&running, &admin.to_string())
}

/// To the terminal, and never to a log: the first password is shown here, and nowhere else.
fn show_first_administrator(first: &FirstAdministrator) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "The administrator, shown this once: {}  password: {}\n", first.email, first.password.expose())?;
    Ok(out.flush()?)
}

fn write_banner(running: &Running, admin: &str) -> anyhow::Result<()> {
    let (user, order, inventory) = (running.user.address, running.order.address, running.inventory.address);
    let mut out = std::io::stdout().lock();
    writeln!(out, "Souk listens: user {user}, order {order}, inventory {inventory}, admin http://{admin}")?;
    writeln!(out, "\nTry:")?;
    writeln!(out, "  grpcurl -plaintext {order} list")?;
    writeln!(out, "  grpcurl -plaintext {inventory} souk.inventory.v1.CatalogService/ListProducts")?;
    writeln!(out, "  grpcurl -plaintext {order} describe souk.order.v1.OrderService.PlaceOrder")?;
    Ok(out.flush()?)
}
