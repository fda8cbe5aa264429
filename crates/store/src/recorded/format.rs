//! A history as bytes: a line that says what it is, then entries, each after its length.
//!
//! ```text
//! file    "bourse history 1\n" entry*
//! entry   length: u32, kind: u8, at_ms: u64, rest              all numbers little-endian; the length is that of what follows
//! opened  nothing                                              a process goes on with it: what is not answered never will be
//! asked   number: u64, partition: u8, expect: owner?, owner, count: u32, op*
//! owner   node: u64, fence: u64, seq: u64;  owner? is 0: u8, or 1: u8 and an owner
//! op      0: u8, key, value | 1: u8, key                       each key and value after its length: u32
//! answer  number: u64, 0..3: u8, text                          committed, conflict, failed, unknown
//! ```
//!
//! Reading takes no more memory than its largest entry, which is bounded, and never panics, whatever the bytes. An entry that
//! is not whole at the end is what a killed process leaves, and is not there.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use bourse_durable::batch::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, Batch, Fence, Op, Outcome, Owner, PartitionId, Seq,
};
use bytes::{Buf as _, Bytes};

/// What a history begins with.
pub(super) const HEAD: &[u8] = b"bourse history 1\n";
/// The most bytes of one entry: those of the largest batch, and what stands between them.
pub const ENTRY_BYTES_MAX: usize = BATCH_BYTES_MAX + 16 * BATCH_OPS_MAX + 1024;
/// The longest text of an outcome that is kept.
const TEXT_BYTES_MAX: usize = 4096;

/// Something that happened to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, by the wall clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub what: What,
}

/// See [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A process has opened the store. Batches before that have no other answer than the one that is there.
    Opened,
    /// A batch is handed to the store.
    Asked {
        /// Counted from 0, anew in each life.
        number: u64,
        /// The batch.
        batch: Batch,
    },
    /// The store has answered.
    Answered {
        /// Which batch of this life.
        number: u64,
        /// What. A long text is cut.
        outcome: Outcome,
    },
}

/// A file that cannot be read as a history.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file itself cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It begins otherwise.
    #[error("it is no history that this version reads: it does not begin with {:?}", String::from_utf8_lossy(HEAD).trim_end())]
    Head,
    /// There is something that is no entry.
    #[error("what stands at byte {at} is no entry: {why}")]
    Garbled {
        /// Where the entry begins.
        at: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The entries of a history, one after the other.
pub struct History {
    file: BufReader<File>,
    whole_bytes: u64,
    over: bool,
}

impl History {
    /// From a file's beginning.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut file = BufReader::new(File::open(path)?);
        let mut head = Vec::new();
        file.by_ref().take(HEAD.len() as u64).read_to_end(&mut head)?;
        if head != HEAD {
            // A process that was killed when it began it may have left a part of its head.
            return match HEAD.starts_with(&head) {
                true => Ok(Self { file, whole_bytes: 0, over: true }),
                false => Err(Error::Head),
            };
        }
        Ok(Self { file, whole_bytes: HEAD.len() as u64, over: false })
    }

    /// How many bytes of the file are its head and the entries so far.
    pub fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    /// The next one; `None` if there is no whole one.
    fn entry(&mut self) -> Result<Option<Entry>, Error> {
        let garbled = |why| Error::Garbled { at: self.whole_bytes, why };
        let Some(length) = read_whole(&mut self.file, 4)? else { return Ok(None) };
        let length = length.as_slice().get_u32_le() as usize;
        if length > ENTRY_BYTES_MAX {
            return Err(garbled("it is longer than any can be"));
        }
        let Some(body) = read_whole(&mut self.file, length)? else { return Ok(None) };
        let entry = Entry::decode(&mut Bytes::from(body)).map_err(garbled)?;
        self.whole_bytes += 4 + length as u64;
        Ok(Some(entry))
    }
}

impl Iterator for History {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let entry = self.entry().transpose();
        self.over = !matches!(entry, Some(Ok(_)));
        entry
    }
}

/// So many bytes, or `None` if the file ends before.
fn read_whole(file: &mut BufReader<File>, count: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    // It grows as bytes come, whatever length a torn entry claims.
    file.by_ref().take(count as u64).read_to_end(&mut bytes)?;
    Ok((bytes.len() == count).then_some(bytes))
}

impl Entry {
    /// Appends it, after its length.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(&[0; 4]);
        let kind = match &self.what {
            What::Opened => 0,
            What::Asked { .. } => 1,
            What::Answered { .. } => 2,
        };
        to.push(kind);
        to.extend_from_slice(&self.at_ms.to_le_bytes());
        match &self.what {
            What::Opened => {}
            What::Asked { number, batch } => {
                to.extend_from_slice(&number.to_le_bytes());
                put_batch(to, batch);
            }
            What::Answered { number, outcome } => {
                to.extend_from_slice(&number.to_le_bytes());
                let (kind, text) = match outcome {
                    Outcome::Committed => (0, ""),
                    Outcome::Conflict => (1, ""),
                    Outcome::Failed(why) => (2, why.as_str()),
                    Outcome::Unknown(why) => (3, why.as_str()),
                };
                to.push(kind);
                to.extend_from_slice(&text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)]);
            }
        }
        let length = to.len() - start - 4;
        to[start..start + 4].copy_from_slice(&narrow(length).to_le_bytes());
    }

    fn decode(from: &mut Bytes) -> Result<Self, &'static str> {
        const SHORT: &str = "it ends too early";
        let kind = from.try_get_u8().map_err(|_| SHORT)?;
        let at_ms = from.try_get_u64_le().map_err(|_| SHORT)?;
        let what = match kind {
            0 => What::Opened,
            1 => {
                let number = from.try_get_u64_le().map_err(|_| SHORT)?;
                What::Asked { number, batch: batch(from).ok_or("it holds no batch")? }
            }
            2 => {
                let number = from.try_get_u64_le().map_err(|_| SHORT)?;
                let kind = from.try_get_u8().map_err(|_| SHORT)?;
                let text = String::from_utf8_lossy(&std::mem::take(from)).into_owned();
                let outcome = match kind {
                    0 => Outcome::Committed,
                    1 => Outcome::Conflict,
                    2 => Outcome::Failed(text),
                    3 => Outcome::Unknown(text),
                    _ => return Err("it holds no outcome"),
                };
                What::Answered { number, outcome }
            }
            _ => return Err("there is no such kind"),
        };
        if from.has_remaining() {
            return Err("it goes on after its end");
        }
        Ok(Self { at_ms, what })
    }
}

fn put_batch(to: &mut Vec<u8>, batch: &Batch) {
    to.push(batch.partition.0);
    match batch.expect {
        None => to.push(0),
        Some(owner) => {
            to.push(1);
            put_owner(to, owner);
        }
    }
    put_owner(to, batch.owner);
    to.extend_from_slice(&narrow(batch.ops.len()).to_le_bytes());
    let put = |to: &mut Vec<u8>, bytes: &[u8]| {
        to.extend_from_slice(&narrow(bytes.len()).to_le_bytes());
        to.extend_from_slice(bytes);
    };
    for op in &batch.ops {
        match op {
            Op::Put { key, value } => {
                to.push(0);
                put(to, key);
                put(to, value);
            }
            Op::Delete { key } => {
                to.push(1);
                put(to, key);
            }
        }
    }
}

fn put_owner(to: &mut Vec<u8>, owner: Owner) {
    for word in [owner.node, owner.fence.0, owner.seq.0] {
        to.extend_from_slice(&word.to_le_bytes());
    }
}

fn batch(from: &mut Bytes) -> Option<Batch> {
    let partition = PartitionId(from.try_get_u8().ok()?);
    let expect = match from.try_get_u8().ok()? {
        0 => None,
        1 => Some(owner(from)?),
        _ => return None,
    };
    let owner = owner(from)?;
    let count = from.try_get_u32_le().ok()? as usize;
    // No room is made for what a number only claims to be there.
    let mut ops = Vec::new();
    for _ in 0..count {
        ops.push(match from.try_get_u8().ok()? {
            0 => Op::Put { key: text(from)?, value: text(from)? },
            1 => Op::Delete { key: text(from)? },
            _ => return None,
        });
    }
    Some(Batch { partition, expect, owner, ops })
}

fn owner(from: &mut Bytes) -> Option<Owner> {
    let mut word = || from.try_get_u64_le().ok();
    Some(Owner { node: word()?, fence: Fence(word()?), seq: Seq(word()?) })
}

fn text(from: &mut Bytes) -> Option<Bytes> {
    let length = from.try_get_u32_le().ok()? as usize;
    (length <= from.remaining()).then(|| from.split_to(length))
}

fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("the bounds of batches are checked before")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let owner = |seq| Owner { node: 7, fence: Fence(2), seq: Seq(seq) };
        let ops = vec![
            Op::Put { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") },
            Op::Delete { key: Bytes::new() },
        ];
        let first = Batch { partition: PartitionId(9), expect: None, owner: owner(1), ops };
        let second =
            Batch { partition: PartitionId(9), expect: Some(owner(1)), owner: owner(2), ops: vec![] };
        let answered = |number, outcome| What::Answered { number, outcome };
        let all = [
            What::Opened,
            What::Asked { number: 0, batch: first },
            What::Asked { number: 1, batch: second },
            answered(0, Outcome::Committed),
            answered(1, Outcome::Unknown("no answer".to_owned())),
            answered(2, Outcome::Failed("disk full".to_owned())),
            answered(3, Outcome::Conflict),
        ];
        (1_000..).zip(all).map(|(at_ms, what)| Entry { at_ms, what }).collect()
    }

    fn decoded(bytes: &[u8]) -> (Result<Vec<Entry>, Error>, u64) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        match History::open(file.path()) {
            Err(e) => (Err(e), 0),
            Ok(mut history) => {
                let all = history.by_ref().collect();
                (all, history.whole_bytes())
            }
        }
    }

    fn encoded(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        entries.iter().for_each(|entry| entry.encode(&mut bytes));
        bytes
    }

    #[test]
    fn entries_read_back_and_a_torn_one_is_not_there() {
        let (entries, mut ends) = (entries(), vec![HEAD.len()]);
        for count in 1..=entries.len() {
            ends.push(encoded(&entries[..count]).len());
        }
        let bytes = encoded(&entries);
        for cut in 0..=bytes.len() {
            let (all, whole) = decoded(&bytes[..cut]);
            let there = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(all.unwrap(), entries[..there.saturating_sub(1)], "cut at {cut}");
            assert_eq!(whole, if there == 0 { 0 } else { ends[there - 1] as u64 });
        }
    }

    #[test]
    fn garbage_is_told_and_harms_nobody() {
        let bytes = encoded(&entries());
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                let _ = decoded(&bytes).0;
            }
        }
        assert!(matches!(decoded(b"SQLite format 3\0").0, Err(Error::Head)));
        let long = [HEAD, &[0xff; 4], &[0; 64]].concat();
        assert!(matches!(decoded(&long).0, Err(Error::Garbled { at: 17, .. })));
        let none = [HEAD, &[1, 0, 0, 0, 9]].concat();
        assert!(matches!(decoded(&none).0, Err(Error::Garbled { at: 17, .. })));
    }
}
