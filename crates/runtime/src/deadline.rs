//! When the answer to what this task is doing is of no use any more. Whoever serves a call sets it; what works for the call (a database,
//! a client) keeps within it, without knowing of calls.

use std::future::Future;

use tokio::time::Instant;

tokio::task_local! {
    static CURRENT: Option<Instant>;
}

/// The deadline of this task; `None`: there is none.
pub fn current() -> Option<Instant> {
    CURRENT.try_with(|deadline| *deadline).ok().flatten()
}

/// Runs `future` under this deadline, whatever held around it.
pub async fn scope<F: Future>(deadline: Option<Instant>, future: F) -> F::Output {
    CURRENT.scope(deadline, future).await
}

/// Runs `f` under this deadline, whatever held around it.
pub fn sync_scope<T>(deadline: Option<Instant>, f: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(deadline, f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_holds_for_its_own_task_and_no_other() {
        let soon = Some(Instant::now());
        assert_eq!(current(), None);
        let (inside, spawned, lifted) = scope(soon, async {
            let spawned = tokio::spawn(async { current() }).await.unwrap();
            (current(), spawned, scope(None, async { current() }).await)
        })
        .await;
        assert_eq!((inside, spawned, lifted), (soon, None, None));
        assert_eq!(sync_scope(soon, current), soon);
    }
}
