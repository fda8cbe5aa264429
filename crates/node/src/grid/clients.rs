//! The side of the node that keeps the grid's store: what the callers of other nodes want, where that needs the store.
//!
//! ```text
//! peer -> node: forward        node -> peer: forwarded
//! ```
//!
//! To everything else they are callers as any others. Their requests end with the connection over which they came.

use bourse_durable::work::Seen;
use bourse_market::LinkId;
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::forward::What;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::{DURATION_MAX, Now, millis};
use bourse_wire::v1;
use bytes::Bytes;

use crate::message::{Ask, Message, NewCall, Origin};
use crate::{Answer, Node};

impl Node {
    /// Another node has something to do for its own callers.
    pub(super) fn on_forward(&mut self, now: Now, link: LinkId, forward: peer::Forward, payload: Bytes) {
        let peer::Forward { request, what, depth, trigger } = forward;
        let origin = Origin::Node(link, request);
        let what = match what {
            Some(What::Cancel(_)) => return self.on_cancel(now, origin),
            Some(what) => what,
            None => return self.refuse_forward(origin, false, Code::Protocol.because("it forwards nothing")),
        };
        if self.is_open(origin) {
            return self.leave_peer(now, link, "it used the number of a request that is not answered again");
        }
        let asks = matches!(what, What::Ask(_));
        if !self.keeps_store() {
            let failure = Code::StoreUnavailable
                .because("the node that was asked does not keep the grid's store")
                .hint("the call had no effect; try again")
                .retry_after(std::time::Duration::from_secs(1));
            return self.refuse_forward(origin, asks, failure);
        }
        let done = match what {
            What::Call(call) => NewCall::from_wire(call, payload).map(|call| {
                self.on_call(now, origin, NewCall { depth, trigger, ..call });
            }),
            What::Publish(publish) => Message::from_wire(publish, payload).map(|message| {
                self.on_publish(now, origin, message);
            }),
            What::Forget(module) => {
                self.on_forget(origin, &module);
                Ok(())
            }
            What::Await(wanted) => call_id(&wanted.call).map(|call| {
                let timeout = match wanted.timeout_ms {
                    0 => DURATION_MAX,
                    ms => std::time::Duration::from_millis(ms),
                };
                self.on_await(now, origin, call, timeout);
            }),
            What::Ask(ask) => {
                call_id(&ask.call).map(|call| self.on_ask(now, origin, call, ask_of(ask.what())))
            }
            What::Cancel(_) => unreachable!("it was looked at before"),
        };
        if let Err(failure) = done {
            self.refuse_forward(origin, asks, failure);
        }
    }

    fn refuse_forward(&mut self, origin: Origin, asks: bool, failure: v1::Failure) {
        match asks {
            true => self.tell(origin, Err(failure)),
            false => self.answer(origin, Answer { call: None, result: Err(failure) }),
        }
    }

    /// The answer to what another node has forwarded.
    pub(crate) fn answer_node(&mut self, link: LinkId, request: u64, answer: Answer) {
        let (reply, payload) = crate::nested::reply(request, answer);
        self.send_forwarded(link, request, peer::forwarded::How::Reply(reply), payload);
    }

    /// The same, to a question about a durable call.
    pub(crate) fn tell_node(&mut self, link: LinkId, request: u64, told: Result<Box<Seen>, v1::Failure>) {
        let mut answer = peer::Told::default();
        match told.map(|seen| *seen) {
            Err(failure) => answer.failure = Some(failure),
            Ok(Seen::Nothing) => {}
            Ok(Seen::Ended(ended)) => answer.ended = Some(ended),
            Ok(Seen::Live { record, running, due }) => {
                answer.live = Some(record);
                answer.running = running;
                answer.due_ms = due.map_or(0, |due| millis(due.since(self.seen)));
            }
        }
        self.send_forwarded(link, request, peer::forwarded::How::Told(answer), Bytes::new());
    }

    fn send_forwarded(&mut self, link: LinkId, request: u64, how: peer::forwarded::How, payload: Bytes) {
        if self.grid.node_of(link).is_some() {
            let forwarded = peer::Forwarded { request, how: Some(how) };
            self.send_peer(link, Frame::Forwarded(forwarded), payload);
        }
    }

    /// A link is over, and those who wait for answers at its other end with it.
    pub(super) fn dismiss_clients(&mut self, now: Now, link: LinkId) {
        let all = Origin::Node(link, 0)..=Origin::Node(link, u64::MAX);
        let open: Vec<Origin> = self.by_origin.range(all.clone()).map(|(origin, _)| *origin).collect();
        for origin in open {
            self.on_cancel(now, origin);
        }
        let watching: Vec<Origin> = self.watched.range(all).map(|(origin, _)| *origin).collect();
        for origin in watching {
            self.unwatch(origin);
        }
    }
}

fn call_id(bytes: &Bytes) -> Result<CallId, v1::Failure> {
    CallId::from_wire(bytes).ok_or_else(|| Code::BadRequest.because("a call's id has 16 bytes"))
}

fn ask_of(what: peer::ask::What) -> Ask {
    match what {
        peer::ask::What::Look => Ask::Look,
        peer::ask::What::Await => Ask::Await,
        peer::ask::What::Cancel => Ask::Cancel,
        peer::ask::What::Replay => Ask::Replay,
        peer::ask::What::Purge => Ask::Purge,
    }
}
