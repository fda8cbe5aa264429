//! Clients of a grid that write down what they have wanted and heard.
//!
//! What each does is drawn from a seed before anything runs, so that the functions can be told what to play.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bourse_node::{Answer, Ask, Mode, Success};
use bourse_sim::chance::Chance;
use bourse_sim::histories::History;
use bourse_sim::stage::Stage;
use bourse_sim::workload::Workload;
use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::v1;
use serde_json::{Value as Json, json};

use crate::support::{Client, Response};

/// Durable calls as a client sees them.
type Seen = bourse_sim::histories::Seen;

/// What a client does.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Call {
        plan: u32,
        mode: Mode,
        key: String,
        /// It waits no longer than this.
        timeout: &'static str,
        /// It goes away without an answer.
        leaves: bool,
    },
    /// It asks about one of the last calls; or about any.
    Ask(Ask, bool),
}

/// What came of it. Times are milliseconds of the wall clock.
#[derive(Debug)]
pub(super) enum Said {
    Call { plan: u32, mode: Mode, key: String, answer: Option<(u64, Answer)> },
    Asked { at_ms: u64, call: CallId, ask: Ask, told: Option<(u64, Result<Seen, v1::Failure>)> },
}

/// What all clients have in common.
#[derive(Default)]
pub(super) struct Ground {
    known: Mutex<Vec<CallId>>,
    answered: AtomicUsize,
    over: AtomicBool,
}

impl Ground {
    /// Ids that somebody was told.
    pub(super) fn known(&self) -> Vec<CallId> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls and questions were answered.
    pub(super) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Nobody wants anything any more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Ends it also when a test fails.
pub(super) struct Ends<'a>(pub(super) &'a Ground);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What one client does, each thing after a pause in milliseconds.
pub(super) type Acts = Vec<(u64, Act)>;

/// So many clients, who do so much each.
pub(super) fn drawn(chance: &mut Chance, stage: &mut Stage, clients: usize, acts: usize) -> Vec<Acts> {
    let workload = Workload::gentle(chance);
    let mut all = Vec::new();
    for _ in 0..clients {
        let mut one = Vec::new();
        for _ in 0..acts {
            let pause_ms = chance.pick(&[0, 0, 5, 20, 50, 100]);
            one.push((pause_ms, act(&workload, chance, stage)));
        }
        all.push(one);
    }
    all
}

fn act(workload: &Workload, chance: &mut Chance, stage: &mut Stage) -> Act {
    let mut call = |chance: &mut Chance, mode, keyed: bool| {
        let plan = workload.add(chance, stage);
        // A unique function's calls have their own keys.
        let key = if keyed && !stage.plan(plan).is_unique() { workload.key(chance) } else { String::new() };
        let timeout = if mode == Mode::Sync { chance.pick(&["", "", "1s"]) } else { "" };
        let leaves = mode == Mode::Sync && chance.hits(50);
        Act::Call { plan, mode, key, timeout, leaves }
    };
    match chance.below(20) {
        0..=7 => call(chance, Mode::Async, false),
        8..=10 => call(chance, Mode::Async, true),
        11..=14 => call(chance, Mode::Sync, false),
        rest => {
            let ask = match rest {
                15 | 16 => Ask::Look,
                17 => Ask::Await,
                18 => Ask::Cancel,
                _ => chance.pick(&[Ask::Look, Ask::Purge, Ask::Replay]),
            };
            Act::Ask(ask, chance.below(4) == 0)
        }
    }
}

/// Does it all, at a node that may come and go.
pub(super) fn run(
    ground: &Ground,
    at: SocketAddr,
    stage: &Stage,
    acts: Acts,
    mut chance: Chance,
) -> Vec<Said> {
    let mut said = Vec::new();
    for (pause_ms, act) in acts {
        if ground.over.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(Duration::from_millis(pause_ms));
        let one = match act {
            Act::Call { plan, mode, key, timeout, leaves } => {
                let Some(heard) = make(at, stage, plan, mode, (&key, timeout, leaves)) else { continue };
                let answer = heard.map(|heard| (now_ms(), answer(mode, &heard)));
                if let Some((_, Answer { call: Some(call), result: Ok(_) })) = &answer
                    && mode == Mode::Async
                {
                    ground.known.lock().unwrap_or_else(PoisonError::into_inner).push(*call);
                }
                Said::Call { plan, mode, key, answer }
            }
            Act::Ask(ask, any) => {
                let known = ground.known();
                let last = if any { 0 } else { known.len().saturating_sub(6) };
                let Some(call) = (known.len() > last).then(|| chance.pick(&known[last..])) else { continue };
                let Some(asked) = question(at, call, ask) else { continue };
                asked
            }
        };
        ground.answered.fetch_add(1, Ordering::Relaxed);
        said.push(one);
    }
    said
}

/// Puts a question; `None` if nobody is there.
pub(super) fn question(at: SocketAddr, call: CallId, ask: Ask) -> Option<Said> {
    let (method, path) = match ask {
        Ask::Look => ("GET", format!("/v1/calls/{call}")),
        Ask::Await => ("GET", format!("/v1/calls/{call}?poll=1s")),
        Ask::Cancel => ("DELETE", format!("/v1/calls/{call}")),
        Ask::Replay => ("POST", format!("/v1/calls/{call}/replay")),
        Ask::Purge => ("DELETE", format!("/v1/dead/{call}")),
    };
    let at_ms = now_ms();
    let heard = send(at, method, &path, "", b"")?.and_then(|socket| Response::read(socket).ok());
    let told = heard.map(|heard| (now_ms(), seen(&heard)));
    Some(Said::Asked { at_ms, call, ask, told })
}

/// Makes a call. `None`: nobody is there; `Some(None)`: there is no answer.
fn make(
    at: SocketAddr,
    stage: &Stage,
    number: u32,
    mode: Mode,
    (key, timeout, leaves): (&str, &str, bool),
) -> Option<Option<Response>> {
    let plan = stage.plan(number);
    let mut path = format!("/v1/call/{}?", plan.function);
    if mode == Mode::Async {
        path += "mode=async&";
        if plan.delay_ms > 0 {
            path += &format!("delay={}ms&", plan.delay_ms);
        }
    }
    if !timeout.is_empty() {
        path += &format!("timeout={timeout}&");
    }
    let body = json!({"key": plan.key, "plan": number}).to_string();
    let socket = send(at, "POST", path.trim_end_matches(['?', '&']), key, body.as_bytes())?;
    Some(socket.filter(|_| !leaves).and_then(|socket| Response::read(socket).ok()))
}

/// `None`: nobody is there; `Some(None)`: it may have been heard.
fn send(at: SocketAddr, method: &str, path: &str, key: &str, body: &[u8]) -> Option<Option<TcpStream>> {
    let mut headers = vec![("host", "localhost"), ("content-type", "application/json")];
    if !key.is_empty() {
        headers.push(("idempotency-key", key));
    }
    match (Client { address: at }).begin(method, path, &headers, body) {
        Ok(socket) => Some(Some(socket)),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => None,
        Err(_) => Some(None),
    }
}

fn answer(mode: Mode, heard: &Response) -> Answer {
    let id = |text: &str| text.parse::<CallId>().ok();
    match heard.status {
        202 if mode == Mode::Async => {
            Answer { call: heard.json()["id"].as_str().and_then(id), result: Ok(Success::default()) }
        }
        200 => {
            let payload = heard.json().as_str().unwrap_or_default().to_owned().into();
            let call = heard.header("bourse-call-id").and_then(id);
            Answer { call, result: Ok(Success { payload, ..Success::default() }) }
        }
        _ => Answer { call: heard.header("bourse-call-id").and_then(id), result: Err(failure(heard)) },
    }
}

fn failure(heard: &Response) -> v1::Failure {
    let problem = heard.json();
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    v1::Failure { code: text("code"), message: text("detail"), ..Default::default() }
}

fn seen(heard: &Response) -> Result<Seen, v1::Failure> {
    match heard.status {
        404 => return Ok(Seen::Nothing),
        200 | 202 => {}
        _ => return Err(failure(heard)),
    }
    let call: Json = heard.json();
    let status = match call["status"].as_str() {
        Some("done") => Status::Done,
        Some("dead") => Status::Dead,
        Some("cancelled") => Status::Cancelled,
        Some("joined") => Status::Joined,
        _ => return Ok(Seen::Live { record: Box::default(), running: false, due: None }),
    };
    let result = call["result"].as_str().unwrap_or_default().to_owned().into();
    Ok(Seen::Ended(Box::new(stored::Ended { status: status.into(), result, ..Default::default() })))
}

/// Hands over what clients have said.
pub(super) fn feed(history: &mut History, said: Vec<Said>) {
    for one in said {
        match one {
            Said::Call { plan, mode, key, answer } => history.call(plan, &key, mode, answer),
            Said::Asked { at_ms, call, ask, told } => history.question((at_ms, call, ask), told),
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
