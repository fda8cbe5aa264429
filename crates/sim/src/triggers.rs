//! Cron lines and topics in the simulated world: who listens, who publishes, and what must hold.
//!
//! * each tick of a line between its beginning and the last one that is stored has one call;
//! * a message that was accepted has one call of each function that listens; one that was refused has none; of one of
//!   which nobody was told, all or none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bourse_durable::batch::{Batch, Op};
use bourse_node::{Answer, Input, Message, Origin, Ticket};
use bourse_wire::arguments::Arguments;
use bourse_wire::id::CallId;
use bourse_wire::options::{Channel, TopicName};
use bourse_wire::record::v1 as stored;
use bourse_wire::v1;
use bourse_wire::value::Value;
use prost::Message as _;

use crate::checkers::{Books, body, id};
use crate::stage::parse;
use crate::world::World;

/// The topic that is published to.
pub const TOPIC: &str = "news.local";
/// So many functions listen: one of each module.
const LISTENERS: usize = 2;
/// The line has a tick each second.
const EACH_MS: u64 = 1_000;

/// What modules offer beside what they always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// The function `a.tick`, each second; all ticks that are missed are made up for.
    pub cron: bool,
    /// The functions `a.hears` and `b.hears`, of `news.*`.
    pub topic: bool,
}

/// What a message was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Accepted,
    Refused,
    Unknown,
}

/// What has landed of ticks, and what was published.
#[derive(Debug, Default)]
pub(crate) struct TriggerBook {
    /// By the record's key and its beginning: the last tick.
    lines: BTreeMap<(Vec<u8>, u64), u64>,
    /// The calls of each tick.
    ticks: BTreeMap<u64, BTreeSet<CallId>>,
    /// What each message was to do, and what was said of it.
    messages: BTreeMap<Ticket, (u32, Heard)>,
    /// The functions that were called with a message, and by which calls.
    heard: BTreeMap<(u32, String), BTreeSet<CallId>>,
}

impl Offers {
    /// The functions that a module has with these.
    pub(crate) fn functions(self, module: &str) -> Vec<v1::Function> {
        let function = |name: &str, option: &str, json: &str| v1::Function {
            name: name.to_owned(),
            options: [(option.to_owned(), json.to_owned())].into(),
            ..Default::default()
        };
        let line = r#"{"line": "* * * * * *", "missed": "all"}"#;
        let tick = (self.cron && module == "a").then(|| function("tick", "cron", line));
        let hears = self.topic.then(|| function("hears", "topic", r#""news.*""#));
        tick.into_iter().chain(hears).collect()
    }
}

impl World {
    /// From now on, modules offer this.
    pub fn offer(&mut self, offers: Offers) {
        self.stage.offers = offers;
        self.save();
        self.run(200);
    }

    /// Somebody publishes a message: it says what those who hear it are to do.
    pub fn publish(&mut self, plan: u32) -> Ticket {
        let ticket = self.gateway.publishes();
        self.books.triggers.messages.insert(ticket, (plan, Heard::Nothing));
        let message = Message {
            to: Channel::Topic(TopicName::new(TOPIC).expect("it is a topic")),
            payload: Value::Text(plan.to_string()).to_cbor(),
            delay: None,
            traceparent: String::new(),
            context: BTreeMap::new(),
            idempotency_key: String::new(),
        };
        self.say(30, || format!("gateway -> node  publish {} of plan {plan}", ticket.0));
        self.input(Input::Publish { origin: Origin::Gateway(ticket), message });
        ticket
    }

    /// Runs until a tick is stored that was not, two seconds at most.
    pub fn until_a_tick_lands(&mut self) {
        let before = self.books.last_tick();
        let most = self.clock.at() + Duration::from_secs(2);
        self.run_until(most, |w| w.books.last_tick() > before);
    }
}

impl Books {
    pub(crate) fn triggers_landed(&mut self, batch: &Batch) {
        for op in &batch.ops {
            let Op::Put { key, value } = op else { continue };
            let value = body(value);
            match key.first() {
                Some(b'k') => {
                    if let Ok(cron) = stored::Cron::decode(value) {
                        self.triggers.lines.insert((key.to_vec(), cron.begun_ms), cron.tick_ms);
                    }
                }
                Some(b'c') => {
                    if let (Some(call), Ok(record)) = (id(key), stored::Call::decode(value)) {
                        self.triggers.woken(call, &record);
                    }
                }
                _ => {}
            }
        }
    }

    pub(crate) fn message_answered(&mut self, ticket: Ticket, answer: &Answer) {
        if let Some((_, heard)) = self.triggers.messages.get_mut(&ticket) {
            *heard = match &answer.result {
                Ok(_) => Heard::Accepted,
                Err(failure) if failure.message.starts_with("the store did not say") => Heard::Unknown,
                Err(_) => Heard::Refused,
            };
        }
    }

    fn last_tick(&self) -> u64 {
        self.triggers.lines.values().max().copied().unwrap_or_default()
    }

    pub(crate) fn close_triggers(&mut self) {
        let book = std::mem::take(&mut self.triggers);
        let mut due = BTreeSet::new();
        for ((_, begun), last) in &book.lines {
            due.extend((begun / EACH_MS + 1..=last / EACH_MS).map(|second| second * EACH_MS));
        }
        for tick in &due {
            let calls = book.ticks.get(tick).map_or(0, BTreeSet::len);
            if calls != 1 {
                self.violations.push(format!("the tick {tick} has {calls} calls"));
            }
        }
        for tick in book.ticks.keys().filter(|tick| !due.contains(tick)) {
            self.violations.push(format!("the tick {tick} has a call, and is not stored"));
        }
        for (ticket, (plan, heard)) in &book.messages {
            let of = book.heard.range((*plan, String::new())..(plan + 1, String::new()));
            let (mut functions, mut calls) = (0, 0);
            for (_, heard_by) in of {
                functions += 1;
                calls += heard_by.len();
            }
            let all = (functions, calls) == (LISTENERS, LISTENERS);
            let good = match heard {
                Heard::Accepted => all,
                Heard::Refused => calls == 0,
                Heard::Nothing | Heard::Unknown => all || calls == 0,
            };
            if !good {
                let text = format!(
                    "message {} ({heard:?}) is heard by {functions} functions, in {calls} calls",
                    ticket.0
                );
                self.violations.push(text);
            }
        }
    }
}

impl TriggerBook {
    fn woken(&mut self, call: CallId, record: &stored::Call) {
        let Some(trigger) = &record.trigger else { return };
        if trigger.kind == "cron" {
            self.ticks.entry(trigger.at_ms).or_default().insert(call);
        } else if let Some(plan) = parse(&record.arguments) {
            self.heard.entry((plan, record.function.clone())).or_default().insert(call);
        }
    }
}

/// The text that a message is.
pub(crate) fn message_in(argument: &[u8]) -> Option<String> {
    match Arguments::from_cbor(argument).ok()?.positional.into_iter().next()? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}
