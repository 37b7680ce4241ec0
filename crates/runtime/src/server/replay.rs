//! A socket of which something has been read already, to see what it speaks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};

use super::through::{Reading, Through};

/// A stream with something still to be read before it.
pub(super) type Replay<T> = Through<T, Front>;

/// What was read ahead, and is read again.
#[derive(Debug)]
pub(super) struct Front(Bytes);

impl<T> Replay<T> {
    pub(super) fn of(front: impl Into<Bytes>, inner: T) -> Self {
        Self::new(inner, Front(front.into()))
    }
}

impl Reading for Front {
    fn poll_read<T: AsyncRead + Unpin>(
        &mut self,
        inner: &mut T,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Pin::new(inner).poll_read(cx, buffer);
        }
        let length = self.0.len().min(buffer.remaining());
        buffer.put_slice(&self.0[..length]);
        self.0.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_is_read_again_in_pieces_of_any_size() {
        let mut replay = Replay::of(b"abc".to_vec(), &b"def"[..]);
        let mut two = [0; 2];
        replay.read_exact(&mut two).await.unwrap();
        let mut rest = Vec::new();
        replay.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&two[..], &rest[..]), (&b"ab"[..], &b"cdef"[..]));
    }
}
