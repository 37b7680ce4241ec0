//! One statement for many rows: set-based INSERT, UPDATE and look-ups.

use crate::statement::{Statement, sql};

/// The marker that becomes `($1, $2), ($3, $4), …`.
const ROWS: &str = "{rows}";
/// Rows in one statement. With the widest row of Souk (17 values) that is well under SQLite's limit of 32,766 values.
const ROWS_MAX: usize = 512;

/// Statements that together carry all `rows`, each bound by `bind`; `{rows}` in `template` stands for the list of values.
///
/// ```
/// # let lines: Vec<(String, i64)> = Vec::new();
/// souk_db::many("INSERT INTO lines (sku, quantity) VALUES {rows} ON CONFLICT DO NOTHING", &lines, |row, line| row.bind(&line.0).bind(line.1));
/// souk_db::many(
///     "WITH v (sku, quantity) AS (VALUES {rows}) UPDATE lines SET quantity = v.quantity FROM v WHERE lines.sku = v.sku",
///     &lines,
///     |row, line| row.bind(&line.0).bind(line.1),
/// );
/// ```
///
/// The rows are cut into powers of two, so that a handful of texts serves every number of rows and stays prepared. The values carry
/// their types, so that PostgreSQL needs no casts.
pub fn many<T>(template: &str, rows: &[T], bind: impl Fn(Statement, &T) -> Statement) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut rest = rows;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(power_of_two_within(rest.len()));
        let mut statement = chunk.iter().fold(sql(""), &bind);
        let columns = statement.values_len() / chunk.len();
        statement.set_text(template.replace(ROWS, &placeholders(chunk.len(), columns)));
        statements.push(statement);
        rest = after;
    }
    statements
}

fn power_of_two_within(count: usize) -> usize {
    1 << count.min(ROWS_MAX).ilog2()
}

fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let values: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", values.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_rows_is_carried_by_few_texts() {
        let mut texts = std::collections::BTreeSet::new();
        for count in 0..2_000_usize {
            let rows: Vec<i64> = (0..).take(count).collect();
            let statements = many("{rows}", &rows, |row, value| row.bind(*value));
            assert_eq!(statements.iter().map(Statement::values_len).sum::<usize>(), count);
            texts.extend(statements.iter().map(Statement::values_len));
        }
        assert_eq!(texts.len(), 10);
        assert_eq!(placeholders(2, 2), "($1, $2), ($3, $4)");
    }
}
