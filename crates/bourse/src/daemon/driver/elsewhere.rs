//! What only the node that keeps the grid's store can show: it is asked, and shows it as its own admin interface does.
//!
//! ```text
//! gateway -> driver: Inspect        driver -> peer: look        peer -> driver: looked
//! ```

use std::collections::BTreeMap;

use bourse_gateway::{Inspect, Listing, STATUSES};
use bourse_node::LinkId;
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::look::What;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::v1;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::oneshot;

use super::Driver;
use crate::daemon::views;

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Value, v1::Failure>>;

/// Most rows that another node gets in one list.
const ROWS_MAX: usize = 10_000;
/// Most questions to another node that are not answered.
const LOOKS_MAX: usize = 1_000;

/// What was asked of another node, and is not answered.
#[derive(Default)]
pub(super) struct Looks {
    next: u64,
    open: BTreeMap<u64, (LinkId, Reply)>,
}

impl Driver {
    /// Asks the node that keeps the store, if that is another one and the only one to know; else gives the reply back.
    pub(super) fn look_elsewhere(&mut self, what: &Inspect, reply: Reply) -> Option<Reply> {
        let what = match what {
            Inspect::Calls(listing) => What::Calls(peer::Listing {
                status: listing.status.clone().unwrap_or_default(),
                function: listing.function.clone().unwrap_or_default(),
                before: listing.before.map_or_else(Bytes::new, CallId::to_wire),
                rows: u32::try_from(listing.rows_max).unwrap_or(u32::MAX),
            }),
            Inspect::Queues => What::Queues(true),
            Inspect::Triggers => What::Triggers(true),
            Inspect::Deployments => What::Deployments(true),
            _ => return Some(reply),
        };
        match self.node.link_with_keeper(self.clock.now()) {
            None => return Some(reply),
            Some(Err(failure)) => drop(reply.send(Err(failure))),
            Some(Ok(_)) if self.state.looks.open.len() >= LOOKS_MAX => {
                let failure =
                    Code::QueueFull.because("too many questions to the node that keeps the store are open");
                drop(reply.send(Err(failure)));
            }
            Some(Ok(link)) => {
                self.state.looks.next += 1;
                let request = self.state.looks.next;
                self.state.looks.open.insert(request, (link, reply));
                let look = peer::Look { request, what: Some(what) };
                self.send_peer(link, Frame::Look(look), Bytes::new());
            }
        }
        None
    }

    /// Another node asks what only this one knows.
    pub(super) fn on_look(&mut self, link: LinkId, look: peer::Look) {
        let (reply, answered) = oneshot::channel();
        let now = self.clock.now();
        match look.what {
            Some(What::Calls(listing)) => match listing_of(listing) {
                Ok(listing) => self.list(listing, reply),
                Err(failure) => drop(reply.send(Err(failure))),
            },
            Some(What::Queues(_)) => drop(reply.send(Ok(views::queues(&self.node, now)))),
            Some(What::Triggers(_)) => drop(reply.send(Ok(views::triggers(&self.node, now)))),
            Some(What::Deployments(_)) => drop(reply.send(Ok(views::deployments(&self.node)))),
            None => drop(reply.send(Err(Code::Protocol.because("it asks for nothing")))),
        }
        let looked = self.to_looked.clone();
        tokio::spawn(async move {
            let failure = || Code::Internal.because("the node that keeps the store gave no answer");
            let found = answered.await.unwrap_or_else(|_| Err(failure()));
            // The driver is gone only when the daemon ends.
            let _ = looked.send((link, look.request, found));
        });
    }

    /// What another node asked is found.
    pub(super) fn tell_looked(&mut self, link: LinkId, request: u64, found: Result<Value, v1::Failure>) {
        let (failure, payload) = match found {
            Ok(json) => (None, Bytes::from(json.to_string())),
            Err(failure) => (Some(failure), Bytes::new()),
        };
        self.send_peer(link, Frame::Looked(peer::Looked { request, failure }), payload);
    }

    /// The node that keeps the store has shown something.
    pub(super) fn on_looked(&mut self, link: LinkId, looked: peer::Looked, payload: &[u8]) {
        if self.state.looks.open.get(&looked.request).is_none_or(|(asked, _)| *asked != link) {
            return;
        }
        let Some((_, reply)) = self.state.looks.open.remove(&looked.request) else { return };
        let json = || {
            serde_json::from_slice(payload).map_err(|_| {
                Code::Internal.because("what the node that keeps the store has shown is no JSON")
            })
        };
        // Whoever asked may have gone.
        let _ = reply.send(looked.failure.map_or_else(json, Err));
    }

    /// A link is over: nothing will be shown over it.
    pub(super) fn lose_looks(&mut self, link: LinkId) {
        for (_, (_, reply)) in self.state.looks.open.extract_if(.., |_, (asked, _)| *asked == link) {
            let failure = Code::StoreUnavailable.because("the node that keeps the grid's store was lost");
            let _ = reply.send(Err(failure.retry_after(std::time::Duration::from_secs(1))));
        }
    }
}

fn listing_of(listing: peer::Listing) -> Result<Listing, v1::Failure> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let peer::Listing { status, function, before, rows } = listing;
    if !status.is_empty() && !STATUSES.contains(&status.as_str()) {
        return Err(Code::BadRequest.because(format!("there is no status {status:.32}")));
    }
    let before = match before.is_empty() {
        true => None,
        false => Some(
            CallId::from_wire(&before).ok_or_else(|| Code::BadRequest.because("a call's id has 16 bytes"))?,
        ),
    };
    let rows_max = usize::try_from(rows).unwrap_or(ROWS_MAX).clamp(1, ROWS_MAX);
    Ok(Listing { status: some(status), function: some(function), before, rows_max })
}
