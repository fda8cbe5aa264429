//! The way between functions and the partitions that hold their state.
//!
//! ```text
//! worker -> node: read, scan       node -> worker: value, page
//! node -> store: Store             store -> node: Store
//! ```
//!
//! Writes come with the message after them and are handed on in order, so that a read sees what its own call wrote.

use bourse_durable as durable;
use bourse_durable::home::StateKey;
use bourse_durable::{Answer, Finish, LayerId, Refusal, Ticket};
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::time::Now;
use bourse_wire::v1;
use bourse_wire::v1::to_worker::Message;
use bytes::Bytes;

use crate::Node;
use crate::message::{Output, PeerId, ProcessId};
use crate::outcome::store_unavailable;
use crate::triggers::Writing;
use crate::work::{Accepting, Publishing, Settling};

/// Who waits for an answer of the partitions.
pub(crate) enum Asked {
    Value { process: ProcessId, request: u64, by: LayerId },
    Page { process: ProcessId, request: u64, by: LayerId },
    Finish(CallId),
    Accept(Box<Accepting>),
    Settle(CallId, Box<Settling>),
    Seen { origin: crate::Origin, call: CallId, awaits: bool },
    Awaited { origin: crate::Origin, call: CallId },
    Publish(Box<Publishing>),
    Trigger(Box<Writing>),
    TriggerLook(Box<durable::work::TriggerKey>),
}

impl Asked {
    /// Somebody waits for it who asks about a durable call, or makes one.
    pub(crate) fn is_of_work(&self) -> bool {
        match self {
            Self::Accept(_)
            | Self::Settle(..)
            | Self::Seen { .. }
            | Self::Awaited { .. }
            | Self::Publish(_)
            | Self::Trigger(_)
            | Self::TriggerLook(_) => true,
            Self::Value { .. } | Self::Page { .. } | Self::Finish(_) => false,
        }
    }
}

/// Rows of a page, if the function does not say.
const ROWS_DEFAULT: u32 = 100;
/// Most rows of a page.
const ROWS_MAX: u32 = 1_000;

impl Node {
    /// Hands a call's writes to its home.
    pub(crate) fn write(&mut self, id: CallId, writes: Vec<v1::Write>) -> Result<(), v1::Failure> {
        if !writes.is_empty() {
            self.use_store();
        }
        for write in writes {
            let key = self.state_key(id, write.key.unwrap_or_default())?;
            let call = &self.calls[&id];
            let origin = durable::Origin { layer: call.layer(), ancestors: &call.ancestors };
            let value = (!write.delete).then_some(write.value);
            if let Err(refusal) = self.durable.write(origin, &key, value) {
                let by = self.calls[&id].layer();
                return Err(self.refusal(by, &refusal));
            }
        }
        Ok(())
    }

    pub(crate) fn on_read(&mut self, now: Now, peer: PeerId, process: ProcessId, read: v1::Read) {
        let request = read.request;
        let value =
            |failure| Message::Value(v1::Value { request, failure: Some(failure), ..Default::default() });
        let Some(id) = self.running(process, &read.call, read.attempt) else {
            self.send(peer, value(ended()), Bytes::new());
            return;
        };
        if !self.keeps_store() {
            self.send(peer, value(moved()), Bytes::new());
            return self.forward_begun(now, id);
        }
        let key =
            match self.write(id, read.writes).and_then(|()| self.state_key(id, read.key.unwrap_or_default()))
            {
                Ok(key) => key,
                Err(failure) => return self.send(peer, value(failure), Bytes::new()),
            };
        let ticket = self.ask(Asked::Value { process, request, by: self.calls[&id].layer() });
        let call = &self.calls[&id];
        let origin = durable::Origin { layer: call.layer(), ancestors: &call.ancestors };
        self.durable.read(origin, &key, ticket);
    }

    pub(crate) fn on_scan(&mut self, now: Now, peer: PeerId, process: ProcessId, scan: v1::Scan) {
        let request = scan.request;
        let page =
            |failure| Message::Page(v1::Page { request, failure: Some(failure), ..Default::default() });
        let Some(id) = self.running(process, &scan.call, scan.attempt) else {
            self.send(peer, page(ended()), Bytes::new());
            return;
        };
        if !self.keeps_store() {
            self.send(peer, page(moved()), Bytes::new());
            return self.forward_begun(now, id);
        }
        let prefix = match self
            .write(id, scan.writes)
            .and_then(|()| self.state_key(id, scan.prefix.unwrap_or_default()))
        {
            Ok(key) => key,
            Err(failure) => return self.send(peer, page(failure), Bytes::new()),
        };
        let limit = if scan.limit == 0 { ROWS_DEFAULT } else { scan.limit.min(ROWS_MAX) };
        let ticket = self.ask(Asked::Page { process, request, by: self.calls[&id].layer() });
        let call = &self.calls[&id];
        let origin = durable::Origin { layer: call.layer(), ancestors: &call.ancestors };
        self.durable.scan(origin, &prefix, &scan.after, limit as usize, scan.keys_only, ticket);
    }

    /// Makes an attempt's changes permanent, or part of the ancestor's that shares its home.
    pub(crate) fn finish(&mut self, id: CallId) -> Finish {
        let ticket = Ticket(self.next_ticket);
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        let (layer, emitted) = (call.layer(), std::mem::take(&mut call.emitted));
        let finish = self.durable.finish(layer, emitted, ticket);
        if matches!(finish, Finish::Later) {
            self.ask(Asked::Finish(id));
        }
        finish
    }

    pub(crate) fn ask(&mut self, asked: Asked) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.asked.insert(ticket, asked);
        Ticket(ticket)
    }

    fn state_key(&self, id: CallId, key: v1::Key) -> Result<StateKey, v1::Failure> {
        let own = self.calls[&id].function.module();
        let namespace = if key.module.is_empty() { own } else { &key.module };
        StateKey::new(namespace, &key.name)
            .map_err(|e| Code::BadState.because(format!("{:?}: {e}", key.name)))
    }

    /// A refusal in the words of a failure. One that means that the attempt has lost its state runs it again.
    fn refusal(&mut self, by: LayerId, refusal: &Refusal) -> v1::Failure {
        let call = self.calls.get_mut(&by.call).filter(|call| call.attempt == by.attempt);
        if let (Refusal::Gone, Some(call)) = (refusal, call) {
            call.lost = true;
            return Code::Conflict.because("the state of this attempt is gone: it is run again");
        }
        refused(refusal)
    }

    /// Carries what the partitions have to say; `false` if that is nothing.
    pub(crate) fn pump_durable(&mut self, now: Now) -> bool {
        let mut said = false;
        while let Some(output) = self.durable.poll() {
            said = true;
            match output {
                durable::Output::Store { token, request } => {
                    self.outputs.push_back(Output::Store { token, request })
                }
                durable::Output::Known { call } => self.look_again(call),
                durable::Output::Granted { call, fence } => self.on_granted(now, call, fence),
                durable::Output::Deadlock { call, circle } => self.on_deadlock(now, call, &circle),
                durable::Output::Answer { ticket, answer } => {
                    let asked = self.asked.remove(&ticket.0).expect("an answer is given once, to a question");
                    self.on_state_answer(now, asked, answer);
                }
            }
        }
        said
    }

    fn on_state_answer(&mut self, now: Now, asked: Asked, answer: Answer) {
        match asked {
            Asked::Finish(id) => {
                let Answer::Finished(finished) = answer else { unreachable!("a finish is answered as one") };
                self.on_finished(now, id, finished);
            }
            Asked::Accept(accepting) => self.on_accept_answer(now, *accepting, answer),
            Asked::Settle(id, settling) => {
                let Answer::Finished(finished) = answer else {
                    unreachable!("a settlement is answered as one")
                };
                self.on_failure_settled(now, id, *settling, finished);
            }
            Asked::Seen { origin, call, awaits } => self.on_seen(origin, call, awaits, answer),
            Asked::Publish(publishing) => self.on_published(*publishing, answer),
            Asked::Trigger(writing) => self.on_trigger_written(now, *writing, answer),
            Asked::TriggerLook(key) => self.on_trigger_looked(*key, answer),
            Asked::Awaited { origin, call } => self.on_awaited(origin, call, answer),
            Asked::Value { process, request, by } => {
                let mut value = v1::Value { request, ..Default::default() };
                let mut payload = Bytes::new();
                match answer {
                    Answer::Value(Some(record)) => {
                        value.found = true;
                        value.version = record.version.0;
                        payload = record.value;
                    }
                    Answer::Value(None) => {}
                    other => value.failure = Some(self.state_failure(by, &other)),
                }
                self.send_if_there(process, Message::Value(value), payload);
            }
            Asked::Page { process, request, by } => {
                let mut page = v1::Page { request, ..Default::default() };
                match answer {
                    Answer::Page(found) => {
                        page.more = found.more;
                        let row = |r: durable::message::Row| v1::Row {
                            key: r.name,
                            value: r.value,
                            version: r.version.0,
                        };
                        page.rows = found.rows.into_iter().map(row).collect();
                    }
                    other => page.failure = Some(self.state_failure(by, &other)),
                }
                self.send_if_there(process, Message::Page(page), Bytes::new());
            }
        }
    }

    fn state_failure(&mut self, by: LayerId, answer: &Answer) -> v1::Failure {
        match answer {
            Answer::Refused(refusal) => self.refusal(by, refusal),
            Answer::StoreFailed(why) => store_unavailable(why),
            Answer::Corrupt(e) => Code::Internal.because(format!("what is stored does not decode: {e}")),
            Answer::Value(_)
            | Answer::Page(_)
            | Answer::Finished(_)
            | Answer::Accepted { .. }
            | Answer::Seen(_) => unreachable!("not a failure"),
        }
    }

    fn send_if_there(&mut self, process: ProcessId, message: Message, payload: Bytes) {
        if let Some(peer) = self.instances.get(&process).and_then(|i| i.peer) {
            self.send(peer, message, payload);
        }
    }
}

/// What a refusal is to a caller.
pub(crate) fn refused(refusal: &Refusal) -> v1::Failure {
    let code = match refusal {
        Refusal::Behind | Refusal::TooManyLayers => Code::StoreUnavailable,
        Refusal::ValueTooLong
        | Refusal::TooManyBytes
        | Refusal::TooManyWrites
        | Refusal::RecordTooLong(_) => Code::TooLarge,
        Refusal::Gone | Refusal::NotHome { .. } | Refusal::TooManyReads => Code::BadState,
    };
    let failure = code.because(refusal.to_string()).hint(refusal.hint());
    match code {
        Code::StoreUnavailable => failure.retry_after(std::time::Duration::from_secs(1)),
        _ => failure,
    }
}

/// What a function is told that goes on elsewhere.
pub(crate) fn moved() -> v1::Failure {
    Code::Cancelled.because("this call goes on at the node that keeps the grid's store, from its beginning")
}

fn ended() -> v1::Failure {
    Code::Cancelled.because("the invocation that asks for state has ended")
}
