//! What goes into a [`Node`](crate::Node) and what comes out of it.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_durable as durable;
use bourse_durable::work::Seen;
use bourse_market::links::LinkId;
use bourse_market::roster::Entry;
use bourse_market::store::GridStore;
use bourse_wire::id::{Attempt, CallId, FunctionName};
use bourse_wire::options::Channel;
use bourse_wire::peer::v1 as peer;
use bourse_wire::v1;
use bytes::Bytes;

use crate::config::Config;
use crate::grid::{Deployment, Digest};
use crate::host::HostFunction;
use crate::instance::Exit;
pub use crate::terms::{Overflow, Terms};

/// A connection, as the transport numbers them. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId(pub u64);

/// A process that the keeper starts: an instance or a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub u64);

/// A call's name at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A module's content: the hash of its files and environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RevisionId(pub String);

/// Who made a call, and what it calls it. An instance keeps its calls over a reconnect, a client does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A request at the gateway.
    Gateway(Ticket),
    /// A client, by its request number.
    Peer(PeerId, u64),
    /// A running function, by its request number.
    Instance(ProcessId, u64),
    /// Nobody waits: the call is durable.
    Work(CallId),
    /// Another node, which has bought a slot of this one for it.
    Buyer(u64),
    /// This node itself, which wants no answer.
    Own(u64),
    /// Another node, for a caller of its own, by the number that it chose for this link.
    Node(LinkId, u64),
}

/// Whether the caller waits for the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    #[default]
    Sync,
    /// It wants to know that the call is accepted, which is then done whatever happens.
    Async,
}

/// What is asked about a durable call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// How it stands.
    Look,
    /// How it ends. May be cancelled, as a call.
    Await,
    /// That it ends.
    Cancel,
    /// That a dead letter is tried again.
    Replay,
    /// That a dead letter is forgotten.
    Purge,
}

/// A call that is not accepted yet. `None` stands for the function's or the node's default.
#[derive(Clone, Debug)]
pub struct NewCall {
    /// What is called.
    pub function: FunctionName,
    /// A semver requirement; empty takes any version.
    pub version: String,
    /// The arguments; see [`bourse_wire::arguments`].
    pub payload: Bytes,
    /// How long the caller waits for the answer.
    pub timeout: Option<Duration>,
    /// How long it may wait for an instance.
    pub queue_wait: Option<Duration>,
    /// W3C trace context, or empty.
    pub traceparent: String,
    /// Pass-through context.
    pub context: BTreeMap<String, String>,
    /// Whether the caller waits for the result.
    pub mode: Mode,
    /// A second asynchronous call of the function with this key is the first one. Empty: none.
    pub idempotency_key: String,
    /// Of an asynchronous call: it is not run before that.
    pub delay: Option<Duration>,
    /// What wakes the function, unless that is a call.
    pub trigger: Option<v1::Trigger>,
    /// How deep it is in its tree, if it comes from another node: 0 for a call from outside.
    pub depth: u32,
    /// Where it may run, and what becomes of it if that can't be at once.
    pub terms: Terms,
}

/// A message that somebody publishes.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it goes.
    pub to: Channel,
    /// One CBOR item; empty reads as null.
    pub payload: Bytes,
    /// Nothing is run before that.
    pub delay: Option<Duration>,
    /// W3C trace context, or empty.
    pub traceparent: String,
    /// Pass-through context.
    pub context: BTreeMap<String, String>,
    /// Of a queue: a second message with this key is the first one. Empty: none.
    pub idempotency_key: String,
}

/// What runs a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Python: a template loads it and forks instances.
    Python,
    /// Any program that speaks the worker protocol.
    Process,
}

/// A module as the scanner found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its content.
    pub revision: RevisionId,
    /// What runs it.
    pub kind: Kind,
}

/// What a template says of its module.
#[derive(Clone, Debug)]
pub enum Report {
    /// It loads. With `not_forkable` set, the reason why instances have to be started anew.
    Ready {
        /// What it offers.
        module: v1::Module,
        /// Empty: the template can fork.
        not_forkable: String,
    },
    /// It does not.
    Failed(v1::Failure),
}

/// Messages to the node.
#[derive(Debug)]
pub enum Input {
    /// The gateway calls.
    Call {
        /// Where the answer goes.
        origin: Origin,
        /// The call.
        call: NewCall,
    },
    /// The gateway publishes. Answered as a call is, with a CBOR map: `calls`, the ids as text, and `subscribers`, their
    /// number.
    Publish {
        /// Where the answer goes.
        origin: Origin,
        /// What.
        message: Message,
    },
    /// A module that is gone from the folder is to listen no longer. Answered as a call is, with a CBOR map: `module`, and
    /// how many triggers were `removed`.
    Forget {
        /// Where the answer goes.
        origin: Origin,
        /// The module.
        module: String,
    },
    /// About a durable call. Answered by [`Output::Told`].
    Ask {
        /// Where the answer goes.
        ticket: Ticket,
        /// Which call.
        call: CallId,
        /// What.
        ask: Ask,
    },
    /// The caller no longer wants the answer, or is no longer there.
    Cancel {
        /// As in the call.
        origin: Origin,
    },
    /// A worker or client sent something.
    Frame {
        /// The connection.
        peer: PeerId,
        /// Its header; `None` is a message of a later version.
        message: Option<v1::to_node::Message>,
        /// Its payload.
        payload: Bytes,
    },
    /// A connection ended; everything that came over it has been handed in.
    PeerGone {
        /// The connection.
        peer: PeerId,
    },
    /// A process ended, or could not be started.
    Exited {
        /// Which.
        process: ProcessId,
        /// How.
        exit: Exit,
    },
    /// A template has loaded its module, or failed to.
    Loaded {
        /// The template.
        template: ProcessId,
        /// What it says.
        report: Report,
    },
    /// All modules there are now.
    Deploy {
        /// By name, each once.
        modules: Vec<Found>,
    },
    /// The store has answered an [`Output::Store`].
    Store {
        /// As in the request.
        token: durable::Token,
        /// The answer.
        answer: durable::StoreAnswer,
    },
    /// The daemon has done what an [`Output::Perform`] asked for, or not been able to.
    Performed {
        /// Which call.
        call: CallId,
        /// Which attempt.
        attempt: Attempt,
        /// What came of it.
        result: Result<Success, v1::Failure>,
    },
    /// A connection with another node has opened, in either direction.
    PeerOpened {
        /// Which. Never used again for another.
        link: LinkId,
        /// The CURVE public key that the other end has proved to hold.
        key: [u8; 32],
    },
    /// Another node says something.
    PeerFrame {
        /// The connection.
        link: LinkId,
        /// Its header; `None` is a message of a later version.
        message: Option<peer::to_peer::Message>,
        /// Its payload.
        payload: Bytes,
    },
    /// A connection with another node has ended.
    PeerClosed {
        /// Which.
        link: LinkId,
    },
    /// A node that an [`Output::Dial`] named can't be reached.
    NotReached {
        /// Its key.
        node: [u8; 32],
        /// For people.
        why: String,
    },
    /// A node was found that may be asked for the grid, as those are that this one was started with.
    Seed {
        /// Its key. Whoever dials it expects that it proves to hold it.
        node: [u8; 32],
        /// "host:port".
        address: String,
    },
    /// A node that was a seed is known to be gone.
    SeedGone {
        /// Its key.
        node: [u8; 32],
    },
    /// New settings. They hold from now on, also for what is there already.
    Configure {
        /// All of them.
        config: Box<Config>,
    },
    /// Find the durable calls that an earlier life has left, and go on with them. To be sent once, first.
    Recover,
    /// Take nothing new, finish what is there, stop.
    Drain,
}

/// A function's result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Success {
    /// The result's bytes.
    pub payload: Bytes,
    /// How they are encoded; empty means CBOR.
    pub content_type: String,
    /// How the function wants to be answered over HTTP.
    pub http: Option<v1::HttpResponse>,
}

/// The answer to a call. There is exactly one for each.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The call's id; `None` if it was never accepted.
    pub call: Option<CallId>,
    /// Its result, or why there is none.
    pub result: Result<Success, v1::Failure>,
}

/// Messages from the node: what the driver carries out.
#[derive(Debug)]
pub enum Output {
    /// Send a message to a worker or client.
    Send {
        /// The connection.
        peer: PeerId,
        /// Its header.
        message: v1::to_worker::Message,
        /// Its payload.
        payload: Bytes,
    },
    /// Close a connection.
    Close {
        /// Which.
        peer: PeerId,
    },
    /// Answer the gateway.
    Reply {
        /// As in the call.
        ticket: Ticket,
        /// The answer.
        answer: Answer,
    },
    /// Answer the gateway about a durable call.
    Told {
        /// As in the question.
        ticket: Ticket,
        /// How it stands, or why that is not known.
        told: Result<Box<Seen>, v1::Failure>,
    },
    /// Do something for a function; answered by [`Input::Performed`].
    Perform {
        /// The call's id, the same for all attempts: whoever is sent something twice can tell by it.
        call: CallId,
        /// Which attempt.
        attempt: Attempt,
        /// What.
        function: HostFunction,
        /// Its arguments; see [`bourse_wire::arguments`].
        payload: Bytes,
        /// W3C trace context, or empty.
        traceparent: String,
    },
    /// Nobody waits for an [`Output::Perform`] any more, or its time is over: no answer is wanted.
    Desist {
        /// Which call.
        call: CallId,
        /// Which attempt.
        attempt: Attempt,
    },
    /// Connect with another node; answered by [`Input::PeerOpened`] or [`Input::NotReached`].
    Dial {
        /// The key that it has to prove to hold.
        node: [u8; 32],
        /// "host:port".
        address: String,
    },
    /// Say something to another node.
    PeerSend {
        /// The connection.
        link: LinkId,
        /// Its header.
        message: peer::to_peer::Message,
        /// Its payload.
        payload: Bytes,
    },
    /// These entries of the grid's list of keys are new: they are to be kept, and obeyed from now on.
    Roster(Vec<Entry>),
    /// The deployments, of the node that keeps the store: to be kept.
    Deployments(Vec<Deployment>),
    /// The bundles that this node is to serve; without a digest: it is not to, any more. What is not named stays as it is.
    Assigned(Vec<(String, Option<Digest>)>),
    /// This store is the grid's from now on: to be remembered when the node starts again.
    GridStore(GridStore),
    /// What other nodes serve: to be remembered when the node starts again.
    Catalogue(Vec<v1::Module>),
    /// The grid's authorities are others now: a node that starts again begins with them.
    Authorities,
    /// Close a connection with another node, once what was said has left. Not answered.
    PeerClose {
        /// Which.
        link: LinkId,
    },
    /// Start a template for a revision; answered by [`Input::Loaded`], in the end by [`Input::Exited`].
    StartTemplate {
        /// Its name from now on.
        process: ProcessId,
        /// The module.
        module: String,
        /// Its revision.
        revision: RevisionId,
    },
    /// Start an instance; it says hello with `secret`, and in the end there is [`Input::Exited`].
    StartInstance {
        /// Its name from now on.
        process: ProcessId,
        /// The module.
        module: String,
        /// Its revision.
        revision: RevisionId,
        /// The template to fork it from; `None`: start it anew.
        template: Option<ProcessId>,
        /// What it says hello with.
        secret: Bytes,
    },
    /// End a process and all that it has started, without ceremony.
    Kill {
        /// Which.
        process: ProcessId,
    },
    /// The modules that are served have changed. All of them, each with its current revision.
    Published {
        /// By name.
        modules: Vec<(v1::Module, RevisionId)>,
        /// What only other nodes serve.
        elsewhere: Vec<v1::Module>,
    },
    /// Every module that was there at the start has been loaded or has failed.
    Ready,
    /// Drained: nothing runs any more.
    Drained,
    /// Ask the store.
    Store {
        /// Comes back with the answer.
        token: durable::Token,
        /// What to do.
        request: durable::StoreRequest,
    },
    /// Something to tell the operator: for logs and metrics.
    Event(Event),
}

/// How much an operator should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For the curious.
    Debug,
    /// Normal.
    Info,
    /// Somebody should look.
    Warning,
    /// Something does not work.
    Error,
}

/// What happened, for logs and metrics. Nothing depends on who listens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A call was answered.
    CallDone {
        /// Its id.
        call: CallId,
        /// What was called.
        function: FunctionName,
        /// `None`: success.
        failure: Option<v1::Failure>,
        /// Between acceptance and the instance.
        waited: Duration,
        /// Between the instance and the answer.
        ran: Duration,
    },
    /// A call goes to a slot of another node.
    Bought {
        /// Of this module.
        module: String,
        /// How long it has waited for that.
        waited: Duration,
    },
    /// A call was refused before it was accepted.
    CallRefused {
        /// What was called.
        function: FunctionName,
        /// Why.
        failure: v1::Failure,
    },
    /// A durable call is in the store.
    Accepted {
        /// Its id.
        call: CallId,
        /// What was called.
        function: FunctionName,
        /// It was not there before, under the same idempotency key.
        first: bool,
    },
    /// An attempt of a durable call failed, and there will be another.
    Retried {
        /// Its id.
        call: CallId,
        /// What was called.
        function: FunctionName,
        /// Which attempt.
        attempt: u32,
        /// Why.
        failure: v1::Failure,
        /// How long until the next.
        after: Duration,
    },
    /// A durable call has failed for good.
    DeadLettered {
        /// Its id.
        call: CallId,
        /// What was called.
        function: FunctionName,
        /// How many attempts there were.
        attempt: u32,
        /// Why.
        failure: v1::Failure,
    },
    /// An instance is ready.
    InstanceReady {
        /// Its module.
        module: String,
        /// Which.
        process: ProcessId,
        /// Since it was asked for.
        took: Duration,
    },
    /// An instance has ended.
    InstanceGone {
        /// Its module.
        module: String,
        /// Which.
        process: ProcessId,
        /// How.
        exit: Exit,
        /// It was told to.
        expected: bool,
    },
    /// A revision serves.
    RevisionServes {
        /// Its module.
        module: String,
        /// Which.
        revision: RevisionId,
        /// How many functions it has.
        functions: usize,
    },
    /// A revision does not load; the one before it, if any, goes on.
    RevisionFailed {
        /// Its module.
        module: String,
        /// Which.
        revision: RevisionId,
        /// Why.
        failure: v1::Failure,
        /// An older one goes on serving.
        still_serving: bool,
    },
    /// A line that a function wrote to the log.
    FunctionLog {
        /// Its module.
        module: String,
        /// The line.
        log: v1::Log,
    },
    /// Anything else.
    Note {
        /// How much it matters.
        level: Level,
        /// A sentence.
        text: String,
    },
}
