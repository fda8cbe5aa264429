//! WebSocket connections that other nodes have: what is for one of them goes to its node, what is for a group to all.
//!
//! ```text
//! this -> peer: reach        peer -> this: reached
//! ```
//!
//! The id of a connection begins with its node. A node that is not linked with this one has no connections that can be reached; one
//! whose link ends before it has answered is left out.

use std::collections::{BTreeMap, BTreeSet};

use bourse_node::{HostFunction, LinkId};
use bourse_wire::failure::Code;
use bourse_wire::id::{Attempt, CallId, FunctionName, HOST_MODULE};
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::value::Value;
use bytes::Bytes;

use super::Driver;
use super::perform::Counts;
use crate::daemon::outside::Task;
use crate::daemon::outside::arguments::Given;

/// So many digits of its key are a node's part of a connection's id.
const NODE_DIGITS: usize = 8;

/// What the ids of a node's connections begin with.
pub(in crate::daemon) fn connections_of(key: &[u8; 32]) -> String {
    key[..NODE_DIGITS / 2].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was asked of other nodes, and is not answered by all of them.
#[derive(Default)]
pub(super) struct Reaches {
    next: u64,
    open: BTreeMap<u64, Reach>,
}

struct Reach {
    task: Task,
    counts: Counts,
    waits_for: BTreeSet<LinkId>,
}

impl Reaches {
    /// Nobody wants to know any more.
    pub(super) fn forget(&mut self, call: CallId, attempt: Attempt) {
        self.open.retain(|_, reach| (reach.task.call, reach.task.attempt) != (call, attempt));
    }
}

impl Driver {
    /// Does what was done here at other nodes too, as far as they may have connections that it is for.
    pub(super) fn perform_everywhere(&mut self, task: Task, counts: Counts) {
        let wanted = match target(task.function, &task.payload) {
            Some(to) if to.starts_with("group:") => String::new(),
            Some(id) => id.chars().take(NODE_DIGITS).collect(),
            None => return self.performed(&task, Ok(counts)),
        };
        let is_meant = |key: &[u8; 32]| wanted.is_empty() || connections_of(key) == wanted;
        let links: BTreeMap<[u8; 32], LinkId> =
            self.node.linked().map(|(link, node)| (node.0, link)).collect();
        let waits_for: BTreeSet<LinkId> =
            links.iter().filter(|(key, _)| is_meant(key)).map(|(_, link)| *link).collect();
        if waits_for.is_empty() {
            return self.performed(&task, Ok(counts));
        }
        self.state.reaches.next += 1;
        let request = self.state.reaches.next;
        let (function, payload) = (task.function.name(), task.payload.clone());
        self.state.reaches.open.insert(request, Reach { task, counts, waits_for: waits_for.clone() });
        for link in waits_for {
            let reach = peer::Reach { request, function: function.to_owned() };
            self.send_peer(link, Frame::Reach(reach), payload.clone());
        }
    }

    /// Another node performs something that may be about connections of this one.
    pub(super) fn on_reach(&mut self, link: LinkId, reach: &peer::Reach, payload: &Bytes) {
        let function = HostFunction::of(&FunctionName::new(HOST_MODULE, &reach.function));
        let result = match function.filter(|function| function.is_of_connections()) {
            Some(function) => self.perform_here(function, payload),
            None => Err(Code::Protocol.because(format!("{:.32} is not about connections", reach.function))),
        };
        let (failure, counts) = match result {
            Ok(counts) => (None, counts),
            Err(failure) => (Some(failure), Counts::new()),
        };
        let reached = peer::Reached { request: reach.request, failure, counts };
        self.send_peer(link, Frame::Reached(reached), Bytes::new());
    }

    /// Another node has done its part.
    pub(super) fn on_reached(&mut self, link: LinkId, reached: peer::Reached) {
        let Some(reach) = self.state.reaches.open.get_mut(&reached.request) else { return };
        if !reach.waits_for.remove(&link) {
            return;
        }
        for (name, count) in reached.counts {
            // What it says is not believed beyond what can be.
            if let Some(sum) = reach.counts.get_mut(&name) {
                *sum = sum.saturating_add(count);
            }
        }
        match reached.failure {
            Some(failure) => {
                let reach = self.state.reaches.open.remove(&reached.request).expect("it was just looked at");
                self.performed(&reach.task, Err(failure));
            }
            None => self.end_reach(reached.request),
        }
    }

    /// A link is over: its node is left out.
    pub(super) fn lose_reaches(&mut self, link: LinkId) {
        let waits = |(request, reach): (&u64, &mut Reach)| reach.waits_for.remove(&link).then_some(*request);
        let over: Vec<u64> = self.state.reaches.open.iter_mut().filter_map(waits).collect();
        over.into_iter().for_each(|request| self.end_reach(request));
    }

    fn end_reach(&mut self, request: u64) {
        if self.state.reaches.open.get(&request).is_some_and(|reach| reach.waits_for.is_empty()) {
            let reach = self.state.reaches.open.remove(&request).expect("it was just looked at");
            self.performed(&reach.task, Ok(reach.counts));
        }
    }
}

/// The connection or the group that something is for, as far as that can be read.
fn target(function: HostFunction, payload: &Bytes) -> Option<String> {
    let mut given = Given::read(function, payload).ok()?;
    let name = if function == HostFunction::Send { "to" } else { "connection" };
    match given.value(name)? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}
