//! A function as its module describes it, and its options.

use std::time::Duration;

use bourse_market::name::Horizon;
use bourse_wire::failure::Code;
use bourse_wire::options::{
    Batch, Cron, Debounce, KeyTemplate, MailPattern, QueueName, Retry, Throttle, TopicPattern, Unique,
    Websocket, Window,
};
use bourse_wire::v1;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Function {
    pub timeout: Option<Duration>,
    pub queue_wait: Option<Duration>,
    /// Its calls are durable, and this is how their failures are met.
    pub retry: Option<Retry>,
    /// Of calls with the same key one runs at a time, in the order in which they came.
    pub exclusive: Option<KeyTemplate>,
    /// Its calls are durable, and a second one with the same key is the first one.
    pub unique: Option<Unique>,
    /// How often it is run at most.
    pub throttle: Option<Throttle>,
    /// Its calls are durable, and of those that follow each other quickly only the last one is run.
    pub debounce: Option<Debounce>,
    /// Its calls are durable, and run several at a time.
    pub batch: Option<Batch>,
    /// When the clock wakes it.
    pub cron: Vec<Cron>,
    /// The queues that are its own.
    pub queues: Vec<QueueName>,
    /// The topics that it listens to.
    pub topics: Vec<TopicPattern>,
    /// It does no harm if it runs twice: a call whose instance or node dies is tried again elsewhere.
    pub idempotent: bool,
    /// How far its calls may travel.
    pub horizon: Option<Horizon>,
    /// How long it runs, smoothed; `None` until it has been seen.
    pub run_time: Option<Duration>,
    /// It has been seen to use state, to publish, or to start durable calls.
    pub stateful: bool,
}

/// The options that there are.
const OPTIONS: &[&str] = &[
    "timeout",
    "queue_wait",
    "retry",
    "exclusive",
    "unique",
    "throttle",
    "debounce",
    "batch",
    "mail",
    "websocket",
    "cron",
    "queue",
    "topic",
    "idempotent",
    "horizon",
];

impl Function {
    /// Its calls are accepted where the store is.
    pub(crate) fn needs_store(&self) -> bool {
        self.stateful || self.exclusive.is_some() || self.throttle.is_some()
    }

    /// A call that comes twice does no harm, however much later. A key that holds for a while only may be free again by then.
    pub(crate) fn is_harmless_twice(&self) -> bool {
        self.idempotent || self.unique.as_ref().is_some_and(|unique| unique.window == Window::Kept)
    }

    /// How much the last run weighs in the smoothed run time: 1 in 8.
    const WEIGHT: u32 = 8;

    /// Reads a function's options, or says what is wrong with one.
    pub(crate) fn new(description: &v1::Function) -> Result<Self, v1::Failure> {
        let mut function = Self::default();
        for (option, json) in &description.options {
            function.set(description, option, json)?;
        }
        if function.batch.is_some() && function.exclusive.is_some() {
            return Err(Code::ModuleFailed
                .because(format!("function {} is both `batch` and `exclusive`", description.name))
                .hint("a list has calls with different keys: leave one of the options out"));
        }
        if function.unique.is_some() && function.debounce.is_some() {
            return Err(Code::ModuleFailed
                .because(format!("function {} is both `unique` and `debounce`", description.name))
                .hint(
                    "leave one of them out: with `unique` the first call counts, with `debounce` the last",
                ));
        }
        Ok(function)
    }

    fn set(&mut self, of: &v1::Function, option: &str, json: &str) -> Result<(), v1::Failure> {
        let wrong = |hint: &'static str| {
            move |why: String| {
                Code::ModuleFailed
                    .because(format!("{option} = {json} of function {}: {why}", of.name))
                    .hint(hint)
            }
        };
        match option {
            "timeout" => self.timeout = Some(duration(of, option, json)?),
            "queue_wait" => self.queue_wait = Some(duration(of, option, json)?),
            "retry" => {
                let hint = "write it as 5, or {\"attempts\": 5, \"pause\": \"1s\", \"pause_max\": \"1m\"}";
                self.retry = Some(Retry::from_json(json).map_err(wrong(hint))?);
            }
            "exclusive" => {
                let hint = "write it as \"{account}\", with the names of arguments in braces";
                self.exclusive = Some(KeyTemplate::from_json(json, &of.parameters).map_err(wrong(hint))?);
            }
            "unique" => {
                let hint = "write it as \"{order}\", or {\"key\": \"{order}\", \"window\": \"1h\"}";
                self.unique = Some(Unique::from_json(json, &of.parameters).map_err(wrong(hint))?);
            }
            // Who takes which mail is the gateway's to know.
            "mail" => {
                let hint = "write it as \"orders@example.com\", \"orders@*\", \"*@example.com\" or \"*\"";
                MailPattern::from_json(json).map_err(wrong(hint))?;
            }
            "throttle" => {
                let hint = "write it as \"10/s\", or {\"rate\": \"10/s\", \"burst\": 5, \"key\": \"{user}\"}";
                self.throttle = Some(Throttle::from_json(json, &of.parameters).map_err(wrong(hint))?);
            }
            "batch" => {
                let hint = "write it as 100, or {\"max\": 100, \"wait\": \"50ms\"}";
                self.batch = Some(Batch::from_json(json).map_err(wrong(hint))?);
            }
            "debounce" => {
                let hint =
                    "write it as \"5s\", or {\"wait\": \"5s\", \"max\": \"1m\", \"key\": \"{document}\"}";
                self.debounce = Some(Debounce::from_json(json, &of.parameters).map_err(wrong(hint))?);
            }
            // The gateway's, which reads it again.
            "websocket" => {
                let hint = "write it as \"/chat/{room}\", or {\"path\": \"/chat/{room}\", \"durable\": true}";
                Websocket::from_json(json).map_err(wrong(hint))?;
            }
            "cron" => {
                let hint =
                    "write it as \"0 3 * * *\", or {\"line\": \"0 3 * * *\", \"zone\": \"Europe/Berlin\"}";
                self.cron =
                    Cron::from_json(json).and_then(|cron| no_arguments(of, cron)).map_err(wrong(hint))?;
            }
            "queue" => {
                let hint = "write it as \"orders\", or [\"orders\", \"returns\"]";
                let queues = QueueName::from_json(json).and_then(|queues| one_argument(of, queues));
                self.queues = queues.map_err(wrong(hint))?;
            }
            "topic" => {
                let hint = "write it as \"order.paid\", \"order.*\" or \"order.>\"";
                let topics = TopicPattern::from_json(json).and_then(|topics| one_argument(of, topics));
                self.topics = topics.map_err(wrong(hint))?;
            }
            "idempotent" => {
                let told = match json {
                    "true" => Ok(true),
                    "false" => Ok(false),
                    _ => Err("it is neither true nor false".to_owned()),
                };
                self.idempotent =
                    told.map_err(wrong("write it as true, if the function does no harm when it runs twice"))?;
            }
            "horizon" => {
                self.horizon = Some(match json {
                    "\"machine\"" => Horizon::Machine,
                    "\"network\"" => Horizon::Network,
                    "\"anywhere\"" => Horizon::Anywhere,
                    "\"process\"" => Horizon::Process,
                    _ => {
                        return Err(wrong(
                            "write it as \"process\", \"machine\", \"network\" or \"anywhere\"",
                        )("it is none".to_owned()));
                    }
                });
            }
            _ => return Err(unknown_option(option, &format!("function {}", of.name))),
        }
        Ok(())
    }

    pub(crate) fn ran(&mut self, took: Duration) {
        self.run_time = Some(match self.run_time {
            None => took,
            Some(old) => (old * (Self::WEIGHT - 1) + took) / Self::WEIGHT,
        });
    }
}

/// A tick brings no arguments.
fn no_arguments<T>(of: &v1::Function, option: T) -> Result<T, String> {
    match of.parameters.iter().find(|p| p.required && !is_variadic(p)) {
        None => Ok(option),
        Some(p) => Err(format!("a tick gives no arguments, and the parameter {} has no default", p.name)),
    }
}

/// A message is the only argument, by position.
fn one_argument<T>(of: &v1::Function, option: T) -> Result<T, String> {
    use v1::parameter::Kind;
    let takes = |p: &&v1::Parameter| matches!(p.kind(), Kind::Any | Kind::Positional | Kind::VarPositional);
    let mut by_position = of.parameters.iter().filter(takes);
    // A module that is any program need not say what its functions take.
    if by_position.next().is_none() && !of.parameters.is_empty() {
        return Err("a message is given by position, and no parameter takes that".to_owned());
    }
    let first = of.parameters.iter().position(|p| takes(&p));
    let more =
        of.parameters.iter().enumerate().find(|(at, p)| Some(*at) != first && p.required && !is_variadic(p));
    match more {
        None => Ok(option),
        Some((_, p)) => {
            Err(format!("a message is the only argument, and the parameter {} has no default", p.name))
        }
    }
}

fn is_variadic(parameter: &v1::Parameter) -> bool {
    use v1::parameter::Kind;
    matches!(parameter.kind(), Kind::VarPositional | Kind::VarNamed)
}

fn duration(of: &v1::Function, option: &str, json: &str) -> Result<Duration, v1::Failure> {
    bourse_wire::time::parse_duration(json.trim_matches('"')).ok_or_else(|| {
        Code::ModuleFailed
            .because(format!("{option} = {json} of function {} is not a duration", of.name))
            .hint("write it as \"5s\", \"200ms\" or \"1m\"")
    })
}

pub(crate) fn unknown_option(option: &str, of: &str) -> v1::Failure {
    Code::ModuleFailed
        .because(format!("the option {option:?} of {of} is not supported by this version of bourse"))
        .hint(format!("supported options are: {}", OPTIONS.join(", ")))
}
