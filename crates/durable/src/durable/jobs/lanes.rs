//! Lanes: pages of the store become calls in memory.

use bourse_wire::record::v1 as stored;
use prost::Message as _;

use super::{AGAIN, Durable, Job, JobId, PAGE_ROWS, next_id};
use crate::batch::ReadError;
use crate::message::StorePage;
use crate::mutant::{self, Mutant};
use crate::work::key;
use crate::work::lane::Entry;

impl Durable {
    pub(in crate::durable) fn refill(&mut self, lane: &str) {
        let Some((partition, from)) = self.work.lanes.get_mut(lane).and_then(|lane| lane.next_page()) else {
            return;
        };
        self.read_page(partition, key::lane_from(lane, from), PAGE_ROWS, Job::Page { lane: lane.to_owned() });
    }

    pub(super) fn refill_all(&mut self) {
        let lanes: Vec<String> = self.work.lanes.keys().cloned().collect();
        lanes.iter().for_each(|lane| self.refill(lane));
    }

    pub(super) fn on_lane_page(&mut self, id: JobId, name: String, page: Result<StorePage, ReadError>) {
        let again = self.work.now + AGAIN;
        match page {
            Err(ReadError(_)) => self.work.lane(&name).page_failed(again),
            Ok(page) => {
                let mut more = None;
                let last = page.rows.last().and_then(|(key, _)| key::parse_live(key)).map(|(_, call)| call);
                for (key, value) in &page.rows {
                    let (Some((_, call)), Ok(record)) =
                        (key::parse_live(key), stored::Call::decode(value.clone()))
                    else {
                        continue; // What does not decode stays where it is, for a release that knows it.
                    };
                    let arrives =
                        self.work.arriving.contains(&call) && !mutant::is(Mutant::PagesOvertakeAccepts);
                    if self.work.has_left_since(call, id) || arrives {
                        continue;
                    }
                    if self.work.find(call).is_some() {
                        continue;
                    }
                    let due = self.due(&record);
                    if !self.work.load(call, Entry::new(record, due)) {
                        more = Some(call);
                        break;
                    }
                }
                let after = last.filter(|_| page.more).and_then(next_id);
                self.work.lane(&name).page_read(more.or(after));
            }
        }
        self.refill(&name);
        self.pump_keys();
    }
}
