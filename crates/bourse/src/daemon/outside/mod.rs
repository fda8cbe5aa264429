//! What the daemon does for functions outside: webhooks and mails. A thread of its own, so that TLS and slow targets are
//! in nobody's way.
//!
//! ```text
//! driver -> outside: Job::Perform, Desist, Settings      outside -> driver: Performed
//! ```
//!
//! It tries once. Whether there is another attempt is the node's decision; what is said here is what went wrong, and
//! what the other end wants to become of it. As many jobs are under way as the node has asked for: that is bounded.
//!
//! | file | is |
//! |---|---|
//! | `arguments` | a call's arguments by name |
//! | `webhook` | a signed HTTP request, and what its answer means |
//! | `request` | one HTTP request: name, connection, TLS, answer |
//! | `reach` | which addresses webhooks may go to |
//! | `mail` | one mail through the relay |

pub(super) mod arguments;
mod mail;
mod reach;
mod request;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use bourse_node::{HostFunction, Success};
use bourse_wire::failure::Code;
use bourse_wire::id::{Attempt, CallId};
use bourse_wire::v1;
use bourse_wire::value::Value;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::config::Config;
pub(crate) use reach::Reach;

/// What settings say about the world outside. Secrets are here, and never in a call.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub webhook_secrets: Vec<String>,
    /// By host.
    pub webhook_host_secrets: BTreeMap<String, String>,
    pub webhook_reach: Reach,
    pub mail: mail::Settings,
}

impl Settings {
    pub(crate) fn from(config: &Config) -> Self {
        Self {
            webhook_secrets: config.list("webhook_secret"),
            webhook_host_secrets: config.webhook_secrets.clone(),
            webhook_reach: config.text("webhook_reach").parse().expect("it is checked when it is given"),
            mail: mail::Settings::from(config),
        }
    }
}

/// What is asked for.
pub(super) struct Task {
    pub call: CallId,
    pub attempt: Attempt,
    pub function: HostFunction,
    pub payload: Bytes,
    pub traceparent: String,
}

/// What came of it.
pub(super) struct Performed {
    pub call: CallId,
    pub attempt: Attempt,
    pub result: Result<Success, v1::Failure>,
}

enum Job {
    Perform(Task),
    Desist(CallId, Attempt),
    Settings(Box<Settings>),
}

/// The line to the thread. Dropping it ends what is under way.
pub(super) struct Outside {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Outside {
    /// Starts it; what it has done comes back through `performed`.
    pub(super) fn start(
        settings: Settings,
        performed: mpsc::UnboundedSender<Performed>,
    ) -> anyhow::Result<Self> {
        let (jobs, to_do) = mpsc::unbounded_channel();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
        thread::Builder::new()
            .name("bourse-outside".into())
            .spawn(move || runtime.block_on(work(Arc::new(settings), to_do, performed)))?;
        Ok(Self { jobs })
    }

    pub(super) fn perform(&self, task: Task) {
        self.send(Job::Perform(task));
    }

    pub(super) fn desist(&self, call: CallId, attempt: Attempt) {
        self.send(Job::Desist(call, attempt));
    }

    pub(super) fn configure(&self, settings: Settings) {
        self.send(Job::Settings(Box::new(settings)));
    }

    fn send(&self, job: Job) {
        self.jobs.send(job).expect("the thread lives as long as its line");
    }
}

async fn work(
    mut settings: Arc<Settings>,
    mut to_do: mpsc::UnboundedReceiver<Job>,
    performed: mpsc::UnboundedSender<Performed>,
) {
    let client = Arc::new(request::Client::default());
    let mut under_way: BTreeMap<(CallId, Attempt), AbortHandle> = BTreeMap::new();
    // So many are looked through when there are more, for those that have ended.
    let mut sweep_at = SWEEP_MIN;
    while let Some(job) = to_do.recv().await {
        match job {
            Job::Settings(new) => settings = Arc::new(*new),
            Job::Desist(call, attempt) => {
                if let Some(task) = under_way.remove(&(call, attempt)) {
                    task.abort();
                }
            }
            Job::Perform(task) => {
                let key = (task.call, task.attempt);
                let (settings, client, performed) = (settings.clone(), client.clone(), performed.clone());
                let handle = tokio::spawn(async move {
                    let (call, attempt) = (task.call, task.attempt);
                    let result = perform(task, &settings, &client).await;
                    // The driver is gone only when the daemon ends.
                    let _ = performed.send(Performed { call, attempt, result });
                });
                under_way.insert(key, handle.abort_handle());
                if under_way.len() > sweep_at {
                    under_way.retain(|_, task| !task.is_finished());
                    sweep_at = SWEEP_MIN.max(2 * under_way.len());
                }
            }
        }
    }
}

const SWEEP_MIN: usize = 1_024;

async fn perform(task: Task, settings: &Settings, client: &request::Client) -> Result<Success, v1::Failure> {
    let value = match task.function {
        HostFunction::Webhook => webhook::perform(&task, settings, client).await?,
        HostFunction::Mail => mail::perform(&task, &settings.mail).await?,
        HostFunction::Send | HostFunction::Close | HostFunction::Join | HostFunction::Leave => {
            unreachable!("what concerns connections is done by the gateway")
        }
    };
    Ok(success(&value))
}

pub(super) fn success(value: &Value) -> Success {
    Success { payload: value.to_cbor(), ..Success::default() }
}

/// The other end was not reached, or does not take it now.
fn undelivered(why: impl Into<String>) -> v1::Failure {
    Code::Undelivered.because(why)
}

/// It is of no use to try again.
fn hopeless(failure: v1::Failure) -> v1::Failure {
    v1::Failure { verdict: v1::Verdict::DeadLetter.into(), ..failure }
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}
