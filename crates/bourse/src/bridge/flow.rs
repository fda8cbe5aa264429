//! How many calls cross at a time, and what becomes of more.

use std::fmt;
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::v1;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Connections beyond the limit, so that those who are not carried are told at once.
const SPARE: u32 = 16;
/// When it is worth trying again what was sent back.
const AGAIN: Duration = Duration::from_millis(100);

/// What becomes of calls beyond the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Past {
    /// They wait on this grid, as calls wait that find no slot
    Queue,
    /// They come to nothing, also durable ones: those end as cancelled
    Drop,
    /// They are refused at once, with `no_capacity`; durable ones are tried again
    Bounce,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Flow {
    name: String,
    limit: u32,
    past: Past,
    room: Semaphore,
}

impl Flow {
    pub(super) fn new(name: &str, limit: u32, past: Past) -> Self {
        Self { name: name.to_owned(), limit, past, room: Semaphore::new(limit as usize) }
    }

    /// How many connections each module has.
    pub(super) fn lanes(&self) -> u32 {
        match self.past {
            Past::Queue => self.limit,
            Past::Drop | Past::Bounce => self.limit + SPARE,
        }
    }

    /// Room for a call, or why it is not carried. Modules share what there is, so also one that queues may have to wait here.
    pub(super) async fn enter(&self) -> Result<SemaphorePermit<'_>, v1::Failure> {
        if self.past == Past::Queue {
            return Ok(self.room.acquire().await.expect("the bridge's room is never closed"));
        }
        self.room.try_acquire().map_err(|_| {
            let text = format!("{} calls cross the bridge {}, which is its limit", self.limit, self.name);
            let failure = Code::NoCapacity.because(text).hint("try again, or raise --limit of the bridge");
            match self.past {
                Past::Drop => v1::Failure { verdict: v1::Verdict::Discard.into(), ..failure },
                Past::Queue | Past::Bounce => failure.retry_after(AGAIN),
            }
        })
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = match self.past {
            Past::Queue => "more wait",
            Past::Drop => "more are dropped",
            Past::Bounce => "more are sent back",
        };
        write!(f, "{} calls at a time, {more}", self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn beyond_the_limit_calls_wait_or_are_told_why_not() {
        let flow = Flow::new("lab", 1, Past::Bounce);
        let one = flow.enter().await.unwrap();
        let refused = flow.enter().await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.retry_after_ms), ("no_capacity", 100));
        drop(one);
        assert!(flow.enter().await.is_ok());
        let flow = Flow::new("lab", 1, Past::Drop);
        let _one = flow.enter().await.unwrap();
        assert_eq!(flow.enter().await.unwrap_err().verdict(), v1::Verdict::Discard);
        let flow = Flow::new("lab", 1, Past::Queue);
        let one = flow.enter().await.unwrap();
        tokio::select! {
            biased;
            _ = flow.enter() => panic!("there was no room"),
            () = tokio::task::yield_now() => drop(one),
        }
        assert!(flow.enter().await.is_ok());
        assert_eq!((flow.lanes(), Flow::new("lab", 4, Past::Drop).lanes()), (1, 20));
    }
}
