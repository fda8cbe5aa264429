//! Capacity that is short, and that nobody sells: a function is told, which may start machines.
//!
//! ```text
//! node -> node: a durable call of `on_shortage`     module, version, waiting, seconds
//! ```
//!
//! It is called when a call has waited for `shortage_after`, and again as long as that lasts, every [`AGAIN`]. Nodes that are
//! short of the same at the same time make one call of it: its key is the module and the time. What waits for the
//! function's own module tells nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_wire::arguments::Arguments;
use bourse_wire::time::{Mono, Now};
use bourse_wire::value::Value;

use crate::Node;
use crate::message::{Mode, NewCall, Origin};
use crate::timers::Timer;

/// Between two calls for the same module.
const AGAIN: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Default)]
pub(crate) struct Shortages {
    /// When it may be told again, by module.
    told: BTreeMap<String, Mono>,
    asked: u64,
}

impl Node {
    /// Calls of a module wait. Tells the function, if one has waited for too long.
    pub(super) fn look_for_shortage(&mut self, now: Now, name: &str) {
        let Some(function) = self.config.on_shortage.clone().filter(|function| function.module() != name)
        else {
            return;
        };
        let Some(module) = self.modules.get(name) else { return };
        let all = module.abroad.values().chain(module.queue.values()).map(|id| &self.calls[id]);
        let Some(first) = all.min_by_key(|call| call.accepted) else { return };
        let due = first.accepted + self.config.shortage_after;
        if due > now.mono {
            return self.timers.set_earliest(Timer::Scale(name.to_owned()), due);
        }
        if self.grid.shortages.told.get(name).is_some_and(|until| *until > now.mono) {
            return;
        }
        let waits = now.mono.since(first.accepted);
        let (version, waiting) = (first.version.clone(), module.waiting());
        self.grid.shortages.told.retain(|_, until| *until > now.mono);
        self.grid.shortages.told.insert(name.to_owned(), now.mono + AGAIN);
        self.grid.shortages.asked += 1;
        let text = |text: &str| Value::Text(text.to_owned());
        let named = vec![
            ("module".to_owned(), text(name)),
            ("version".to_owned(), text(&version)),
            ("waiting".to_owned(), Value::Int(waiting as i128)),
            ("seconds".to_owned(), Value::Float(waits.as_secs_f64())),
        ];
        let window = now.wall.0 / u64::try_from(AGAIN.as_millis()).unwrap_or(u64::MAX);
        let call = NewCall {
            function,
            version: String::new(),
            payload: Arguments { positional: Vec::new(), named }.to_cbor(),
            timeout: None,
            queue_wait: None,
            traceparent: String::new(),
            context: BTreeMap::new(),
            mode: Mode::Async,
            idempotency_key: format!("shortage {name} {window}"),
            delay: None,
            trigger: None,
            depth: 0,
            terms: Default::default(),
        };
        self.on_call(now, Origin::Own(self.grid.shortages.asked), call);
    }
}
