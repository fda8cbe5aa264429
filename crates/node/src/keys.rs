//! Exclusive and unique keys of calls, as their functions' options make them of the arguments.
//!
//! ```text
//! node -> durable: lock            a call that is not durable waits for its exclusive key, before it stands in its queue
//! durable -> node: Granted         it has it, until no instance is busy with the call any more
//! durable -> node: Deadlock        its holder waits for it in turn: it is answered so
//! ```
//!
//! A durable call gets its exclusive key from its lane, together with its turn. A unique key is the idempotency key of a
//! durable call.

use bourse_durable::mutant::{self, Mutant};
use bourse_durable::work::KeyName;
use bourse_wire::arguments::Arguments;
use bourse_wire::failure::Code;
use bourse_wire::id::{CallId, FunctionName};
use bourse_wire::options::{KeyTemplate, Window};
use bourse_wire::time::Now;
use bourse_wire::v1;

use crate::Node;
use crate::call::Phase;
use crate::message::NewCall;
use crate::timers::Timer;

/// The keys of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallKeys {
    pub exclusive: Option<KeyName>,
    pub unique: Option<(String, Window)>,
}

impl CallKeys {
    /// Where a durable call with these keys has to be at home, if it does not matter otherwise.
    pub(crate) fn home(&self, call: &NewCall) -> Option<u8> {
        let name = &call.function;
        let unique = match &self.unique {
            Some((key, _)) => Some(key.as_str()),
            None => Some(call.idempotency_key.as_str()).filter(|key| !key.is_empty()),
        };
        let of_unique = || {
            unique.map(|key| bourse_durable::work::NewCall::home_of_key(name.module(), name.function(), key))
        };
        self.exclusive.as_ref().map(|name| name.partition().0).or_else(of_unique)
    }
}

impl Node {
    /// The keys of a call, as far as its function is known.
    pub(crate) fn keys_of(&self, call: &NewCall) -> Result<CallKeys, v1::Failure> {
        let Some(function) = self.function_of(&call.function) else { return Ok(CallKeys::default()) };
        let named = function.unique.is_some() || function.debounce.is_some();
        if function.exclusive.is_none() && !named {
            return Ok(CallKeys::default());
        }
        let name = &call.function;
        if named && !call.idempotency_key.is_empty() {
            let option = if function.unique.is_some() { "unique" } else { "debounce" };
            return Err(Code::BadRequest
                .because(format!("{name} names its own key, by `{option}`: it takes no idempotency key"))
                .hint("leave the idempotency key out: calls with the same arguments are one"));
        }
        let arguments = read(&call.payload)?;
        let exclusive = function.exclusive.as_ref().map(|template| exclusive(name, template, &arguments));
        let unique = function.unique.as_ref().map(|unique| {
            let key =
                unique.key.of(&arguments).map_err(|e| Code::BadArguments.because(format!("{name}: {e}")))?;
            Ok::<_, v1::Failure>((key, unique.window))
        });
        let debounced = function.debounce.as_ref().map(|debounce| {
            let key = debounce.key.as_ref().map_or(Ok("all".to_owned()), |key| key.of(&arguments));
            let key = key.map_err(|e| Code::BadArguments.because(format!("{name}: {e}")))?;
            Ok::<_, v1::Failure>((key, Window::UntilRun))
        });
        let unique = unique.or(debounced).transpose()?;
        Ok(CallKeys { exclusive: exclusive.transpose()?, unique })
    }

    /// A call waits for its exclusive key.
    pub(crate) fn lock(&mut self, id: CallId, name: KeyName) {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        call.phase = Phase::Locked;
        call.key = Some(name.clone());
        let ancestors: Vec<CallId> = call.ancestors.iter().map(|layer| layer.call).collect();
        self.timers.set_earliest(Timer::Call(id), call.due());
        let module = call.function.module().to_owned();
        self.modules.get_mut(&module).expect("a call is accepted for a module that is known").locked += 1;
        self.durable.lock(&name, id, ancestors);
    }

    /// It has its key.
    pub(crate) fn on_granted(&mut self, now: Now, id: CallId, fence: u64) {
        if self.calls.get(&id).is_none_or(|call| !matches!(call.phase, Phase::Locked)) {
            return;
        }
        self.leave_lock(id);
        let call = self.calls.get_mut(&id).expect("it was just looked at");
        call.fence = fence;
        self.queue_again(now, id);
    }

    /// It would wait for ever.
    pub(crate) fn on_deadlock(&mut self, now: Now, id: CallId, circle: &str) {
        if self.calls.get(&id).is_some_and(|call| matches!(call.phase, Phase::Locked)) {
            let failure = Code::Conflict
                .because(format!("this call would wait for ever: {circle}"))
                .hint("take exclusive keys in the same order everywhere, or hold one at a time");
            let root = self.calls[&id].ancestors.last().map(|root| root.call);
            if let Some(root) = root.and_then(|root| self.calls.get_mut(&root)) {
                root.deadlocked = true;
            }
            self.abort(now, id, failure);
        }
    }

    /// A call no longer waits for its key. What it waits for next is the caller's to say.
    pub(crate) fn leave_lock(&mut self, id: CallId) {
        let module = self.calls[&id].function.module().to_owned();
        self.modules.get_mut(&module).expect("a module stays as long as calls of it wait").locked -= 1;
    }

    /// Every attempt that holds a key has a fence of its own. There may be none yet.
    pub(crate) fn renew_fence(&mut self, id: CallId) {
        let Some(name) = self.calls[&id].key.clone() else { return };
        let fence = self.durable.fence(&name, id);
        let call = self.calls.get_mut(&id).expect("it was just looked at");
        if !mutant::is(Mutant::FenceNotRenewed) {
            call.fence = fence.unwrap_or(0);
        }
    }

    /// A call that has its key waits for a fence.
    pub(crate) fn await_fence(&mut self, id: CallId) {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        call.phase = Phase::Locked;
        let name = call.key.clone().expect("only one with a key has a fence");
        if call.is_work() {
            call.deadline = bourse_wire::time::Mono::MAX;
        }
        self.timers.set_earliest(Timer::Call(id), call.due());
        let module = call.function.module().to_owned();
        self.modules.get_mut(&module).expect("a call is accepted for a module that is known").locked += 1;
        self.durable.grant(name, id);
    }

    /// Why a call that waits for its key has waited too long.
    pub(crate) fn key_not_free(&self, id: CallId) -> String {
        let Some(name) = &self.calls[&id].key else { return "its exclusive key".to_owned() };
        match self.durable.holder_of(name) {
            Some(holder) => format!("its exclusive key {:?}, which call {holder} holds", name.key()),
            None => format!("its exclusive key {:?}", name.key()),
        }
    }

    // ------------------------------------------------------------ before the function is known

    /// Modules that were being loaded have been, or have failed to: whatever waited to know its function goes on. Calls
    /// that never get to know it are accepted without keys; an exclusive one gets its key when it is run.
    pub(crate) fn open_door(&mut self, now: Now) {
        if self.door.is_empty() && self.unkeyed.is_empty() {
            return;
        }
        let loading = |node: &Self, name: &FunctionName| {
            node.modules.get(name.module()).is_some_and(|module| module.is_loading())
        };
        for (origin, call) in std::mem::take(&mut self.door) {
            if loading(self, &call.function) {
                self.door.push((origin, call));
                continue;
            }
            self.accepting_bytes -= self.accepting.remove(&origin).unwrap_or_default();
            match self.function_of(&call.function) {
                Some(_) => self.on_call(now, origin, call),
                // It waits for a revision that loads, as any durable call does.
                None => self.accept_durable(now, origin, call, CallKeys::default(), None),
            }
        }
        for id in std::mem::take(&mut self.unkeyed) {
            let Some(call) = self.calls.get(&id).filter(|call| matches!(call.phase, Phase::Queued)) else {
                continue;
            };
            match loading(self, &call.function) {
                true => _ = self.unkeyed.insert(id),
                false => self.rethink(now, id),
            }
        }
    }

    /// What a call is to be that was queued before its function was known.
    fn rethink(&mut self, now: Now, id: CallId) {
        let call = &self.calls[&id];
        let new = call.again(now);
        if self.belongs_elsewhere(&new) {
            return self.forward_begun(now, id);
        }
        let by = call.parent();
        let keys = match self.keys_of(&new) {
            Ok(keys) => keys,
            Err(failure) => return self.abort(now, id, failure),
        };
        let is_durable = if by.is_some() { keys.unique.is_some() } else { self.is_durable(&new) };
        if !is_durable {
            if let Some(name) = keys.exclusive {
                self.unqueue(id);
                self.lock(id, name);
            }
            return;
        }
        self.unqueue(id);
        let Some(origin) = self.release(id) else { return };
        self.forget(id);
        self.accept_durable(now, origin, new, keys, by.map(|by| by.call));
    }
}

/// The exclusive key of a call.
pub(crate) fn exclusive(
    name: &FunctionName,
    template: &KeyTemplate,
    arguments: &Arguments,
) -> Result<KeyName, v1::Failure> {
    let bad = |why: String| Code::BadArguments.because(format!("{name}: {why}"));
    let key = template.of(arguments).map_err(|e| bad(e.to_string()))?;
    KeyName::new(name.module(), &key).map_err(|e| bad(format!("its key {key:?} cannot be one: {e}")))
}

pub(crate) fn read(payload: &[u8]) -> Result<Arguments, v1::Failure> {
    if payload.is_empty() {
        return Ok(Arguments::default());
    }
    Arguments::from_cbor(payload).map_err(|e| {
        Code::BadArguments.because(format!("its key can't be made: the arguments do not decode: {e}"))
    })
}
