//! Reads a request's body, within bounds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::v1;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};

/// The most that is set aside for a body before it is there: a client's word is not worth more.
const TRUST_BYTES_MAX: usize = 64 * 1024;

/// All bodies that are held for requests in progress, in bytes.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicUsize,
}

/// A body's part of the budget, until its request is answered.
pub(crate) struct Share<'b> {
    budget: &'b Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { left: AtomicUsize::new(bytes_max) }
    }

    /// A part of it, with nothing in it.
    pub(crate) fn share(&self) -> Share<'_> {
        Share { budget: self, bytes: 0 }
    }
}

impl Share<'_> {
    /// Grows or shrinks it to so many bytes.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), v1::Failure> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.budget.left.fetch_add(self.bytes - bytes, Ordering::Relaxed);
                self.bytes = bytes;
                Ok(())
            }
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), v1::Failure> {
        let take = |left: usize| left.checked_sub(bytes);
        if self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(Code::NoCapacity
                .because("too many large requests are in progress")
                .retry_after(Duration::from_secs(1)));
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// The whole body, and its share of the budget. What came in one piece is not copied, and too small to count.
pub(crate) async fn read<'b>(
    body: &mut Incoming,
    bytes_max: usize,
    budget: &'b Budget,
) -> Result<(Bytes, Option<Share<'b>>), v1::Failure> {
    let declared = body.size_hint().lower();
    if declared > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let Some(first) = next(body).await? else { return Ok((Bytes::new(), None)) };
    if body.is_end_stream() && first.len() <= bytes_max {
        return Ok((first, None));
    }
    let mut share = budget.share();
    let mut all = BytesMut::with_capacity((declared as usize + first.len()).min(TRUST_BYTES_MAX));
    let mut piece = Some(first);
    while let Some(bytes) = piece {
        if all.len() + bytes.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        share.grow(bytes.len())?;
        all.extend_from_slice(&bytes);
        piece = if body.is_end_stream() { None } else { next(body).await? };
    }
    Ok((all.freeze(), Some(share)))
}

/// The next piece of data; trailers are skipped.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, v1::Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Code::BadRequest.because(format!("the body cannot be read: {e}")))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn too_large(bytes_max: usize) -> v1::Failure {
    Code::TooLarge
        .because(format!("a body has at most {bytes_max} bytes"))
        .hint("send less, or put the data elsewhere and send where it is")
}
