//! A non-blocking socket that carries frames.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use prost::Message;
use rustix::event::PollFlags;

use crate::codec::{self, Decoder};

/// Bytes that wait to be sent before the one who could add more is no longer listened to.
pub(super) const OUT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes taken per read.
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, decoder: Decoder::default(), out: Vec::new() })
    }

    /// Queues a message and sends what the socket takes. An error means that the other end is gone.
    pub(super) fn send(&mut self, message: &impl Message) -> io::Result<()> {
        codec::encode(message, &mut self.out).map_err(io::Error::other)?;
        self.flush()
    }

    /// Sends what the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        let result = loop {
            if sent == self.out.len() {
                break Ok(());
            }
            match self.stream.write(&self.out[sent..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        self.out.drain(..sent);
        result
    }

    /// Reads once; `false` at the end of the stream. To be followed by [`next`](Self::next) until it is empty.
    pub(super) fn read(&mut self) -> io::Result<Read1> {
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Read1::End),
                Ok(n) => {
                    self.decoder.push(&buffer[..n]);
                    return Ok(Read1::Some);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Read1::Nothing),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(Read1::End),
                Err(e) => return Err(e),
            }
        }
    }

    pub(super) fn next<M: Message + Default>(&mut self) -> Result<Option<M>, codec::Error> {
        self.decoder.next()
    }

    /// Whether more may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < OUT_BYTES_MAX
    }

    /// What to wait for.
    pub(super) fn interest(&self, read: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, read);
        flags.set(PollFlags::OUT, !self.out.is_empty());
        flags
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What one read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read1 {
    Some,
    Nothing,
    End,
}
