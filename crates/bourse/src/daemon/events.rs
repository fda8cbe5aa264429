//! Logs and metrics.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use anyhow::Context as _;
use bourse_gateway::Held;
use bourse_gateway::pattern::Pattern;
use bourse_node::{Event, Level, ModuleView};
use bourse_wire::failure::Code;
use bourse_wire::id::FunctionName;
use bourse_wire::options::MailPattern;
use bourse_wire::v1;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::files::Contact;
use super::logs;
use crate::config::Config;

/// Why a file that offers no function is not served: that is in order, it may be a helper.
pub(crate) const NO_FUNCTIONS: &str = "it has no functions";

/// How it begins why a module without a Python environment is not served. That is reported once, for all of them.
pub(super) const NO_PYTHON: &str = "there is no Python environment for it: ";

/// Logs to stderr, and as lines of JSON to `logs/bourse-daemon.log` in the data folder.
pub(super) fn start_log(config: &Config, data: &Path) -> anyhow::Result<()> {
    let filter = || {
        EnvFilter::try_new(config.text("log")).map_err(|e| {
            anyhow::anyhow!(
                "log = {:?} is neither a level nor a filter: {e}\n  hint: use error, warn, info, debug or trace",
                config.text("log")
            )
        })
    };
    let path = logs::of_daemon(data);
    let file = logs::Rotating::open(path.clone())
        .with_context(|| format!("the log {} cannot be written", path.display()))?;
    let to_file = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .log_internal_errors(false)
        .with_writer(Mutex::new(file))
        .with_filter(filter()?);
    let json = match config.text("log_format") {
        "text" => false,
        "json" => true,
        other => anyhow::bail!("log_format = {other:?} is neither text nor json"),
    };
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Stderr may be a terminal that is gone; telling that on stderr would be a panic.
    let stderr = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(std::io::stderr);
    let stderr = if json {
        stderr.json().flatten_event(true).boxed()
    } else {
        stderr.with_target(false).with_ansi(terminal).compact().boxed()
    };
    tracing_subscriber::registry().with(to_file).with(stderr.with_filter(filter()?)).init();
    Ok(())
}

/// Something that a person has to see to.
pub(super) fn problem(about: &str, text: &str, hint: &str) {
    match hint {
        "" => tracing::error!("{about}: {text}"),
        hint => tracing::error!("{about}: {text}\n  hint: {hint}"),
    }
}

/// The line that tells people and scripts that the daemon serves, and what.
pub(super) fn ready(
    contact: &Contact,
    served: &[v1::Module],
    held: &Held,
    modules: impl Iterator<Item = ModuleView>,
    is_alone: bool,
) {
    let functions: usize = served.iter().map(|m| m.functions.len()).sum();
    // One of several has those of the others.
    if functions == 0 && is_alone {
        let broken =
            modules.filter(|m| m.failure.as_ref().is_some_and(|f| f.message != NO_FUNCTIONS)).count();
        let text = if broken > 0 {
            format!("{broken} modules do not load")
        } else {
            "it holds no function".to_owned()
        };
        problem(
            &contact.folder.display().to_string(),
            &format!("{text}; nothing is served until that changes"),
            "save a file such as hello.py with `def hello(name: str): return f\"hello {name}\"`: it is served at once",
        );
    }
    for module in served {
        for f in &module.functions {
            // Those that were left out have been reported.
            let is_held = |route: &&String| {
                Pattern::parse(route)
                    .is_ok_and(|pattern| held.contains(&(pattern.to_string(), module.name.clone())))
            };
            let mail = f.options.get("mail").and_then(|json| MailPattern::from_json(json).ok());
            let mail = mail.into_iter().flatten().map(|pattern| format!("MAIL {pattern}"));
            let mail = mail.filter(|mail| held.contains(&(mail.clone(), module.name.clone())));
            let routes: Vec<String> = f.http.iter().filter(is_held).cloned().chain(mail).collect();
            let routes = if routes.is_empty() {
                format!("POST /v1/call/{}.{}", module.name, f.name)
            } else {
                routes.join(", ")
            };
            tracing::info!("  {}.{}  {routes}", module.name, f.name);
        }
    }
    match &contact.smtp {
        None => tracing::info!("ready: {} on {}", counted(functions), contact.http),
        Some(smtp) => tracing::info!("ready: {} on {} and {smtp}", counted(functions), contact.http),
    }
}

fn counted(functions: usize) -> String {
    format!("{functions} function{}", if functions == 1 { "" } else { "s" })
}

/// Counters and histograms, looked up once per function.
#[derive(Default)]
pub(super) struct Meters {
    functions: BTreeMap<FunctionName, FunctionMeter>,
}

struct FunctionMeter {
    waited: metrics::Histogram,
    ran: metrics::Histogram,
    done: metrics::Counter,
    accepted: metrics::Counter,
}

/// Functions that have meters of their own. Names come from callers only once they exist.
const FUNCTIONS_MAX: usize = 10_000;

impl Meters {
    pub(super) fn on_event(&mut self, event: &Event) {
        match event {
            Event::CallDone { call, function, failure, waited, ran } => {
                let meter = self.of(function);
                meter.waited.record(waited.as_secs_f64());
                meter.ran.record(ran.as_secs_f64());
                match failure {
                    None => meter.done.increment(1),
                    Some(failure) => failed(*call, function, failure, *ran),
                }
            }
            Event::CallRefused { function, failure } => {
                metrics::counter!("bourse_calls_refused_total", "code" => failure.kind().as_str())
                    .increment(1);
                tracing::debug!(%function, code = failure.code, "refused: {}", failure.message);
            }
            Event::Bought { module, waited } => {
                metrics::histogram!("bourse_token_wait_seconds", "module" => module.clone())
                    .record(waited.as_secs_f64());
            }
            Event::Accepted { call, function, first } => {
                self.of(function).accepted.increment(u64::from(*first));
                tracing::debug!(%call, %function, "accepted");
            }
            Event::Retried { call, function, attempt, failure, after } => {
                metrics::counter!("bourse_durable_retries_total", "function" => function.to_string())
                    .increment(1);
                tracing::info!(%call, %function, "attempt {attempt} failed ({}); the next one comes in {after:.1?}{}", failure.code, below(failure));
            }
            Event::DeadLettered { call, function, attempt, failure } => {
                metrics::counter!("bourse_dead_letters_total", "function" => function.to_string())
                    .increment(1);
                tracing::error!(
                    %call, %function,
                    "is a dead letter after {attempt} attempts: {}\n  hint: bourse dead show {call}; when it is mended: bourse dead replay {call}{}",
                    failure.message,
                    below(failure)
                );
            }
            Event::InstanceReady { module, process, took } => {
                metrics::histogram!("bourse_cold_start_seconds", "module" => module.clone())
                    .record(took.as_secs_f64());
                tracing::debug!(instance = process.0, "{module}: an instance is ready after {took:.1?}");
            }
            Event::InstanceGone { module, process, exit, expected } => {
                if *expected {
                    tracing::debug!(instance = process.0, "{module}: an instance {exit}");
                } else {
                    metrics::counter!("bourse_instance_crashes_total", "module" => module.clone())
                        .increment(1);
                    tracing::error!(instance = process.0, "{module}: an instance {exit}");
                }
            }
            Event::RevisionServes { module, revision, functions } => {
                tracing::info!("{module}: revision {} serves, {}", revision.0, counted(*functions));
            }
            Event::RevisionFailed { module, failure, .. } if failure.message == NO_FUNCTIONS => {
                tracing::info!("{module}: has no functions of its own, and is taken for a helper of others");
            }
            Event::RevisionFailed { module, failure, .. } if failure.message.starts_with(NO_PYTHON) => {
                tracing::debug!("{module}: {}", failure.message);
            }
            Event::RevisionFailed { module, revision, failure, still_serving } => {
                let goes_on = if *still_serving { "; the one before goes on" } else { "" };
                let detail = below(failure);
                problem(
                    module,
                    &format!("revision {} does not load{goes_on}: {}{detail}", revision.0, failure.message),
                    &failure.hint,
                );
            }
            Event::FunctionLog { module, log } => function_log(module, log),
            Event::Note { level, text } => match level {
                Level::Debug => tracing::debug!("{text}"),
                Level::Info => tracing::info!("{text}"),
                Level::Warning => tracing::warn!("{text}"),
                Level::Error => tracing::error!("{text}"),
            },
        }
    }

    fn of(&mut self, function: &FunctionName) -> &FunctionMeter {
        if !self.functions.contains_key(function) {
            if self.functions.len() >= FUNCTIONS_MAX {
                self.functions.clear();
            }
            let name = function.to_string();
            let meter = FunctionMeter {
                waited: metrics::histogram!("bourse_call_wait_seconds", "function" => name.clone()),
                ran: metrics::histogram!("bourse_call_run_seconds", "function" => name.clone()),
                accepted: metrics::counter!("bourse_durable_accepted_total", "function" => name.clone()),
                done: metrics::counter!("bourse_calls_total", "function" => name, "code" => "ok"),
            };
            self.functions.insert(function.clone(), meter);
        }
        &self.functions[function]
    }
}

/// The traceback, if there is one, as lines below a message.
fn below(failure: &v1::Failure) -> String {
    let traceback = failure.traceback.trim_end();
    if traceback.is_empty() { String::new() } else { format!("\n{traceback}") }
}

fn failed(
    call: bourse_wire::id::CallId,
    function: &FunctionName,
    failure: &v1::Failure,
    ran: std::time::Duration,
) {
    let code = failure.kind();
    metrics::counter!("bourse_calls_total", "function" => function.to_string(), "code" => code.as_str())
        .increment(1);
    match code {
        Code::Cancelled => tracing::info!(%call, %function, ?ran, "cancelled: {}", failure.message),
        Code::FunctionError => {
            tracing::warn!(%call, %function, "{}: {}{}", failure.r#type, failure.message, below(failure))
        }
        Code::InstanceCrashed | Code::Internal | Code::StoreUnavailable => {
            tracing::error!(%call, %function, "{}", failure.message)
        }
        _ => tracing::warn!(%call, %function, code = code.as_str(), "{}", failure.message),
    }
}

fn function_log(module: &str, log: &v1::Log) {
    let fields: String = log.fields.iter().map(|(k, v)| format!(" {k}={v}")).collect();
    let call = bourse_wire::id::CallId::from_wire(&log.call).map(|c| c.to_string()).unwrap_or_default();
    let text = &log.message;
    match v1::log::Level::try_from(log.level) {
        Ok(v1::log::Level::Debug) => tracing::debug!(module, call, "{text}{fields}"),
        Ok(v1::log::Level::Warning) => tracing::warn!(module, call, "{text}{fields}"),
        Ok(v1::log::Level::Error) => tracing::error!(module, call, "{text}{fields}"),
        Ok(v1::log::Level::Info | v1::log::Level::Unspecified) | Err(_) => {
            tracing::info!(module, call, "{text}{fields}")
        }
    }
}
