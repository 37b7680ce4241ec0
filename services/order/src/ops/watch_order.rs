//! Every version of an order, as it comes to be.

use std::collections::VecDeque;

use futures::stream::{self, Stream};
use souk_db::detached;
use souk_interceptors::Caller;

use super::{App, permitted_head};
use crate::domain::WatchOrder;
use crate::error::Error;
use crate::store::{self, Head};
use crate::watchers::Watching;

/// The versions of the order after the one that the caller has, encoded, in order, each once. Ends after the last one of an order that
/// has reached its end, and with an error when the process does.
pub async fn watch_order(
    app: &App,
    caller: &Caller,
    query: WatchOrder,
) -> Result<impl Stream<Item = Result<Vec<u8>, Error>> + Send + use<>, Error> {
    // Listening begins before the first reading, so that nothing falls between the two.
    let watching = app.watchers.watch(query.order_id);
    let mut tx = app.db.read_one().await?;
    let head = store::head(&mut tx, query.order_id).await?;
    permitted_head(caller, query.order_id, head)?;
    drop(tx);
    let watch = Watch { app: app.clone(), watching, query, sent: query.after_version, unsent: VecDeque::new() };
    Ok(stream::try_unfold(watch, async |mut watch| Ok(watch.next().await?.map(|snapshot| (snapshot, watch)))))
}

struct Watch {
    app: App,
    watching: Watching,
    query: WatchOrder,
    /// The last version that the caller has.
    sent: i64,
    /// What was read and not sent yet.
    unsent: VecDeque<Version>,
}

impl Watch {
    /// The next version; `None`: there will be no more.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some((version, snapshot)) = self.unsent.pop_front() {
                self.sent = version;
                return Ok(Some(snapshot));
            }
            let (head, unsent) = detached(read(self.app.clone(), self.query, self.sent)).await?;
            self.unsent = unsent.into();
            if !self.unsent.is_empty() {
                continue;
            }
            if head.state.is_final() {
                return Ok(None);
            }
            tokio::select! {
                // Not "after what was sent": a caller may say that they have more than there is, and must still learn of the end.
                () = self.watching.after(head.version) => {}
                () = self.app.shutdown.cancelled() => return Err(Error::ShuttingDown),
            }
        }
    }
}

/// A version, and its snapshot.
type Version = (i64, Vec<u8>);

/// How the order stands, and what comes after the last version sent: one state of the tables, so that "nothing more" and "the end" cannot be
/// of different moments.
async fn read(app: App, query: WatchOrder, sent: i64) -> Result<(Head, Vec<Version>), Error> {
    let mut tx = app.db.read().await?;
    let head = store::head(&mut tx, query.order_id).await?.ok_or(Error::OrderNotFound(query.order_id))?;
    let limit = i64::from(app.limits.watch_batch_max);
    Ok((head, store::versions_after(&mut tx, query.order_id, sent, limit).await?))
}
