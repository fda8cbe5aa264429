//! Whether a call is taken, how long it may take, and where it stands in the tree of calls.
//!
//! ```text
//! gateway -> node: Call          accepted, or answered at once with the reason
//! client  -> node: call          the same
//! worker  -> node: call          the same; it also inherits its caller's time, trace and context
//! ```
//!
//! Never waits for anything: a call for a module that is still being loaded is queued.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use bourse_durable::LayerId;
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::nearest::nearest;
use bourse_wire::time::{DURATION_MAX, Mono, Now};
use bourse_wire::v1;

use crate::call::{Call, Phase, Place};
use crate::grid::{Runs, Wanted};
use crate::keys::CallKeys;
use crate::message::{Event, NewCall, Origin, Overflow, Terms};
use crate::peers::Peer;
use crate::timers::Timer;
use crate::{Answer, Node};

/// What a nested call takes over from its caller.
struct Parent {
    ancestors: Vec<LayerId>,
    root: CallId,
    place: CallId,
    depth: u32,
    remaining: Duration,
    traceparent: String,
    context: BTreeMap<String, String>,
}

impl Node {
    pub(crate) fn on_call(&mut self, now: Now, origin: Origin, call: NewCall) {
        self.take_call(now, origin, call, None);
    }

    /// A call from a running function. `by` is the running call.
    pub(crate) fn on_nested_call(
        &mut self,
        now: Now,
        origin: Origin,
        request: u64,
        by: LayerId,
        call: NewCall,
    ) {
        let Some(caller) = self.calls.get(&by.call) else { return };
        let mut ancestors = Vec::with_capacity(caller.ancestors.len() + 1);
        ancestors.push(by);
        ancestors.extend_from_slice(&caller.ancestors);
        let parent = Parent {
            ancestors,
            root: caller.root,
            place: caller.place.root,
            depth: caller.depth + 1,
            remaining: caller.deadline.since(now.mono),
            traceparent: caller.traceparent.clone(),
            context: caller.context.clone(),
        };
        if let Some(id) = self.take_call(now, origin, call, Some(parent)) {
            let caller = self.calls.get_mut(&by.call).expect("a caller outlives the acceptance of its call");
            caller.children.insert(request, id);
        } else if self.accepting.contains_key(&origin) || self.grid.forwards.has(origin) {
            let caller = self.calls.get_mut(&by.call).expect("a caller outlives the acceptance of its call");
            caller.awaited.insert(request);
        }
    }

    fn take_call(
        &mut self,
        now: Now,
        origin: Origin,
        call: NewCall,
        parent: Option<Parent>,
    ) -> Option<CallId> {
        let admitted = self.admit(&call, parent.as_ref()).and_then(|()| self.keys_of(&call));
        match admitted {
            Ok(_) if self.belongs_elsewhere(&call) => {
                let call = self.inherit(call, parent);
                self.forward(now, origin, Wanted::Call(Box::new(call)));
                None
            }
            Ok(keys) if parent.is_none() && self.is_durable(&call) => {
                self.accept_durable(now, origin, call, keys, None);
                None
            }
            Ok(keys) if let Some(failure) = self.waits_for_itself(&call, &keys, parent.as_ref()) => {
                self.refuse_call(origin, call, failure);
                None
            }
            // It may be one that others wait for as well, and does not end with its caller.
            Ok(keys) if let (Some(parent), Some(_)) = (&parent, &keys.unique) => {
                self.accept_durable(now, origin, call, keys, Some(parent.ancestors[0].call));
                None
            }
            Ok(_) if let Some(failure) = self.too_often(now, &call) => {
                self.refuse_call(origin, call, failure);
                None
            }
            Ok(keys) => Some(self.enqueue(now, origin, call, parent, keys)),
            Err(failure) => {
                self.refuse_call(origin, call, failure);
                None
            }
        }
    }

    /// Why a durable call that another one waits for would wait for that one in turn: for its exclusive key.
    fn waits_for_itself(
        &self,
        call: &NewCall,
        keys: &CallKeys,
        parent: Option<&Parent>,
    ) -> Option<v1::Failure> {
        let (Some(parent), Some(name), Some(_)) = (parent, &keys.exclusive, &keys.unique) else {
            return None;
        };
        let holds =
            |layer: &&LayerId| self.calls.get(&layer.call).is_some_and(|c| c.key.as_ref() == Some(name));
        let holder = parent.ancestors.iter().find(holds)?;
        Some(
            Code::Conflict
                .because(format!(
                    "{} is durable (`unique`) and needs the exclusive key {:?}, which call {} holds while it waits",
                    call.function,
                    name.key(),
                    holder.call
                ))
                .hint("start it, without waiting for it; or give one of the functions another key"),
        )
    }

    /// A nested call as it is elsewhere, where its caller is not known.
    fn inherit(&self, call: NewCall, parent: Option<Parent>) -> NewCall {
        let Some(parent) = parent else { return call };
        let function = self.function_of(&call.function);
        let timeout = call.timeout.or(function.and_then(|f| f.timeout));
        let timeout = timeout.unwrap_or(self.config.of(call.function.module()).timeout).min(parent.remaining);
        let queue_wait = call.queue_wait.or(function.and_then(|f| f.queue_wait)).unwrap_or(timeout);
        let mut context = parent.context;
        context.extend(call.context);
        NewCall {
            timeout: Some(timeout),
            queue_wait: Some(queue_wait),
            traceparent: if call.traceparent.is_empty() { parent.traceparent } else { call.traceparent },
            context,
            depth: parent.depth,
            ..call
        }
    }

    fn refuse_call(&mut self, origin: Origin, call: NewCall, failure: v1::Failure) {
        let function = call.function;
        self.event(Event::CallRefused { function, failure: failure.clone() });
        self.answer(origin, Answer { call: None, result: Err(failure) });
    }

    /// Whether there is such a function, and room for one more call of it.
    fn admit(&self, call: &NewCall, parent: Option<&Parent>) -> Result<(), v1::Failure> {
        let name = &call.function;
        if self.draining && parent.is_none() {
            return Err(Code::ShuttingDown
                .because("the daemon is stopping")
                .retry_after(Duration::from_secs(1)));
        }
        if name.is_host() {
            self.admit_host(call, parent.is_some())?;
        } else {
            self.admit_module(call, parent.is_some())?;
        }
        if call.terms != Terms::default() && parent.is_none() && self.is_durable(call) {
            return Err(Code::BadRequest
                .because("horizon, scale_after and overflow are for calls that are waited for: this one is durable")
                .hint("leave them out, or set `horizon` as an option of the function"));
        }
        if call.timeout.is_some_and(|t| t.is_zero()) {
            return Err(Code::Timeout.because("the call's deadline is in the past"));
        }
        self.check_size(call, parent.map(|p| &p.context))?;
        let depth = parent.map_or(call.depth, |p| p.depth);
        match parent {
            _ if depth > self.config.depth_max => Err(Code::DepthExceeded
                .because(format!(
                    "{name} would be nested {depth} calls deep, at most {} are allowed",
                    self.config.depth_max
                ))
                .hint("is it a recursion without an end? else raise `depth` in bourse.toml")),
            Some(p) if p.remaining.is_zero() => {
                Err(Code::Timeout.because("the calling function has no time left"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a module that serves has the function, and a place in its queue.
    fn admit_module(&self, call: &NewCall, nested: bool) -> Result<(), v1::Failure> {
        let name = &call.function;
        let Some(module) = self.modules.get(name.module()).filter(|m| !m.removed) else {
            return Err(self.no_such_module(name.module()));
        };
        if !module.is_loading() {
            self.check_function(name, &call.version)?;
        }
        let config = self.config.of(name.module());
        let waiting = module.waiting() + module.locked;
        if waiting >= config.queue_max && (nested || !self.is_durable(call)) {
            return Err(Code::QueueFull
                .because(format!("{waiting} calls of {} are waiting", name.module()))
                .hint("try again later, or raise `queue` of the module in bourse.toml")
                .retry_after(Duration::from_secs(1)));
        }
        Ok(())
    }

    /// Whether a durable call that a function makes can be taken.
    pub(crate) fn admit_emitted(&self, call: &NewCall, by: CallId) -> Result<(), v1::Failure> {
        let (name, caller) = (&call.function, &self.calls[&by]);
        match self.modules.get(name.module()).filter(|m| !m.removed) {
            _ if name.is_host() => _ = crate::host::check_host_function(name)?,
            None => return Err(self.no_such_module(name.module())),
            Some(module) if module.is_loading() => {}
            Some(_) => self.check_function(name, &call.version)?,
        }
        self.check_size(call, Some(&caller.context))
    }

    fn check_size(
        &self,
        call: &NewCall,
        inherited: Option<&BTreeMap<String, String>>,
    ) -> Result<(), v1::Failure> {
        if call.payload.len() > self.config.payload_bytes_max {
            return Err(Code::TooLarge.because(format!(
                "the arguments have {} bytes, at most {} are allowed",
                call.payload.len(),
                self.config.payload_bytes_max
            )));
        }
        let inherited = inherited.into_iter().flatten().filter(|(k, _)| !call.context.contains_key(*k));
        let context: usize = call.context.iter().chain(inherited).map(|(k, v)| k.len() + v.len()).sum();
        if context > self.config.context_bytes_max {
            return Err(Code::TooLarge.because(format!(
                "the pass-through context has {context} bytes, at most {} are allowed",
                self.config.context_bytes_max
            )));
        }
        Ok(())
    }

    /// Whether what serves now has the function, in a version that fits.
    pub(crate) fn check_function(
        &self,
        name: &bourse_wire::id::FunctionName,
        version: &str,
    ) -> Result<(), v1::Failure> {
        if name.is_host() {
            return crate::host::check_host_function(name).map(|_| ());
        }
        let module = self.modules.get(name.module()).ok_or_else(|| self.no_such_module(name.module()))?;
        let Some(revision) = module.serving_revision() else {
            return Err(module.failure.clone().unwrap_or_else(|| self.no_such_module(name.module())));
        };
        if version.is_empty() && self.runs(name, None).is_some() {
            return Ok(());
        }
        if module.function(name.function()).is_none() {
            let near = nearest(name.function(), revision.functions.keys().map(String::as_str));
            let hint = if near.is_empty() {
                format!("{} has: {}", name.module(), list(revision.functions.keys().map(String::as_str)))
            } else {
                format!("did you mean {}?", list(near.into_iter()))
            };
            return Err(Code::NotFound
                .because(format!("{} has no function {}", name.module(), name.function()))
                .hint(hint));
        }
        let requirement = semver::VersionReq::parse(version).map_err(|e| {
            Code::BadRequest
                .because(format!("{version:?} is not a version requirement: {e}"))
                .hint("write it as ^1.2, =1.2.3 or >=1, <3")
        })?;
        if self.runs(name, Some(&requirement)).is_some() {
            return Ok(());
        }
        let have = revision.version.as_ref().map_or_else(|| "0.0.0".to_owned(), ToString::to_string);
        let elsewhere = match self.versions_elsewhere(name) {
            none if none.is_empty() => String::new(),
            some => format!("; on the grid there are {some}"),
        };
        Err(Code::NotFound
            .because(format!("{} serves version {have}, which is not {version}{elsewhere}", name.module())))
    }

    /// A function as it serves now.
    pub(crate) fn function_of(
        &self,
        name: &bourse_wire::id::FunctionName,
    ) -> Option<&crate::function::Function> {
        self.modules.get(name.module()).and_then(|m| m.function(name.function()))
    }

    fn no_such_module(&self, name: &str) -> v1::Failure {
        if !self.ready {
            return Code::Starting
                .because(format!("there is no module {name} so far: the daemon is still loading its modules"))
                .retry_after(Duration::from_secs(1));
        }
        let served = || self.modules.iter().filter(|(_, m)| !m.removed).map(|(name, _)| name.as_str());
        let near = nearest(name, served());
        let hint = match (near.is_empty(), served().next()) {
            (false, _) => format!("did you mean {}?", list(near.into_iter())),
            (true, Some(_)) => format!("modules are: {}", list(served())),
            (true, None) => "nothing is served yet".to_owned(),
        };
        Code::NotFound.because(format!("there is no module {name}")).hint(hint)
    }

    fn enqueue(
        &mut self,
        now: Now,
        origin: Origin,
        new: NewCall,
        parent: Option<Parent>,
        keys: CallKeys,
    ) -> CallId {
        let id = self.entropy.call_id(now.wall);
        let name = new.function;
        let config = self.config.of(name.module());
        let function = self.function_of(&name);
        let timeout = new.timeout.or(function.and_then(|f| f.timeout)).unwrap_or(config.timeout);
        let timeout = parent.as_ref().map_or(timeout, |p| timeout.min(p.remaining));
        // A nested call is a part of one that has begun: to give it up early would throw away what has been done.
        let queue_wait = match &parent {
            Some(_) => timeout,
            None => config.queue_wait,
        };
        let queue_wait = new.queue_wait.or(function.and_then(|f| f.queue_wait)).unwrap_or(queue_wait);
        let queue_wait = match new.terms.overflow {
            Overflow::Reject => Duration::ZERO,
            Overflow::Queue | Overflow::Remote => queue_wait,
        };
        let deadline = now.mono + timeout.min(DURATION_MAX);
        let order = self.next_order;
        self.next_order += 1;
        let (ancestors, root, place, depth, inherited) = match parent {
            Some(p) => (p.ancestors, p.root, p.place, p.depth, Some((p.traceparent, p.context))),
            None => (Vec::new(), id, id, new.depth, None),
        };
        let (traceparent, mut context) = inherited.unwrap_or_default();
        context.extend(new.context);
        let standing = Place { root: place, depth: Reverse(depth), order };
        let call = Call {
            version: new.version,
            deadline,
            queue_wait,
            queue_until: now.mono + queue_wait,
            root,
            trigger: new.trigger,
            terms: new.terms,
            ancestors,
            traceparent: if new.traceparent.is_empty() { traceparent } else { new.traceparent },
            context,
            ..Call::new(id, origin, name, new.payload, standing, now)
        };
        let twice = self.by_origin.insert(origin, id);
        assert!(twice.is_none(), "whoever calls names each call anew");
        if let Origin::Peer(peer, _) = origin
            && let Some(Peer::Client { open }) = self.peers.get_mut(&peer)
        {
            *open += 1;
        }
        if !call.function.is_host() && self.function_of(&call.function).is_none() {
            self.unkeyed.insert(id);
        }
        self.calls.insert(id, call);
        match keys.exclusive {
            Some(name) => self.lock(id, name),
            None => self.enter(now, id),
        }
        id
    }

    /// A call that was accepted before stands in line once more, if what it calls is still there.
    pub(crate) fn queue_again(&mut self, now: Now, id: CallId) {
        if self.calls[&id].guest.is_some() {
            return self.queue_guest(id);
        }
        self.limit_again(now, id);
        let call = &self.calls[&id];
        let (name, version) = (&call.function, &call.version);
        let module = self.modules.get(name.module());
        if call.is_work() && (self.draining || !name.is_host() && module.is_none_or(|m| m.removed)) {
            return self.put_back_work(now, id, Duration::ZERO);
        }
        let there = match module {
            Some(m) if m.removed => Err(self.no_such_module(name.module())),
            Some(m) if m.is_loading() => Ok(()),
            _ => self.check_function(name, version),
        };
        match there {
            Ok(()) if self.calls[&id].key.is_some() && self.calls[&id].fence == 0 => self.await_fence(id),
            Ok(()) => self.enter(now, id),
            Err(failure) => {
                self.conclude(now, id, Err(failure));
                self.forget(id);
            }
        }
    }

    /// A call has left a patient instance: its time goes on.
    pub(crate) fn limit_again(&mut self, now: Now, id: CallId) {
        let call = self.calls.get_mut(&id).expect("the caller has looked it up");
        if let Some(left) = call.left.take() {
            call.deadline = now.mono + left;
            self.timers.set_earliest(Timer::Call(id), call.due());
        }
    }

    /// Puts a call into its module's queue, at its place.
    pub(crate) fn queue(&mut self, id: CallId) {
        let call = self.calls.get_mut(&id).expect("a call that is queued exists");
        call.phase = Phase::Queued;
        let work = call.is_work();
        if work {
            call.deadline = Mono::MAX;
        }
        self.timers.set_earliest(Timer::Call(id), call.due());
        let (module, place) = (call.function.module().to_owned(), call.place);
        let is_abroad = self.grid.on && self.is_abroad(id);
        self.calls.get_mut(&id).expect("it was just looked at").is_abroad = is_abroad;
        let entry = self.modules.get_mut(&module).expect("a call is accepted for a module that is known");
        match is_abroad {
            true => entry.abroad.insert(place, id),
            false => entry.queue.insert(place, id),
        };
        entry.work_queued += usize::from(work);
        self.backlog.insert(module);
    }

    /// Whether a call can run elsewhere only. What is being loaded here may be what it needs.
    fn is_abroad(&self, id: CallId) -> bool {
        let call = &self.calls[&id];
        let requirement = match call.version.is_empty() {
            true => None,
            false => semver::VersionReq::parse(&call.version).ok(),
        };
        self.runs(&call.function, requirement.as_ref()) == Some(Runs::Abroad)
    }

    /// Takes a call out of its module's queue.
    pub(crate) fn unqueue(&mut self, id: CallId) {
        let call = self.calls.get(&id).expect("a call that is queued exists");
        let module = call.function.module();
        let entry = self.modules.get_mut(module).expect("a module stays as long as calls of it are queued");
        let was = match call.is_abroad {
            true => entry.abroad.remove(&call.place),
            false => entry.queue.remove(&call.place),
        };
        entry.work_queued -= usize::from(call.is_work());
        assert_eq!(was, Some(id), "a queued call stands at its place");
        if entry.waiting() == 0 {
            self.backlog.remove(module);
        }
    }
}

/// At most this many names are listed.
const LISTED_MAX: usize = 12;

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = names.take(LISTED_MAX + 1).collect();
    if all.len() > LISTED_MAX {
        all[LISTED_MAX] = "…";
    }
    all.join(", ")
}
