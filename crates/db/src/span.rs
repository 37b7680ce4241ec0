//! Spans of transactions and statements, as OpenTelemetry names them: target `souk_db`, level DEBUG. Where nobody listens to that, a span is
//! one look at a flag. They tell operation and table, never a value.
//! <https://opentelemetry.io/docs/specs/semconv/database/database-spans/>

use std::fmt;
use std::future::Future;

use tracing::field::{Empty, display};
use tracing::{Instrument, Span, debug_span};

use crate::connect::Engine;
use crate::error::Error;
use crate::transaction::{Access, Tx};

/// A transaction, or a read in none, from the wait for its connection to its end.
pub(crate) fn transaction(engine: Engine, database: &'static str, access: Access) -> Span {
    let operation = match access {
        Access::Read => "read transaction",
        Access::ReadOne => "read of one statement",
        Access::Write => "write transaction",
    };
    debug_span!(
        target: "souk_db",
        "transaction",
        otel.name = operation,
        otel.kind = "client",
        db.system.name = system(engine),
        db.namespace = database,
        db.operation.name = operation,
    )
}

/// A statement of the transaction.
pub(crate) fn statement(tx: &Tx, text: &str) -> Span {
    debug_span!(
        target: "souk_db",
        parent: &tx.span,
        "statement",
        otel.name = %Summary::of(text),
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = system(tx.engine()),
        db.operation.name = Summary::of(text).operation,
        db.collection.name = Summary::of(text).table,
        db.query.summary = %Summary::of(text),
        error.type = Empty,
    )
}

/// Waits for what the span is about, and notes how it failed.
pub(crate) async fn note<T>(asking: impl Future<Output = Result<T, Error>>, span: Span) -> Result<T, Error> {
    let result = asking.instrument(span.clone()).await;
    if let Err(error) = &result {
        span.record("otel.status_code", "ERROR").record("error.type", display(error.kind()));
    }
    result
}

fn system(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => "sqlite",
        Engine::Postgres => "postgresql",
    }
}

/// What a statement does, and to which table first.
#[derive(Debug, PartialEq, Eq)]
struct Summary<'t> {
    operation: &'t str,
    table: Option<&'t str>,
}

impl<'t> Summary<'t> {
    /// Read off the text, which is ours: the first of the words that begin a statement outside parentheses, and what follows the word that
    /// names a table.
    fn of(text: &'t str) -> Self {
        let mut depth = 0_usize;
        let mut words = words(text).filter(move |word| match *word {
            "(" => {
                depth += 1;
                false
            }
            ")" => {
                depth = depth.saturating_sub(1);
                false
            }
            _ => depth == 0,
        });
        let mut local = Vec::new(); // what WITH names is no table
        let operation = loop {
            match words.next() {
                Some("WITH" | "AS" | "RECURSIVE") => {}
                Some(word) if is_keyword(word) => break word,
                Some(name) => local.push(name),
                None => break "",
            }
        };
        let mut after = |marks: &[&str]| loop {
            words.by_ref().find(|word| marks.contains(word))?;
            let table = words.next()?;
            if !local.contains(&table) {
                break Some(table);
            }
        };
        let table = match operation {
            "UPDATE" => words.next(),
            "INSERT" => after(&["INTO"]),
            "DELETE" | "SELECT" => after(&["FROM", "JOIN"]),
            _ => None,
        };
        Self { operation, table }
    }
}

fn is_keyword(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_uppercase())
}

/// Words, and each parenthesis for itself.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().flat_map(|part| part.split_inclusive(['(', ')', ','])).flat_map(|part| {
        let word = part.trim_end_matches(['(', ')', ',']);
        let mark = &part[word.len()..];
        [word, mark].into_iter().filter(|piece| !piece.is_empty() && *piece != ",")
    })
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.table {
            Some(table) => write!(f, "{} {table}", self.operation),
            None => f.write_str(self.operation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_told_by_its_operation_and_its_table() {
        let table = [
            ("SELECT 1", "SELECT"),
            ("COMMIT", "COMMIT"),
            ("SELECT id, (SELECT MAX(v) FROM versions) FROM orders WHERE id = $1", "SELECT orders"),
            ("INSERT INTO order_lines (id, n) VALUES ($1, $2) ON CONFLICT DO NOTHING", "INSERT order_lines"),
            ("UPDATE stock SET held = 1 FROM v WHERE stock.sku = v.sku", "UPDATE stock"),
            ("DELETE FROM leases WHERE name IN (SELECT name FROM old)", "DELETE leases"),
            ("WITH v (id) AS (VALUES ($1), ($2))\n UPDATE orders SET n = 1 FROM v", "UPDATE orders"),
            ("WITH k (a, b) AS (VALUES ($1, $2)) SELECT i.a FROM k JOIN keys i ON i.a = k.a", "SELECT keys"),
            ("WITH k (a) AS (VALUES ($1)) SELECT k.a FROM k", "SELECT"),
            ("", ""),
        ];
        for (text, told) in table {
            assert_eq!(Summary::of(text).to_string(), told, "{text}");
        }
    }
}
