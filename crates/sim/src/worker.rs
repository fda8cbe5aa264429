//! A pretend worker that speaks the worker protocol: one call at a time, first in first out; pings and recalls are
//! answered also while a function runs.
//!
//! ```text
//! node   -> worker: invoke, reply, value, ping, recall, cancel, stop
//! worker -> node:   result, call, read, pong, recalled, bye          as an Act, carried out by the world
//! ```
//!
//! What a run does stands in its plan ([`crate::stage`]).

use std::collections::VecDeque;
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use bourse_wire::v1::to_worker::Message as ToWorker;
use bytes::Bytes;

use crate::stage::{End, SHARED, Stage, Step, count_key, parse, place_key};

/// What a worker does to the world.
#[derive(Debug)]
pub(crate) enum Act {
    Send(Box<ToNode>, Bytes),
    /// Come back after so many milliseconds, with this number.
    Wake(u64, u64),
    /// The process ends: with a code, or by a signal.
    Exit(Result<i32, i32>),
}

#[derive(Debug, Default)]
pub(crate) struct Worker {
    inbox: VecDeque<(v1::Invoke, Bytes)>,
    running: Option<Running>,
    stopping: bool,
    gone: bool,
    results: u64,
    requests: u64,
    wakes: u64,
    pub(crate) acts: Vec<Act>,
}

#[derive(Debug)]
struct Running {
    call: Bytes,
    attempt: u32,
    fence: u64,
    argument: Bytes,
    steps: VecDeque<Step>,
    wait: Wait,
    /// Of the replies that it waits for: the last is a result.
    waits_for_call: bool,
    writes: Vec<v1::Write>,
    /// The number that was read last.
    read: u64,
    /// Its place in the ledger.
    result: String,
}

#[derive(Debug, PartialEq)]
enum Wait {
    No,
    Time(u64),
    Reply(u64),
    Value(u64),
    For,
}

impl Worker {
    /// What it is doing: a call's id and attempt.
    pub(crate) fn running(&self) -> Option<&Bytes> {
        self.running.as_ref().map(|running| &running.call)
    }

    /// It waits for a call that it has made.
    pub(crate) fn waits_for_call(&self) -> bool {
        self.running.as_ref().is_some_and(|r| r.waits_for_call && matches!(r.wait, Wait::Reply(_)))
    }

    pub(crate) fn on_message(&mut self, message: ToWorker, payload: Bytes, stage: &mut Stage) {
        match message {
            ToWorker::Invoke(invoke) => {
                self.inbox.push_back((invoke, payload));
                self.next(stage);
            }
            ToWorker::Ping(ping) => self.send(ToNode::Pong(v1::Pong { nonce: ping.nonce }), Bytes::new()),
            ToWorker::Recall(recall) => {
                let mut calls = Vec::new();
                self.inbox.retain(|(invoke, _)| {
                    let this = v1::Invocation { call: invoke.call.clone(), attempt: invoke.attempt };
                    let asked = recall.calls.contains(&this);
                    calls.extend(asked.then_some(this));
                    !asked
                });
                self.send(ToNode::Recalled(v1::Recalled { nonce: recall.nonce, calls }), Bytes::new());
            }
            ToWorker::Cancel(cancel) => self.on_cancel(&cancel, stage),
            ToWorker::Reply(reply) => {
                if self.waits_for(&Wait::Reply(reply.request)) {
                    self.answered(reply.failure, stage);
                }
            }
            ToWorker::Value(value) => {
                if self.waits_for(&Wait::Value(value.request)) {
                    if let Some(running) = &mut self.running {
                        running.read = u64::from(parse(&payload).unwrap_or_default());
                    }
                    self.answered(value.failure, stage);
                }
            }
            ToWorker::Stop(_) => {
                self.stopping = true;
                self.next(stage);
            }
            ToWorker::Refused(_) => self.exit(Ok(3)),
            ToWorker::Page(_) | ToWorker::Welcome(_) => {}
        }
    }

    pub(crate) fn on_wake(&mut self, wake: u64, stage: &mut Stage) {
        if self.waits_for(&Wait::Time(wake)) {
            self.answered(None, stage);
        }
    }

    fn waits_for(&self, wait: &Wait) -> bool {
        self.running.as_ref().is_some_and(|running| running.wait == *wait)
    }

    fn answered(&mut self, failure: Option<v1::Failure>, stage: &mut Stage) {
        if let Some(running) = &mut self.running {
            running.wait = Wait::No;
        }
        match failure {
            Some(failure) => self.end(Some(failure), stage),
            None => self.go_on(stage),
        }
    }

    fn on_cancel(&mut self, cancel: &v1::Cancel, stage: &mut Stage) {
        let runs = |r: &Running| r.call == cancel.call && r.attempt == cancel.attempt;
        if self.running.as_ref().is_some_and(|r| runs(r) && r.wait != Wait::For) {
            if cancel.interrupt {
                self.end(Some(Code::Timeout.because("interrupted")), stage);
            }
            return;
        }
        let at = self.inbox.iter().position(|(i, _)| i.call == cancel.call && i.attempt == cancel.attempt);
        if let Some((invoke, _)) = at.and_then(|at| self.inbox.remove(at)) {
            let failure = Code::Cancelled.because("not started");
            self.result(invoke.call, invoke.attempt, Err(failure), Vec::new());
            self.next(stage);
        }
    }

    /// Begins the next call, or leaves.
    fn next(&mut self, stage: &mut Stage) {
        if self.running.is_some() || self.gone {
            return;
        }
        if let Some((invoke, argument)) = self.inbox.pop_front() {
            self.running = Some(Running {
                call: invoke.call,
                attempt: invoke.attempt,
                fence: invoke.fence,
                steps: stage.begin(&argument).into(),
                argument,
                wait: Wait::No,
                waits_for_call: false,
                writes: Vec::new(),
                read: 0,
                result: "done".to_owned(),
            });
            self.go_on(stage);
        } else if self.stopping {
            self.send(ToNode::Bye(v1::Bye {}), Bytes::new());
            self.exit(Ok(0));
        }
    }

    fn go_on(&mut self, stage: &mut Stage) {
        while let Some(running) = &mut self.running
            && running.wait == Wait::No
        {
            match running.steps.pop_front() {
                None => self.end(None, stage),
                Some(step) => self.step(step, stage),
            }
        }
    }

    fn step(&mut self, step: Step, stage: &mut Stage) {
        let Some(running) = &mut self.running else { return };
        let (call, attempt) = (running.call.clone(), running.attempt);
        match step {
            Step::Run(ms) => {
                self.wakes += 1;
                running.wait = Wait::Time(self.wakes);
                self.acts.push(Act::Wake(ms, self.wakes));
            }
            Step::Read(name) => {
                self.requests += 1;
                let request = self.requests;
                running.wait = Wait::Value(request);
                let writes = std::mem::take(&mut running.writes);
                let key = Some(v1::Key { name, module: SHARED.to_owned() });
                self.send(ToNode::Read(v1::Read { request, call, attempt, key, writes }), Bytes::new());
            }
            Step::Add(scope) => {
                let place = running.read + 1;
                let id = CallId::from_wire(&call).expect("the node invokes calls by their ids");
                let plan = parse(&running.argument).unwrap_or_default();
                running.result = place.to_string();
                running.writes.push(write(count_key(&scope), place.to_string()));
                let fence = running.fence;
                running
                    .writes
                    .push(write(place_key(&scope, place), format!("{plan} {id} {attempt} {fence}")));
            }
            Step::Call(function, argument) => self.call(function, argument, v1::Mode::Sync, 0),
            Step::Start(function, argument, delay_ms) => {
                self.call(function, argument, v1::Mode::Async, delay_ms);
            }
            Step::Tail(function, arguments) => self.hand_on(function, arguments, stage),
            Step::End(End::Fails) => self.end(Some(Code::FunctionError.because("boom")), stage),
            Step::End(End::Again(ms)) => self.verdict(v1::Verdict::Again, ms, stage),
            Step::End(End::DeadLetters) => self.verdict(v1::Verdict::DeadLetter, 0, stage),
            Step::End(End::Discards) => self.verdict(v1::Verdict::Discard, 0, stage),
            Step::End(End::Hangs) => running.wait = Wait::For,
            Step::End(End::Crashes) => self.exit(Err(11)),
        }
    }

    fn verdict(&mut self, verdict: v1::Verdict, ms: u64, stage: &mut Stage) {
        let failure = Code::FunctionError.because("as it wants").retry_after(Duration::from_millis(ms));
        self.end(Some(v1::Failure { verdict: verdict.into(), ..failure }), stage);
    }

    fn exit(&mut self, how: Result<i32, i32>) {
        self.running = None;
        self.gone = true;
        self.acts.push(Act::Exit(how));
    }

    fn call(&mut self, function: String, argument: Bytes, mode: v1::Mode, delay_ms: u64) {
        self.requests += 1;
        let request = self.requests;
        let Some(running) = &mut self.running else { return };
        running.wait = Wait::Reply(request);
        let call = v1::Call {
            request,
            function,
            parent: running.call.clone(),
            attempt: running.attempt,
            wait: mode == v1::Mode::Sync,
            mode: mode.into(),
            writes: std::mem::take(&mut running.writes),
            delay_ms,
            ..Default::default()
        };
        running.waits_for_call = mode == v1::Mode::Sync;
        self.send(ToNode::Call(call), argument);
    }

    fn hand_on(&mut self, function: String, arguments: Bytes, stage: &mut Stage) {
        let Some(running) = self.running.take() else { return };
        let tail = v1::Tail { function, version: String::new() };
        self.result(running.call, running.attempt, Ok((arguments, Some(tail))), running.writes);
        self.next(stage);
    }

    fn end(&mut self, failure: Option<v1::Failure>, stage: &mut Stage) {
        let Some(running) = self.running.take() else { return };
        let result = failure.map_or_else(|| Ok((Bytes::from(running.result), None)), Err);
        self.result(running.call, running.attempt, result, running.writes);
        self.next(stage);
    }

    fn result(
        &mut self,
        call: Bytes,
        attempt: u32,
        result: Result<(Bytes, Option<v1::Tail>), v1::Failure>,
        writes: Vec<v1::Write>,
    ) {
        self.results += 1;
        let (payload, tail, failure) = match result {
            Ok((payload, tail)) => (payload, tail, None),
            Err(failure) => (Bytes::new(), None, Some(failure)),
        };
        let result =
            v1::Result { call, attempt, failure, writes, seq: self.results, tail, ..Default::default() };
        self.send(ToNode::Result(result), payload);
    }

    fn send(&mut self, message: ToNode, payload: Bytes) {
        self.acts.push(Act::Send(Box::new(message), payload));
    }
}

fn write(name: String, value: String) -> v1::Write {
    let key = Some(v1::Key { name, module: SHARED.to_owned() });
    v1::Write { key, value: Bytes::from(value), delete: false }
}
