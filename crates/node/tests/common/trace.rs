//! A conversation as text: who said what to whom, and when. Calls and connections get short names, in the order in
//! which they turn up.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use bourse_node::{Event, Input, Output, PeerId, ProcessId, Report};
use bourse_wire::time::Mono;
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use bourse_wire::v1::to_worker::Message as ToWorker;
use bytes::Bytes;

use super::program::text;

#[derive(Default)]
pub struct Trace {
    lines: String,
    calls: RefCell<BTreeMap<Bytes, usize>>,
    peers: BTreeMap<PeerId, ProcessId>,
}

impl Trace {
    pub fn line(&mut self, now: Mono, line: &str) {
        writeln!(self.lines, "{:>12}  {line}", now.to_string()).unwrap();
    }

    pub fn name(&mut self, peer: PeerId, process: ProcessId) {
        self.peers.insert(peer, process);
    }

    pub fn peer(&self, peer: PeerId) -> String {
        self.peers.get(&peer).map_or_else(|| format!("peer {}", peer.0), |p| format!("worker {}", p.0))
    }

    fn call(&self, id: &Bytes) -> String {
        if id.is_empty() {
            return "-".to_owned();
        }
        let mut calls = self.calls.borrow_mut();
        let next = calls.len() + 1;
        format!("c{}", calls.entry(id.clone()).or_insert(next))
    }

    pub fn said_by(&mut self, now: Mono, peer: PeerId, message: &ToNode, payload: &Bytes) {
        let what = match message {
            ToNode::Hello(h) => format!("hello{}", said(h.failed.as_ref())),
            ToNode::Result(r) => {
                format!(
                    "result {} #{}{}{}",
                    self.call(&r.call),
                    r.attempt,
                    quoted(payload),
                    said(r.failure.as_ref())
                )
            }
            ToNode::Call(c) => {
                let wait = if c.wait { ", waits" } else { "" };
                format!("call {} {}({}){wait}", c.request, c.function, text(payload))
            }
            ToNode::Wait(w) => format!("wait {:?}{}", w.requests, if w.any { " any" } else { "" }),
            ToNode::Cancel(c) => format!("cancel {}", c.request),
            ToNode::Read(r) => format!("read {}", r.key.as_ref().map_or("", |k| &k.name)),
            ToNode::Scan(s) => format!("scan {}", s.prefix.as_ref().map_or("", |k| &k.name)),
            ToNode::Pong(_) => "pong".to_owned(),
            ToNode::Recalled(r) => format!("recalled {}", self.list(&r.calls)),
            ToNode::Log(l) => format!("log {:?}", l.message),
            ToNode::Bye(_) => "bye".to_owned(),
            ToNode::Await(a) => format!("await {}", self.call(&a.call)),
            ToNode::Publish(p) => format!("publish {} {:?}", p.request, p.to),
        };
        let from = self.peer(peer);
        self.line(now, &format!("{from} -> node  {what}"));
    }

    fn list(&self, calls: &[v1::Invocation]) -> String {
        let all: Vec<_> = calls.iter().map(|i| format!("{} #{}", self.call(&i.call), i.attempt)).collect();
        format!("[{}]", all.join(", "))
    }

    pub fn input(&mut self, now: Mono, input: &Input) {
        match input {
            Input::Exited { process, exit } => {
                self.line(now, &format!("keeper -> node  {} {exit}", process.0))
            }
            Input::Loaded { template, report } => {
                let what = match report {
                    Report::Ready { module, .. } => format!("loaded {}", module.name),
                    Report::Failed(f) => format!("does not load{}", said(Some(f))),
                };
                self.line(now, &format!("keeper -> node  {} {what}", template.0));
            }
            Input::Store { answer, .. } => self.line(now, &format!("store -> node  {}", first_word(answer))),
            _ => {}
        }
    }

    pub fn output(&mut self, now: Mono, output: &Output) {
        let line = match output {
            Output::Send { peer, message, payload } => {
                format!("node -> {}  {}", self.peer(*peer), self.to_peer(message, payload))
            }
            Output::Close { peer } => format!("node closes {}", self.peer(*peer)),
            Output::Reply { ticket, answer } => match &answer.result {
                Ok(success) => format!("node -> gateway  reply {}{}", ticket.0, quoted(&success.payload)),
                Err(failure) => format!("node -> gateway  reply {}{}", ticket.0, said(Some(failure))),
            },
            Output::Told { ticket, told } => match told {
                Ok(seen) => format!("node -> gateway  told {} {}", ticket.0, first_word(&**seen)),
                Err(failure) => format!("node -> gateway  told {}{}", ticket.0, said(Some(failure))),
            },
            Output::StartTemplate { process, module, revision } => {
                format!("node -> keeper  start {} as the template of {module} {}", process.0, revision.0)
            }
            Output::StartInstance { process, module, revision, template, .. } => {
                let from = template.map_or_else(|| "anew".to_owned(), |t| format!("from {}", t.0));
                format!("node -> keeper  start {} of {module} {}, {from}", process.0, revision.0)
            }
            Output::Kill { process } => format!("node -> keeper  kill {}", process.0),
            Output::Published { modules, .. } => {
                let all: Vec<_> = modules.iter().map(|(m, r)| format!("{} {}", m.name, r.0)).collect();
                format!("node -> scanner  published: {}", all.join(", "))
            }
            Output::Perform { call: _, attempt, function, payload, .. } => {
                let payload = String::from_utf8_lossy(payload);
                format!("node -> daemon  {} ({payload}) attempt {}", function.name(), attempt.0)
            }
            Output::Desist { .. } => "node -> daemon  desist".to_owned(),
            Output::Dial { address, .. } => format!("node dials {address}"),
            Output::PeerSend { message, .. } => format!("node -> peer  {}", first_word(message)),
            Output::PeerClose { .. } => "node closes a peer".to_owned(),
            Output::Roster(entries) => format!("node keeps {} keys", entries.len()),
            Output::Deployments(all) => format!("node keeps {} deployments", all.len()),
            Output::Assigned(items) => format!("node is to serve {} bundles", items.len()),
            Output::GridStore(store) => format!("node remembers the store {}", store.short()),
            Output::Authorities => "node knows other authorities".to_owned(),
            Output::Ready => "node is ready".to_owned(),
            Output::Drained => "node is drained".to_owned(),
            Output::Store { request, .. } => format!("node -> store  {}", first_word(request)),
            Output::Event(Event::Note { level, text }) => format!("note: {level:?}: {text}"),
            Output::Event(Event::RevisionFailed { module, failure, still_serving, .. }) => {
                format!("note: {module} failed{}, still serving: {still_serving}", said(Some(failure)))
            }
            Output::Catalogue(_) | Output::Event(_) => return,
        };
        self.line(now, &line);
    }

    fn to_peer(&self, message: &ToWorker, payload: &Bytes) -> String {
        match message {
            ToWorker::Welcome(_) => "welcome".to_owned(),
            ToWorker::Refused(r) => format!("refused{}", said(r.failure.as_ref())),
            ToWorker::Invoke(i) => {
                let again = if i.redelivered { ", again" } else { "" };
                let call = self.call(&i.call);
                format!(
                    "invoke {call} #{} {}({}), {} ms{again}",
                    i.attempt,
                    i.function,
                    text(payload),
                    i.timeout_ms
                )
            }
            ToWorker::Reply(r) => {
                format!("reply {}{}{}", r.request, quoted(payload), said(r.failure.as_ref()))
            }
            ToWorker::Value(v) => format!("value{}{}", quoted(payload), said(v.failure.as_ref())),
            ToWorker::Page(p) => format!("page of {}{}", p.rows.len(), said(p.failure.as_ref())),
            ToWorker::Ping(_) => "ping".to_owned(),
            ToWorker::Recall(r) => format!("recall {}", self.list(&r.calls)),
            ToWorker::Cancel(c) => {
                let how = if c.interrupt { "interrupt" } else { "cancel" };
                format!("{how} {} #{}: {}", self.call(&c.call), c.attempt, c.reason)
            }
            ToWorker::Stop(_) => "stop".to_owned(),
        }
    }

    /// What was said so far.
    pub fn text(&self) -> &str {
        &self.lines
    }

    /// Forgets what was said so far.
    pub fn clear(&mut self) {
        self.lines.clear();
    }

    /// Compares with `testdata/{name}.trace`; with `BOURSE_BLESS=1` in the environment, writes it.
    pub fn check(&self, name: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format!("{name}.trace"));
        if std::env::var_os("BOURSE_BLESS").is_some() {
            std::fs::write(&path, &self.lines).unwrap();
            return;
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = expected.lines().zip(self.lines.lines()).position(|(a, b)| a != b);
        assert!(
            expected == self.lines,
            "{} differs from line {}: look at it, and refresh it with BOURSE_BLESS=1. Now it is:\n{}",
            path.display(),
            differs.map_or(expected.lines().count().min(self.lines.lines().count()), |at| at) + 1,
            self.lines
        );
    }
}

fn first_word(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.chars().take_while(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
}

fn quoted(payload: &Bytes) -> String {
    match payload.len() {
        0 => String::new(),
        1..=40 => format!(" {:?}", text(payload)),
        n => format!(" ({n} bytes)"),
    }
}

fn said(failure: Option<&v1::Failure>) -> String {
    failure.map_or_else(String::new, |f| format!(" {}: {}", f.code, f.message))
}
