//! A pretend worker that speaks the worker protocol: one call at a time, first in first out; pings and recalls are
//! answered also while a function runs.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use bourse_wire::v1::to_worker::Message as ToWorker;
use bourse_wire::value::Value;
use bytes::Bytes;

use super::program::{Module, Step, payload, text};

/// What a worker does to the world.
#[derive(Debug)]
pub enum Act {
    Send(ToNode, Bytes),
    /// Come back after so many milliseconds, with this number.
    Wake(u64, u64),
    /// The process ends: with a code, or by a signal.
    Exit(Result<i32, i32>),
}

pub struct Worker {
    pub module: Module,
    pub inbox: VecDeque<(v1::Invoke, Bytes)>,
    pub running: Option<Running>,
    pub stopping: bool,
    pub frozen: bool,
    /// It ignores what it is told to do, but for its calls.
    pub stubborn: bool,
    /// It answers recalls by giving nothing back.
    pub clinging: bool,
    /// Its messages are tampered with, so that it hears answers to what it never asked.
    pub lenient: bool,
    pub results: u64,
    pub next_request: u64,
    pub wakes: u64,
    pub acts: Vec<Act>,
}

pub struct Running {
    pub call: Bytes,
    pub attempt: u32,
    steps: VecDeque<Step>,
    /// Replies by request; `None`: not yet.
    replies: BTreeMap<u64, Option<Result<String, v1::Failure>>>,
    wait: Wait,
    writes: Vec<v1::Write>,
    read: String,
    fence: u64,
    wake: u64,
}

#[derive(PartialEq)]
enum Wait {
    No,
    Time,
    /// For one reply; its failure is the function's, or not.
    One(u64, bool),
    All,
    Any,
    Value(u64),
    For,
}

impl Worker {
    pub fn new(module: Module) -> Self {
        Self {
            module,
            inbox: VecDeque::new(),
            running: None,
            stopping: false,
            frozen: false,
            stubborn: false,
            clinging: false,
            lenient: false,
            results: 0,
            next_request: 1,
            wakes: 0,
            acts: Vec::new(),
        }
    }

    pub fn on_message(&mut self, message: ToWorker, payload: Bytes) {
        if self.frozen {
            if let ToWorker::Invoke(invoke) = message {
                self.inbox.push_back((invoke, payload));
            }
            return;
        }
        match message {
            ToWorker::Invoke(invoke) => {
                self.inbox.push_back((invoke, payload));
                self.next();
            }
            ToWorker::Ping(ping) => self.send(ToNode::Pong(v1::Pong { nonce: ping.nonce }), Bytes::new()),
            ToWorker::Recall(recall) => {
                let mut calls = Vec::new();
                self.inbox.retain(|(invoke, _)| {
                    let this = v1::Invocation { call: invoke.call.clone(), attempt: invoke.attempt };
                    let asked = recall.calls.contains(&this) && !self.clinging;
                    calls.extend(asked.then_some(this));
                    !asked
                });
                self.send(ToNode::Recalled(v1::Recalled { nonce: recall.nonce, calls }), Bytes::new());
            }
            ToWorker::Cancel(cancel) => self.on_cancel(&cancel),
            ToWorker::Reply(reply) => {
                let result = match reply.failure {
                    Some(failure) => Err(failure),
                    None => Ok(text(&payload)),
                };
                if let Some(running) = &mut self.running
                    && let Some(slot) = running.replies.get_mut(&reply.request)
                {
                    assert!(slot.is_none() || self.lenient, "request {} is answered twice", reply.request);
                    *slot = Some(result);
                    self.go_on();
                }
            }
            ToWorker::Value(value) => {
                if let Some(running) = &mut self.running
                    && running.wait == Wait::Value(value.request)
                {
                    running.wait = Wait::No;
                    match value.failure {
                        Some(failure) => self.end(Err(failure)),
                        None => {
                            running.read = text(&payload);
                            self.go_on();
                        }
                    }
                }
            }
            ToWorker::Page(page) => {
                if let Some(running) = &mut self.running
                    && running.wait == Wait::Value(page.request)
                {
                    running.wait = Wait::No;
                    running.read = page.rows.iter().map(|r| r.key.as_str()).collect::<Vec<_>>().join(",");
                    self.go_on();
                }
            }
            ToWorker::Stop(_) if !self.stubborn => {
                self.stopping = true;
                self.next();
            }
            ToWorker::Refused(_) => self.acts.push(Act::Exit(Ok(3))),
            ToWorker::Stop(_) | ToWorker::Welcome(_) => {}
        }
    }

    fn on_cancel(&mut self, cancel: &v1::Cancel) {
        let runs = |r: &Running| r.call == cancel.call && r.attempt == cancel.attempt;
        if self.running.as_ref().is_some_and(|r| runs(r) && r.wait != Wait::For) {
            if cancel.interrupt && !self.stubborn {
                self.end(Err(Code::Timeout.because("interrupted")));
            }
            return;
        }
        let at = self.inbox.iter().position(|(i, _)| i.call == cancel.call && i.attempt == cancel.attempt);
        if let Some((invoke, _)) = at.and_then(|at| self.inbox.remove(at)) {
            self.result(invoke.call, invoke.attempt, Err(Code::Cancelled.because("not started")), Vec::new());
            self.next();
        }
    }

    pub fn on_wake(&mut self, wake: u64) {
        if let Some(running) = &mut self.running
            && running.wake == wake
            && running.wait == Wait::Time
        {
            running.wait = Wait::No;
            self.go_on();
        }
    }

    /// Begins the next call, or leaves.
    fn next(&mut self) {
        if self.running.is_some() || self.frozen {
            return;
        }
        if let Some((invoke, payload)) = self.inbox.pop_front() {
            let steps = match self.module.functions.get(&invoke.function) {
                Some(program) => program(&text(&payload)).into(),
                None => VecDeque::from([Step::Fail("no such function")]),
            };
            self.running = Some(Running {
                call: invoke.call,
                attempt: invoke.attempt,
                steps,
                replies: BTreeMap::new(),
                wait: Wait::No,
                writes: Vec::new(),
                read: String::new(),
                fence: invoke.fence,
                wake: 0,
            });
            self.go_on();
        } else if self.stopping {
            self.send(ToNode::Bye(v1::Bye {}), Bytes::new());
            self.acts.push(Act::Exit(Ok(0)));
        }
    }

    fn go_on(&mut self) {
        while let Some(running) = &mut self.running {
            match running.wait {
                Wait::No => {}
                Wait::Time | Wait::Value(_) | Wait::For => return,
                Wait::One(request, matters) => match &running.replies[&request] {
                    None => return,
                    Some(Err(failure)) if matters => {
                        let failure = failure.clone();
                        running.wait = Wait::No;
                        return self.end(Err(failure));
                    }
                    Some(_) => running.wait = Wait::No,
                },
                Wait::All if running.replies.values().any(Option::is_none) => return,
                Wait::Any if running.replies.values().all(Option::is_none) => return,
                Wait::All | Wait::Any => {
                    running.wait = Wait::No;
                    if let Some(failure) = running.replies.values().flatten().find_map(|r| r.clone().err()) {
                        return self.end(Err(failure));
                    }
                }
            }
            match running.steps.pop_front() {
                None => self.end(Ok(Bytes::new())),
                Some(step) => self.step(step),
            }
        }
    }

    fn step(&mut self, step: Step) {
        let running = self.running.as_mut().expect("only a running call has steps");
        let (call, attempt) = (running.call.clone(), running.attempt);
        match step {
            Step::Run(ms) => {
                self.wakes += 1;
                running.wake = self.wakes;
                running.wait = Wait::Time;
                self.acts.push(Act::Wake(ms, self.wakes));
            }
            Step::Call(function, argument) => self.call(function, argument, Some(true), v1::Mode::Sync),
            Step::Try(function, argument) => self.call(function, argument, Some(false), v1::Mode::Sync),
            Step::Submit(function, argument) => self.call(function, argument, None, v1::Mode::Sync),
            Step::Start(function, argument) => self.call(function, argument, Some(true), v1::Mode::Async),
            Step::Publish(to, message) => self.publish(to, message),
            Step::WaitAll | Step::WaitAny => {
                let any = matches!(step, Step::WaitAny);
                running.wait = if any { Wait::Any } else { Wait::All };
                let requests = running.replies.keys().copied().collect();
                self.send(ToNode::Wait(v1::Wait { call, attempt, requests, any }), Bytes::new());
            }
            Step::ReturnWhileWaiting => {
                let requests = running.replies.keys().copied().collect();
                self.send(ToNode::Wait(v1::Wait { call, attempt, requests, any: false }), Bytes::new());
                self.end(Ok(Bytes::from_static(b"too early")));
            }
            Step::Read(name) | Step::Scan(name) => {
                let request = self.next_request;
                self.next_request += 1;
                running.wait = Wait::Value(request);
                let writes = std::mem::take(&mut running.writes);
                let key = Some(v1::Key { name: name.to_owned(), module: String::new() });
                let message = match step {
                    Step::Read(_) => ToNode::Read(v1::Read { request, call, attempt, key, writes }),
                    _ => ToNode::Scan(v1::Scan {
                        request,
                        call,
                        attempt,
                        prefix: key,
                        writes,
                        ..Default::default()
                    }),
                };
                self.send(message, Bytes::new());
            }
            Step::Write(name, value) => running.writes.push(write(name, value.to_owned())),
            Step::Increment(name) => {
                let value = running.read.parse::<u64>().unwrap_or(0) + 1;
                running.read = value.to_string();
                running.writes.push(write(name, value.to_string()));
            }
            Step::Tail(function, argument) => {
                let running = self.running.take().expect("only a running call ends");
                self.results += 1;
                let tail = Some(v1::Tail { function: function.to_owned(), version: String::new() });
                let result = v1::Result {
                    call: running.call,
                    attempt: running.attempt,
                    writes: running.writes,
                    seq: self.results,
                    tail,
                    ..Default::default()
                };
                self.send(ToNode::Result(result), payload(&argument));
                self.next();
            }
            Step::ReturnFence => {
                let fence = running.fence.to_string();
                self.end(Ok(Bytes::from(fence)));
            }
            Step::Fail(why) => self.end(Err(Code::FunctionError.because(why))),
            Step::Verdict(verdict, ms) => {
                let failure =
                    Code::FunctionError.because("as it wants").retry_after(Duration::from_millis(ms));
                self.end(Err(v1::Failure { verdict: verdict.into(), ..failure }));
            }
            Step::Crash => self.acts.push(Act::Exit(Err(11))),
            Step::Exit(code) => self.acts.push(Act::Exit(Ok(code))),
            Step::Leave => {
                self.send(ToNode::Bye(v1::Bye {}), Bytes::new());
                self.acts.push(Act::Exit(Ok(0)));
            }
            Step::Hang => running.wait = Wait::For,
            Step::Freeze => {
                running.wait = Wait::For;
                self.frozen = true;
            }
            Step::Log(line) => {
                let log = v1::Log { level: 2, message: line.to_owned(), call, ..Default::default() };
                self.send(ToNode::Log(log), Bytes::new());
            }
            Step::Return("") => {
                let read = Bytes::from(running.read.clone());
                self.end(Ok(read));
            }
            Step::Return(value) => self.end(Ok(Bytes::from(value))),
            Step::ReturnBytes(n) => self.end(Ok(Bytes::from(vec![b'x'; n]))),
            Step::Sum => {
                let results = running.replies.values().flatten().filter_map(|r| r.as_ref().ok());
                let sum: u64 = results.filter_map(|r| r.parse::<u64>().ok()).sum();
                self.end(Ok(Bytes::from(sum.to_string())));
            }
        }
        if matches!(self.acts.last(), Some(Act::Exit(_))) {
            self.running = None;
            self.frozen = true;
        }
    }

    fn call(&mut self, function: &'static str, argument: String, wait: Option<bool>, mode: v1::Mode) {
        let request = self.next_request;
        self.next_request += 1;
        let running = self.running.as_mut().expect("only a running call calls");
        running.replies.insert(request, None);
        if let Some(matters) = wait {
            running.wait = Wait::One(request, matters);
        }
        let call = v1::Call {
            request,
            function: function.to_owned(),
            parent: running.call.clone(),
            attempt: running.attempt,
            wait: wait.is_some() && mode == v1::Mode::Sync,
            mode: mode.into(),
            writes: std::mem::take(&mut running.writes),
            ..Default::default()
        };
        self.send(ToNode::Call(call), payload(&argument));
    }

    fn publish(&mut self, to: &str, message: &str) {
        let request = self.next_request;
        self.next_request += 1;
        let running = self.running.as_mut().expect("only a running call publishes");
        running.replies.insert(request, None);
        running.wait = Wait::One(request, true);
        let publish = v1::Publish {
            request,
            parent: running.call.clone(),
            attempt: running.attempt,
            to: Some(super::triggers::destination(to)),
            writes: std::mem::take(&mut running.writes),
            ..Default::default()
        };
        self.send(ToNode::Publish(publish), Value::Text(message.to_owned()).to_cbor());
    }

    fn end(&mut self, result: Result<Bytes, v1::Failure>) {
        let running = self.running.take().expect("only a running call ends");
        self.result(running.call, running.attempt, result, running.writes);
        self.next();
    }

    fn result(
        &mut self,
        call: Bytes,
        attempt: u32,
        result: Result<Bytes, v1::Failure>,
        writes: Vec<v1::Write>,
    ) {
        self.results += 1;
        let (failure, payload) = match result {
            Ok(payload) => (None, payload),
            Err(failure) => (Some(failure), Bytes::new()),
        };
        let result = v1::Result { call, attempt, failure, writes, seq: self.results, ..Default::default() };
        self.send(ToNode::Result(result), payload);
    }

    fn send(&mut self, message: ToNode, payload: Bytes) {
        self.acts.push(Act::Send(message, payload));
    }
}

fn write(name: &str, value: String) -> v1::Write {
    let key = Some(v1::Key { name: name.to_owned(), module: String::new() });
    v1::Write { key, value: Bytes::from(value), delete: false }
}
