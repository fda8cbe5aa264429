//! Messages that are published, and what functions were woken by.

use std::time::Duration;

use bourse_node::{Input, Message, Origin, Ticket};
use bourse_wire::options::{Channel, QueueName, TopicName};
use bourse_wire::v1::publish::To;
use bourse_wire::value::Value;

use super::{WALL_MS, World};

/// From `queue:name` or `topic:name`.
pub fn destination(to: &str) -> To {
    match to.split_once(':').expect("a kind and a name") {
        ("queue", name) => To::Queue(name.to_owned()),
        (_, name) => To::Topic(name.to_owned()),
    }
}

impl World {
    /// The gateway publishes a text to `queue:name` or `topic:name`.
    pub fn publish(&mut self, to: &str, message: &str) -> Ticket {
        self.publish_with(to, message, |_| {})
    }

    pub fn publish_with(&mut self, to: &str, message: &str, change: impl FnOnce(&mut Message)) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.asked.insert(ticket);
        let to = match destination(to) {
            To::Queue(name) => Channel::Queue(QueueName::new(&name).unwrap()),
            To::Topic(name) => Channel::Topic(TopicName::new(&name).unwrap()),
        };
        let mut message = Message {
            to,
            payload: Value::Text(message.to_owned()).to_cbor(),
            delay: None,
            traceparent: String::new(),
            context: Default::default(),
            idempotency_key: String::new(),
        };
        change(&mut message);
        self.input(Input::Publish { origin: Origin::Gateway(ticket), message });
        ticket
    }

    /// A module that is gone listens no longer.
    pub fn forget(&mut self, module: &str) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.asked.insert(ticket);
        self.input(Input::Forget { origin: Origin::Gateway(ticket), module: module.to_owned() });
        ticket
    }

    /// An answer as JSON.
    pub fn json(&self, ticket: Ticket) -> String {
        match &self.answers[&ticket].result {
            Ok(success) => Value::from_cbor(&success.payload).unwrap().to_json().to_string(),
            Err(failure) => panic!("call {} failed: {failure:?}", ticket.0),
        }
    }

    /// What the functions were woken by: `function kind name`, in order.
    pub fn woken(&self) -> Vec<String> {
        let text = |i: &bourse_wire::v1::Invoke| {
            let trigger = i.trigger.clone().unwrap_or_default();
            format!("{} {} {}", i.function, trigger.kind, trigger.name)
        };
        self.invoked.iter().map(text).collect()
    }

    /// The ticks that made calls of a function, in seconds since the world began, in order.
    pub fn ticks(&self, function: &str) -> Vec<i64> {
        let of = self.invoked.iter().filter(|i| i.function == function);
        of.filter_map(|i| Some((i.trigger.as_ref()?.at_ms.cast_signed() - WALL_MS.cast_signed()) / 1000))
            .collect()
    }

    /// The node is down for so long, then starts again.
    pub fn down(&mut self, time: Duration) -> &mut Self {
        self.now = self.now + time;
        self.restart()
    }
}
