//! The schema as the engine has it, to compare the two.

use crate::connect::Engine;
use crate::error::Error;
use crate::statement::sql;
use crate::transaction::Tx;

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub struct Column {
    /// The table.
    pub table_name: String,
    /// The column.
    pub column_name: String,
    /// Whether it may be NULL.
    pub nullable: bool,
}

/// Every column of every table, histories of migrations left out, sorted.
pub async fn columns(tx: &mut Tx) -> Result<Vec<Column>, Error> {
    let text = match tx.engine() {
        Engine::Sqlite => {
            "SELECT t.name AS table_name, c.name AS column_name, c.\"notnull\" = 0 AS nullable
             FROM sqlite_master t JOIN pragma_table_info(t.name) c
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        }
        Engine::Postgres => {
            "SELECT table_name::TEXT, column_name::TEXT, is_nullable = 'YES' AS nullable
             FROM information_schema.columns WHERE table_schema = current_schema()"
        }
    };
    let mut columns: Vec<Column> = sql(text).fetch_all(tx).await?;
    columns.retain(|column| !column.table_name.starts_with("_migrations_"));
    columns.sort();
    Ok(columns)
}
