//! What a pretend function does, step by step.

use std::collections::BTreeMap;
use std::rc::Rc;

use bourse_node::{Kind, Report, RevisionId};
use bourse_wire::arguments::Arguments;
use bourse_wire::failure::Code;
use bourse_wire::v1;
use bourse_wire::value::Value;
use bytes::Bytes;

/// One step of a function.
#[derive(Clone, Debug)]
pub enum Step {
    /// Computes for so many milliseconds.
    Run(u64),
    /// Calls a function with an argument and waits for it; its failure is this function's.
    Call(&'static str, String),
    /// The same, but a failure is nothing to it.
    Try(&'static str, String),
    /// Calls, and goes on.
    Submit(&'static str, String),
    /// Makes a durable call, and goes on once it is known by its id.
    Start(&'static str, String),
    /// Publishes to `queue:name` or `topic:name`, and goes on once it is known who gets it.
    Publish(&'static str, &'static str),
    WaitAll,
    WaitAny,
    Read(&'static str),
    Scan(&'static str),
    Write(&'static str, &'static str),
    /// Writes one more than the number that was read last.
    Increment(&'static str),
    Fail(&'static str),
    /// Hands on to another function.
    Tail(&'static str, String),
    /// Returns its fence.
    ReturnFence,
    /// Fails, and says what is to become of the call.
    Verdict(v1::Verdict, u64),
    /// Is killed by the system.
    Crash,
    /// Ends the process with this code.
    Exit(i32),
    /// Never ends; deaf to interrupts, while pings and recalls are answered.
    Hang,
    /// The same, and nothing is answered.
    Freeze,
    Log(&'static str),
    Return(&'static str),
    /// Returns the sum of all results of its calls.
    Sum,
    /// Returns a result of so many bytes.
    ReturnBytes(usize),
    /// Sends bye instead of a result, and leaves.
    Leave,
    /// Sends its result although it waits for the calls it submitted.
    ReturnWhileWaiting,
}

pub type Program = Rc<dyn Fn(&str) -> Vec<Step>>;

/// A module as a pretend developer writes it.
#[derive(Clone)]
pub struct Module {
    pub name: String,
    pub revision: String,
    pub kind: Kind,
    pub version: String,
    pub functions: BTreeMap<String, Program>,
    pub options: BTreeMap<String, BTreeMap<String, String>>,
    /// It does not load.
    pub broken: Option<&'static str>,
    pub not_forkable: &'static str,
    /// Instances say that they fail, die with this code before their hello, or never say anything.
    pub instances: Start,
    pub load_ms: u64,
    pub start_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    Well,
    SayingWhyNot(&'static str),
    Dying(i32),
    Never,
    Version(u32),
}

impl Module {
    pub fn new(name: &str, revision: &str) -> Self {
        Self {
            name: name.to_owned(),
            revision: revision.to_owned(),
            kind: Kind::Python,
            version: String::new(),
            functions: BTreeMap::new(),
            options: BTreeMap::new(),
            broken: None,
            not_forkable: "",
            instances: Start::Well,
            load_ms: 50,
            start_ms: 3,
        }
    }

    pub fn function(self, name: &str, steps: impl IntoIterator<Item = Step>) -> Self {
        let steps: Vec<Step> = steps.into_iter().collect();
        self.computed(name, move |_| steps.clone())
    }

    pub fn computed(mut self, name: &str, program: impl Fn(&str) -> Vec<Step> + 'static) -> Self {
        self.functions.insert(name.to_owned(), Rc::new(program));
        self
    }

    pub fn option(mut self, function: &str, name: &str, json: &str) -> Self {
        self.options.entry(function.to_owned()).or_default().insert(name.to_owned(), json.to_owned());
        self
    }

    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    pub fn broken(mut self, why: &'static str) -> Self {
        self.broken = Some(why);
        self
    }

    pub fn instances(mut self, start: Start) -> Self {
        self.instances = start;
        self
    }

    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub fn not_forkable(mut self, why: &'static str) -> Self {
        self.not_forkable = why;
        self
    }

    pub fn load_ms(mut self, ms: u64) -> Self {
        self.load_ms = ms;
        self
    }

    pub fn id(&self) -> RevisionId {
        RevisionId(self.revision.clone())
    }

    pub fn describe(&self) -> v1::Module {
        let function = |name: &String| v1::Function {
            name: name.clone(),
            options: self.options.get(name).cloned().unwrap_or_default(),
            parameters: vec![v1::Parameter { name: "key".to_owned(), ..Default::default() }],
            ..Default::default()
        };
        v1::Module {
            name: self.name.clone(),
            version: self.version.clone(),
            functions: self.functions.keys().map(function).collect(),
            ..Default::default()
        }
    }

    pub fn report(&self) -> Report {
        match self.broken {
            Some(why) => Report::Failed(failed_with(why)),
            None => Report::Ready { module: self.describe(), not_forkable: self.not_forkable.to_owned() },
        }
    }
}

/// As a module says it, with its own traceback.
pub fn failed_with(why: &str) -> v1::Failure {
    let mut failure = Code::ModuleFailed.because(why);
    failure.traceback = format!("Traceback (most recent call last):\n  {why}\n");
    failure
}

/// What a function is called with, or returns, as text. Arguments whose first is `a` read as `(a)`.
pub fn text(bytes: &Bytes) -> String {
    match Arguments::from_cbor(bytes).map(|arguments| arguments.positional.into_iter().next()) {
        Ok(Some(Value::Text(text))) => format!("({text})"),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The other way round.
pub fn payload(text: &str) -> Bytes {
    match text.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
        Some(text) => {
            let positional = vec![Value::Text(text.to_owned())];
            Arguments { positional, named: Vec::new() }.to_cbor()
        }
        None => Bytes::copy_from_slice(text.as_bytes()),
    }
}
