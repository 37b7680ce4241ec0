//! Sends every user.

use futures::stream::{self, Stream, TryStreamExt};
use souk_db::detached;
use uuid::Uuid;

use crate::domain::User;
use crate::domain::command::StreamUsers;
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// Users in the order of their registration. They are read in batches, each when the one before it has been taken, so that a slow reader
/// holds neither a transaction nor memory.
pub fn stream_users(app: App, asked: StreamUsers) -> impl Stream<Item = Result<User, Error>> + Send + 'static {
    let batches = stream::try_unfold(Some(asked.after), move |next| {
        let app = app.clone();
        async move {
            match next {
                None => Ok::<_, Error>(None),
                Some(after) => detached(batch(app, after)).await.map(Some),
            }
        }
    });
    batches.map_ok(|batch| stream::iter(batch.into_iter().map(Ok))).try_flatten()
}

/// A batch, and where the next one begins; a batch that is not full was the last.
async fn batch(app: App, after: Option<Uuid>) -> Result<(Vec<User>, Option<Option<Uuid>>), Error> {
    if app.shutdown.is_cancelled() {
        return Err(Error::ShuttingDown);
    }
    let limit = i64::from(app.limits.stream_batch_max);
    let users = store::list_users(&mut app.db.read_one().await?, after, limit).await?;
    let full = i64::try_from(users.len()) == Ok(limit);
    let next = users.last().filter(|_| full).map(|last| Some(last.id));
    Ok((users, next))
}
