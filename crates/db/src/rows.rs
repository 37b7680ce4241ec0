//! One statement for many rows: set-based INSERT, UPDATE and look-ups.

use crate::connect::Engine;
use crate::error::Error;
use crate::statement::{Row, Statement, sql};
use crate::transaction::Tx;
use crate::value::Value;

/// The marker that becomes the rows.
const ROWS: &str = "VALUES {rows}";
/// Rows in one statement on SQLite. With the widest row of Souk (17 values) that is well under its limit of 32,766 values.
const SQLITE_ROWS_MAX: usize = 512;

/// A statement that carries many rows.
#[derive(Clone, Debug)]
#[must_use = "a statement does nothing until it is executed or fetched"]
pub struct Many<'t> {
    template: &'t str,
    /// Row by row.
    values: Vec<Value>,
    columns: usize,
}

/// A statement that carries all `rows`, each bound by `bind`; `VALUES {rows}` in `template` stands for them, and it has no other values.
/// Without rows it does nothing.
///
/// ```
/// # async fn example(tx: &mut souk_db::Tx, lines: Vec<(String, i64)>) -> Result<(), souk_db::Error> {
/// let insert = "INSERT INTO lines (sku, quantity) VALUES {rows} ON CONFLICT DO NOTHING";
/// souk_db::many(insert, &lines, |row, line| row.bind(&line.0).bind(line.1)).execute(tx).await?;
/// let update = "WITH v (sku, quantity) AS (VALUES {rows}) UPDATE lines SET quantity = v.quantity FROM v WHERE lines.sku = v.sku";
/// souk_db::many(update, &lines, |row, line| row.bind(&line.0).bind(line.1)).execute(tx).await?;
/// # Ok(())
/// # }
/// ```
///
/// On PostgreSQL the rows are one array a column, so that one text, always prepared, and one round trip serve any number of rows. SQLite
/// has no arrays: there they are cut into powers of two, so that a handful of texts serves any number. A read of one statement has a text
/// for each number of rows, and no more than SQLite takes: 32,766 values. The values carry their types, so that neither needs casts.
pub fn many<'t, T>(template: &'t str, rows: &[T], bind: impl Fn(Statement, &T) -> Statement) -> Many<'t> {
    let values = rows.iter().fold(sql(""), bind).into_values();
    Many { template, columns: values.len() / rows.len().max(1), values }
}

impl Many<'_> {
    /// Runs it; the number of rows that it touched.
    pub async fn execute(self, tx: &mut Tx) -> Result<u64, Error> {
        let mut touched = 0;
        for statement in self.statements(tx.engine(), tx.reads_one()) {
            touched += statement.execute(tx).await?;
        }
        Ok(touched)
    }

    /// Every row that it returns.
    pub async fn fetch_all<R: Row>(self, tx: &mut Tx) -> Result<Vec<R>, Error> {
        let mut found = Vec::new();
        for statement in self.statements(tx.engine(), tx.reads_one()) {
            found.extend(statement.fetch_all(tx).await?);
        }
        Ok(found)
    }

    fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn statements(self, engine: Engine, as_one: bool) -> Vec<Statement> {
        match engine {
            _ if self.is_empty() => Vec::new(),
            Engine::Postgres => {
                let text = self.text_of_arrays(1);
                vec![Statement::of_columns(text, self.into_columns())]
            }
            Engine::Sqlite => self.of_lists(as_one),
        }
    }

    /// The text with one array a column, the first of which is `$first`.
    fn text_of_arrays(&self, first: usize) -> String {
        let places: Vec<String> = (first..first + self.columns).map(|place| format!("${place}")).collect();
        self.template.replace(ROWS, &format!("SELECT * FROM UNNEST({})", places.join(", ")))
    }

    fn into_columns(self) -> Vec<Vec<Value>> {
        let mut columns = vec![Vec::with_capacity(self.values.len() / self.columns); self.columns];
        for (nth, value) in self.values.into_iter().enumerate() {
            columns[nth % self.columns].push(value);
        }
        columns
    }

    fn of_lists(self, as_one: bool) -> Vec<Statement> {
        let row = format!("({})", vec!["?"; self.columns].join(", "));
        let mut rows_left = self.values.len() / self.columns;
        let mut values = self.values.into_iter();
        let mut statements = Vec::new();
        while rows_left > 0 {
            let rows = if as_one { rows_left } else { power_of_two_within(rows_left) };
            let text = self.template.replace(ROWS, &format!("VALUES {}", vec![row.as_str(); rows].join(", ")));
            statements.push(values.by_ref().take(rows * self.columns).fold(sql(text), Statement::bind));
            rows_left -= rows;
        }
        statements
    }
}

/// Runs statements that write, none of which touches what another of them reads or writes; the rows that each has touched.
///
/// On PostgreSQL they are one statement, and one round trip, as they are written side by side in its WITH: for that reason they all see what
/// was there before, and have no RETURNING of their own. SQLite has no such statement, and no way to go: they run one after the other.
pub async fn together<const N: usize>(tx: &mut Tx, writes: [Many<'_>; N]) -> Result<[u64; N], Error> {
    let mut touched = [0; N];
    let asked: Vec<usize> = (0..N).filter(|nth| !writes[*nth].is_empty()).collect();
    if tx.engine() == Engine::Sqlite || asked.len() < 2 {
        for (touched, write) in touched.iter_mut().zip(writes) {
            *touched = write.execute(tx).await?;
        }
        return Ok(touched);
    }
    let side_by_side = side_by_side(writes.into_iter().filter(|write| !write.is_empty()).collect());
    let counted: Vec<(i64, i64)> = side_by_side.fetch_all(tx).await?;
    for (nth, count) in counted {
        let place = usize::try_from(nth).ok().and_then(|nth| asked.get(nth));
        let place = *place.ok_or_else(|| Error::bug("a count belongs to a write"))?;
        touched[place] = count.unsigned_abs();
    }
    Ok(touched)
}

/// A conflict, where a statement touched fewer rows than it was given: a concurrent transaction was faster.
pub fn all_touched(touched: u64, given: usize, what: &str) -> Result<(), Error> {
    if usize::try_from(touched) == Ok(given) { Ok(()) } else { Err(Error::conflict(format!("{what} moved on"))) }
}

/// One statement of PostgreSQL's, which returns the number of each write and of the rows that it touched.
fn side_by_side(writes: Vec<Many<'_>>) -> Statement {
    let (mut parts, mut counts, mut columns) = (Vec::new(), Vec::new(), Vec::new());
    for (nth, write) in writes.into_iter().enumerate() {
        parts.push(format!("w{nth} AS ({} RETURNING 1)", write.text_of_arrays(columns.len() + 1)));
        counts.push(format!("SELECT CAST({nth} AS BIGINT), (SELECT COUNT(*) FROM w{nth})"));
        columns.extend(write.into_columns());
    }
    Statement::of_columns(format!("WITH {} {}", parts.join(", "), counts.join(" UNION ALL ")), columns)
}

fn power_of_two_within(count: usize) -> usize {
    1 << count.min(SQLITE_ROWS_MAX).ilog2()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn numbers(count: usize) -> Vec<i64> {
        (0..).take(count).collect()
    }

    #[test]
    fn on_sqlite_any_number_of_rows_is_carried_by_few_texts() {
        let mut texts = BTreeSet::new();
        for count in 0..2_000_usize {
            let many = many("VALUES {rows}", &numbers(count), |row, value| row.bind(*value).bind(0_i64));
            let statements = many.statements(Engine::Sqlite, false);
            texts.extend(statements.iter().map(|statement| statement.text().to_owned()));
            let values: usize = statements.into_iter().map(|statement| statement.into_values().len()).sum();
            assert_eq!(values, 2 * count);
        }
        assert_eq!(texts.len(), 10);
        assert!(texts.contains("VALUES (?, ?), (?, ?)"));
    }

    #[test]
    fn on_postgresql_any_number_of_rows_is_carried_by_one_text() {
        let text = |count: usize| {
            let many = many("WITH v (a, b) AS (VALUES {rows}) …", &numbers(count), |row, n| row.bind(*n).bind(*n));
            let statements = many.statements(Engine::Postgres, false);
            assert_eq!(statements.len(), 1);
            statements[0].text().to_owned()
        };
        assert_eq!(text(1), "WITH v (a, b) AS (SELECT * FROM UNNEST($1, $2)) …");
        assert_eq!(text(1_000), text(1));
    }

    #[test]
    fn writes_stand_side_by_side_with_values_of_their_own() {
        let insert = many("INSERT INTO t (a, b) VALUES {rows}", &numbers(3), |row, n| row.bind(*n).bind(*n));
        let update = many("WITH v (a) AS (VALUES {rows}) UPDATE u SET a = v.a", &numbers(2), |row, n| row.bind(*n));
        let expected = "WITH w0 AS (INSERT INTO t (a, b) SELECT * FROM UNNEST($1, $2) RETURNING 1), \
             w1 AS (WITH v (a) AS (SELECT * FROM UNNEST($3)) UPDATE u SET a = v.a RETURNING 1) \
             SELECT CAST(0 AS BIGINT), (SELECT COUNT(*) FROM w0) UNION ALL \
             SELECT CAST(1 AS BIGINT), (SELECT COUNT(*) FROM w1)";
        assert_eq!(side_by_side(vec![insert, update]).text(), expected);
    }

    #[test]
    fn in_a_read_of_one_statement_all_rows_are_in_that() {
        let statements = many("VALUES {rows}", &numbers(3), |row, n| row.bind(*n)).statements(Engine::Sqlite, true);
        let texts: Vec<&str> = statements.iter().map(Statement::text).collect();
        assert_eq!(texts, ["VALUES (?), (?), (?)"]);
    }

    #[test]
    fn without_rows_nothing_is_asked() {
        for engine in [Engine::Sqlite, Engine::Postgres] {
            let many = many("VALUES {rows}", &numbers(0), |row, n| row.bind(*n));
            assert!(many.statements(engine, false).is_empty());
        }
    }
}
