//! Notices connections that do nothing: what a connection is at, since when, and when that has lasted too long.
//!
//! Reads, writes and requests leave a mark; one timer for each connection looks at the marks now and then, so a
//! request costs no timer of its own. hyper's own header timer counts from the end of the previous answer, which
//! would make it the keep-alive timeout as well.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::Limits;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Between requests. Since: the last byte written.
    Idle,
    /// Inside a request's head. Since: its first byte.
    Head,
    /// Inside a request's body. Since: its last byte.
    Body,
    /// The request is here, the answer is not. Takes as long as it takes.
    Busy,
}

/// The marks of one connection. Milliseconds count from when it was opened.
#[derive(Debug)]
pub(crate) struct Pulse {
    opened: Instant,
    phase: AtomicU8,
    since_ms: AtomicU64,
    /// When a write was first refused and none accepted since; `NEVER` otherwise.
    stalled_ms: AtomicU64,
    /// A request's body was not read to its end.
    unread: AtomicBool,
    /// Something has come.
    touched: AtomicBool,
}

const NEVER: u64 = u64::MAX;

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            opened: now,
            phase: AtomicU8::new(Phase::Idle as u8),
            since_ms: AtomicU64::new(0),
            stalled_ms: AtomicU64::new(NEVER),
            unread: AtomicBool::new(false),
            touched: AtomicBool::new(false),
        }
    }

    /// The connection turns to something else.
    pub(crate) fn enter(&self, phase: Phase, now: Instant) {
        self.touched.store(true, Relaxed);
        self.phase.store(phase as u8, Relaxed);
        self.since_ms.store(self.millis(now), Relaxed);
    }

    pub(crate) fn phase(&self) -> Phase {
        [Phase::Idle, Phase::Head, Phase::Body, Phase::Busy][usize::from(self.phase.load(Relaxed) & 3)]
    }

    /// No byte of any request has come yet.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.touched.load(Relaxed)
    }

    pub(crate) fn leave_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    pub(crate) fn has_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// When the present state will have lasted too long; `None` while the daemon is at work.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<Instant> {
        let at = |ms: u64, max: Duration| self.opened + Duration::from_millis(ms) + max;
        let since = self.since_ms.load(Relaxed);
        let phase = match self.phase() {
            Phase::Idle => Some(at(since, limits.keep_alive_max)),
            Phase::Head => Some(at(since, limits.header_read_max)),
            Phase::Body => Some(at(since, limits.body_idle_max)),
            Phase::Busy => None,
        };
        let stalled = self.stalled_ms.load(Relaxed);
        let stall = (stalled != NEVER).then(|| at(stalled, limits.write_stall_max));
        [phase, stall].into_iter().flatten().min()
    }

    fn read(&self) {
        match self.phase() {
            Phase::Idle => self.enter(Phase::Head, Instant::now()),
            Phase::Body => self.since_ms.store(self.millis(Instant::now()), Relaxed),
            Phase::Head | Phase::Busy => {}
        }
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        match outcome {
            Poll::Pending if self.stalled_ms.load(Relaxed) == NEVER => {
                self.stalled_ms.store(self.millis(Instant::now()), Relaxed);
            }
            Poll::Pending => {}
            Poll::Ready(_) => {
                self.stalled_ms.store(NEVER, Relaxed);
                if self.phase() == Phase::Idle {
                    self.since_ms.store(self.millis(Instant::now()), Relaxed);
                }
            }
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(NEVER - 1)
    }
}

/// A stream whose reads and writes leave marks.
#[derive(Debug)]
pub(crate) struct Felt<T> {
    pub(crate) inner: T,
    pub(crate) pulse: Arc<Pulse>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Felt<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.read();
        }
        outcome
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Felt<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.pulse.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.pulse.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Does nothing: whoever holds the connection closes it, perhaps after reading what is left.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_deadline() {
        let limits = Limits::default();
        let start = Instant::now();
        let pulse = Pulse::new(start);
        assert_eq!(pulse.deadline(&limits), Some(start + limits.keep_alive_max));
        tokio::time::advance(Duration::from_secs(5)).await;
        pulse.read();
        let first_byte = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        pulse.read();
        assert_eq!(
            pulse.deadline(&limits),
            Some(first_byte + limits.header_read_max),
            "a trickle gains nothing"
        );
        pulse.enter(Phase::Body, Instant::now());
        tokio::time::advance(Duration::from_secs(5)).await;
        pulse.read();
        assert_eq!(pulse.deadline(&limits), Some(Instant::now() + limits.body_idle_max));
        pulse.enter(Phase::Busy, Instant::now());
        assert_eq!(pulse.deadline(&limits), None);
        pulse.wrote(&Poll::Pending);
        let stalled = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        pulse.wrote(&Poll::Pending);
        assert_eq!(pulse.deadline(&limits), Some(stalled + limits.write_stall_max));
        pulse.wrote(&Poll::Ready(Ok(1)));
        assert_eq!(pulse.deadline(&limits), None);
    }
}
