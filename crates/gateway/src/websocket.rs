//! One WebSocket connection, from its opening to its end.
//!
//! ```text
//! client -> connection: messages      connection -> function: `message`, one call after the other, in order
//! function -> connection: what it returns; `bourse.send`, through the queue of [`crate::sockets`]
//! connection -> function: `close`, a durable call, when the client is gone or the connection was closed
//! ```
//!
//! The socket is not read further while [`AHEAD`] messages wait: the client feels that. What was read is handed to the
//! function even if the client has gone since.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::v1;
use bourse_wire::value::Value;
use bytes::Bytes;
use futures_util::{Sink, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::gateway::INLINE_BYTES_MAX;
use crate::routes::Target;
use crate::serve::Stage;
use crate::signature::Type;
use crate::sockets::{Ending, Next, REASON_BYTES_MAX, Registered};
use crate::{Answer, Call, Event, Gateway, Success, Ticket, bind, json, problem};

/// Messages of one connection that were read and wait for the one before them.
const AHEAD: usize = 8;
/// Pings without an answer after which the client counts as gone.
const PINGS_MISSED_MAX: u32 = 2;
/// How long a client has to answer a close.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// The buffer that an idle connection has for what it reads.
const READ_BUFFER_BYTES: usize = 2 * 1024;
/// Small messages are written together, up to this.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// Pauses before a `close` is told again that the daemon does not accept.
const CLOSE_PAUSES: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// The code of a connection that was closed without one (RFC 6455 §7.4.1); never sent.
const NO_CODE: u16 = 1005;
/// The code of a connection that broke (RFC 6455 §7.4.1); never sent.
const BROKEN: u16 = 1006;

/// What a connection's events are told to, and what is the same in all of them.
pub(crate) struct Caller {
    pub(crate) gateway: Gateway,
    pub(crate) target: Arc<Target>,
    pub(crate) path: Vec<(String, String)>,
    pub(crate) headers: Option<Bytes>,
    pub(crate) request: Option<Bytes>,
    pub(crate) traceparent: String,
}

/// A connection that was let in.
pub(crate) struct Socket {
    caller: Caller,
    registered: Registered,
    ending: Ending,
}

/// What has come over a connection and is not answered yet.
#[derive(Default)]
struct Heard {
    current: Option<Box<Pending>>,
    waiting: VecDeque<Message>,
}

impl Heard {
    /// The client is gone, or not to be heard any more: what it has said before counts all the same.
    async fn finish(mut self, caller: &Caller, id: &str) {
        loop {
            if let Some(pending) = &mut self.current {
                // There is nobody who could be told.
                let _ = pending.answer().await;
            }
            let Some(message) = self.waiting.pop_front() else { return };
            let told = caller.tell(id, &Told::Message(message), caller.is_durable());
            self.current = told.ok().map(Box::new);
        }
    }
}

/// Something that the function is told.
enum Told {
    Open,
    Message(Message),
    Close(u16, String),
}

impl Told {
    fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Message(_) => "message",
            Self::Close(..) => "close",
        }
    }
}

/// A call that was made, until its answer. Whoever drops it before cancels the call.
struct Pending {
    gateway: Gateway,
    ticket: Ticket,
    reply: oneshot::Receiver<Answer>,
    answered: bool,
}

impl Pending {
    async fn answer(&mut self) -> (Option<CallId>, Result<Success, v1::Failure>) {
        let answer = (&mut self.reply).await;
        self.answered = true;
        match answer {
            Ok(Answer { call, result }) => (call, result),
            Err(_) => (None, Err(Code::Internal.because("the daemon dropped the call"))),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.answered {
            // A daemon that is gone has no calls to cancel.
            let _ = self.gateway.shared.events.send(Event::Cancel { ticket: self.ticket });
        }
    }
}

impl Caller {
    /// Asks the function whether it wants the connection.
    pub(crate) async fn open(&self, id: &str) -> (Option<CallId>, Result<Success, v1::Failure>) {
        match self.tell(id, &Told::Open, false) {
            Ok(mut pending) => pending.answer().await,
            Err(failure) => (None, Err(failure)),
        }
    }

    /// Whether messages are durable calls.
    fn is_durable(&self) -> bool {
        self.target.websocket.as_ref().is_some_and(|w| w.durable)
    }

    fn tell(&self, id: &str, told: &Told, durable: bool) -> Result<Pending, v1::Failure> {
        let shared = &self.gateway.shared;
        // The function as it is now: a connection may outlive many deploys.
        let routes = self.gateway.routes();
        let target = routes.function(self.target.name.as_str()).unwrap_or(&self.target);
        let text = |t: &str| Value::Text(t.to_owned()).to_cbor();
        let null = || Value::Null.to_cbor();
        let mut named = vec![("event", text(told.name())), ("connection", text(id))];
        match told {
            Told::Message(message) => named.push(("message", encode(target, message)?)),
            Told::Open => named.push(("message", null())),
            Told::Close(code, reason) => named.extend([
                ("message", null()),
                ("code", Value::Int(i128::from(*code)).to_cbor()),
                ("reason", text(reason)),
            ]),
        }
        named.extend(self.headers.clone().map(|headers| ("headers", headers)));
        named.extend(self.request.clone().map(|request| ("request", request)));
        let arguments = bind::event(&target.signature, named, &self.path)?;
        let route = self.target.websocket.as_ref().map(|w| w.path.clone()).unwrap_or_default();
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut facts: std::collections::HashMap<_, _> = self.path.iter().cloned().collect();
        facts.extend([fact("connection", id), fact("event", told.name())]);
        let call = Call {
            function: target.name.clone(),
            arguments,
            timeout: None,
            queue_wait: None,
            horizon: v1::Horizon::Unspecified,
            scale_after: None,
            overflow: v1::Overflow::Queue,
            traceparent: self.traceparent.clone(),
            context: BTreeMap::new(),
            version: String::new(),
            asynchronous: durable,
            idempotency_key: String::new(),
            delay: None,
            trigger: Some(Box::new(v1::Trigger {
                kind: "websocket".to_owned(),
                name: route,
                at_ms: 0,
                facts: facts.into_iter().collect(),
            })),
        };
        let ticket = Ticket(shared.tickets.fetch_add(1, Ordering::Relaxed));
        let (reply, answered) = oneshot::channel();
        if shared.events.send(Event::Call { call, ticket, reply }).is_err() {
            return Err(Code::ShuttingDown.because("the daemon is stopping"));
        }
        Ok(Pending { gateway: self.gateway.clone(), ticket, reply: answered, answered: false })
    }

    /// Tells that the connection has ended, so that it is not lost.
    async fn close(&self, id: &str, code: u16, reason: String) {
        let told = Told::Close(code, reason);
        let mut pauses = CLOSE_PAUSES.iter();
        loop {
            let result = match self.tell(id, &told, true) {
                Ok(mut pending) => pending.answer().await.1,
                Err(failure) => Err(failure),
            };
            let Err(failure) = result else { return };
            let again = matches!(failure.kind(), Code::StoreUnavailable | Code::QueueFull | Code::Starting);
            match pauses.next().filter(|_| again) {
                Some(pause) => sleep(Duration::from_secs(*pause)).await,
                None => {
                    tracing::error!(function = %self.target.name, connection = id, "the end of a connection could not be told: {}", failure.message);
                    return;
                }
            }
        }
    }
}

/// A message as the function's parameter wants it: one of a dict or list is JSON text, or CBOR.
fn encode(target: &Target, message: &Message) -> Result<Bytes, v1::Failure> {
    let kind = target.signature.position("message").map(|i| target.signature.parameters[i].hint.kind);
    let structured = matches!(kind, Some(Type::Dict | Type::List | Type::Int | Type::Float | Type::Bool));
    let bad = |why: String| Code::BadArguments.because(format!("the message is not {why}"));
    match message {
        Message::Text(text) if structured => {
            json::item(text.as_bytes()).map_err(|e| bad(format!("JSON: {e}")))
        }
        Message::Text(text) if kind == Some(Type::Bytes) => {
            Ok(Value::Bytes(Bytes::copy_from_slice(text.as_bytes())).to_cbor())
        }
        Message::Text(text) => {
            let mut cbor = Vec::with_capacity(text.len() + 9);
            json::text(&mut cbor, text);
            Ok(cbor.into())
        }
        Message::Binary(bytes) if structured => match Value::from_cbor(bytes) {
            Ok(_) => Ok(bytes.clone()),
            Err(e) => Err(bad(format!("CBOR: {e}"))),
        },
        Message::Binary(_) if kind == Some(Type::Str) => Err(bad("text".to_owned())),
        Message::Binary(bytes) => {
            let mut cbor = Vec::with_capacity(bytes.len() + 9);
            json::head(&mut cbor, 2, bytes.len() as u64);
            cbor.extend_from_slice(bytes);
            Ok(cbor.into())
        }
        _ => unreachable!("only messages are told"),
    }
}

impl Socket {
    pub(crate) fn new(caller: Caller, registered: Registered) -> Self {
        let ending = Ending::new(&caller.gateway.shared.sockets);
        Self { caller, registered, ending }
    }

    /// Serves it until its end. `read`: what has come after the request.
    pub(crate) async fn run(
        self: Box<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        read: Bytes,
        mut stage: watch::Receiver<Stage>,
    ) {
        let limits = &self.caller.gateway.config().limits;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(limits.body_bytes_max))
            .max_frame_size(Some(limits.body_bytes_max));
        let mut socket =
            WebSocketStream::from_partially_read(stream, read.into(), Role::Server, Some(config)).await;
        let over = async {
            while *stage.borrow_and_update() != Stage::Over {
                if stage.changed().await.is_err() {
                    return;
                }
            }
        };
        let mut heard = Heard::default();
        let (code, reason) = tokio::select! {
            end = self.talk(&mut socket, &mut heard) => end,
            () = over => (1001, String::new()),
        };
        drop(socket);
        let Self { caller, registered, ending } = *self;
        let id = registered.line.id.clone();
        drop(registered);
        heard.finish(&caller, &id).await;
        caller.close(&id, code, reason).await;
        drop(ending);
    }

    /// Until one of both ends closes; how.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: &mut WebSocketStream<S>,
        heard: &mut Heard,
    ) -> (u16, String) {
        let limits = &self.caller.gateway.config().limits;
        let line = &self.registered.line;
        let mut missed = 0;
        let mut timer = pin!(sleep_until(Instant::now() + limits.socket_ping));
        loop {
            if heard.current.is_none()
                && let Some(message) = heard.waiting.pop_front()
            {
                match self.caller.tell(&line.id, &Told::Message(message), self.caller.is_durable()) {
                    Ok(pending) => heard.current = Some(Box::new(pending)),
                    Err(failure) => {
                        let error = self.error(&failure, None);
                        if let Some(end) = self.write(socket, error).await {
                            return end;
                        }
                    }
                }
                continue;
            }
            let reads = heard.waiting.len() < AHEAD;
            let answers = heard.current.is_some();
            let end = tokio::select! {
                (call, result) = answer(&mut heard.current), if answers => {
                    heard.current = None;
                    self.reply(socket, call, result).await
                }
                () = line.wake.notified() => self.write_queued(socket).await,
                frame = socket.next(), if reads => {
                    missed = 0;
                    match frame {
                        Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                            heard.waiting.push_back(message);
                            None
                        }
                        Some(Ok(Message::Close(frame))) => {
                            // The answer to it is written with what is read next, which is the end.
                            drain(socket).await;
                            let code = frame.as_ref().map_or(NO_CODE, |f| u16::from(f.code));
                            Some((code, frame.map(|f| f.reason.to_string()).unwrap_or_default()))
                        }
                        Some(Ok(_)) => None,
                        Some(Err(error)) => Some(say_why(socket, &error).await),
                        None => Some((BROKEN, String::new())),
                    }
                }
                () = &mut timer => {
                    timer.as_mut().reset(Instant::now() + limits.socket_ping);
                    // While it is not read, its answers to pings are not seen either.
                    missed += u32::from(reads);
                    if missed > PINGS_MISSED_MAX {
                        Some((BROKEN, "it did not answer pings".to_owned()))
                    } else {
                        self.write(socket, Message::Ping(Bytes::new())).await
                    }
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Tells the client what came of a message. What the function has sent comes before what it returns.
    async fn reply<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: &mut WebSocketStream<S>,
        call: Option<CallId>,
        result: Result<Success, v1::Failure>,
    ) -> Option<(u16, String)> {
        if let Some(end) = self.write_queued(socket).await {
            return Some(end);
        }
        let reply = match result {
            Ok(_) if self.caller.is_durable() => None,
            Ok(success) => reply(success).await,
            Err(failure) => Some(self.error(&failure, call)),
        };
        self.write(socket, reply?).await
    }

    /// Writes what is queued. The connection's end, if that was queued or nothing can be written any more.
    async fn write_queued<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: &mut WebSocketStream<S>,
    ) -> Option<(u16, String)> {
        let limit = self.caller.gateway.config().limits.write_stall_max;
        let mut fed = false;
        while let Some(next) = self.registered.line.next() {
            match next {
                Next::Send(message) => {
                    if let Some(end) = bounded(limit, socket.feed(message)).await {
                        return Some(end);
                    }
                    fed = true;
                }
                Next::Close(code, reason) => {
                    say_goodbye(socket, code, &reason).await;
                    return Some((code, reason));
                }
            }
        }
        if fed { bounded(limit, Flush::flush(socket)).await } else { None }
    }

    async fn write<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: &mut WebSocketStream<S>,
        message: Message,
    ) -> Option<(u16, String)> {
        bounded(self.caller.gateway.config().limits.write_stall_max, socket.send(message)).await
    }

    /// A call's failure, as the client is told.
    fn error(&self, failure: &v1::Failure, call: Option<CallId>) -> Message {
        let problem = problem::to_json(failure, call, self.caller.gateway.config().dev);
        Message::text(serde_json::json!({ "error": problem }).to_string())
    }
}

/// Flushing, without a message type to be inferred.
trait Flush {
    fn flush(&mut self) -> impl Future<Output = Result<(), Error>>;
}

impl<T: Sink<Message, Error = Error> + Unpin> Flush for T {
    fn flush(&mut self) -> impl Future<Output = Result<(), Error>> {
        futures_util::SinkExt::<Message>::flush(self)
    }
}

async fn answer(current: &mut Option<Box<Pending>>) -> (Option<CallId>, Result<Success, v1::Failure>) {
    match current {
        Some(pending) => pending.answer().await,
        None => std::future::pending().await,
    }
}

/// The connection's end, if this does not come to one in time.
async fn bounded(limit: Duration, write: impl Future<Output = Result<(), Error>>) -> Option<(u16, String)> {
    match timeout(limit, write).await {
        Ok(Ok(())) => None,
        Ok(Err(_)) => Some((BROKEN, String::new())),
        Err(_) => Some((BROKEN, format!("it took nothing for {limit:?}"))),
    }
}

/// Closes a connection because of what came over it.
async fn say_why<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    error: &Error,
) -> (u16, String) {
    let (code, reason) = match error {
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            (1009, format!("a message has at most {max_size} bytes"))
        }
        Error::Utf8(_) => (1007, "the text is not UTF-8".to_owned()),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return (BROKEN, String::new()),
        Error::Protocol(error) => (1002, error.to_string()),
        _ => return (BROKEN, String::new()),
    };
    say_goodbye(socket, code, &reason).await;
    (code, reason)
}

/// Reads a connection to its end, not for long.
async fn drain<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) {
    let _ = timeout(CLOSE_MAX, async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

/// Sends a close, and waits for the client's, not for long.
async fn say_goodbye<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    code: u16,
    reason: &str,
) {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    let close = socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
    if matches!(timeout(CLOSE_MAX, close).await, Ok(Ok(()))) {
        drain(socket).await;
    }
}

/// What a function has returned, as a message: nothing if that is None.
async fn reply(success: Success) -> Option<Message> {
    let Success { payload, content_type, .. } = success;
    if !content_type.is_empty() && content_type != "application/cbor" {
        return Some(match std::str::from_utf8(&payload) {
            Ok(text) if !content_type.starts_with("application/octet-stream") => Message::text(text),
            _ => Message::Binary(payload),
        });
    }
    if payload.len() <= INLINE_BYTES_MAX {
        return message(&payload);
    }
    tokio::task::spawn_blocking(move || message(&payload)).await.ok().flatten()
}

fn message(cbor: &[u8]) -> Option<Message> {
    match cbor.first().map(|first| first >> 5) {
        None => None,
        Some(2 | 3) => match Value::from_cbor(cbor) {
            Ok(Value::Text(text)) => Some(Message::text(text)),
            Ok(Value::Bytes(bytes)) => Some(Message::Binary(bytes)),
            _ => None,
        },
        _ if matches!(cbor, [0xf6 | 0xf7]) => None,
        _ => Some(Message::text(String::from_utf8(json::from_cbor(cbor).ok()?).ok()?)),
    }
}
