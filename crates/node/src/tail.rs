//! Handing on: a call goes on as a call of another function, with the same id, place, key and caller.
//!
//! ```text
//! worker -> node: result with `tail`         what the step changed is committed, then the next one is queued
//! ```
//!
//! A durable call's record becomes that of the next step in the same commit, so that a chain takes no more room the longer
//! it is, and a crash goes back one step at most.

use bourse_durable::Finish;
use bourse_durable::work::Next;
use bourse_wire::failure::Code;
use bourse_wire::id::{Attempt, CallId, FunctionName};
use bourse_wire::record::v1 as record;
use bourse_wire::time::Now;
use bourse_wire::v1;
use bytes::Bytes;

use crate::Node;
use crate::call::Phase;
use crate::message::Success;

/// The next step of a call.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    pub function: FunctionName,
    pub version: String,
}

impl Node {
    /// Whether a call can be handed on so.
    pub(crate) fn admit_tail(&self, tail: v1::Tail) -> Result<Tail, v1::Failure> {
        let v1::Tail { function, version } = tail;
        let Ok(function) = function.parse::<FunctionName>() else {
            return Err(Code::BadRequest
                .because(format!("{function:?} is not a function's name: write module.function")));
        };
        if self.modules.get(function.module()).is_none_or(|module| !module.is_loading()) {
            self.check_function(&function, &version)?;
        }
        Ok(Tail { function, version })
    }

    /// Has the next step of a durable call written, together with what this one has changed.
    pub(crate) fn settle_tail(&mut self, now: Now, id: CallId, tail: &Tail) -> Finish {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        let Phase::Committing { result, .. } = &call.phase else { unreachable!("a step is being committed") };
        let details = call.durable.as_ref().expect("an attempt of a durable call has its record");
        let before = &details.record;
        let own_key = !before.exclusive_key.is_empty() && before.exclusive_module.is_empty();
        let record = record::Call {
            function: tail.function.as_str().to_owned(),
            version: tail.version.clone(),
            arguments: result.payload.clone(),
            incarnation: self.incarnation.0,
            attempts: call.attempt.0,
            attempts_before: call.attempt.0,
            failures: 0,
            due_ms: 0,
            pause_ms: 0,
            delayed: false,
            last_failure: None,
            step: before.step + 1,
            previous: before.function.clone(),
            exclusive_module: match own_key {
                true => call.function.module().to_owned(),
                false => before.exclusive_module.clone(),
            },
            ..(**before).clone()
        };
        self.settle_attempt(now, id, Next::Tail(Box::new(record)), Vec::new())
    }

    /// What the step has changed is committed: the next one begins.
    pub(crate) fn hand_on(&mut self, now: Now, id: CallId, tail: Tail, arguments: Bytes) {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        if call.is_work() {
            // Its lane gives it out again.
            let origin = call.origin.take();
            origin.map(|origin| self.by_origin.remove(&origin));
            self.forget(id);
            return;
        }
        call.step += 1;
        call.attempts_before = call.attempt.0;
        call.attempt = Attempt(call.attempt.0 + 1);
        call.redelivered = false;
        call.conflicts = 0;
        call.emitted_bytes = 0;
        call.function = tail.function;
        call.version = tail.version;
        call.payload = arguments;
        call.queue_until = now.mono + call.queue_wait;
        call.phase = Phase::Committing { result: Success::default(), ran: std::time::Duration::ZERO };
        self.renew_fence(id);
        if self.belongs_elsewhere(&self.calls[&id].again(now)) {
            self.forward_begun(now, id);
            return self.forget(id);
        }
        let (name, has_key) = (self.calls[&id].function.clone(), self.calls[&id].key.is_some());
        let template = self.function_of(&name).and_then(|f| f.exclusive.clone()).filter(|_| !has_key);
        let Some(template) = template else { return self.queue_again(now, id) };
        let arguments = crate::keys::read(&self.calls[&id].payload);
        match arguments.and_then(|arguments| crate::keys::exclusive(&name, &template, &arguments)) {
            Ok(key) => self.lock(id, key),
            Err(failure) => {
                self.conclude(now, id, Err(failure));
                self.forget(id);
            }
        }
    }
}
