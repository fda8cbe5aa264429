//! Calls and messages, put together piece by piece and made when they are awaited.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bourse_node::market::name::Horizon as Distance;
use bourse_node::{Answer, Message, Mode, NewCall, Overflow, Success, Terms};
use bourse_wire::arguments::Arguments;
use bourse_wire::id::CallId;
use bourse_wire::options::Channel;
use bourse_wire::value::Value;
use bytes::Bytes;

use crate::driver::Request;
use crate::{Client, Error};

/// A call that is being put together. Awaiting it makes it, and gives what the function returns; dropping it then cancels it, also
/// where the function runs.
#[must_use = "a call is made when it is awaited, or started"]
pub struct Call {
    client: Client,
    function: String,
    arguments: Arguments,
    payload: Option<Bytes>,
    call: Wanted,
}

/// What a call can say of itself, beside its arguments.
#[derive(Clone, Debug, Default)]
struct Wanted {
    version: String,
    timeout: Option<Duration>,
    queue_wait: Option<Duration>,
    traceparent: String,
    context: BTreeMap<String, String>,
    idempotency_key: String,
    delay: Option<Duration>,
    depth: u32,
    terms: Terms,
}

/// How far a call may travel from this client. It serves nothing itself, so `Machine` are the nodes on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Horizon {
    /// Nodes on this machine.
    Machine,
    /// Nodes on this network.
    Network,
    /// Any node.
    Anywhere,
}

impl Call {
    pub(crate) fn new(client: Client, function: String) -> Self {
        Self { client, function, arguments: Arguments::default(), payload: None, call: Wanted::default() }
    }

    /// One more positional argument.
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.arguments.positional.push(value.into());
        self
    }

    /// A named argument.
    pub fn named(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.named.push((name.into(), value.into()));
        self
    }

    /// All arguments, already encoded as [`Arguments::to_cbor`] does it; those that were given one by one do not count then.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Only versions of the module that fit this semver requirement, such as `^1.2`.
    pub fn version(mut self, requirement: impl Into<String>) -> Self {
        self.call.version = requirement.into();
        self
    }

    /// How long it may take, all in all.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.call.timeout = Some(timeout);
        self
    }

    /// How long it may wait for a slot, or for the grid to be reached.
    pub fn queue_wait(mut self, wait: Duration) -> Self {
        self.call.queue_wait = Some(wait);
        self
    }

    /// How far it may travel; never farther than its function allows.
    pub fn horizon(mut self, horizon: Horizon) -> Self {
        self.call.terms.horizon = Some(match horizon {
            Horizon::Machine => Distance::Machine,
            Horizon::Network => Distance::Network,
            Horizon::Anywhere => Distance::Anywhere,
        });
        self
    }

    /// After how long of waiting capacity is asked for. At once, if nothing is said: nothing here could run it.
    pub fn scale_after(mut self, after: Duration) -> Self {
        self.call.terms.scale_after = Some(after);
        self
    }

    /// What becomes of it if no slot is held: it waits, unless this says that it is to be refused with `no_capacity`.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.call.terms.overflow = overflow;
        self
    }

    /// Of a durable call: a second one of the function with this key is the first one. Of another: the node that accepts it, if it
    /// is accepted elsewhere, is asked again when it was lost.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.call.idempotency_key = key.into();
        self
    }

    /// Of a durable call: it is not run before that.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.call.delay = Some(delay);
        self
    }

    /// An entry of the context, which the function sees, and all that it calls.
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.call.context.insert(name.into(), value.into());
        self
    }

    /// How many calls it is nested in already: for a program that passes calls on, so that those which go round in circles end.
    pub fn depth(mut self, depth: u32) -> Self {
        self.call.depth = depth;
        self
    }

    /// W3C trace context.
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.call.traceparent = traceparent.into();
        self
    }

    /// Makes a durable call: the grid has accepted it when this gives its id, and does it whatever becomes of this client.
    /// [`Client::outcome`] waits for its end.
    pub async fn start(self) -> Result<CallId, Error> {
        let (client, call) = self.made(Mode::Async)?;
        let answer = client.ask(|ticket, reply| Request::Call { ticket, call, reply }).await?;
        match (answer.call, answer.result) {
            (Some(id), Ok(_)) => Ok(id),
            (call, Err(failure)) => Err(Error::failed(call, failure)),
            (None, Ok(_)) => Err(Error::Bad("the grid has accepted a call and not said which".to_owned())),
        }
    }

    fn made(self, mode: Mode) -> Result<(Client, Box<NewCall>), Error> {
        let Self { client, function, arguments, payload, call } = self;
        let function = function.parse().map_err(|_| {
            Error::Bad(format!("{function:?} is not a function's name\n  hint: write module.function"))
        })?;
        let call = NewCall {
            function,
            version: call.version,
            payload: payload.unwrap_or_else(|| arguments.to_cbor()),
            timeout: call.timeout,
            queue_wait: call.queue_wait,
            traceparent: call.traceparent,
            context: call.context,
            mode,
            idempotency_key: call.idempotency_key,
            delay: call.delay,
            trigger: None,
            depth: call.depth,
            terms: call.terms,
        };
        Ok((client, Box::new(call)))
    }
}

impl IntoFuture for Call {
    type Output = Result<Reply, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (client, call) = self.made(Mode::Sync)?;
            let answer = client.ask(|ticket, reply| Request::Call { ticket, call, reply }).await?;
            Reply::of(answer)
        })
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("function", &self.function)
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

/// What a function has returned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The call.
    pub call: Option<CallId>,
    /// The bytes, as they came.
    pub payload: Bytes,
    /// What they are; empty means CBOR.
    pub content_type: String,
}

impl Reply {
    pub(crate) fn of(answer: Answer) -> Result<Self, Error> {
        match answer.result {
            Ok(Success { payload, content_type, http: _ }) => {
                Ok(Self { call: answer.call, payload, content_type })
            }
            Err(failure) => Err(Error::failed(answer.call, failure)),
        }
    }

    /// The value, if it is one: what was told in CBOR, or bytes. Text and pages with a type of their own are none.
    pub fn value(&self) -> Result<Value, Error> {
        match self.content_type.as_str() {
            "" => Value::from_cbor(&self.payload)
                .map_err(|e| Error::Bad(format!("what the function has returned is no CBOR: {e}"))),
            "application/octet-stream" => Ok(Value::Bytes(self.payload.clone())),
            other => Err(Error::Bad(format!(
                "the function has returned {other}, which is no value\n  hint: take the bytes: `reply.payload`"
            ))),
        }
    }
}

/// A message that is being put together. Awaiting it publishes it.
#[must_use = "a message is published when it is awaited"]
pub struct Publish {
    client: Client,
    to: Result<Channel, Error>,
    message: Wanted,
    payload: Bytes,
}

/// What became of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The durable calls that it has become.
    pub calls: Vec<CallId>,
    /// How many functions listen.
    pub subscribers: u64,
}

impl Publish {
    pub(crate) fn new(client: Client, to: Result<Channel, Error>, value: &Value) -> Self {
        Self { client, to, message: Wanted::default(), payload: value.to_cbor() }
    }

    /// Nothing is run before that.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.message.delay = Some(delay);
        self
    }

    /// Of a queue: a second message with this key is the first one.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.message.idempotency_key = key.into();
        self
    }

    /// An entry of the context, which the functions see that are woken.
    pub fn context(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.message.context.insert(name.into(), value.into());
        self
    }
}

impl IntoFuture for Publish {
    type Output = Result<Published, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { client, to, message, payload } = self;
            let Wanted { traceparent, context, idempotency_key, delay, .. } = message;
            let message = Message { to: to?, payload, delay, traceparent, context, idempotency_key };
            let message = Box::new(message);
            let answer = client.ask(|ticket, reply| Request::Publish { ticket, message, reply }).await?;
            Ok(published(&Reply::of(answer)?.value()?))
        })
    }
}

impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("to", &self.to)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

fn published(told: &Value) -> Published {
    let Value::Map(pairs) = told else { return Published::default() };
    let entry = |wanted: &str| {
        let is_it = |name: &Value| matches!(name, Value::Text(name) if name == wanted);
        pairs.iter().find(|(name, _)| is_it(name)).map(|(_, value)| value)
    };
    let id = |id: &Value| match id {
        Value::Text(id) => id.parse().ok(),
        _ => None,
    };
    let calls = match entry("calls") {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        _ => Vec::new(),
    };
    let subscribers = match entry("subscribers") {
        Some(Value::Int(count)) => u64::try_from(*count).unwrap_or(0),
        _ => 0,
    };
    Published { calls, subscribers }
}
