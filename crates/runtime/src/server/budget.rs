//! How much a peer may say over HTTP/2 that serves no call.
//!
//! h2 answers every PING and every SETTINGS as they come, keeps little of them, and does so without end: what they cost is our time, which
//! is the other clients'. So the frames are counted as they are read: PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE and any that are
//! unknown. Each call and each frame of an answer is worth a few of them; beyond that there is a bucket that fills by time. What carries a
//! call (HEADERS, CONTINUATION, DATA) is bounded by h2 itself: by its windows, the number of streams, the bytes of headers, and a budget
//! for small DATA frames.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::calls::Calls;
use super::through::{Reading, Through};

/// What goes with a call or a frame of an answer: updates of two windows, a reset, a ping that measures the way.
const FRAMES_PER_STEP: u64 = 8;
/// <https://www.rfc-editor.org/rfc/rfc9113#section-4.1>
const FRAME_HEADER_BYTES: usize = 9;
/// <https://www.rfc-editor.org/rfc/rfc9113#section-3.4>
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Finds where frames begin in what is read.
#[derive(Debug)]
struct Frames {
    /// Bytes until the next frame's header.
    skip: usize,
    header: [u8; FRAME_HEADER_BYTES],
    /// Of the header, read so far.
    filled: usize,
}

impl Frames {
    /// From the connection's very first byte.
    fn new() -> Self {
        Self { skip: PREFACE.len(), header: [0; FRAME_HEADER_BYTES], filled: 0 }
    }

    /// How many frames begin in `bytes` that carry no call.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut control = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return control;
            }
            let taken = (FRAME_HEADER_BYTES - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == FRAME_HEADER_BYTES {
                let [high, middle, low, kind, ..] = self.header;
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.filled = 0;
                control += u64::from(!carries_a_call(kind));
            }
        }
    }
}

/// DATA, HEADERS, CONTINUATION.
fn carries_a_call(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 9)
}

/// The bucket.
#[derive(Debug)]
struct Budget {
    left: u64,
    per_second: u64,
    filled: Instant,
    /// The progress of the connection's calls that has been counted in.
    progress: u64,
}

impl Budget {
    fn new(per_second: u64) -> Self {
        Self { left: per_second, per_second, filled: Instant::now(), progress: 0 }
    }

    /// Whether so many more frames may come.
    fn spend(&mut self, frames: u64, calls: &Calls) -> bool {
        if self.left < frames {
            self.earn(calls);
        }
        match self.left.checked_sub(frames) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }

    fn earn(&mut self, calls: &Calls) {
        let (now, progress) = (Instant::now(), calls.progress());
        let micros = u64::try_from(now.duration_since(self.filled).as_micros()).unwrap_or(u64::MAX);
        let by_time = (micros.min(1_000_000) * self.per_second) / 1_000_000;
        if by_time > 0 {
            self.filled = now;
            self.left = self.left.max((self.left + by_time).min(self.per_second));
        }
        self.left += (progress - self.progress) * FRAMES_PER_STEP;
        self.progress = progress;
    }
}

/// A connection of HTTP/2 that ends where its peer says too much.
pub(super) type Metered<T> = Through<T, Meter>;

#[derive(Debug)]
pub(super) struct Meter {
    frames: Frames,
    budget: Budget,
    calls: Arc<Calls>,
}

impl<T> Metered<T> {
    pub(super) fn of(inner: T, frames_per_second: u64, calls: Arc<Calls>) -> Self {
        Self::new(inner, Meter { frames: Frames::new(), budget: Budget::new(frames_per_second), calls })
    }
}

impl Reading for Meter {
    fn poll_read<T: AsyncRead + Unpin>(
        &mut self,
        inner: &mut T,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(inner).poll_read(cx, buffer))?;
        let frames = self.frames.count(&buffer.filled()[before..]);
        if frames > 0 && !self.budget.spend(frames, &self.calls) {
            self.calls.flooded();
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        frame.resize(FRAME_HEADER_BYTES + usize::from(length), 6);
        frame
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let (data, headers, ping, settings, continuation) =
            (frame(0, 200), frame(1, 30), frame(6, 8), frame(4, 0), frame(9, 1));
        let stream = [&PREFACE[..], &settings, &headers, &continuation, &ping, &data, &ping, &settings].concat();
        for cut in 1..stream.len() {
            let mut frames = Frames::new();
            let counted: u64 = stream.chunks(cut).map(|bytes| frames.count(bytes)).sum();
            assert_eq!(counted, 4, "in pieces of {cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_fills_by_time_and_by_calls() {
        let calls = Calls::idle();
        let mut budget = Budget::new(100);
        assert!(budget.spend(100, &calls));
        assert!(!budget.spend(1, &calls));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(budget.spend(10, &calls) && !budget.spend(1, &calls));
        // Not more than it holds,
        tokio::time::advance(Duration::from_hours(1)).await;
        assert!(budget.spend(100, &calls) && !budget.spend(1, &calls));
        // but for what calls bring with them.
        calls.step();
        assert!(budget.spend(FRAMES_PER_STEP, &calls) && !budget.spend(1, &calls));
        // Small steps of time are not lost.
        for _ in 0..1_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            budget.earn(&calls);
        }
        assert!(budget.spend(90, &calls));
    }
}
