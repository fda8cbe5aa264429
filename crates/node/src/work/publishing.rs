//! Messages: each becomes one durable call of every function that listens, with the message as its only argument.
//!
//! ```text
//! gateway, client -> node: publish      answered once all of these calls are in the store, in one commit
//! worker -> node: publish               they are accepted with what the publishing attempt changes
//! ```
//!
//! Whether a module is there does not matter: what it last listened to counts, and the calls wait for it. Until that is
//! known after a start, messages wait.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_durable as durable;
use bourse_durable::work::IDEMPOTENCY_KEY_BYTES_MAX;
use bourse_durable::{Finished, LayerId};
use bourse_wire::failure::Code;
use bourse_wire::id::{CallId, FunctionName};
use bourse_wire::options::{Channel, QueueName, TopicName};
use bourse_wire::time::{Mono, Now};
use bourse_wire::v1;
use bourse_wire::v1::publish::To;
use bourse_wire::value::Value;
use bytes::{Bytes, BytesMut};

use super::{ACCEPTING_BYTES_MAX, ACCEPTING_MAX};
use crate::grid::Wanted;
use crate::keys::CallKeys;
use crate::message::{Event, Message, Mode, NewCall, Origin, PeerId, ProcessId, Success};
use crate::outcome::store_unavailable;
use crate::state::Asked;
use crate::timers::Timer;
use crate::{Answer, Node};

/// How long a message waits until it is known who listens.
const UNKNOWN_MAX: Duration = Duration::from_secs(10);

/// A message that waits until it is known who listens.
pub(crate) struct Waiting {
    origin: Origin,
    message: Message,
    by: Option<(ProcessId, LayerId)>,
    until: Mono,
}

/// Calls that come of a message, on their way into the store.
pub(crate) struct Publishing {
    origin: Origin,
    calls: Vec<(CallId, FunctionName)>,
}

impl Node {
    /// Somebody outside publishes.
    pub(crate) fn on_publish(&mut self, now: Now, origin: Origin, message: Message) {
        let admitted = self.admit_message(&message).and_then(|()| match self.draining {
            true => {
                Err(Code::ShuttingDown.because("the daemon is stopping").retry_after(Duration::from_secs(1)))
            }
            false => self.check_intake(message.payload.len()),
        });
        if let Err(failure) = admitted {
            return self.answer(origin, refused(failure));
        }
        if !self.keeps_store() {
            return self.forward(now, origin, Wanted::Publish(Box::new(message)));
        }
        self.use_store();
        self.accepting.insert(origin, message.payload.len());
        self.accepting_bytes += message.payload.len();
        self.publish_or_wait(now, origin, message, None);
    }

    /// A client or a running function publishes.
    pub(crate) fn on_peer_publish(
        &mut self,
        now: Now,
        peer: PeerId,
        worker: Option<ProcessId>,
        publish: v1::Publish,
        payload: Bytes,
    ) {
        let origin = match worker {
            Some(process) => Origin::Instance(process, publish.request),
            None => Origin::Peer(peer, publish.request),
        };
        if self.is_open(origin) {
            return self.refuse_or_expel(
                now,
                peer,
                "it used the number of a request that is not answered again",
            );
        }
        let (parent, attempt, writes) = (publish.parent.clone(), publish.attempt, publish.writes.clone());
        let message = match Message::from_wire(publish, payload) {
            Ok(message) => message,
            Err(failure) => return self.answer(origin, refused(failure)),
        };
        let Some(process) = worker else { return self.on_publish(now, origin, message) };
        let Some(running) = self.running(process, &parent, attempt) else {
            let failure = Code::Cancelled.because("the invocation that publishes has ended");
            return self.answer(origin, refused(failure));
        };
        if !self.keeps_store() {
            self.answer(origin, refused(crate::state::moved()));
            return self.forward_begun(now, running);
        }
        self.use_store();
        let keyless = match message.idempotency_key.is_empty() {
            true => Ok(()),
            false => Err(Code::BadRequest
                .because("a function's own messages take no idempotency key")
                .hint("they go out together with what the function changes, once")),
        };
        let admitted =
            self.write(running, writes).and(keyless).and_then(|()| self.admit_message(&message)).and_then(
                |()| if self.knows_triggers() { Ok(()) } else { self.check_intake(message.payload.len()) },
            );
        if let Err(failure) = admitted {
            return self.answer(origin, refused(failure));
        }
        let by = (process, self.calls[&running].layer());
        if !self.knows_triggers() {
            self.accepting.insert(origin, message.payload.len());
            self.accepting_bytes += message.payload.len();
        }
        self.publish_or_wait(now, origin, message, Some(by));
    }

    fn publish_or_wait(
        &mut self,
        now: Now,
        origin: Origin,
        message: Message,
        by: Option<(ProcessId, LayerId)>,
    ) {
        if self.knows_triggers() {
            return self.publish_message(now, origin, message, by);
        }
        let until = now.mono + UNKNOWN_MAX;
        self.publishing.push(Waiting { origin, message, by, until });
        self.timers.set_earliest(Timer::Publishing, until);
    }

    /// It is known who listens.
    pub(crate) fn publish_waiting(&mut self, now: Now) {
        self.timers.clear(&Timer::Publishing);
        for Waiting { origin, message, by, .. } in std::mem::take(&mut self.publishing) {
            if by.is_some() {
                self.is_no_longer_accepting(origin);
            }
            self.publish_message(now, origin, message, by);
        }
    }

    /// It is not known for too long.
    pub(crate) fn on_publishing_due(&mut self, now: Now) {
        let over = |waiting: &mut Waiting| waiting.until <= now.mono;
        for Waiting { origin, .. } in self.publishing.extract_if(.., over).collect::<Vec<_>>() {
            self.is_no_longer_accepting(origin);
            let failure = Code::Starting
                .because("it is not known yet who listens: the store has not been read")
                .retry_after(Duration::from_secs(1));
            self.answer(origin, refused(failure));
        }
        if let Some(until) = self.publishing.iter().map(|waiting| waiting.until).min() {
            self.timers.set_earliest(Timer::Publishing, until);
        }
    }

    fn publish_message(
        &mut self,
        now: Now,
        origin: Origin,
        message: Message,
        by: Option<(ProcessId, LayerId)>,
    ) {
        let functions = match self.listeners(&message.to) {
            Ok(functions) => functions,
            Err(failure) => {
                self.is_no_longer_accepting(origin);
                return self.answer(origin, refused(failure));
            }
        };
        if let Some((process, by)) = by {
            return self.emit_message(now, origin, &message, (process, by), functions);
        }
        let together = self.intake_home();
        let mut news = Vec::with_capacity(functions.len());
        for function in &functions {
            let call = NewCall { idempotency_key: key_of(&message), ..message.call(function.clone()) };
            let keys = match (self.keys_of(&call), &message.to) {
                (Ok(keys), _) => keys,
                // The others that listen have no part in it: its call fails by itself.
                (Err(_), Channel::Topic(_)) => CallKeys::default(),
                (Err(failure), Channel::Queue(_)) => {
                    self.is_no_longer_accepting(origin);
                    return self.answer(origin, refused(failure));
                }
            };
            let home = keys.home(&call).unwrap_or(together);
            news.push(self.new_record(now, home, call, keys, None));
        }
        let calls: Vec<_> = news.iter().map(|new| new.call).zip(functions).collect();
        if calls.is_empty() {
            self.is_no_longer_accepting(origin);
            return self.answer(origin, published(&[], 0));
        }
        let ticket = self.ask(Asked::Publish(Box::new(Publishing { origin, calls })));
        match <[durable::work::NewCall; 1]>::try_from(news) {
            Ok([new]) => self.durable.accept(now, new, ticket),
            Err(news) => self.durable.trigger(now, None, news, ticket),
        }
    }

    /// A function's messages go out with what it changes.
    fn emit_message(
        &mut self,
        now: Now,
        origin: Origin,
        message: &Message,
        (process, by): (ProcessId, LayerId),
        functions: Vec<FunctionName>,
    ) {
        let lives = self.instances.contains_key(&process);
        if !lives || self.running(process, &by.call.to_wire(), by.attempt.0).is_none() {
            let failure = Code::Cancelled.because("the invocation that publishes has ended");
            return self.answer(origin, refused(failure));
        }
        let caller = &self.calls[&by.call];
        let (before, bytes_before) = (caller.emitted.len(), caller.emitted_bytes);
        let mut calls = Vec::with_capacity(functions.len());
        for function in functions {
            match self.emit(now, by.call, message.call(function)) {
                Ok(call) => calls.push(call),
                Err(failure) => {
                    let caller = self.calls.get_mut(&by.call).expect("it was just looked at");
                    caller.emitted.truncate(before);
                    caller.emitted_bytes = bytes_before;
                    return self.answer(origin, refused(failure));
                }
            }
        }
        let subscribers = calls.len();
        self.answer(origin, published(&calls, subscribers));
    }

    pub(crate) fn on_published(&mut self, publishing: Publishing, answer: durable::Answer) {
        let Publishing { origin, calls } = publishing;
        self.is_no_longer_accepting(origin);
        let failure = match answer {
            durable::Answer::Finished(Finished::Done) => {
                let ids: Vec<CallId> = calls.iter().map(|(call, _)| *call).collect();
                for (call, function) in calls {
                    self.event(Event::Accepted { call, function, first: true });
                }
                return self.answer(origin, published(&ids, ids.len()));
            }
            durable::Answer::Accepted { call, first } => {
                if let Some((_, function)) = calls.into_iter().next() {
                    self.event(Event::Accepted { call, function, first });
                }
                return self.answer(origin, published(&[call], 1));
            }
            durable::Answer::Finished(Finished::Unknown(why)) => Code::StoreUnavailable
                .because(format!("the store did not say whether the message was accepted: {why}"))
                .hint("to a queue, publish again with the same idempotency key, so that it is not run twice"),
            durable::Answer::Finished(Finished::Refused(refusal)) => crate::state::refused(&refusal),
            durable::Answer::Finished(Finished::StoreFailed(why)) | durable::Answer::StoreFailed(why) => {
                store_unavailable(&why)
            }
            _ => store_unavailable("the partition was lost"),
        };
        if let Some((_, function)) = calls.into_iter().next() {
            self.event(Event::CallRefused { function, failure: failure.clone() });
        }
        self.answer(origin, refused(failure));
    }

    fn is_no_longer_accepting(&mut self, origin: Origin) {
        self.accepting_bytes -= self.accepting.remove(&origin).unwrap_or_default();
    }

    fn check_intake(&self, bytes: usize) -> Result<(), v1::Failure> {
        if self.accepting.len() < ACCEPTING_MAX && self.accepting_bytes + bytes <= ACCEPTING_BYTES_MAX {
            return Ok(());
        }
        Err(Code::QueueFull
            .because(format!("{} durable calls are on their way into the store", self.accepting.len()))
            .hint("the store is slower than its callers: try again later")
            .retry_after(Duration::from_secs(1)))
    }

    fn admit_message(&self, message: &Message) -> Result<(), v1::Failure> {
        if message.idempotency_key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(Code::BadRequest
                .because(format!("an idempotency key has at most {IDEMPOTENCY_KEY_BYTES_MAX} bytes")));
        }
        if matches!(message.to, Channel::Topic(_)) && !message.idempotency_key.is_empty() {
            return Err(Code::BadRequest
                .because("a message to a topic takes no idempotency key")
                .hint("publish it to a queue, whose function publishes it further"));
        }
        if !message.payload.is_empty() {
            Value::from_cbor(&message.payload)
                .map_err(|e| Code::BadRequest.because(format!("the message is not CBOR: {e}")))?;
        }
        let context: usize = message.context.iter().map(|(k, v)| k.len() + v.len()).sum();
        let most = [
            ("the message", message.payload.len(), self.config.payload_bytes_max),
            ("the pass-through context", context, self.config.context_bytes_max),
        ];
        match most.into_iter().find(|(_, bytes, max)| bytes > max) {
            None => Ok(()),
            Some((what, bytes, max)) => {
                Err(Code::TooLarge.because(format!("{what} has {bytes} bytes, at most {max} are allowed")))
            }
        }
    }
}

impl Message {
    /// A message as a worker, a client or another node publishes it.
    pub(crate) fn from_wire(publish: v1::Publish, payload: Bytes) -> Result<Self, v1::Failure> {
        let to = match publish.to {
            Some(To::Queue(name)) => QueueName::new(&name).map(Channel::Queue),
            Some(To::Topic(name)) => TopicName::new(&name).map(Channel::Topic),
            None => Err("a message needs a queue or a topic".to_owned()),
        };
        Ok(Self {
            to: to.map_err(|why| Code::BadRequest.because(why))?,
            payload,
            delay: (publish.delay_ms > 0).then(|| Duration::from_millis(publish.delay_ms)),
            traceparent: publish.traceparent,
            context: publish.context,
            idempotency_key: publish.idempotency_key,
        })
    }

    /// The call of a function that listens.
    fn call(&self, function: FunctionName) -> NewCall {
        let (kind, name) = match &self.to {
            Channel::Queue(name) => ("queue", name.as_str()),
            Channel::Topic(name) => ("topic", name.as_str()),
        };
        NewCall {
            function,
            version: String::new(),
            payload: arguments(&self.payload),
            timeout: None,
            queue_wait: None,
            traceparent: self.traceparent.clone(),
            context: self.context.clone(),
            mode: Mode::Async,
            idempotency_key: String::new(),
            delay: self.delay,
            trigger: Some(v1::Trigger {
                kind: kind.to_owned(),
                name: name.to_owned(),
                at_ms: 0,
                facts: BTreeMap::new(),
            }),
            depth: 0,
            terms: Default::default(),
        }
    }
}

/// The message as the only argument, without a look into it: an array of one array and an empty map.
fn arguments(message: &Bytes) -> Bytes {
    let message: &[u8] = if message.is_empty() { &[0xf6] } else { message };
    let mut bytes = BytesMut::with_capacity(message.len() + 3);
    bytes.extend_from_slice(&[0x82, 0x81]);
    bytes.extend_from_slice(message);
    bytes.extend_from_slice(&[0xa0]);
    bytes.freeze()
}

/// Keys of messages to a queue are apart from those of other queues, and of calls.
fn key_of(message: &Message) -> String {
    let Channel::Queue(queue) = &message.to else { return String::new() };
    if message.idempotency_key.is_empty() {
        return String::new();
    }
    let key = format!("{} {}", queue.as_str(), message.idempotency_key);
    if key.len() <= IDEMPOTENCY_KEY_BYTES_MAX {
        key
    } else {
        format!("queue {}", blake3::hash(key.as_bytes()))
    }
}

fn refused(failure: v1::Failure) -> Answer {
    Answer { call: None, result: Err(failure) }
}

fn published(calls: &[CallId], subscribers: usize) -> Answer {
    let text = |text: &str| Value::Text(text.to_owned());
    let ids = calls.iter().map(|call| Value::Text(call.to_string())).collect();
    let payload = Value::Map(vec![
        (text("calls"), Value::Array(ids)),
        (text("subscribers"), Value::Int(subscribers as i128)),
    ])
    .to_cbor();
    Answer { call: calls.first().copied(), result: Ok(Success { payload, ..Success::default() }) }
}

#[cfg(test)]
mod tests {
    use bourse_wire::arguments::Arguments;

    use super::*;

    #[test]
    fn a_message_is_the_only_argument() {
        for message in [Value::Null, Value::Map(vec![(Value::Text("a".into()), Value::Int(1))])] {
            let read = Arguments::from_cbor(&arguments(&message.to_cbor())).unwrap();
            assert_eq!((read.positional, read.named.len()), (vec![message], 0));
        }
        assert_eq!(Arguments::from_cbor(&arguments(&Bytes::new())).unwrap().positional, [Value::Null]);
    }
}
