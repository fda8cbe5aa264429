//! Lists of durable calls: a walk over all of them, on a thread of its own.
//!
//! ```text
//! driver -> lister: List         lister -> gateway: JSON (through reply)
//! ```
//!
//! Reads what is committed; decides nothing. Its cost grows with the number of calls that are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bourse_durable::batch::{PartitionId, ReadError};
use bourse_durable::work::{self, Seen};
use bourse_gateway::{Listing, Standing};
use bourse_store::{Limit, Range, Reader};
use bourse_wire::id::CallId;
use bourse_wire::v1;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Rows that are read at once.
const PAGE_ROWS: usize = 500;

/// A list to be made.
pub(super) struct List {
    pub(super) listing: Listing,
    /// The calls that are being run.
    pub(super) running: BTreeSet<CallId>,
    pub(super) reply: oneshot::Sender<Result<Value, v1::Failure>>,
}

impl List {
    /// Makes it and answers; `{calls, next}`, newest first. `next` continues it as `before`.
    pub(super) fn make(self, reader: &mut dyn Reader) {
        let mut newest = BTreeMap::new();
        let mut failed = None;
        for partition in 0..=u8::MAX {
            for (start, end) in work::ranges() {
                let range = Range { from: Bound::Included(start), until: Bound::Excluded(end) };
                failed = failed.or(self.read(reader, PartitionId(partition), range, &mut newest).err());
            }
        }
        let more = newest.len() > self.listing.rows_max;
        let calls: Vec<_> = newest.into_iter().rev().take(self.listing.rows_max).collect();
        let next = calls.last().filter(|_| more).map(|(call, _)| call.to_string());
        let calls: Vec<Value> =
            calls.iter().filter_map(|(call, standing)| standing.to_json(*call, false, false)).collect();
        let mut list = json!({"calls": calls, "next": next});
        if let Some(ReadError(text)) = failed {
            list["incomplete"] = json!(text);
        }
        // Whoever asked may have gone.
        let _ = self.reply.send(Ok(list));
    }

    /// Adds what is wanted, and keeps one more than is wanted.
    fn read(
        &self,
        reader: &mut dyn Reader,
        partition: PartitionId,
        mut range: Range,
        newest: &mut BTreeMap<CallId, Standing>,
    ) -> Result<(), ReadError> {
        loop {
            let page = reader.scan(partition, &range, Limit::rows(PAGE_ROWS))?;
            for (key, stored) in &page.rows {
                let Some(call) = work::call_of(key) else { continue };
                let full = newest.len() > self.listing.rows_max;
                let oldest = newest.first_key_value().map(|(call, _)| *call);
                if self.listing.before.is_some_and(|before| call >= before)
                    || (full && oldest.is_some_and(|oldest| call < oldest))
                {
                    continue;
                }
                let Some((call, seen)) = work::read_row(key, stored) else { continue };
                let standing = self.standing(call, seen);
                if self.wants(&standing) {
                    newest.insert(call, standing);
                    if newest.len() > self.listing.rows_max + 1 {
                        newest.pop_first();
                    }
                }
            }
            match page.rows.into_iter().last() {
                Some((last, _)) if page.more => range = range.after(last),
                _ => return Ok(()),
            }
        }
    }

    fn standing(&self, call: CallId, seen: Seen) -> Standing {
        match seen {
            Seen::Nothing => Standing::Nothing,
            Seen::Live { record, .. } => {
                Standing::Live { record, running: self.running.contains(&call), again_in: None }
            }
            Seen::Ended(ended) => Standing::Ended(ended),
        }
    }

    fn wants(&self, standing: &Standing) -> bool {
        let is_of = |wanted: &String| {
            let function = standing.function();
            function == wanted
                || function.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        self.listing.status.as_ref().is_none_or(|status| standing.status() == status)
            && self.listing.function.as_ref().is_none_or(is_of)
    }
}
