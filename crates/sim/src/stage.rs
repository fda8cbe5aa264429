//! What functions there are, and what each call of them is to do.
//!
//! Every call has a *plan*, which its argument names by number. A plan says what a run does: how long it takes, which
//! ledger it adds itself to, what it calls and starts, how many of its runs come to a bad end, and which. All modules
//! offer the same functions, which differ in their options only:
//!
//! | function | timeout | retry |
//! |---|---|---|
//! | `f` | 3 s | the defaults: 5 attempts |
//! | `q` | 1 s | 3 attempts, 10 ms apart; so all its calls are durable |
//!
//! A *ledger* is a scope of state. Who adds itself to it reads the count `scope/n`, writes one more, and writes its name
//! below `scope/l/`, at that place. So each run that takes effect is there once, and the order is known.

use std::collections::BTreeMap;

use bourse_durable::home::StateKey;
use bourse_wire::id::CallId;
use bourse_wire::v1;

use crate::triggers::{Offers, message_in};

/// The modules that are served.
pub const MODULES: [&str; 2] = ["a", "b"];
/// The namespace of all ledgers: both modules write there.
pub const SHARED: &str = "shared";
/// Attempts of the function `f` before a call is a dead letter.
const ATTEMPTS_F: u32 = 5;
/// The same of `q`.
const ATTEMPTS_Q: u32 = 3;

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
}

impl Plan {
    /// One that returns at once.
    pub fn of(function: &str) -> Self {
        Self {
            function: function.to_owned(),
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
        }
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
    pub fn argument(&self, number: u32) -> String {
        format!("{number}{}", " ".repeat(self.padding))
    }

    /// Attempts before it is a dead letter.
    pub fn attempts_max(&self) -> u32 {
        if self.function.ends_with(".q") { ATTEMPTS_Q } else { ATTEMPTS_F }
    }

    /// All its calls are durable, also if somebody waits for them.
    pub fn is_retried(&self) -> bool {
        self.function.ends_with(".q")
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
    Call(String, String),
    /// Makes a durable call.
    Start(String, String),
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
    /// How often each call was handed to an instance, which may have died before it began.
    handed: BTreeMap<CallId, u32>,
    /// Runs in all.
    pub runs_made: u64,
}

impl Stage {
    /// A new plan's number.
    pub fn add(&mut self, plan: Plan) -> u32 {
        let number = u32::try_from(self.plans.len()).expect("plans are few");
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

    /// All, with their numbers.
    pub fn plans(&self) -> impl Iterator<Item = (u32, &Plan)> {
        (0..).zip(&self.plans)
    }

    /// How often a plan was begun.
    pub fn runs(&self, number: u32) -> u32 {
        self.runs.get(&number).copied().unwrap_or_default()
    }

    /// How often a call was handed to an instance.
    pub fn handed(&self, call: CallId) -> u32 {
        self.handed.get(&call).copied().unwrap_or_default()
    }

    /// A call is handed to an instance.
    pub(crate) fn hands(&mut self, call: CallId) {
        *self.handed.entry(call).or_default() += 1;
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
        let starts = || plan.starts.iter().map(call_of).map(|(f, a)| Step::Start(f, a));
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
        steps
    }
}

/// What a message begins with, as an argument.
const ARGUMENTS: u8 = 0x82;

/// The plan that an argument names; a message names it too.
pub fn parse(argument: &[u8]) -> Option<u32> {
    if argument.first() == Some(&ARGUMENTS) {
        return message_in(argument)?.parse().ok();
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
pub fn describe(module: &str, offers: Offers) -> v1::Module {
    let function = |(name, options): (&str, &[(&str, &str)])| v1::Function {
        name: name.to_owned(),
        options: options.iter().map(|(key, json)| ((*key).to_owned(), (*json).to_owned())).collect(),
        ..Default::default()
    };
    let functions: [(&str, &[(&str, &str)]); 2] = [
        ("f", &[("timeout", r#""3s""#)]),
        ("q", &[("timeout", r#""1s""#), ("retry", r#"{"attempts": 3, "pause": "10ms"}"#)]),
    ];
    v1::Module {
        name: module.to_owned(),
        functions: functions.into_iter().map(function).chain(offers.functions(module)).collect(),
        ..Default::default()
    }
}
