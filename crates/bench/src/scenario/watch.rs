//! WatchStock: many readers of one product, whose stock changes all the time. A call is a change; what is measured besides is how late each
//! reader knows of each change. A change that was never sent, because a newer one was known by then, is known by that.

mod readers;

pub(crate) use readers::{IdleStreams, News};

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use souk_proto_inventory::v1::{MovementReason, ReceiveRequest, WatchStockRequest, WatchStockResponse};
use souk_testkit::shop::new_id;
use tonic::{Status, Streaming};

use self::readers::Readers;
use super::{Scenario, Verdict};
use crate::load::{Call, CallError, Calls};
use crate::progress::Progress;
use crate::souk::{Souk, patiently};

/// Who reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Audience {
    /// Streams in all.
    pub(crate) streams: usize,
    /// Of these, so many that are not read.
    pub(crate) slow: usize,
}

/// By then every reader must know the last change.
const LATE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Streams that are not read, on one connection.
const SLOW_PER_CONNECTION: usize = 25;
/// Bytes of a stream that is not read: its connection takes no more for it.
const NARROW: u32 = 16 * 1_024;

/// See the module. The streams end with it.
pub(crate) struct Watch {
    souk: Souk,
    sku: String,
    audience: Audience,
    readers: Readers,
    slow: tokio::sync::Mutex<IdleStreams>,
}

impl Watch {
    /// Opens the streams, and waits until each has its snapshot.
    pub(crate) async fn start(
        souk: Souk,
        sku: String,
        audience: Audience,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        progress.phase("opening streams", audience.streams);
        let slow = souk.by(audience.slow.div_ceil(SLOW_PER_CONNECTION), Some(NARROW))?;
        let slow = IdleStreams::open(&slow, &sku, audience.slow).await?;
        let fast = audience.streams.saturating_sub(audience.slow);
        let readers = Readers::open(&souk, &sku, fast, progress).await?;
        Ok(Self { souk, sku, audience, readers, slow: tokio::sync::Mutex::new(slow) })
    }
}

impl Calls for Watch {
    async fn call(&self, call: Call) -> Result<(), CallError> {
        let request = ReceiveRequest {
            request_id: new_id(),
            sku: self.sku.clone(),
            quantity: 1,
            reason: MovementReason::Purchase.into(),
            ..ReceiveRequest::default()
        };
        let admin = self.souk.admin().map_err(|error| Status::unauthenticated(error.to_string()))?;
        let answer = self.souk.stock(call.nth).receive(self.souk.request(Some(admin), request)).await?.into_inner();
        let level = answer.level.ok_or_else(|| CallError::Wrong("no level in the answer"))?;
        self.readers.board.changed(level.version, &call);
        Ok(())
    }
}

impl Scenario for Watch {
    fn name(&self) -> String {
        format!("watch, {} streams of which {} are not read", self.audience.streams, self.audience.slow)
    }

    async fn check(&self) -> anyhow::Result<Verdict> {
        let board = &self.readers.board;
        let last = board.last();
        let waiting_since = Instant::now();
        while board.behind(last) > 0 && waiting_since.elapsed() < LATE {
            tokio::time::sleep(LOOK).await;
        }
        let mut violations = Vec::new();
        let behind = board.behind(last);
        if behind > 0 {
            violations.push(format!("{behind} readers do not know the last change"));
        }
        for (count, what) in [(&board.broken, "streams have ended"), (&board.backwards, "levels went backwards")] {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                violations.push(format!("{count} {what}"));
            }
        }
        let late = self.slow.lock().await.catch_up(last, LATE).await;
        if late > 0 {
            violations.push(format!("{late} slow readers do not come to know the last change when they read"));
        }
        Ok(Verdict { violations, news: Some(board.news()), ..Verdict::default() })
    }
}

/// Streams on one connection; servers have a limit of 1,024.
const STREAMS_PER_CONNECTION: usize = 500;

/// Connections for so many streams.
fn connections(streams: usize) -> usize {
    streams.div_ceil(STREAMS_PER_CONNECTION).max(1)
}

/// The administrator watches: customers may not.
async fn watch(souk: &Souk, sku: &str, nth: usize) -> anyhow::Result<Streaming<WatchStockResponse>> {
    let (nth, admin) = (u64::try_from(nth)?, souk.admin()?);
    let request = WatchStockRequest { skus: vec![sku.to_owned()], ..WatchStockRequest::default() };
    let open = async || souk.stock(nth).watch_stock(Souk::endless(admin, request.clone())).await;
    Ok(patiently(open).await.context("a stream cannot be opened")?.into_inner())
}
