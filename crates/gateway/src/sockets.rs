//! Open WebSocket connections and their groups: what can be sent to, and by which name.
//!
//! ```text
//! daemon     -> sockets: send, close, join, leave          answered at once
//! connection -> sockets: registers itself, takes what is queued for it, and leaves
//! ```
//!
//! All is in memory, with the connections. Sending puts a message into a connection's queue, which is bounded: a
//! connection that does not read is refused more, and closed when it has taken nothing for
//! [`Limits::write_stall_max`](crate::Limits::write_stall_max). A connection that is gone is nobody's error: nothing was
//! sent then, and that is what the sender is told.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bourse_wire::failure::Code;
use bourse_wire::v1;
use bourse_wire::value::Value;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite;

/// Messages that wait for one connection.
pub const QUEUED_MESSAGES_MAX: usize = 256;
/// Their bytes. One message is let in whatever its size.
pub const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Groups that one connection is in.
pub const GROUPS_MAX: usize = 64;
/// The longest name of a group.
pub const GROUP_BYTES_MAX: usize = 255;
/// The longest reason for a close (RFC 6455 §5.5: a control frame has 125 bytes).
pub const REASON_BYTES_MAX: usize = 123;
/// Connections that a list shows.
pub const LISTED_MAX: usize = 1_000;

/// Who a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// One connection.
    Connection(String),
    /// All that are in a group.
    Group(String),
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("group:") {
            Some(group) => check_group(group).map(|()| Self::Group(group.to_owned())),
            None if text.is_empty() => Err("`to` names a connection, or \"group:NAME\"".to_owned()),
            None => Ok(Self::Connection(text.to_owned())),
        }
    }
}

fn check_group(name: &str) -> Result<(), String> {
    match name.len() {
        1..=GROUP_BYTES_MAX => Ok(()),
        n => Err(format!("the name of a group has 1 to {GROUP_BYTES_MAX} bytes, not {n}")),
    }
}

/// A message, encoded once for however many it goes to.
#[derive(Clone, Debug)]
pub struct Message(pub(crate) tungstenite::Message);

impl Message {
    /// Text as text, bytes as binary, everything else as JSON text.
    pub fn of(value: &Value) -> Self {
        Self(match value {
            Value::Text(text) => tungstenite::Message::text(text.as_str()),
            Value::Bytes(bytes) => tungstenite::Message::Binary(bytes.clone()),
            other => tungstenite::Message::text(other.to_json().to_string()),
        })
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Connections that have it in their queue, or on their way.
    pub sent: usize,
    /// Members of the group whose queue was full: they do not get it.
    pub full: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Sockets {
    all: Mutex<All>,
    /// Connections whose end has not been told.
    closing: AtomicUsize,
}

#[derive(Debug, Default)]
struct All {
    lines: HashMap<Arc<str>, Arc<Line>>,
    groups: HashMap<String, BTreeMap<Arc<str>, Arc<Line>>>,
    /// No new connection is taken.
    shut: bool,
}

/// One connection, as senders see it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) id: Arc<str>,
    /// The function that it calls.
    function: String,
    /// Its path, as it was requested.
    path: String,
    opened: Timestamp,
    queue: Mutex<Queue>,
    /// There is something in the queue.
    pub(crate) wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<tungstenite::Message>,
    bytes: usize,
    close: Option<(u16, String)>,
    groups: BTreeSet<String>,
}

/// What a connection is to do next.
pub(crate) enum Next {
    Send(tungstenite::Message),
    Close(u16, String),
}

impl Sockets {
    /// Sends a message. Only a single connection whose queue is full is a failure.
    pub fn send(&self, to: &To, message: Message) -> Result<Sent, v1::Failure> {
        let all = self.all();
        let mut sent = Sent::default();
        match to {
            To::Connection(id) => {
                let Some(line) = all.lines.get(id.as_str()) else { return Ok(sent) };
                if !line.push(message.0) {
                    return Err(Code::QueueFull
                        .because(format!("the connection {id} has not taken what was sent to it before"))
                        .hint("send less, or later: a connection that takes nothing is closed")
                        .retry_after(std::time::Duration::from_secs(1)));
                }
                sent.sent = 1;
            }
            To::Group(group) => {
                for line in all.groups.get(group).into_iter().flat_map(BTreeMap::values) {
                    match line.push(message.0.clone()) {
                        true => sent.sent += 1,
                        false => sent.full += 1,
                    }
                }
            }
        }
        Ok(sent)
    }

    /// Has a connection closed, after what is queued for it; how many were there to be closed.
    pub fn close(&self, id: &str, code: u16, reason: &str) -> Result<usize, String> {
        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            return Err(format!("{code} is not a code that a connection can be closed with (RFC 6455 §7.4)"));
        }
        if reason.len() > REASON_BYTES_MAX {
            return Err(format!("a reason has at most {REASON_BYTES_MAX} bytes"));
        }
        let Some(line) = self.all().lines.get(id).cloned() else { return Ok(0) };
        line.close(code, reason);
        Ok(1)
    }

    /// Puts a connection into a group; 0 if it is gone.
    pub fn join(&self, id: &str, group: &str) -> Result<usize, String> {
        check_group(group)?;
        let mut all = self.all();
        let Some(line) = all.lines.get(id).cloned() else { return Ok(0) };
        let mut queue = line.queue();
        if queue.groups.len() >= GROUPS_MAX && !queue.groups.contains(group) {
            return Err(format!("a connection is in at most {GROUPS_MAX} groups"));
        }
        queue.groups.insert(group.to_owned());
        drop(queue);
        all.groups.entry(group.to_owned()).or_default().insert(line.id.clone(), line);
        Ok(1)
    }

    /// Takes a connection out of a group; 0 if it was not there.
    pub fn leave(&self, id: &str, group: &str) -> usize {
        let mut all = self.all();
        let Some(line) = all.lines.get(id).cloned() else { return 0 };
        let was = line.queue().groups.remove(group);
        all.leave(&line.id, group);
        usize::from(was)
    }

    /// Connections that are open, or being opened.
    pub fn len(&self) -> usize {
        self.all().lines.len()
    }

    /// None is open, and the end of each has been told.
    pub fn is_closed(&self) -> bool {
        self.closing.load(Ordering::Relaxed) == 0
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes all connections, and takes no new ones: the daemon stops.
    pub fn shut(&self) {
        let mut all = self.all();
        all.shut = true;
        for line in all.lines.values() {
            line.close(1001, "the daemon is stopping");
        }
    }

    /// The first so many, as `GET /v1/connections` shows them.
    pub(crate) fn list(&self) -> Json {
        let mut lines: Vec<_> = self.all().lines.values().cloned().collect();
        let total = lines.len();
        lines.sort_by(|a, b| (a.opened, &a.id).cmp(&(b.opened, &b.id)));
        lines.truncate(LISTED_MAX);
        let one = |line: Arc<Line>| {
            let queue = line.queue();
            json!({
                "connection": &*line.id,
                "function": line.function,
                "path": line.path,
                "opened_at": line.opened.to_string(),
                "groups": queue.groups,
                "queued": queue.messages.len(),
            })
        };
        json!({"total": total, "connections": lines.into_iter().map(one).collect::<Vec<_>>()})
    }

    /// A new connection; `None` if none is taken any more.
    pub(crate) fn register(self: &Arc<Self>, id: String, function: &str, path: &str) -> Option<Registered> {
        let line = Arc::new(Line {
            id: id.into(),
            function: function.to_owned(),
            path: path.to_owned(),
            opened: Timestamp::now(),
            queue: Mutex::default(),
            wake: Notify::new(),
        });
        let mut all = self.all();
        if all.shut {
            return None;
        }
        all.lines.insert(line.id.clone(), line.clone());
        Some(Registered { sockets: self.clone(), line })
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn leave(&mut self, id: &str, group: &str) {
        if let Some(members) = self.groups.get_mut(group) {
            members.remove(id);
            if members.is_empty() {
                self.groups.remove(group);
            }
        }
    }
}

impl Line {
    /// Whether there was room.
    fn push(&self, message: tungstenite::Message) -> bool {
        let mut queue = self.queue();
        let full = queue.messages.len() >= QUEUED_MESSAGES_MAX
            || (!queue.messages.is_empty() && queue.bytes + message.len() > QUEUED_BYTES_MAX);
        if full {
            return false;
        }
        queue.bytes += message.len();
        queue.messages.push_back(message);
        drop(queue);
        self.wake.notify_one();
        true
    }

    fn close(&self, code: u16, reason: &str) {
        self.queue().close.get_or_insert_with(|| (code, reason.to_owned()));
        self.wake.notify_one();
    }

    /// What the connection is to do next. The close comes after all that was sent before it.
    pub(crate) fn next(&self) -> Option<Next> {
        let mut queue = self.queue();
        if let Some(message) = queue.messages.pop_front() {
            queue.bytes -= message.len();
            if queue.messages.is_empty() {
                queue.messages = VecDeque::new(); // Most connections are idle most of the time.
            }
            return Some(Next::Send(message));
        }
        queue.close.take().map(|(code, reason)| Next::Close(code, reason))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a connection until its end has been told.
pub(crate) struct Ending(Arc<Sockets>);

impl Ending {
    pub(crate) fn new(sockets: &Arc<Sockets>) -> Self {
        sockets.closing.fetch_add(1, Ordering::Relaxed);
        Self(sockets.clone())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.closing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that can be sent to, as long as this lives.
pub(crate) struct Registered {
    sockets: Arc<Sockets>,
    pub(crate) line: Arc<Line>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut all = self.sockets.all();
        all.lines.remove(&self.line.id);
        let groups = std::mem::take(&mut self.line.queue().groups);
        for group in groups {
            all.leave(&self.line.id, &group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sockets: &Sockets, to: &str, text: &str) -> Result<Sent, v1::Failure> {
        sockets.send(&to.parse().unwrap(), Message::of(&Value::Text(text.to_owned())))
    }

    fn sent(sent: usize, full: usize) -> Sent {
        Sent { sent, full }
    }

    fn register(sockets: &Arc<Sockets>, id: &str) -> Registered {
        sockets.register(id.to_owned(), "chat.talk", "/chat").unwrap()
    }

    #[test]
    fn groups_hold_who_is_there() {
        let sockets = Arc::new(Sockets::default());
        let a = register(&sockets, "a");
        let b = register(&sockets, "b");
        assert_eq!(sockets.join("a", "room"), Ok(1));
        assert_eq!(sockets.join("b", "room"), Ok(1));
        assert_eq!(sockets.join("nobody", "room"), Ok(0));
        assert_eq!(text(&sockets, "group:room", "hi"), Ok(sent(2, 0)));
        assert_eq!(text(&sockets, "a", "hi"), Ok(sent(1, 0)));
        assert_eq!((sockets.leave("a", "room"), sockets.leave("a", "room")), (1, 0));
        assert_eq!(text(&sockets, "group:room", "hi"), Ok(sent(1, 0)));
        drop(b);
        assert_eq!(text(&sockets, "group:room", "hi"), Ok(sent(0, 0)));
        assert_eq!(text(&sockets, "b", "hi"), Ok(sent(0, 0)));
        assert!(sockets.all().groups.is_empty());
        assert_eq!(sockets.list()["total"], 1);
        drop(a);
        assert!(sockets.is_empty());
    }

    #[test]
    fn a_queue_is_bounded_and_the_close_comes_last() {
        let sockets = Arc::new(Sockets::default());
        let a = register(&sockets, "a");
        sockets.join("a", "all").unwrap();
        assert_eq!(sockets.close("a", 1000, "bye"), Ok(1));
        for _ in 0..QUEUED_MESSAGES_MAX {
            text(&sockets, "a", "x").unwrap();
        }
        assert_eq!(text(&sockets, "a", "x").unwrap_err().code, "queue_full");
        assert_eq!(text(&sockets, "group:all", "x"), Ok(sent(0, 1)));
        let mut taken = 0;
        while let Some(Next::Send(_)) = a.line.next() {
            taken += 1;
        }
        assert_eq!(taken, QUEUED_MESSAGES_MAX);
        let large = "x".repeat(QUEUED_BYTES_MAX + 1);
        text(&sockets, "a", &large).unwrap();
        assert_eq!(text(&sockets, "a", "x").unwrap_err().code, "queue_full");
        for (code, reason) in [(999, ""), (1005, ""), (1006, ""), (5000, ""), (1000, &*"x".repeat(124))] {
            assert!(sockets.close("a", code, reason).is_err(), "{code}");
        }
    }

    #[test]
    fn none_is_taken_once_it_is_shut() {
        let sockets = Arc::new(Sockets::default());
        let a = register(&sockets, "a");
        sockets.shut();
        assert!(matches!(a.line.next(), Some(Next::Close(1001, _))));
        assert!(sockets.register("b".to_owned(), "f", "/").is_none());
    }
}
