//! One connection with the daemon, as an attached process that runs one call at a time; its calls run on the other grid.
//!
//! When the daemon starts again, the lane says hello again. It ends, once its call is answered, when it is told to leave, or when others
//! have taken its place and the daemon does not want it any more; and when the daemon refuses it.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bourse_client::{Client, Error, Reply};
use bourse_transport::{Bounds, Connection, Dealer, Event, SendError, Transport as _};
use bourse_wire::PROTOCOL_VERSION;
use bourse_wire::failure::Code;
use bourse_wire::header;
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as Said;
use bourse_wire::v1::to_worker::Message as Heard;
use bytes::Bytes;
use tokio::sync::watch;

use super::Daemon;
use super::flow::Flow;
use super::modules::Carried;

/// When it is worth trying again while the other grid can't be reached.
const AGAIN: Duration = Duration::from_secs(1);
/// The largest payload of the worker protocol that a lane takes: what the daemon lets through is smaller.
const PAYLOAD_MAX: usize = 1 << 30;

/// See the module.
pub(super) struct Lane {
    pub daemon: Daemon,
    pub client: Client,
    pub carried: Carried,
    pub flow: Arc<Flow>,
}

/// A call that is on its way.
struct Running {
    call: Bytes,
    attempt: u32,
    /// What it comes to.
    answer: Pin<Box<dyn Future<Output = Result<Reply, v1::Failure>> + Send>>,
}

/// What a lane has to do.
#[derive(Default)]
struct Work {
    running: Option<Running>,
    waiting: VecDeque<(v1::Invoke, Bytes)>,
    results: u64,
    /// Nothing new is begun.
    leaving: bool,
    /// Others of this bridge serve the module by now, as it is over there since.
    superseded: bool,
    /// The daemon stops: this connection ends when nothing is under way.
    parting: bool,
}

impl Lane {
    /// Carries calls until `staying` ends. It says whether others are to take the place of this one.
    pub(super) async fn run(self, mut staying: watch::Receiver<bool>) -> anyhow::Result<()> {
        let bounds = Bounds::new(header::HEADER_BYTES_MAX + PAYLOAD_MAX);
        let mut dealer = Dealer::connect(&self.daemon.endpoint, &bounds)?;
        let (mut work, mut events) = (Work::default(), Vec::new());
        while !(work.leaving && work.running.is_none()) {
            tokio::select! {
                () = dealer.recv(&mut events) => {
                    work.superseded = *staying.borrow();
                    for event in events.drain(..) {
                        self.on_event(&mut dealer, &mut work, event)?;
                    }
                }
                answer = answered(&mut work.running) => {
                    let Running { call, attempt, .. } = work.running.take().expect("it was just answered");
                    work.results += 1;
                    let (result, payload) = result(call, attempt, work.results, answer);
                    say(&mut dealer, Said::Result(result), payload);
                    self.next(&mut work);
                    part(&mut dealer, &work);
                }
                changed = staying.changed(), if !work.leaving => match changed {
                    Ok(()) => work.superseded = *staying.borrow_and_update(),
                    // Whoever tells is gone: that is the sign.
                    Err(_) => work.leave(),
                },
            }
        }
        // What has not begun is given back.
        say(&mut dealer, Said::Bye(v1::Bye {}), Bytes::new());
        dealer.shut_down().await;
        Ok(())
    }

    fn on_event(&self, dealer: &mut Dealer, work: &mut Work, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Opened { .. } if work.superseded => work.leave(),
            Event::Opened { .. } => {
                let hello = v1::Hello {
                    version_min: PROTOCOL_VERSION,
                    version_max: PROTOCOL_VERSION,
                    role: v1::Role::Attached.into(),
                    secret: self.daemon.token.clone(),
                    module: Some(self.carried.description.clone()),
                    agent: concat!("bourse bridge ", env!("CARGO_PKG_VERSION")).to_owned(),
                    pid: std::process::id(),
                    shared: true,
                    ..Default::default()
                };
                say(dealer, Said::Hello(hello), Bytes::new());
            }
            // The daemon has called off what it had asked for over that connection.
            Event::Closed { .. } => {
                (work.running, work.waiting, work.parting) = (None, VecDeque::new(), false);
            }
            Event::Broken { reason, .. } => anyhow::bail!("the daemon's messages can't be read: {reason}"),
            Event::Frame { header, payload, .. } => {
                let message = header::decode::<v1::ToWorker>(header)?.message;
                self.on_message(dealer, work, message, payload)?;
            }
        }
        Ok(())
    }

    fn on_message(
        &self,
        dealer: &mut Dealer,
        work: &mut Work,
        message: Option<Heard>,
        payload: Bytes,
    ) -> anyhow::Result<()> {
        match message {
            Some(Heard::Invoke(invoke)) => {
                work.waiting.push_back((invoke, payload));
                self.next(work);
            }
            Some(Heard::Cancel(cancel)) => {
                let is = |call: &Bytes, attempt| *call == cancel.call && attempt == cancel.attempt;
                let before = work.waiting.len();
                work.waiting.retain(|(invoke, _)| !is(&invoke.call, invoke.attempt));
                // Dropping its future cancels it over there.
                let ran = work.running.take_if(|running| is(&running.call, running.attempt)).is_some();
                if ran || work.waiting.len() < before {
                    work.results += 1;
                    let why = Code::Cancelled.because(cancel.reason);
                    let (result, payload) = result(cancel.call, cancel.attempt, work.results, Err(why));
                    say(dealer, Said::Result(result), payload);
                    self.next(work);
                    part(dealer, work);
                }
            }
            Some(Heard::Recall(recall)) => {
                let name = |i: &v1::Invoke| v1::Invocation { call: i.call.clone(), attempt: i.attempt };
                let is_recalled = |(invoke, _): &(v1::Invoke, Bytes)| recall.calls.contains(&name(invoke));
                let calls = work.waiting.iter().filter(|w| is_recalled(w)).map(|(i, _)| name(i)).collect();
                work.waiting.retain(|waiting| !is_recalled(waiting));
                let recalled = v1::Recalled { nonce: recall.nonce, calls };
                say(dealer, Said::Recalled(recalled), Bytes::new());
            }
            Some(Heard::Ping(ping)) => {
                say(dealer, Said::Pong(v1::Pong { nonce: ping.nonce }), Bytes::new());
            }
            Some(Heard::Refused(refused)) => {
                let failure = refused.failure.unwrap_or_default();
                anyhow::bail!("the daemon refuses {}: {}", self.carried.description.name, failure.message);
            }
            Some(Heard::Stop(_)) if work.superseded => work.leave(),
            Some(Heard::Stop(stop)) if stop.replaced => anyhow::bail!(
                "another process serves {} on this daemon from now on\n  hint: end one of them, or give the module another name: \
                 --module {}=NAME",
                self.carried.description.name,
                self.carried.there
            ),
            // The daemon stops, and may be back: then the next connection says hello.
            Some(Heard::Stop(_)) => {
                work.waiting.clear();
                work.parting = true;
                part(dealer, work);
            }
            Some(Heard::Welcome(_) | Heard::Reply(_) | Heard::Value(_) | Heard::Page(_)) | None => {}
        }
        Ok(())
    }

    /// Begins what waits, if nothing is under way.
    fn next(&self, work: &mut Work) {
        if work.running.is_some() || work.leaving || work.parting {
            return;
        }
        let Some((invoke, payload)) = work.waiting.pop_front() else { return };
        let (call, attempt) = (invoke.call.clone(), invoke.attempt);
        let (client, flow) = (self.client.clone(), self.flow.clone());
        let function = format!("{}.{}", self.carried.there, invoke.function);
        let answer = Box::pin(async move {
            let _room = flow.enter().await?;
            let mut call = client.call(function).payload(payload).depth(invoke.depth + 1);
            if invoke.timeout_ms > 0 {
                let timeout = Duration::from_millis(invoke.timeout_ms);
                call = call.timeout(timeout).queue_wait(timeout);
            }
            for (name, value) in invoke.context {
                call = call.context(name, value);
            }
            call.traceparent(invoke.traceparent).await.map_err(failure)
        });
        work.running = Some(Running { call, attempt, answer });
    }
}

impl Work {
    fn leave(&mut self) {
        self.leaving = true;
        self.waiting.clear();
    }
}

/// Ends the connection with a daemon that stops, if nothing is under way.
fn part(dealer: &mut Dealer, work: &Work) {
    if work.parting && work.running.is_none() {
        say(dealer, Said::Bye(v1::Bye {}), Bytes::new());
    }
}

/// Waits for what is under way.
async fn answered(running: &mut Option<Running>) -> Result<Reply, v1::Failure> {
    match running {
        Some(running) => running.answer.as_mut().await,
        None => pending().await,
    }
}

fn result(call: Bytes, attempt: u32, seq: u64, answer: Result<Reply, v1::Failure>) -> (v1::Result, Bytes) {
    let (payload, content_type, failure) = match answer {
        Ok(reply) => (reply.payload, reply.content_type, None),
        Err(failure) => (Bytes::new(), String::new(), Some(failure)),
    };
    (v1::Result { call, attempt, failure, content_type, seq, ..Default::default() }, payload)
}

/// Why a call has come to nothing, as it is told here.
fn failure(error: Error) -> v1::Failure {
    match error {
        Error::Failed(failure) => v1::Failure {
            code: failure.code.as_str().to_owned(),
            message: failure.message,
            hint: failure.hint,
            r#type: failure.error_type,
            traceback: failure.traceback,
            retry_after_ms: failure.retry_after.map_or(0, bourse_wire::time::millis),
            ..Default::default()
        },
        other => Code::NoCapacity
            .because(format!("the grid beyond the bridge did not take the call: {other}"))
            .retry_after(AGAIN),
    }
}

/// Says something to the daemon, if it is there: else it has called off all that was asked.
fn say(dealer: &mut Dealer, message: Said, payload: Bytes) {
    let Some(connection) = dealer.connection() else { return };
    let header = header::encode(&v1::ToNode { message: Some(message) });
    match dealer.send(connection, header, payload) {
        Ok(()) | Err(SendError::Gone) => {}
        // It does not read: it is as good as gone, and begins anew.
        Err(SendError::Full) => close(dealer, connection),
    }
}

fn close(dealer: &mut Dealer, connection: Connection) {
    dealer.close(connection);
}
