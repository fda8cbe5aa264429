//! A scan on its way: pages from the store, merged with what is not in the store yet.
//!
//! While the store looks for a page, batches may land and be answered, before or after the store looked. So what is
//! pending when a page is asked for is noted, and so is what lands until the page is there. A key's newest state is
//! then that of the note, of the page (whichever has the higher version) or of what is pending by now: the page is that
//! of the moment in which it comes, however long the store took.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::{PartitionId, Seq};
use crate::home::StateKey;
use crate::message::{Page, Row, StorePage, StoreRequest};
use crate::overlay::{self, Overlay, Write};
use crate::reads::{Span, Tick};
use crate::record::{self, Record};

/// The rows of a page where no limit was given.
pub const SCAN_ROWS_DEFAULT: usize = 100;
/// The most rows of a page.
pub const SCAN_ROWS_MAX: usize = 1_000;
/// A page ends before it has more bytes of names and values, unless it has one row only.
pub const SCAN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Scan {
    /// What is left to look at; the first is being looked at.
    left: VecDeque<Span>,
    /// What was looked at, without gaps.
    covered: Vec<Span>,
    /// What was pending when the page was asked for, and what has landed since.
    noted: BTreeMap<Bytes, Write>,
    /// When the first page came: what was looked at is as it was then, or later.
    since: Option<Tick>,
    rows: Vec<Row>,
    bytes: usize,
    rows_max: usize,
    keys_only: bool,
}

/// How far a scan is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Another page is needed.
    Ask,
    /// The page is complete, and there is more, or not.
    Done { more: bool },
}

impl Scan {
    /// Of the keys that start with `prefix` and lie after `after`. A prefix without a slash is a whole scope: the
    /// record of that name and those below it, not the scopes that merely start alike. `limit` 0 means the default.
    pub(crate) fn new(prefix: &StateKey, after: &str, limit: usize, keys_only: bool) -> Self {
        let name = prefix.name();
        let spans = if name.contains('/') {
            vec![starting_with(&record::key(prefix))]
        } else {
            let scope = record::key(prefix);
            let below = record::encode_key(prefix.namespace(), &format!("{name}/"));
            vec![Span { end: successor(&scope), start: scope }, starting_with(&below)]
        };
        let first = successor(&record::encode_key(prefix.namespace(), after));
        let left = spans.into_iter().filter(|span| span.end > first);
        let left = left.map(|span| Span { start: span.start.max(first.clone()), end: span.end }).collect();
        let rows_max = if limit == 0 { SCAN_ROWS_DEFAULT } else { limit.min(SCAN_ROWS_MAX) };
        Self {
            left,
            covered: Vec::new(),
            noted: BTreeMap::new(),
            since: None,
            rows: Vec::new(),
            bytes: 0,
            rows_max,
            keys_only,
        }
    }

    /// What is being looked at; `None` if there is nothing to look at.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.left.front()
    }

    /// Asks for a page of [`Self::span`]. Notes what is pending.
    pub(crate) fn request(&mut self, partition: PartitionId, pending: Option<&Overlay>) -> StoreRequest {
        let span = self.left.front().expect("a page is asked for only where something is left");
        let noted = pending.into_iter().flat_map(|pending| pending.within(span));
        self.noted = noted.map(|(key, write)| (key.clone(), write.clone())).collect();
        StoreRequest::Scan {
            partition,
            start: span.start.clone(),
            end: span.end.clone(),
            rows_max: self.rows_max - self.rows.len() + 1,
            bytes_max: SCAN_BYTES_MAX,
        }
    }

    /// A write lands while the store looks.
    pub(crate) fn note(&mut self, key: &Bytes, write: impl FnOnce() -> Write) {
        if self.left.front().is_some_and(|span| span.start <= *key && *key < span.end) {
            self.noted.insert(key.clone(), write());
        }
    }

    /// Takes a page from the store. `newer` is what is written over it by now, in [`Self::span`].
    pub(crate) fn on_page(
        &mut self,
        now: Tick,
        page: &StorePage,
        newer: BTreeMap<Bytes, Option<Record>>,
    ) -> Result<Progress, record::Error> {
        self.since.get_or_insert(now);
        let span = self.left.pop_front().expect("a page comes only where something is left");
        let end = match page.rows.last() {
            Some((last, _)) if page.more => successor(last),
            _ => span.end.clone(),
        };
        for (key, record) in self.merge(page, newer, &end)? {
            let Some(record) = record else { continue };
            let name = record::decode_name(&key)?.to_owned();
            let value = if self.keys_only { Bytes::new() } else { record.value };
            let bytes = name.len() + value.len();
            let full = self.rows.len() == self.rows_max || self.bytes + bytes > SCAN_BYTES_MAX;
            if full && !self.rows.is_empty() {
                self.cover(Span { start: span.start, end: successor(&key) });
                return Ok(Progress::Done { more: true });
            }
            self.bytes += bytes;
            self.rows.push(Row { name, version: record.version, value });
        }
        self.cover(Span { start: span.start, end: end.clone() });
        if end < span.end {
            self.left.push_front(Span { start: end, end: span.end });
        }
        Ok(if self.left.is_empty() { Progress::Done { more: false } } else { Progress::Ask })
    }

    /// The page, the ranges that it speaks for, and since when.
    pub(crate) fn finish(self, more: bool) -> (Page, Vec<Span>, Option<Tick>) {
        (Page { rows: self.rows, more }, self.covered, self.since)
    }

    /// The last batch that the page being looked at rests on.
    pub(crate) fn rests_on(&self) -> Seq {
        overlay::rests_on(self.noted.values())
    }

    /// The newest known of each key before `end`; `None` is a deleted one.
    fn merge(
        &self,
        page: &StorePage,
        newer: BTreeMap<Bytes, Option<Record>>,
        end: &Bytes,
    ) -> Result<BTreeMap<Bytes, Option<Record>>, record::Error> {
        let mut rows = BTreeMap::new();
        for (key, value) in &page.rows {
            rows.insert(key.clone(), Some(record::decode(value)?));
        }
        for (key, write) in self.noted.iter().take_while(|(key, _)| *key < end) {
            let landed =
                rows.get(key).and_then(Option::as_ref).is_some_and(|row| row.version > write.version);
            if !landed {
                rows.insert(key.clone(), write.record());
            }
        }
        rows.extend(newer.into_iter().take_while(|(key, _)| key < end));
        Ok(rows)
    }

    fn cover(&mut self, span: Span) {
        match self.covered.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => self.covered.push(span),
        }
    }
}

/// The least key above `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// All keys that start with `prefix`, which is text and so holds a byte below 0xff.
fn starting_with(prefix: &Bytes) -> Span {
    let mut end = BytesMut::from(&prefix[..]);
    let last = end.last_mut().expect("a record key is not empty");
    *last = last.checked_add(1).expect("text holds no byte 0xff");
    Span { start: prefix.clone(), end: end.freeze() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(prefix: &str, after: &str) -> Vec<(String, String)> {
        let text = |bytes: &Bytes| bytes.escape_ascii().to_string();
        let scan = Scan::new(&StateKey::new("m", prefix).unwrap(), after, 0, false);
        scan.left.iter().map(|span| (text(&span.start), text(&span.end))).collect()
    }

    #[test]
    fn a_scope_is_itself_and_what_lies_below() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(spans("a", ""), [pair(r"sm\x00a", r"sm\x00a\x00"), pair(r"sm\x00a/", r"sm\x00a0")]);
        assert_eq!(spans("a", "a"), [pair(r"sm\x00a/", r"sm\x00a0")]);
        assert_eq!(spans("a", "a/b"), [pair(r"sm\x00a/b\x00", r"sm\x00a0")]);
        assert_eq!(spans("a/b", ""), [pair(r"sm\x00a/b", r"sm\x00a/c")]);
        assert_eq!(spans("a/b", "a/c"), []);
    }
}
