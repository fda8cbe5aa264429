//! HTTP in, calls out.
//!
//! The gateway turns requests into calls and answers back. It decides nothing about where a call runs, when, or
//! whether there is room: that is the node's. It knows [`bourse_wire`] only.
//!
//! ```text
//! client  -> gateway: request
//! gateway -> daemon:  Event::Call { call, ticket, reply }      daemon -> gateway: Answer (through reply)
//! gateway -> daemon:  Event::Cancel { ticket }                 the client went away before the answer
//! gateway -> daemon:  Event::Ask { call, ask, ticket, reply }   daemon -> gateway: Standing (through reply)
//! gateway -> daemon:  Event::Publish, Forget                   daemon -> gateway: Answer (through reply)
//! gateway -> daemon:  Event::Grid { change, reply }           daemon -> gateway: JSON (through reply)
//! gateway -> daemon:  Event::Inspect { what, reply }           daemon -> gateway: JSON (through reply)
//! daemon  -> gateway: set_routes, set_ready
//! ```
//!
//! Events go through an unbounded channel that is bounded all the same: a connection has one request at a time, so
//! there are never more than [`Limits::connections_max`] calls, and each is followed by at most one `Cancel`.
//!
//! It never retries, queues, or reorders; a call that the daemon was told of is answered exactly once, or
//! cancelled exactly once. What a stranger sends gets an answer or a closed connection, never a panic.
//!
//! | module | holds |
//! |---|---|
//! | [`pattern`], [`routes`] | `POST /kv/{key}`: parsing, the table, suggestions for near names |
//! | `signature`, `bind` | what a function takes, and fitting a request to it |
//! | `json` | JSON text to CBOR and back, without a tree in between |
//! | `calls`, `events`, [`standing`] | durable calls: how they stand, what can be done about them |
//! | `publish` | messages to queues and topics; what listens |
//! | `terms` | timeout, queue wait and version of one call |
//! | `answer`, [`problem`] | results and failures as HTTP |
//! | [`guard`], `cors` | Host, Origin and bearer token; what browsers are told |
//! | `trace` | W3C trace context |
//! | `openapi` | `/openapi.json` |
//! | [`metrics`] | names, and cached handles |
//! | `gateway`, `exchange`, `reply` | what connections share; one request from its head to its answer |
//! | `body`, `uri` | bounded bodies, strict percent-encoding |
//! | `upgrade`, `websocket`, [`sockets`] | WebSocket: opening, one connection, all of them and their groups |
//! | [`serve`], `pulse` | sockets: accept, time out, drain |
//! | [`smtp`] | mail |

mod answer;
mod bind;
mod body;
mod calls;
mod cors;
mod deployments;
mod events;
mod exchange;
mod gateway;
pub mod guard;
mod json;
mod members;
pub mod metrics;
mod openapi;
pub mod pattern;
pub mod problem;
mod publish;
mod pulse;
mod reply;
pub mod routes;
pub mod serve;
mod signature;
pub mod smtp;
pub mod sockets;
pub mod standing;
mod terms;
mod trace;
mod upgrade;
mod uri;
mod websocket;

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_wire::id::{CallId, FunctionName};
use bourse_wire::options::Channel;
use bourse_wire::v1;
use bytes::Bytes;
use tokio::sync::oneshot;

pub use gateway::{Config, Gateway};
pub use guard::Auth;
pub use routes::{Deployed, Held, LeftOut, Routes};
pub use serve::Listener;
pub use standing::{STATUSES, Standing};

/// A call that a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which function; one of those in the current [`Routes`].
    pub function: FunctionName,
    /// Deterministic CBOR of [`bourse_wire::arguments`]; checked against the function's signature, unless the
    /// client sent CBOR itself.
    pub arguments: Bytes,
    /// How long the client waits, where it said so.
    pub timeout: Option<Duration>,
    /// How long the call may wait for an instance, where the client said so.
    pub queue_wait: Option<Duration>,
    /// How far it may travel; unspecified: as its function says.
    pub horizon: v1::Horizon,
    /// After how long capacity is asked for, where the client said so.
    pub scale_after: Option<Duration>,
    /// What becomes of it if there is no instance.
    pub overflow: v1::Overflow,
    /// W3C trace context; always valid.
    pub traceparent: String,
    /// Pass-through context.
    pub context: BTreeMap<String, String>,
    /// A semver requirement on the module's version, as the client gave it; empty takes any.
    pub version: String,
    /// The client waits for the id only.
    pub asynchronous: bool,
    /// A second call of the function with this key is the first one. Empty: none.
    pub idempotency_key: String,
    /// It is not run before that.
    pub delay: Option<Duration>,
    /// What wakes the function, unless that is a call.
    pub trigger: Option<Box<v1::Trigger>>,
}

/// A message that a request publishes.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Where it goes.
    pub to: Channel,
    /// CBOR; empty reads as null. Checked, unless the client sent CBOR itself.
    pub payload: Bytes,
    /// Nothing is run before that.
    pub delay: Option<Duration>,
    /// W3C trace context; always valid.
    pub traceparent: String,
    /// A second message to the queue with this key is the first one. Empty: none.
    pub idempotency_key: String,
}

/// Names a call between the gateway and the daemon. Counts up from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the gateway tells the daemon.
#[derive(Debug)]
pub enum Event {
    /// Run a function, then answer through `reply`. A reply that is dropped reads as an internal error.
    Call {
        /// What to run.
        call: Call,
        /// Its name in a later `Cancel`.
        ticket: Ticket,
        /// Where its answer goes.
        reply: oneshot::Sender<Answer>,
    },
    /// Publish a message. The result is a CBOR map that is shown as it is.
    Publish {
        /// What.
        message: Message,
        /// Its name.
        ticket: Ticket,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer>,
    },
    /// Let a module that is gone listen no longer. The result is a CBOR map that is shown as it is.
    Forget {
        /// Which.
        module: String,
        /// Its name.
        ticket: Ticket,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer>,
    },
    /// Say, or do, something about a durable call.
    Ask {
        /// Which.
        call: CallId,
        /// What.
        ask: Ask,
        /// Its name in a later `Cancel`.
        ticket: Ticket,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Standing, v1::Failure>>,
    },
    /// Nobody waits for this call's answer any more. Comes at most once, and never after an answer was read.
    Cancel {
        /// Which call.
        ticket: Ticket,
    },
    /// Put a bundle on the grid, or do something with one.
    Deploy {
        /// The deployment's name, not checked.
        name: String,
        /// What is to be done.
        deploy: Deploy,
        /// Where the answer goes, which is shown as it is.
        reply: oneshot::Sender<Result<serde_json::Value, v1::Failure>>,
    },
    /// Change who belongs to the grid, or where its store is.
    Grid {
        /// How.
        change: GridChange,
        /// Where the answer goes, which is shown as it is.
        reply: oneshot::Sender<Result<serde_json::Value, v1::Failure>>,
    },
    /// Say how something stands.
    Inspect {
        /// What.
        what: Inspect,
        /// Where the JSON goes.
        reply: oneshot::Sender<Result<serde_json::Value, v1::Failure>>,
    },
}

/// What is to be done with a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deploy {
    /// Have a bundle served in its name.
    Put {
        /// Its files, packed; not looked into.
        bundle: Bytes,
        /// On so many nodes; `None`: on all.
        count: Option<u32>,
        /// That have all of these labels.
        labels: Vec<String>,
        /// At first on so many.
        canary: Option<u32>,
    },
    /// Have it served no longer.
    Remove,
    /// Have served what was before.
    Rollback,
    /// Have what some nodes serve served by all.
    Promote,
}

/// What is to be done with the grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GridChange {
    /// Its holder may be a node of the grid.
    Admit {
        /// A public key, in hexadecimal digits, not checked.
        key: String,
        /// For people.
        name: String,
    },
    /// Its holder may do nothing any more.
    Revoke {
        /// A public key, in hexadecimal digits, not checked.
        key: String,
    },
    /// This node's store is the grid's from now on.
    KeepStore,
    /// Make a ticket.
    Invite {
        /// How long it is good for.
        lifetime: Duration,
        /// For people.
        name: String,
    },
}

/// What is asked about a durable call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// How it stands.
    Look,
    /// How it ends. Answered then.
    Await,
    /// That it ends.
    Cancel,
    /// That a dead letter is tried again.
    Replay,
    /// That a dead letter is forgotten.
    Purge,
}

/// Which durable calls to list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Only those of this status; see [`standing::STATUSES`].
    pub status: Option<String>,
    /// Only those of this function, or of this module.
    pub function: Option<String>,
    /// Only those made before this one.
    pub before: Option<CallId>,
    /// At most so many.
    pub rows_max: usize,
}

/// What can be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspect {
    /// `GET /v1/modules`.
    Modules,
    /// `GET /v1/instances`.
    Instances,
    /// `GET /v1/status`.
    Status,
    /// `GET /v1/calls`.
    Calls(Listing),
    /// `GET /v1/queues`.
    Queues,
    /// `GET /v1/triggers`.
    Triggers,
    /// `GET /v1/nodes`.
    Nodes,
    /// `GET /v1/market`.
    Market,
    /// `GET /v1/members`.
    Members,
    /// `GET /v1/store`.
    Store,
    /// `GET /v1/deployments`.
    Deployments,
}

/// How a call ended.
#[derive(Debug)]
pub struct Answer {
    /// Its id; `None` where it was refused before it had one.
    pub call: Option<CallId>,
    /// What it gave.
    pub result: Result<Success, v1::Failure>,
}

/// A function's result.
#[derive(Clone, Debug, Default)]
pub struct Success {
    /// CBOR, unless `content_type` says otherwise. Empty CBOR reads as null.
    pub payload: Bytes,
    /// Empty means `application/cbor`; anything else is passed through as it is.
    pub content_type: String,
    /// How the function wants it told over HTTP.
    pub http: Option<v1::HttpResponse>,
}

/// The bounds of everything a client can make grow or last.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at once. Past it the gateway stops accepting: those who wait do so in the kernel's
    /// backlog, at no cost here, and are served once a connection ends. Answering 503 instead would need a
    /// descriptor and a task for each of them, which is what has run out.
    pub connections_max: usize,
    /// A request body, in bytes. Past it: 413.
    pub body_bytes_max: usize,
    /// All request bodies that are held until their requests are answered, in bytes, as far as they came in more than one
    /// piece. Past it: 503.
    pub bodies_bytes_max: usize,
    /// A request's line and headers, in bytes. Past it: 431.
    pub header_bytes_max: usize,
    /// From a request's first byte to the end of its headers. Past it the connection is closed.
    pub header_read_max: Duration,
    /// Between two pieces of a body. Past it the connection is closed.
    pub body_idle_max: Duration,
    /// Between two requests on a connection. Past it the connection is closed.
    pub keep_alive_max: Duration,
    /// A client that takes nothing of its answer. Past it the connection is closed.
    pub write_stall_max: Duration,
    /// Between two pings of a WebSocket connection.
    pub socket_ping: Duration,
    /// From the beginning of a shutdown until what is still in flight is dropped.
    pub drain_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            body_bytes_max: 16 * 1024 * 1024,
            bodies_bytes_max: 1024 * 1024 * 1024,
            header_bytes_max: 64 * 1024,
            header_read_max: Duration::from_secs(10),
            body_idle_max: Duration::from_secs(30),
            keep_alive_max: Duration::from_secs(75),
            write_stall_max: Duration::from_secs(30),
            socket_ping: Duration::from_secs(20),
            drain_max: Duration::from_secs(30),
        }
    }
}
