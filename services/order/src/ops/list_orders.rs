//! Lists orders, newest first.

use souk_interceptors::Caller;

use super::{App, READ_ALL};
use crate::domain::commands::Position;
use crate::domain::{ListOrders, UserId};
use crate::error::Error;
use crate::store;

/// A page of orders, encoded, and where the next one begins.
pub async fn list_orders(
    app: &App,
    caller: &Caller,
    query: ListOrders,
) -> Result<(Vec<Vec<u8>>, Option<Position>), Error> {
    let query = ListOrders { owner_id: owner_seen_by(caller, query.owner_id)?, ..query };
    let mut tx = app.db.read_one().await?;
    // One more than the page, to know whether there is another page.
    let mut listed = store::list_orders(&mut tx, &query, query.page_size + 1).await?;
    let fitting = fitting(listed.iter().map(|order| order.snapshot.len()), app.limits.page_bytes_max);
    let page_length = fitting.min(usize::try_from(query.page_size).unwrap_or(usize::MAX));
    let more = listed.len() > page_length;
    listed.truncate(page_length);
    let next = listed.last().filter(|_| more).map(|last| last.position);
    Ok((listed.into_iter().map(|order| order.snapshot).collect(), next))
}

/// Whose orders the caller is to see; none: everyone's.
fn owner_seen_by(caller: &Caller, asked: Option<UserId>) -> Result<Option<UserId>, Error> {
    if caller.has_scope(READ_ALL) {
        return Ok(asked);
    }
    let own = UserId(caller.user_id().ok_or(Error::NotOwner)?);
    if asked.is_none_or(|asked| asked == own) { Ok(Some(own)) } else { Err(Error::NotOwner) }
}

/// How many of the first fit into so many bytes; one at least.
fn fitting(sizes: impl Iterator<Item = usize>, bytes_max: usize) -> usize {
    let mut sum = 0_usize;
    let fit = sizes.take_while(|size| {
        sum = sum.saturating_add(*size);
        sum <= bytes_max
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_before_it_grows_too_large_but_never_stands_still() {
        assert_eq!(fitting([10, 10, 10].into_iter(), 25), 2);
        assert_eq!(fitting([100, 10].into_iter(), 25), 1);
        assert_eq!(fitting([10].into_iter(), 25), 1);
    }
}
