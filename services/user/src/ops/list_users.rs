//! Lists users, page by page.

use crate::domain::User;
use crate::domain::command::ListUsers;
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// A page, and whether there is more after it.
pub async fn list_users(app: &App, asked: ListUsers) -> Result<(Vec<User>, bool), Error> {
    let mut page = store::list_users(&mut app.db.read_one().await?, asked.after, asked.size + 1).await?;
    let size = usize::try_from(asked.size).unwrap_or(usize::MAX);
    let more = page.len() > size;
    page.truncate(size);
    Ok((page, more))
}
