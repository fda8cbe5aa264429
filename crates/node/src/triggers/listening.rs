//! Who listens to what.
//!
//! A module's subscriptions stay while it is being loaded, does not load, or is gone from the folder: messages become
//! durable calls that wait for it. They end with a revision that does not have them, or when the module is forgotten.

use bourse_durable::work::{TriggerKey, TriggerWrite};
use bourse_wire::failure::Code;
use bourse_wire::id::FunctionName;
use bourse_wire::nearest::nearest;
use bourse_wire::options::{Channel, TopicPattern};
use bourse_wire::record::v1 as record;
use bourse_wire::time::Now;
use bourse_wire::v1;
use bourse_wire::value::Value;

use crate::message::{Origin, RevisionId, Success};
use crate::module::Revision;
use crate::{Answer, Node};

const QUEUE: &str = "queue";
const TOPIC: &str = "topic";

impl Revision {
    /// What its functions listen to.
    fn subscriptions(&self) -> Vec<record::Subscription> {
        let subscription = |function: &String, kind: &str, name: &str| record::Subscription {
            function: function.clone(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let of = |(name, f): (&String, &crate::function::Function)| {
            let queues = f.queues.iter().map(|queue| subscription(name, QUEUE, queue.as_str()));
            let topics = f.topics.iter().map(|topic| subscription(name, TOPIC, topic.as_str()));
            queues.chain(topics).collect::<Vec<_>>()
        };
        self.functions.iter().flat_map(of).collect()
    }
}

impl Node {
    /// Whether a revision has to wait with what it offers, until it is known who has its queues.
    pub(crate) fn is_early(&mut self, name: &str, id: &RevisionId, description: &v1::Module) -> bool {
        let has_queues = description.functions.iter().any(|f| f.options.contains_key(QUEUE));
        let early = has_queues && !self.triggers.known;
        if early {
            self.triggers.early.push((name.to_owned(), id.clone(), description.clone()));
        }
        early
    }

    pub(super) fn describe_early(&mut self, now: Now) {
        for (name, id, description) in std::mem::take(&mut self.triggers.early) {
            self.described(now, &name, &id, description);
            // The next one may want the same queue.
            self.sync_listening(now);
        }
    }

    /// Whether all queues of a revision are its own.
    pub(crate) fn check_own_queues(&self, name: &str, revision: &Revision) -> Result<(), v1::Failure> {
        let own = revision.subscriptions();
        for (at, queue) in own.iter().enumerate().filter(|(_, s)| s.kind == QUEUE) {
            let (function, queue_name) = (&queue.function, &queue.name);
            let taken = |holder: &str| {
                Code::ModuleFailed.because(format!(
                    "the queue {queue_name} of {name}.{function} is {holder}'s: a queue has one function"
                ))
            };
            if let Some(twin) = own[..at].iter().find(|s| s.kind == QUEUE && s.name == *queue_name) {
                let failure = taken(&format!("{name}.{}", twin.function));
                return Err(failure.hint("give one of them another queue, or make it a topic"));
            }
            for (module, listens) in self.triggers.listens.iter().filter(|(module, _)| *module != name) {
                let Some(holder) = listens.iter().find(|s| s.kind == QUEUE && s.name == *queue_name) else {
                    continue;
                };
                let failure = taken(&format!("{module}.{}", holder.function));
                return Err(match self.modules.get(module).is_some_and(|m| !m.removed) {
                    true => failure.hint("give one of them another queue, or make it a topic"),
                    false => failure
                        .hint(format!("{module} is gone from the folder: bourse triggers remove {module}")),
                });
            }
        }
        Ok(())
    }

    /// Takes what the revisions that serve listen to, and has it written where that has changed.
    pub(super) fn sync_listening(&mut self, now: Now) {
        for (name, module) in &self.modules {
            if let Some(revision) = module.serving_revision().filter(|_| !module.removed) {
                match revision.subscriptions() {
                    none if none.is_empty() => _ = self.triggers.listens.remove(name),
                    some => _ = self.triggers.listens.insert(name.clone(), some),
                }
            }
        }
        for module in self.triggers.forgotten.keys() {
            let serves = self.modules.get(module).is_some_and(|m| !m.removed && m.serving().is_some());
            if !serves {
                self.triggers.listens.remove(module);
            }
        }
        let mut modules: Vec<String> =
            self.triggers.listens.keys().chain(self.triggers.stored.keys()).cloned().collect();
        modules.sort();
        modules.dedup();
        for module in modules {
            let key = TriggerKey::Listens { module: module.clone() };
            let wanted = self.triggers.listens.get(&module);
            let stored = self.triggers.stored.get(&module).map(|record| &record.subscriptions);
            if wanted == stored || !self.triggers.is_free(&key) {
                continue;
            }
            let write = match wanted.cloned() {
                None => TriggerWrite::Delete(key),
                Some(subscriptions) => {
                    let serving = self.modules.get(&module).and_then(|m| m.serving());
                    let revision = serving.map_or_else(String::new, |id| id.0.clone());
                    TriggerWrite::Listens(key, record::Triggers { revision, subscriptions })
                }
            };
            self.write_trigger(now, write, Vec::new());
        }
    }

    /// The functions that a message is for.
    pub(crate) fn listeners(&self, to: &Channel) -> Result<Vec<FunctionName>, v1::Failure> {
        let hears = |s: &record::Subscription| match to {
            Channel::Queue(name) => s.kind == QUEUE && s.name == name.as_str(),
            Channel::Topic(topic) => {
                s.kind == TOPIC && TopicPattern::new(&s.name).is_ok_and(|pattern| pattern.matches(topic))
            }
        };
        let all = self.triggers.listens.iter().flat_map(|(module, all)| all.iter().map(move |s| (module, s)));
        let mut functions: Vec<FunctionName> =
            all.filter(|(_, s)| hears(s)).map(|(module, s)| FunctionName::new(module, &s.function)).collect();
        // A function that listens to several topics that match gets a message once.
        functions.dedup();
        match to {
            Channel::Queue(name) if functions.is_empty() => Err(self.no_such_queue(name.as_str())),
            _ => Ok(functions),
        }
    }

    fn no_such_queue(&self, name: &str) -> v1::Failure {
        if !self.ready {
            return Code::Starting
                .because(format!("there is no queue {name} so far: the daemon is still loading its modules"))
                .retry_after(std::time::Duration::from_secs(1));
        }
        let all = self.triggers.listens.values().flatten().filter(|s| s.kind == QUEUE);
        let near = nearest(name, all.map(|s| s.name.as_str()));
        let hint = match near.is_empty() {
            false => format!("did you mean {}?", near.join(", ")),
            true => "`bourse triggers` lists the queues; a function has one by its option `queue`".to_owned(),
        };
        Code::NotFound.because(format!("there is no queue {name}")).hint(hint)
    }

    /// A module that is gone from the folder listens no longer.
    pub(crate) fn on_forget(&mut self, origin: Origin, module: &str) {
        let refused = |failure| Answer { call: None, result: Err(failure) };
        if !self.triggers.known {
            let failure = Code::Starting.because("it is not known yet what modules listen to");
            return self.answer(origin, refused(failure.retry_after(std::time::Duration::from_secs(1))));
        }
        if self.modules.get(module).is_some_and(|m| !m.removed) {
            let failure = Code::Conflict
                .because(format!("{module} is in the folder"))
                .hint("take the option away from its functions, or remove the module");
            return self.answer(origin, refused(failure));
        }
        let listened = self.triggers.listens.get(module).map_or(0, Vec::len);
        let lines = self.triggers.ticked.keys().filter(|key| key.module() == module).count();
        if listened + lines == 0 && !self.triggers.stored.contains_key(module) {
            let known = self.triggers.listens.keys().map(String::as_str);
            let near = nearest(module, known);
            let hint = match near.is_empty() {
                true => "`bourse triggers` lists what there is".to_owned(),
                false => format!("did you mean {}?", near.join(", ")),
            };
            let failure = Code::NotFound.because(format!("{module} has no triggers")).hint(hint);
            return self.answer(origin, refused(failure));
        }
        let (_, who) = self
            .triggers
            .forgotten
            .entry(module.to_owned())
            .or_insert(((listened + lines) as u64, Vec::new()));
        who.push(origin);
        self.triggers.dirty = true;
    }

    /// Those who wait until a module is forgotten are told when its records are gone.
    pub(super) fn end_forgetting(&mut self) {
        let done: Vec<String> = self
            .triggers
            .forgotten
            .keys()
            .filter(|module| {
                let left = self.triggers.ticked.keys().any(|key| key.module() == **module);
                let serves = self.modules.get(*module).is_some_and(|m| !m.removed);
                serves || (!left && !self.triggers.stored.contains_key(*module))
            })
            .cloned()
            .collect();
        for module in done {
            let (removed, who) = self.triggers.forgotten.remove(&module).expect("it was just listed");
            let text = |text: &str| Value::Text(text.to_owned());
            let payload = Value::Map(vec![
                (text("module"), text(&module)),
                (text("removed"), Value::Int(removed.into())),
            ])
            .to_cbor();
            for origin in who {
                let result = Ok(Success { payload: payload.clone(), ..Success::default() });
                self.answer(origin, Answer { call: None, result });
            }
        }
    }
}
