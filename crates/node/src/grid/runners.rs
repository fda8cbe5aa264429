//! The buyer's side: a slot of another node. It looks like an instance that runs one call and is gone.
//!
//! ```text
//! buyer -> seller: run, to_runner (reply, value, page, cancel)
//! seller -> buyer: from_runner (what the instance says; or that there will be no result)
//! ```

use std::time::Duration;

use bourse_market::links::LinkId;
use bourse_market::market::Token;
use bourse_market::name::Horizon;
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::{Now, millis};
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as FromWorker;
use bourse_wire::v1::to_worker::Message;
use bytes::Bytes;
use semver::VersionReq;

use crate::Node;
use crate::call::Phase;
use crate::instance::Instance;
use crate::message::{PeerId, ProcessId};
use crate::peers::Peer;
use crate::timers::Timer;

/// Connections of the transport have numbers below this one; runners, which have none of their own, are above.
const RUNNER: u64 = 1 << 63;

/// How much longer than an instance of this node a seller has to say that it has stopped a call.
pub(crate) const STOP_ELSEWHERE: std::time::Duration = std::time::Duration::from_secs(2);

/// Where a call runs that runs elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct Runner {
    pub link: LinkId,
    pub token: Token,
    /// How long the call may wait for an instance there.
    pub queue_wait: Duration,
    /// It has said something of the call: whatever the seller says later, the call has begun.
    pub spoke: bool,
}

/// Whether it is no connection, but a slot of another node.
pub(crate) fn is_runner(peer: PeerId) -> bool {
    peer.0 & RUNNER != 0
}

impl Node {
    /// A slot of another node for the first waiting call of a module, if one can be had at once.
    pub(crate) fn buy(&mut self, now: Now, module: &str, id: CallId) -> Option<ProcessId> {
        if !self.grid.on {
            return None;
        }
        let requirement = self.requirement(id);
        let farthest = self.farthest(id);
        let (token, link) = self.grid.market.choose(now.mono, module, &requirement, farthest)?;
        let queue_wait = self.calls[&id].queue_until.since(now.mono);
        let process = self.new_process();
        let peer = PeerId(RUNNER | process.0);
        let mut instance = Instance::new(
            process,
            module.to_owned(),
            crate::RevisionId(token.lot.version.to_string()),
            Bytes::new(),
            now.mono,
            self.config.startup,
        );
        instance.phase = crate::Phase::Ready;
        instance.peer = Some(peer);
        instance.kill_at = None;
        self.grid.runners.insert(token.clone(), process);
        instance.runner = Some(Runner { link, token, queue_wait, spoke: false });
        self.instances.insert(process, instance);
        self.peers.insert(peer, Peer::Worker(process));
        Some(process)
    }

    /// How far a call may travel.
    pub(crate) fn farthest(&self, id: CallId) -> Horizon {
        let call = &self.calls[&id];
        let of_function =
            self.function_of(&call.function).and_then(|f| f.horizon).unwrap_or(Horizon::Anywhere);
        call.terms.horizon.map_or(of_function, |horizon| horizon.min(of_function))
    }

    /// Which versions a call may run on.
    pub(crate) fn requirement(&self, id: CallId) -> VersionReq {
        VersionReq::parse(&self.calls[&id].version).unwrap_or(VersionReq::STAR)
    }

    /// What would be said to an instance is said to a runner.
    pub(crate) fn send_to_runner(&mut self, peer: PeerId, message: Message, payload: Bytes) {
        let process = ProcessId(peer.0 & !RUNNER);
        let Some(Runner { link, token, queue_wait, .. }) =
            self.instances.get(&process).and_then(|i| i.runner.as_ref())
        else {
            return;
        };
        let (link, queue_wait, token) =
            (*link, *queue_wait, Some(bourse_market::codec::token_to_wire(token)));
        let frame = match message {
            Message::Invoke(invoke) => {
                Frame::Run(peer::Run { token, invoke: Some(invoke), queue_wait_ms: millis(queue_wait) })
            }
            Message::Reply(_) | Message::Value(_) | Message::Page(_) | Message::Cancel(_) => {
                Frame::ToRunner(peer::ToRunner {
                    token,
                    message: Some(v1::ToWorker { message: Some(message) }),
                })
            }
            // The seller sees to its instances itself.
            Message::Welcome(_)
            | Message::Refused(_)
            | Message::Ping(_)
            | Message::Recall(_)
            | Message::Stop(_) => return,
        };
        self.send_peer(link, frame, payload);
    }

    /// A runner says something.
    pub(super) fn on_from_runner(
        &mut self,
        now: Now,
        token: &Token,
        said: Option<peer::from_runner::Message>,
        payload: Bytes,
    ) {
        let Some(process) = self.grid.runners.get(token).copied() else { return };
        match said {
            Some(peer::from_runner::Message::Said(said)) => {
                let Some(message) = said.message else { return };
                let runner = self.instances.get_mut(&process).and_then(|i| i.runner.as_mut());
                runner.expect("a token's runner is there until the token is settled").spoke = true;
                let is_result = matches!(message, FromWorker::Result(_));
                match message {
                    FromWorker::Result(_)
                    | FromWorker::Call(_)
                    | FromWorker::Cancel(_)
                    | FromWorker::Read(_)
                    | FromWorker::Scan(_)
                    | FromWorker::Publish(_)
                    | FromWorker::Await(_)
                    | FromWorker::Log(_) => {
                        self.on_frame(now, PeerId(RUNNER | process.0), Some(message), payload);
                    }
                    // The seller keeps these to itself.
                    FromWorker::Hello(_)
                    | FromWorker::Wait(_)
                    | FromWorker::Pong(_)
                    | FromWorker::Recalled(_)
                    | FromWorker::Bye(_) => {}
                }
                if is_result && self.instances.get(&process).is_some_and(|i| i.handed.is_empty()) {
                    self.grid.market.settled(now.mono, token, true);
                    self.forget_runner(process);
                }
            }
            Some(peer::from_runner::Message::Ended(ended)) => {
                let failure = ended.failure.unwrap_or_else(|| {
                    Code::InstanceCrashed.because("the node that ran it says no more than that it has ended")
                });
                // What has begun was the function's business, and who stops or is full has said so in order. Who begins
                // nothing that it has sold for any other reason is left out for a while.
                let in_order = matches!(failure.kind(), Code::ShuttingDown | Code::NoCapacity);
                self.grid.market.settled(now.mono, token, ended.begun || in_order);
                self.end_runner(now, process, ended.begun, failure);
            }
            None => {}
        }
    }

    /// The market says that a call gets no answer.
    pub(super) fn lose_runner(&mut self, now: Now, token: &Token, begun: bool) {
        let Some(process) = self.grid.runners.get(token).copied() else { return };
        let name = self.instances[&process].running().map(|id| self.calls[&id].function.to_string());
        let text = format!(
            "the connection with the node {} that ran {} was lost",
            token.seller.short(),
            name.unwrap_or_default()
        );
        let failure = Code::InstanceCrashed
            .because(text)
            .hint("the call may have had effects outside; its state changes were dropped");
        self.end_runner(now, process, begun, failure);
    }

    /// A runner that broke the protocol, or does not stop its call: it is not heard any more.
    pub(crate) fn kill_runner(&mut self, now: Now, process: ProcessId, doom: &str) {
        let Some(runner) = self.instances.get(&process).and_then(|i| i.runner.clone()) else { return };
        if let Some(id) = self.instances[&process].running() {
            let attempt = self.calls[&id].attempt.0;
            let cancel = v1::Cancel { call: id.to_wire(), attempt, interrupt: true, reason: doom.to_owned() };
            self.send_to_runner(PeerId(RUNNER | process.0), Message::Cancel(cancel), Bytes::new());
        }
        self.grid.market.settled(now.mono, &runner.token, false);
        let text = format!("the call on the node {} was given up: {doom}", runner.token.seller.short());
        self.end_runner(now, process, true, Code::InstanceCrashed.because(text));
    }

    /// There will be no result of a runner. What certainly has not begun is routed again.
    fn end_runner(&mut self, now: Now, process: ProcessId, begun: bool, failure: v1::Failure) {
        let Some(instance) = self.instances.get(&process) else { return };
        let running = instance.running();
        let begun = begun || instance.runner.as_ref().is_some_and(|runner| runner.spoke);
        self.forget_runner(process);
        let Some(id) = running else { return };
        if begun && self.may_repeat(id) {
            self.repeat(now, id);
        } else if begun {
            self.abort_children(now, id);
            self.conclude(now, id, Err(failure));
            let layer = self.calls[&id].layer();
            self.durable.abandon(layer);
            self.forget(id);
        } else {
            let call = self.calls.get_mut(&id).expect("it is handed to the runner");
            call.phase = Phase::Queued;
            call.started = None;
            if call.queue_until <= now.mono && call.origin.is_some() {
                let failure = self.no_capacity(id, now);
                self.conclude(now, id, Err(failure));
                return self.forget(id);
            }
            self.give_back(now, id);
        }
    }

    fn forget_runner(&mut self, process: ProcessId) {
        let Some(instance) = self.instances.remove(&process) else { return };
        let runner = instance.runner.expect("only runners are forgotten like this");
        self.grid.runners.remove(&runner.token);
        self.peers.remove(&PeerId(RUNNER | process.0));
        self.timers.clear(&Timer::Instance(process));
    }
}
