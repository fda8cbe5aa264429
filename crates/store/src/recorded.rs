//! A store in front of which everything is written down: the history of all changes, for checkers and post-mortems.
//!
//! ```text
//! caller -> Recorded: commit        each batch goes to the history, then to the store within
//! Recorded -> caller: Outcome       as the store within said, once the history has that, too
//! reader -> read, landed            what was asked and answered, and which batches are in
//! ```
//!
//! Nothing goes in that the history does not have: where it cannot be written, batches are refused. It is not synced, since
//! it is to survive the process, not the machine. Of a group of batches that are committed together there are two writes.

mod format;
mod landed;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bourse_durable::batch::{Batch, Outcome, ReadError};

pub use self::format::{ENTRY_BYTES_MAX, Entry, Error, History, What};
pub use self::landed::{Landed, landed};
use crate::{Durability, Reader, Store, StoreId, bounds};

/// A store whose changes are written down. Its readers are those of the store within.
#[derive(Debug)]
pub struct Recorded<S> {
    within: S,
    file: File,
    /// How long the file is, in whole entries.
    bytes: u64,
    /// Batches of this life so far.
    number: u64,
    /// What time it is, in milliseconds since 1970.
    now_ms: fn() -> u64,
}

/// All entries of a history, as far as it was written.
pub fn read(path: &Path) -> Result<Vec<Entry>, Error> {
    History::open(path)?.collect()
}

impl<S: Store> Recorded<S> {
    /// Goes on with the history in a file, or begins one. What a process that was killed has written in part is cut off;
    /// a file that is something else is left as it is, and refused.
    pub fn open(within: S, path: &Path, now_ms: fn() -> u64) -> Result<Self, Error> {
        // What is in the store is nobody else's business, nor is this.
        let mut file = File::options().create(true).append(true).mode(0o600).open(path)?;
        let mut bytes = 0;
        if file.metadata()?.len() > 0 {
            let mut history = History::open(path)?;
            for entry in history.by_ref() {
                entry?;
            }
            bytes = history.whole_bytes();
            file.set_len(bytes)?;
        }
        let mut text = Vec::new();
        if bytes == 0 {
            text.extend_from_slice(format::HEAD);
        }
        Entry { at_ms: now_ms(), what: What::Opened }.encode(&mut text);
        file.write_all(&text)?;
        bytes += text.len() as u64;
        Ok(Self { within, file, bytes, number: 0, now_ms })
    }

    /// Writes entries, all or none.
    fn write(&mut self, entries: &[u8]) -> std::io::Result<()> {
        match self.file.write_all(entries) {
            Ok(()) => {
                self.bytes += entries.len() as u64;
                Ok(())
            }
            Err(e) => {
                // What is there in part would be in the way of what comes. If it stays, so does what keeps us from going on.
                self.file.set_len(self.bytes)?;
                Err(e)
            }
        }
    }
}

impl<S: Store> Store for Recorded<S> {
    fn commit(&mut self, batches: &[Batch]) -> Vec<Outcome> {
        let first = self.number;
        let mut asked = Vec::new();
        let mut numbers = Vec::with_capacity(batches.len());
        for batch in batches {
            // What is larger than a store takes is refused, and never in.
            let fits = bounds::check(batch).is_ok();
            numbers.push(fits.then_some(self.number));
            if fits {
                let what = What::Asked { number: self.number, batch: batch.clone() };
                Entry { at_ms: (self.now_ms)(), what }.encode(&mut asked);
                self.number += 1;
            }
        }
        if let Err(e) = self.write(&asked) {
            self.number = first;
            let why = format!("the history of changes cannot be written: {e}");
            return batches.iter().map(|_| Outcome::Failed(why.clone())).collect();
        }
        let outcomes = self.within.commit(batches);
        let mut answered = Vec::new();
        for (number, outcome) in numbers.iter().zip(&outcomes) {
            if let Some(number) = *number {
                let what = What::Answered { number, outcome: outcome.clone() };
                Entry { at_ms: (self.now_ms)(), what }.encode(&mut answered);
            }
        }
        // The outcomes are what they are. Whoever reads a history without them finds out as after a crash.
        let _ = self.write(&answered);
        outcomes
    }

    fn reader(&self) -> Result<Box<dyn Reader>, ReadError> {
        self.within.reader()
    }

    fn id(&self) -> StoreId {
        self.within.id()
    }

    fn durability(&self) -> Durability {
        self.within.durability()
    }
}
