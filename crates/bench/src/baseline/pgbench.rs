//! The plain transaction as PostgreSQL's own benchmark makes it: what its server can do, with a client that costs next to nothing. On
//! tables as [`PlainOrders`](super::sql::PlainOrders) makes them; for orders of one line.

use std::io::Write;

use anyhow::Context;
use souk_testkit::postgres;
use tempfile::NamedTempFile;
use tokio::process::Command;

use super::sql::EVENT;
use crate::dice::Spread;

/// pgbench knows no smaller exponent.
const ZIPF_EXPONENT: f64 = 1.001;

/// Transactions a second, with so many clients, each with a connection of its own.
pub(crate) async fn transactions_per_second(
    url: &str,
    spread: Spread,
    products: usize,
    clients: usize,
    seconds: f64,
) -> anyhow::Result<f64> {
    let mut file = NamedTempFile::with_prefix("souk-bench-")?;
    file.write_all(script(spread, products).as_bytes())?;
    // Whole seconds, one at least.
    let seconds = format!("{:.0}", seconds.max(1.0).ceil());
    let output = Command::new(postgres::find_program("pgbench").context("pgbench is not installed")?)
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=1"])
        .args(["--client", &clients.to_string(), "--time", &seconds, "--file"])
        .arg(file.path())
        .arg(url)
        .kill_on_drop(true)
        .output()
        .await
        .context("pgbench does not run")?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "pgbench: {complained}");
    rate(&said).with_context(|| format!("pgbench says no rate: {said}"))
}

fn script(spread: Spread, products: usize) -> String {
    let last = products.saturating_sub(1);
    let product = match spread {
        Spread::Uniform => format!("random(0, {last})"),
        Spread::Zipf => format!("random_zipfian(1, {}, {ZIPF_EXPONENT}) - 1", products.max(1)),
        Spread::Hot => "0".to_owned(),
    };
    // A colon would begin one of pgbench's variables.
    let event = EVENT.replace(':', "");
    format!(
        "\\set product {product}
\\set customer random(0, 999)
BEGIN;
SELECT on_hand - allocated AS available FROM plain_stock WHERE product = :product FOR UPDATE \\gset
INSERT INTO plain_orders (customer, state, total_minor) VALUES (:customer, 'PENDING', 2916) RETURNING order_id \\gset
INSERT INTO plain_lines (order_id, product, quantity, unit_price_minor) VALUES (:order_id, :product, 1, 2450);
INSERT INTO plain_allocations (order_id, product, quantity) VALUES (:order_id, :product, 1);
UPDATE plain_stock SET allocated = allocated + 1 WHERE product = :product;
INSERT INTO plain_outbox (order_id, payload) VALUES (:order_id, '{event}');
COMMIT;
"
    )
}

/// `tps = 2012.34 (without initial connection time)`; it says none where nothing came to its end in time.
fn rate(said: &str) -> Option<f64> {
    if said.contains("transactions actually processed: 0\n") {
        return Some(0.0);
    }
    let (_, rest) = said.split_once("tps = ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_draws_as_we_do_and_the_rate_is_read() {
        assert!(script(Spread::Uniform, 10).contains("\\set product random(0, 9)\n"));
        assert!(script(Spread::Hot, 10).contains("\\set product 0\n"));
        assert!(script(Spread::Zipf, 10).contains("random_zipfian(1, 10, 1.001) - 1"));
        assert_eq!(rate("latency average = 1 ms\ntps = 2012.5 (without initial connection time)\n"), Some(2012.5));
        assert_eq!(rate("number of transactions actually processed: 0\nnumber of failed"), Some(0.0));
        assert_eq!(rate("nothing"), None);
    }
}
