//! What functions there are, and what each call of them is to do.
//!
//! Every call has a *plan*, which its argument names by number. A plan says what a run does: how long it takes, which
//! ledger it adds itself to, what it calls, starts and hands on to, how many of its runs come to a bad end, and which.
//! All modules offer the same functions, which differ in their options only:
//!
//! | function | timeout | retry | exclusive | unique |
//! |---|---|---|---|---|
//! | `f` | 3 s | the defaults: 5 attempts | | |
//! | `q` | 1 s | 3 attempts, 10 ms apart; so all its calls are durable | | |
//! | `x` | 3 s | | its key | |
//! | `y` | 1 s | as `q` | its key | |
//! | `u` | 3 s | | | its key, as long as ended calls are kept |
//! | `v` | 3 s | | | its key, until the call has ended |
//! | `w` | 3 s | | | its key, for a minute |
//! | `e` | 3 s | | `all` | its key, as long as ended calls are kept |
//!
//! The argument of a plan without a key is its number as text; of one with a key, CBOR with both.
//!
//! A *ledger* is a scope of state. Who adds itself to it reads the count `scope/n`, writes one more, and writes its name
//! below `scope/l/`, at that place. So each run that takes effect is there once, and the order is known.

use std::collections::BTreeMap;

use bourse_durable::home::StateKey;
use bourse_durable::work::KeyName;
use bourse_wire::arguments::Arguments;
use bourse_wire::id::CallId;
use bourse_wire::time::Mono;
use bourse_wire::v1;
use bourse_wire::value::Value;
use bytes::Bytes;

use crate::triggers::{Offers, message_in};

/// The modules that are served.
pub const MODULES: [&str; 2] = ["a", "b"];
/// The namespace of all ledgers: both modules write there.
pub const SHARED: &str = "shared";
/// Attempts of the function `f` before a call is a dead letter.
const ATTEMPTS_F: u32 = 5;
/// The same of `q` and `y`.
const ATTEMPTS_Q: u32 = 3;
/// How long a call of `w` has its unique key.
pub const WINDOW_MS: u64 = 60_000;

/// A bad end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It raises an exception, after everything else.
    Fails,
    /// Its process is killed.
    Crashes,
    /// It never ends by itself.
    Hangs,
    /// It wants to be tried again after so many milliseconds.
    Again(u64),
    /// It wants to be a dead letter.
    DeadLetters,
    /// It wants to be forgotten.
    Discards,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `module.function`.
    pub function: String,
    /// Which versions its call may run on, if somebody outside makes it; empty: any.
    pub version: String,
    /// The ledger to which it adds itself.
    pub scope: Option<String>,
    /// A ledger of another home whose count it reads.
    pub peek: Option<String>,
    /// How long it runs, in milliseconds.
    pub run_ms: u64,
    /// So many runs come to a bad end before one does not.
    pub bad: u32,
    /// Which.
    pub end: End,
    /// Plans of durable calls that it makes.
    pub starts: Vec<u32>,
    /// It makes them before it touches state.
    pub starts_first: bool,
    /// Plans of calls that it waits for.
    pub nested: Vec<u32>,
    /// The plan that makes or waits for this one.
    pub parent: Option<u32>,
    /// Its arguments are longer by so many bytes.
    pub padding: usize,
    /// What its function makes its exclusive or unique key of.
    pub key: String,
    /// Its call goes on with this plan.
    pub next: Option<u32>,
    /// Its call is not to be run before so many milliseconds have passed.
    pub delay_ms: u64,
}

impl Plan {
    /// One that returns at once.
    pub fn of(function: &str) -> Self {
        Self {
            function: function.to_owned(),
            version: String::new(),
            scope: None,
            peek: None,
            run_ms: 0,
            bad: 0,
            end: End::Fails,
            starts: Vec::new(),
            starts_first: false,
            nested: Vec::new(),
            parent: None,
            padding: 0,
            key: String::new(),
            next: None,
            delay_ms: 0,
        }
    }

    /// It has this key.
    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }

    /// It hands on to this plan.
    #[must_use]
    pub fn then(mut self, plan: u32) -> Self {
        self.next = Some(plan);
        self
    }

    /// It is not run before so long.
    #[must_use]
    pub fn delayed_ms(mut self, ms: u64) -> Self {
        self.delay_ms = ms;
        self
    }

    /// It adds itself to this ledger.
    #[must_use]
    pub fn adds(mut self, scope: &str) -> Self {
        self.scope = Some(scope.to_owned());
        self
    }

    /// So many runs come to this end first.
    #[must_use]
    pub fn bad(mut self, runs: u32, end: End) -> Self {
        (self.bad, self.end) = (runs, end);
        self
    }

    /// It takes so long.
    #[must_use]
    pub fn runs_ms(mut self, ms: u64) -> Self {
        self.run_ms = ms;
        self
    }

    /// It makes these durable calls.
    #[must_use]
    pub fn starts(mut self, plans: &[u32]) -> Self {
        self.starts = plans.to_vec();
        self
    }

    /// It waits for these calls.
    #[must_use]
    pub fn nests(mut self, plans: &[u32]) -> Self {
        self.nested = plans.to_vec();
        self
    }

    /// What it is called with.
    pub fn argument(&self, number: u32) -> Bytes {
        if self.key.is_empty() {
            return Bytes::from(format!("{number}{}", " ".repeat(self.padding)));
        }
        let named = vec![("plan".to_owned(), Value::Int(number.into()))];
        Arguments { positional: vec![Value::Text(self.key.clone())], named }.to_cbor()
    }

    /// Attempts before it is a dead letter.
    pub fn attempts_max(&self) -> u32 {
        if matches!(self.name(), "q" | "y") { ATTEMPTS_Q } else { ATTEMPTS_F }
    }

    /// All its calls are durable, also if somebody outside waits for them.
    pub fn is_retried(&self) -> bool {
        matches!(self.name(), "q" | "y") || self.is_unique()
    }

    /// A second call with its key is the first one.
    pub fn is_unique(&self) -> bool {
        matches!(self.name(), "u" | "v" | "w" | "e")
    }

    /// The exclusive key of its calls.
    pub fn exclusive(&self) -> Option<KeyName> {
        let key = match self.name() {
            "x" | "y" => &self.key,
            "e" => "all",
            _ => return None,
        };
        let (module, _) = self.function.split_once('.')?;
        Some(KeyName::new(module, key).expect("keys of plans are keys"))
    }

    fn name(&self) -> &str {
        self.function.split_once('.').map_or("", |(_, name)| name)
    }
}

/// One step of a run.
#[derive(Clone, Debug)]
pub enum Step {
    /// Computes for so many milliseconds.
    Run(u64),
    /// Reads a state record.
    Read(String),
    /// Adds itself to the ledger whose count was read last.
    Add(String),
    /// Calls a function and waits for it; its failure is this run's.
    Call(String, Bytes),
    /// Makes a durable call, to be run after so many milliseconds.
    Start(String, Bytes, u64),
    /// Hands on to a function.
    Tail(String, Bytes),
    /// Comes to a bad end.
    End(End),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Stage {
    /// What modules offer beside what they always do.
    pub offers: Offers,
    plans: Vec<Plan>,
    /// How often each plan was begun.
    runs: BTreeMap<u32, u32>,
    /// How often each call was handed to an instance with each of its plans; that may have died before it began.
    handed: BTreeMap<(CallId, u32), u32>,
    /// When a call of each plan was first made, and how far the wall clock had jumped ahead by then.
    made: BTreeMap<u32, (Mono, u64)>,
    /// Runs in all.
    pub runs_made: u64,
}

impl Stage {
    /// A new plan's number.
    pub fn add(&mut self, plan: Plan) -> u32 {
        let number = self.count();
        for child in plan.starts.iter().chain(&plan.nested) {
            self.plans[*child as usize].parent = Some(number);
        }
        self.plans.push(plan);
        number
    }

    /// A plan; its number is one that was given.
    pub fn plan(&self, number: u32) -> &Plan {
        &self.plans[number as usize]
    }

    /// How many there are; their numbers are below that.
    pub fn count(&self) -> u32 {
        u32::try_from(self.plans.len()).expect("plans are few")
    }

    /// Whether another plan hands on to this one.
    pub fn is_step(&self, number: u32) -> bool {
        self.plans.iter().any(|plan| plan.next == Some(number))
    }

    /// All, with their numbers.
    pub fn plans(&self) -> impl Iterator<Item = (u32, &Plan)> {
        (0..).zip(&self.plans)
    }

    /// How often a plan was begun.
    pub fn runs(&self, number: u32) -> u32 {
        self.runs.get(&number).copied().unwrap_or_default()
    }

    /// How often a call was handed to an instance with a plan.
    pub fn handed(&self, call: CallId, plan: u32) -> u32 {
        self.handed.get(&(call, plan)).copied().unwrap_or_default()
    }

    /// The last plan of those that hand on from this one.
    pub fn last_of(&self, number: u32) -> u32 {
        self.plan(number).next.map_or(number, |next| self.last_of(next))
    }

    /// A run of a plan was begun somewhere else.
    pub(crate) fn begun(&mut self, number: u32) {
        self.runs_made += 1;
        *self.runs.entry(number).or_default() += 1;
    }

    /// A call is handed to an instance.
    pub(crate) fn hands(&mut self, call: CallId, plan: u32) {
        *self.handed.entry((call, plan)).or_default() += 1;
    }

    /// A call of a plan is made.
    pub(crate) fn makes(&mut self, plan: u32, at: Mono, ahead_ms: u64) {
        self.made.entry(plan).or_insert((at, ahead_ms));
    }

    /// When the calls of a plan were first made, and how far the wall clock had jumped ahead by then.
    pub(crate) fn made(&self, plan: u32) -> Option<(Mono, u64)> {
        self.made.get(&plan).copied()
    }

    /// A run begins: what it is going to do.
    pub(crate) fn begin(&mut self, argument: &[u8]) -> Vec<Step> {
        self.runs_made += 1;
        let Some(number) = parse(argument).filter(|n| (*n as usize) < self.plans.len()) else {
            // A tick has nothing to do.
            return if argument == [ARGUMENTS, 0x80, 0xa0] {
                Vec::new()
            } else {
                vec![Step::End(End::DeadLetters)]
            };
        };
        let runs = self.runs.entry(number).or_default();
        *runs += 1;
        let bad = *runs <= self.plans[number as usize].bad;
        let plan = &self.plans[number as usize];
        let call_of = |n: &u32| {
            let plan = &self.plans[*n as usize];
            (plan.function.clone(), plan.argument(*n))
        };
        let start_of = |n: &u32| {
            let (function, argument) = call_of(n);
            Step::Start(function, argument, self.plans[*n as usize].delay_ms)
        };
        let starts = || plan.starts.iter().map(start_of);
        let mut steps = Vec::new();
        if plan.starts_first {
            steps.extend(starts());
        }
        if plan.run_ms > 0 {
            steps.push(Step::Run(plan.run_ms));
        }
        if let Some(scope) = &plan.scope {
            steps.push(Step::Read(count_key(scope)));
            steps.push(Step::Add(scope.clone()));
        }
        if let Some(scope) = &plan.peek {
            steps.push(Step::Read(count_key(scope)));
        }
        steps.extend(plan.nested.iter().map(call_of).map(|(f, a)| Step::Call(f, a)));
        if !plan.starts_first {
            steps.extend(starts());
        }
        if bad {
            steps.push(Step::End(plan.end));
        }
        steps.extend(plan.next.as_ref().map(call_of).map(|(f, a)| Step::Tail(f, a)));
        steps
    }
}

/// What a message or a key begins with, as an argument.
const ARGUMENTS: u8 = 0x82;

/// The plan that an argument names; a message names it too.
pub fn parse(argument: &[u8]) -> Option<u32> {
    if argument.first() == Some(&ARGUMENTS) {
        let arguments = Arguments::from_cbor(argument).ok()?;
        return match arguments.named.into_iter().find(|(name, _)| name == "plan") {
            Some((_, Value::Int(plan))) => u32::try_from(plan).ok(),
            _ => message_in(argument)?.parse().ok(),
        };
    }
    let number = argument.split(|b| *b == b' ').next().unwrap_or_default();
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// The record with a ledger's count.
pub fn count_key(scope: &str) -> String {
    format!("{scope}/n")
}

/// The record at a place of a ledger, counted from 1.
pub fn place_key(scope: &str, place: u64) -> String {
    format!("{scope}/l/{place:06}")
}

/// A ledger that is at home in a partition.
pub fn scope_in(partition: u8) -> String {
    let at_home = |scope: &String| {
        let key = StateKey::new(SHARED, scope).expect("it is a scope");
        key.home().partition().0 == partition
    };
    (0u32..).map(|n| format!("s{n}")).find(at_home).expect("there are scopes everywhere")
}

/// What a module says of itself.
pub fn describe(module: &str, version: &str, offers: Offers) -> v1::Module {
    let parameter = |(name, required)| v1::Parameter { name, required, ..Default::default() };
    let parameters: Vec<_> =
        [("key".to_owned(), true), ("plan".to_owned(), false)].map(parameter).into_iter().collect();
    let function = |(name, options): (&str, &[(&str, &str)])| v1::Function {
        name: name.to_owned(),
        options: options.iter().map(|(key, json)| ((*key).to_owned(), (*json).to_owned())).collect(),
        parameters: parameters.clone(),
        ..Default::default()
    };
    let (long, short) = (("timeout", r#""3s""#), ("timeout", r#""1s""#));
    let retry = ("retry", r#"{"attempts": 3, "pause": "10ms"}"#);
    let exclusive = ("exclusive", r#""{key}""#);
    let functions: [(&str, &[(&str, &str)]); 8] = [
        ("f", &[long]),
        ("q", &[short, retry]),
        ("x", &[long, exclusive]),
        ("y", &[short, retry, exclusive]),
        ("u", &[long, ("unique", r#""{key}""#)]),
        ("v", &[long, ("unique", r#"{"key": "{key}", "window": "running"}"#)]),
        ("w", &[long, ("unique", r#"{"key": "{key}", "window": "1m"}"#)]),
        ("e", &[long, ("unique", r#""{key}""#), ("exclusive", r#""all""#)]),
    ];
    v1::Module {
        name: module.to_owned(),
        version: version.to_owned(),
        functions: functions.into_iter().map(function).chain(offers.functions(module)).collect(),
        ..Default::default()
    }
}
