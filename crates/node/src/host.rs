//! The functions of the module `bourse`, which the daemon itself performs: what functions send out.
//!
//! ```text
//! node -> daemon: Perform          do this
//! daemon -> node: Performed        done, or what went wrong
//! node -> daemon: Desist           nobody wants it any more, or its time is over
//! ```
//!
//! A call of one is a call as any other: nested or from outside, waited for or durable, tried again, dead-lettered and
//! replayed. It needs no instance and no slot. Of each function so many durable calls are performed at a time, and so
//! many that somebody waits for; each has a lane of its own, so that none waits behind the others' slow targets.
//! A function that makes a durable call of one has an outbox: the call is accepted with what the function changes,
//! and its id is the same for every attempt.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::id::{Attempt, CallId, FunctionName, HOST_MODULE};
use bourse_wire::nearest::nearest;
use bourse_wire::options::Retry;
use bourse_wire::time::{Mono, Now};
use bourse_wire::v1;

use crate::Node;
use crate::call::Phase;
use crate::message::{Mode, NewCall, Output, Success};

/// The durable calls of one host function that are performed at a time.
pub const PERFORMED_MAX: usize = 256;
/// The calls of one host function that somebody waits for, at a time. Past it they are refused.
pub const WAITED_MAX: usize = 1_024;

/// What the daemon can do for a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostFunction {
    /// An HTTP request.
    Webhook,
    /// A mail.
    Mail,
    /// A message to WebSocket connections.
    Send,
    /// Ends a WebSocket connection.
    Close,
    /// Puts a connection into a group.
    Join,
    /// Takes it out.
    Leave,
}

impl HostFunction {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Webhook, Self::Mail, Self::Send, Self::Close, Self::Join, Self::Leave];

    /// Its name, without the module's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Mail => "mail",
            Self::Send => "send",
            Self::Close => "close",
            Self::Join => "join",
            Self::Leave => "leave",
        }
    }

    /// Of a function of the module `bourse`; `None` if there is none of that name.
    pub fn of(name: &FunctionName) -> Option<Self> {
        let named = |f: &Self| f.name() == name.function();
        name.is_host().then(|| Self::ALL.into_iter().find(named)).flatten()
    }

    /// How long it may take, if its caller does not say.
    fn timeout(self) -> Duration {
        match self {
            Self::Webhook => Duration::from_secs(300),
            Self::Mail => Duration::from_secs(120),
            Self::Send | Self::Close | Self::Join | Self::Leave => Duration::from_secs(10),
        }
    }

    /// How failures are met. What goes to other systems is tried for most of a day.
    pub(crate) fn retry(self) -> Retry {
        match self {
            Self::Webhook | Self::Mail => Retry {
                attempts_max: 18,
                pause_min: Duration::from_secs(1),
                pause_max: Duration::from_secs(6 * 3600),
                ..Retry::default()
            },
            Self::Send | Self::Close | Self::Join | Self::Leave => Retry::default(),
        }
    }

    /// It is about WebSocket connections, which any node may have.
    pub fn is_of_connections(self) -> bool {
        matches!(self, Self::Send | Self::Close | Self::Join | Self::Leave)
    }

    fn doc(self) -> &'static str {
        match self {
            Self::Webhook => "Posts a body to a URL, signed.",
            Self::Mail => "Sends a mail through the configured relay.",
            Self::Send => "Sends a message to a WebSocket connection, or to `group:NAME`.",
            Self::Close => "Closes a WebSocket connection.",
            Self::Join => "Puts a WebSocket connection into a group.",
            Self::Leave => "Takes a WebSocket connection out of a group.",
        }
    }

    /// Name, type, and default as JSON; without one it is required.
    fn parameters(self) -> &'static [(&'static str, &'static str, Option<&'static str>)] {
        match self {
            Self::Webhook => &[
                ("url", "str", None),
                ("body", "any", Some("null")),
                ("headers", "dict", Some("{}")),
                ("method", "str", Some("\"POST\"")),
                ("timeout", "any", Some("\"10s\"")),
            ],
            Self::Mail => &[
                ("to", "any", None),
                ("subject", "str", None),
                ("text", "str", Some("\"\"")),
                ("html", "str?", Some("null")),
                ("from_", "str?", Some("null")),
                ("headers", "dict", Some("{}")),
            ],
            Self::Send => &[("to", "str", None), ("message", "any", None)],
            Self::Close => {
                &[("connection", "str", None), ("code", "int", Some("1000")), ("reason", "str", Some("\"\""))]
            }
            Self::Join | Self::Leave => &[("connection", "str", None), ("group", "str", None)],
        }
    }

    fn description(self) -> v1::Function {
        let parameter = |&(name, kind, default): &(&str, &str, Option<&str>)| v1::Parameter {
            name: name.to_owned(),
            r#type: kind.to_owned(),
            required: default.is_none(),
            default_json: default.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        v1::Function {
            name: self.name().to_owned(),
            parameters: self.parameters().iter().map(parameter).collect(),
            doc: self.doc().to_owned(),
            ..Default::default()
        }
    }

    /// Its parameters, in order.
    pub fn parameter_names(self) -> impl Iterator<Item = &'static str> {
        self.parameters().iter().map(|(name, _, _)| *name)
    }
}

/// The module `bourse`, as others describe themselves.
pub fn description() -> v1::Module {
    let functions = HostFunction::ALL.into_iter().map(HostFunction::description).collect();
    v1::Module { name: HOST_MODULE.to_owned(), functions, ..Default::default() }
}

/// Why a module of that name is not served.
pub(crate) fn name_is_taken() -> v1::Failure {
    Code::ModuleFailed
        .because(format!("the module {HOST_MODULE} is the daemon's own"))
        .hint("give it another name")
}

/// What is being performed.
#[derive(Default)]
pub(crate) struct Performing {
    /// By function: durable calls, and calls that somebody waits for.
    counts: BTreeMap<HostFunction, (usize, usize)>,
}

impl Performing {
    fn count(&mut self, function: HostFunction, work: bool) -> &mut usize {
        let (durable, waited) = self.counts.entry(function).or_default();
        if work { durable } else { waited }
    }
}

impl Node {
    /// Whether there is such a host function, and room for one more call of it.
    pub(crate) fn admit_host(&self, call: &NewCall, nested: bool) -> Result<(), v1::Failure> {
        let function = check_host_function(&call.function)?;
        let waited = self.host.counts.get(&function).map_or(0, |(_, waited)| *waited);
        let durable = !nested && (call.mode == Mode::Async || !call.idempotency_key.is_empty());
        if !durable && waited >= WAITED_MAX {
            return Err(Code::QueueFull
                .because(format!("{waited} calls of {} are under way", call.function))
                .hint("try again later, or make it a durable call")
                .retry_after(Duration::from_secs(1)));
        }
        Ok(())
    }

    /// Gives a call to whoever performs it: an instance, when it is its turn; or the daemon, now.
    pub(crate) fn enter(&mut self, now: Now, id: CallId) {
        let call = self.calls.get_mut(&id).expect("a call that is entered exists");
        let Some(function) = HostFunction::of(&call.function) else { return self.queue(id) };
        if let Some(durable) = &call.durable {
            call.deadline = now.mono + durable.timeout.unwrap_or_else(|| function.timeout());
        }
        call.started.get_or_insert(now.mono);
        call.phase = Phase::Performing(now.mono);
        let work = call.is_work();
        let perform = Output::Perform {
            call: id,
            attempt: call.attempt,
            function,
            payload: call.payload.clone(),
            traceparent: call.traceparent.clone(),
        };
        self.timers.set_earliest(crate::timers::Timer::Call(id), call.due());
        *self.host.count(function, work) += 1;
        self.outputs.push_back(perform);
    }

    /// Takes durable calls of a host function from its lane.
    pub(crate) fn draw_host(&mut self, now: Now, lane: &str) {
        let Some(function) = lane.parse().ok().and_then(|name| HostFunction::of(&name)) else {
            return; // Of a later version: they wait for that.
        };
        while *self.host.count(function, true) < PERFORMED_MAX
            && let Some(taken) = self.durable.take(lane)
        {
            self.begin_attempt(now, taken);
        }
    }

    /// The daemon has done, or not been able to do, what it was asked.
    pub(crate) fn on_performed(
        &mut self,
        now: Now,
        id: CallId,
        attempt: Attempt,
        result: Result<Success, v1::Failure>,
    ) {
        let Some(call) = self.calls.get(&id).filter(|call| call.attempt == attempt) else { return };
        let Phase::Performing(since) = call.phase else { return };
        self.performed(id);
        let (result, payload) = match result {
            Ok(success) => {
                let Success { payload, content_type, http } = success;
                (v1::Result { content_type, http, ..Default::default() }, payload)
            }
            Err(failure) => (v1::Result { failure: Some(failure), ..Default::default() }, Default::default()),
        };
        self.close_attempt(now, id, result, payload, now.mono.since(since));
    }

    /// Nobody wants it any more: the daemon may stop.
    pub(crate) fn desist(&mut self, id: CallId) {
        let attempt = self.calls[&id].attempt;
        self.performed(id);
        self.outputs.push_back(Output::Desist { call: id, attempt });
    }

    fn performed(&mut self, id: CallId) {
        let call = &self.calls[&id];
        let (function, work) = (HostFunction::of(&call.function), call.is_work());
        let count = self.host.count(function.expect("only host functions are performed"), work);
        *count = count.checked_sub(1).expect("what is performed has been counted");
    }

    pub(crate) fn check_performing(&self) {
        let mut counts = BTreeMap::<HostFunction, (usize, usize)>::new();
        for call in self.calls.values().filter(|c| matches!(c.phase, Phase::Performing(_))) {
            let function = HostFunction::of(&call.function).expect("only host functions are performed");
            let (durable, waited) = counts.entry(function).or_default();
            *(if call.is_work() { durable } else { waited }) += 1;
            assert!(call.origin.is_some(), "nothing is performed that nobody wants");
            assert!(call.deadline < Mono::MAX, "what is performed comes to an end");
        }
        for function in HostFunction::ALL {
            let counted = self.host.counts.get(&function).copied().unwrap_or_default();
            assert_eq!(
                counted,
                counts.get(&function).copied().unwrap_or_default(),
                "{function:?} is counted right"
            );
            assert!(counted.0 <= PERFORMED_MAX, "no more is performed than may be");
        }
    }
}

/// Whether there is such a host function.
pub(crate) fn check_host_function(name: &FunctionName) -> Result<HostFunction, v1::Failure> {
    HostFunction::of(name).ok_or_else(|| {
        let names = || HostFunction::ALL.into_iter().map(HostFunction::name);
        let near = nearest(name.function(), names());
        let hint = match near.first() {
            Some(near) => format!("did you mean {HOST_MODULE}.{near}?"),
            None => format!("{HOST_MODULE} has: {}", names().collect::<Vec<_>>().join(", ")),
        };
        Code::NotFound.because(format!("{HOST_MODULE} has no function {}", name.function())).hint(hint)
    })
}
