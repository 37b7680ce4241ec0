//! Those who watch, and what they know when.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use souk_proto_inventory::v1::WatchStockResponse;
use souk_proto_inventory::v1::watch_stock_response::Update;
use tokio::task::JoinSet;
use tonic::Streaming;

use super::{connections, watch};
use crate::load::Call;
use crate::progress::Progress;
use crate::souk::Souk;
use crate::stats::{Latencies, Summary};

/// Streams that are opened at a time.
const AT_A_TIME: usize = 64;
/// Readers rarely meet at one lock.
const SHARDS: usize = 16;

/// Readers who read as fast as they can.
pub(super) struct Readers {
    pub(super) board: Arc<Board>,
    _tasks: JoinSet<()>,
}

/// What is known, and when it became known.
pub(super) struct Board {
    /// The version of the first snapshot: changes count from there.
    base: i64,
    /// The calls that have made each change; none: its answer has not come yet.
    changes: RwLock<Vec<Option<Call>>>,
    /// The version that each reader knows.
    positions: Vec<AtomicI64>,
    latencies: Vec<Mutex<Latencies>>,
    messages: AtomicU64,
    /// Streams that have ended.
    pub(super) broken: AtomicU64,
    /// Levels that were older than what the reader knew.
    pub(super) backwards: AtomicU64,
}

/// How changes became known.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct News {
    /// From when a change was due until a reader knew of it, or of a newer one; for each reader and each change that was due within the
    /// window.
    pub(crate) latency: Option<Summary>,
    /// Changes that became known, each counted for each reader.
    pub(crate) known: u64,
    /// Messages that said so: fewer, where several changes were told as one.
    pub(crate) messages: u64,
}

impl Readers {
    pub(super) async fn open(souk: &Souk, sku: &str, many: usize, progress: &Progress) -> anyhow::Result<Self> {
        let souk = souk.by(connections(many), None)?;
        let open = async |nth| {
            progress.step();
            snapshot(watch(&souk, sku, nth).await?).await
        };
        let streams: Vec<(i64, Stock)> =
            stream::iter(0..many).map(open).buffer_unordered(AT_A_TIME).try_collect().await?;
        let base = streams.iter().map(|(version, _)| *version).max().unwrap_or_default();
        let board = Arc::new(Board {
            base,
            changes: RwLock::default(),
            positions: streams.iter().map(|(version, _)| AtomicI64::new(*version)).collect(),
            latencies: (0..SHARDS).map(|_| Mutex::default()).collect(),
            messages: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            backwards: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for (nth, (_, stream)) in streams.into_iter().enumerate() {
            tasks.spawn(read(board.clone(), nth, stream));
        }
        Ok(Self { board, _tasks: tasks })
    }
}

type Stock = Streaming<WatchStockResponse>;

/// A stream after its snapshot, and the version of that.
async fn snapshot(mut stream: Stock) -> anyhow::Result<(i64, Stock)> {
    let mut version = 0;
    loop {
        match stream.message().await?.and_then(|message| message.update) {
            Some(Update::Level(level)) => version = level.version,
            Some(Update::SnapshotEnd(_)) => return Ok((version, stream)),
            None => anyhow::bail!("a stream ended before its snapshot"),
        }
    }
}

/// Reads to the end, which should not come.
async fn read(board: Arc<Board>, nth: usize, mut stream: Stock) {
    // Changes that were known here before the answer to who has made them.
    let mut early: Vec<(i64, Instant)> = Vec::new();
    while let Ok(Some(message)) = stream.message().await {
        if let Some(Update::Level(level)) = message.update {
            board.known(nth, level.version, &mut early);
        }
    }
    board.broken.fetch_add(1, Ordering::Relaxed);
}

impl Board {
    /// A change has this version, and was made by this call.
    pub(super) fn changed(&self, version: i64, call: &Call) {
        let Ok(nth) = usize::try_from(version - self.base - 1) else { return };
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        if changes.len() <= nth {
            changes.resize(nth + 1, None);
        }
        changes[nth] = Some(*call);
    }

    /// The last change whose answer has come.
    pub(super) fn last(&self) -> i64 {
        let many = self.changes.read().unwrap_or_else(PoisonError::into_inner).len();
        self.base + i64::try_from(many).unwrap_or(i64::MAX)
    }

    /// Readers who do not know of this version.
    pub(super) fn behind(&self, version: i64) -> usize {
        self.positions.iter().filter(|position| position.load(Ordering::Relaxed) < version).count()
    }

    /// A reader knows this version from now on, and with it all before.
    fn known(&self, nth: usize, version: i64, early: &mut Vec<(i64, Instant)>) {
        let now = Instant::now();
        let mut is_news = false;
        let before = self.positions[nth].swap(version, Ordering::Relaxed);
        if version < before {
            self.backwards.fetch_add(1, Ordering::Relaxed);
        }
        early.extend((before + 1..=version).map(|version| (version, now)));
        let changes = self.changes.read().unwrap_or_else(PoisonError::into_inner);
        let mut latencies = self.latencies[nth % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        early.retain(|(version, at)| {
            let change = usize::try_from(version - self.base - 1).ok();
            let call = change.and_then(|change| changes.get(change).copied().flatten());
            if let Some(call) = call.filter(|call| call.counts) {
                latencies.record(at.saturating_duration_since(call.due));
                is_news = true;
            }
            // What was changed before anybody counted is not counted.
            call.is_none() && *version > self.base
        });
        self.messages.fetch_add(u64::from(is_news), Ordering::Relaxed);
    }

    /// How changes became known since the last time that this was asked.
    pub(super) fn news(&self) -> News {
        let mut all = Latencies::default();
        for shard in &self.latencies {
            all.add(&std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        News { latency: all.summary(), known: all.count(), messages: self.messages.swap(0, Ordering::Relaxed) }
    }
}

/// Streams that nobody reads.
pub(crate) struct IdleStreams(Vec<Stock>);

impl IdleStreams {
    /// Opens them on the connections of `souk`, and reads their snapshots.
    pub(crate) async fn open(souk: &Souk, sku: &str, many: usize) -> anyhow::Result<Self> {
        let open = async |nth| anyhow::Ok(snapshot(watch(souk, sku, nth).await?).await?.1);
        Ok(Self(stream::iter(0..many).map(open).buffer_unordered(AT_A_TIME).try_collect().await?))
    }

    /// Now they read. How many of them do not get as far as `version` in time.
    pub(super) async fn catch_up(&mut self, version: i64, limit: Duration) -> usize {
        let reading = self.0.iter_mut().map(|stream| tokio::time::timeout(limit, read_up_to(stream, version)));
        futures::future::join_all(reading).await.into_iter().filter(|read| !matches!(read, Ok(true))).count()
    }
}

async fn read_up_to(stream: &mut Stock, version: i64) -> bool {
    while let Ok(Some(message)) = stream.message().await {
        if matches!(message.update, Some(Update::Level(level)) if level.version >= version) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(readers: usize) -> Board {
        Board {
            base: 10,
            changes: RwLock::default(),
            positions: (0..readers).map(|_| AtomicI64::new(10)).collect(),
            latencies: (0..SHARDS).map(|_| Mutex::default()).collect(),
            messages: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            backwards: AtomicU64::new(0),
        }
    }

    #[test]
    fn a_newer_change_makes_older_ones_known_and_one_may_be_known_before_its_answer() {
        let board = board(2);
        let mut early = Vec::new();
        let call = Call { counts: true, ..Call::uncounted(0) };
        board.changed(11, &call);
        board.changed(12, &call);
        board.known(0, 13, &mut early);
        assert_eq!(early.len(), 1, "nobody has said when 13 was due");
        board.changed(13, &call);
        board.changed(14, &call);
        board.known(0, 14, &mut early);
        assert!(early.is_empty());
        assert_eq!((board.last(), board.behind(14), board.behind(10)), (14, 1, 0));
        let news = board.news();
        assert_eq!((news.known, news.messages), (4, 2));
        assert_eq!(board.news().known, 0, "it counts from the last time");
        board.changed(15, &Call::uncounted(0));
        board.known(0, 15, &mut early);
        assert_eq!((board.news().known, early.len()), (0, 0), "15 was not due within the window");
        board.known(0, 12, &mut early);
        assert_eq!(board.backwards.load(Ordering::Relaxed), 1);
    }
}
