//! What clients have asked for, and what they were told.
//!
//! It remembers; whether that is as it should be, [`crate::checkers`] says.

use std::collections::BTreeMap;

use bourse_durable::work::Seen;
use bourse_node::{Answer, Ask, Mode, Ticket};
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::v1;

/// A call that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// What it is to do.
    pub plan: u32,
    /// Its idempotency key, or empty.
    pub key: String,
    /// Whether the caller waits for the result.
    pub mode: Mode,
    /// What it was told.
    pub heard: Heard,
    /// The caller has gone away: it may be answered or not.
    pub left: bool,
    /// Its id, once that is known.
    pub call: Option<CallId>,
    /// The machine that it was made at.
    pub machine: usize,
}

/// What the caller of a call was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet.
    Nothing,
    /// It is accepted.
    Accepted,
    /// Its result.
    Done(String),
    /// It had no effect, and never will.
    Refused(String),
    /// It may have taken effect, or may still.
    Unknown(String),
}

/// A question about a call.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which.
    pub call: CallId,
    /// What.
    pub ask: Ask,
    /// The answer. `None`: not yet.
    pub told: Option<Result<Box<Seen>, v1::Failure>>,
    /// Whoever was to answer is gone, or nobody wants to know any more.
    pub over: bool,
    /// The machine that was asked.
    pub machine: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Gateway {
    made: BTreeMap<Ticket, Made>,
    /// Messages that are not answered, and where they were published.
    published: BTreeMap<Ticket, usize>,
    asked: BTreeMap<Ticket, Asked>,
    waiting: usize,
    tickets: u64,
    /// Ids of calls that somebody was told.
    pub known: Vec<CallId>,
    /// The machine that clients speak with now.
    pub machine: usize,
    /// What must never happen, and did.
    pub violations: Vec<String>,
}

impl Gateway {
    /// A call is made.
    pub fn makes(&mut self, plan: u32, key: &str, mode: Mode) -> Ticket {
        let (key, machine) = (key.to_owned(), self.machine);
        let made = Made { plan, key, mode, heard: Heard::Nothing, left: false, call: None, machine };
        self.tickets += 1;
        self.made.insert(Ticket(self.tickets), made);
        self.waiting += 1;
        Ticket(self.tickets)
    }

    /// A message is published.
    pub fn publishes(&mut self) -> Ticket {
        self.tickets += 1;
        self.published.insert(Ticket(self.tickets), self.machine);
        self.waiting += 1;
        Ticket(self.tickets)
    }

    /// A question is asked.
    pub fn asks(&mut self, call: CallId, ask: Ask) -> Ticket {
        self.tickets += 1;
        let asked = Asked { call, ask, told: None, over: false, machine: self.machine };
        self.asked.insert(Ticket(self.tickets), asked);
        self.waiting += 1;
        Ticket(self.tickets)
    }

    /// Calls that were made.
    pub fn made(&self) -> impl Iterator<Item = (Ticket, &Made)> {
        self.made.iter().map(|(ticket, made)| (*ticket, made))
    }

    /// Questions that were asked.
    pub fn asked(&self) -> impl Iterator<Item = (Ticket, &Asked)> {
        self.asked.iter().map(|(ticket, asked)| (*ticket, asked))
    }

    /// One of the calls.
    pub fn call(&self, ticket: Ticket) -> Option<&Made> {
        self.made.get(&ticket)
    }

    /// One of the questions.
    pub fn question(&self, ticket: Ticket) -> Option<&Asked> {
        self.asked.get(&ticket)
    }

    /// How many wait for an answer.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// A caller goes away.
    pub(crate) fn leaves(&mut self, ticket: Ticket) {
        if let Some(made) = self.made.get_mut(&ticket).filter(|made| made.heard == Heard::Nothing) {
            (made.heard, made.left) = (Heard::Unknown("the caller has left".to_owned()), true);
            self.waiting -= 1;
        }
    }

    /// A call is answered.
    pub fn on_reply(&mut self, ticket: Ticket, answer: &Answer) {
        if self.published.remove(&ticket).is_some() {
            self.waiting -= 1;
            return;
        }
        if let Some(made) = self.made.get_mut(&ticket).filter(|made| made.left) {
            made.left = false;
            return;
        }
        let Some(made) = self.made.get_mut(&ticket).filter(|made| made.heard == Heard::Nothing) else {
            self.violations.push(format!("call {} was answered again, or by another life", ticket.0));
            return;
        };
        self.waiting -= 1;
        made.call = answer.call;
        made.heard = match &answer.result {
            Ok(_) if made.mode == Mode::Async => Heard::Accepted,
            Ok(success) => Heard::Done(String::from_utf8_lossy(&success.payload).into_owned()),
            Err(failure) if may_have_effect(failure, answer.call.is_some()) => {
                Heard::Unknown(failure.code.clone())
            }
            Err(failure) => Heard::Refused(failure.code.clone()),
        };
        if made.mode == Mode::Async
            && let Some(call) = answer.call
        {
            self.known.push(call);
        }
    }

    /// A question is answered.
    pub fn on_told(&mut self, ticket: Ticket, told: Result<Box<Seen>, v1::Failure>) {
        match self.asked.get_mut(&ticket).filter(|asked| asked.told.is_none() && !asked.over) {
            Some(asked) => {
                asked.told = Some(told);
                self.waiting -= 1;
            }
            None => self.violations.push(format!("question {} was answered again, or by nobody", ticket.0)),
        }
    }

    /// Who asks lost the connection: what was not answered never will be.
    pub fn loses(&mut self, ticket: Ticket) {
        if let Some(made) = self.made.get_mut(&ticket).filter(|made| made.heard == Heard::Nothing) {
            made.heard = Heard::Unknown("the connection is gone".to_owned());
            self.waiting -= 1;
        }
        if let Some(asked) = self.asked.get_mut(&ticket).filter(|asked| asked.told.is_none() && !asked.over) {
            asked.over = true;
            self.waiting -= 1;
        }
    }

    /// The node is gone: who was not answered never will be.
    pub(crate) fn on_crash(&mut self) {
        let machine = self.machine;
        let made = self.made.values_mut().filter(|made| made.machine == machine);
        for made in made.filter(|made| made.heard == Heard::Nothing) {
            made.heard = Heard::Unknown("the node is gone".to_owned());
            self.waiting -= 1;
        }
        let asked = self.asked.values_mut().filter(|asked| asked.machine == machine);
        for asked in asked.filter(|asked| asked.told.is_none() && !asked.over) {
            asked.over = true;
            self.waiting -= 1;
        }
        let before = self.published.len();
        self.published.retain(|_, at| *at != machine);
        self.waiting -= before - self.published.len();
    }
}

/// Whether a failure leaves open what became of the call. A call with an id may be a durable one that goes on.
fn may_have_effect(failure: &v1::Failure, has_id: bool) -> bool {
    match failure.kind() {
        Code::Timeout | Code::Cancelled => true,
        Code::StoreUnavailable => {
            let unknown = ["the store did not say", "the node that keeps the grid's store was lost"];
            unknown.iter().any(|text| failure.message.starts_with(text)) || has_id
        }
        _ => false,
    }
}
