//! How long a node takes to route a call: a million echo calls, with a worker that answers at once, in one thread.
//!
//! ```text
//! cargo run --release -p bourse-node --example calls [calls] [in flight] [workers]
//! ```

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "it measures real time")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bourse_node::{
    Config, Found, Input, Kind, NewCall, Node, Origin, Output, PeerId, Report, RevisionId, Ticket,
};
use bourse_wire::id::Incarnation;
use bourse_wire::time::{Mono, Now, Wall};
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use bourse_wire::v1::to_worker::Message as ToWorker;
use bytes::Bytes;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>().expect("a number"));
    let calls = arguments.next().unwrap_or(1_000_000);
    let in_flight = arguments.next().unwrap_or(1);
    let workers = arguments.next().unwrap_or(2);
    let mut bench = Bench::new(workers);
    bench.run(10_000, in_flight);
    let begin = Instant::now();
    bench.run(calls, in_flight);
    let took = begin.elapsed();
    println!(
        "{calls} calls, {in_flight} in flight, {workers} workers: {:.3} µs per call",
        took.as_secs_f64() * 1e6 / calls as f64
    );
}

struct Bench {
    node: Node,
    now: u64,
    ticket: u64,
    results: VecDeque<(PeerId, v1::Result, Bytes)>,
    answered: u64,
    started: BTreeMap<u64, Bytes>,
}

impl Bench {
    fn new(workers: u64) -> Self {
        let mut config = Config::new(64);
        config.module.instances_max = Some(workers as usize);
        config.module.instances_min = workers as usize;
        let node = Node::new(config, Incarnation(1), [1; 32]);
        let mut bench =
            Self { node, now: 0, ticket: 0, results: VecDeque::new(), answered: 0, started: BTreeMap::new() };
        let found = Found { name: "echo".into(), revision: RevisionId("r".into()), kind: Kind::Python };
        bench.input(Input::Deploy { modules: vec![found] });
        let functions = vec![v1::Function { name: "echo".into(), ..Default::default() }];
        let module = v1::Module { name: "echo".into(), functions, ..Default::default() };
        let report = Report::Ready { module, not_forkable: String::new() };
        bench.input(Input::Loaded { template: bourse_node::ProcessId(1), report });
        for (process, secret) in std::mem::take(&mut bench.started) {
            let hello = v1::Hello {
                version_min: 1,
                version_max: 1,
                role: v1::Role::Worker.into(),
                secret,
                ..Default::default()
            };
            let message = Some(ToNode::Hello(hello));
            bench.input(Input::Frame { peer: PeerId(process), message, payload: Bytes::new() });
        }
        bench
    }

    fn run(&mut self, calls: u64, in_flight: u64) {
        let payload = Bytes::from(vec![7; 100]);
        let until = self.answered + calls;
        let mut open = 0;
        while self.answered < until {
            while open < in_flight && self.answered + open < until {
                self.ticket += 1;
                let call = NewCall {
                    function: "echo.echo".parse().expect("a name"),
                    version: String::new(),
                    payload: payload.clone(),
                    timeout: None,
                    queue_wait: None,
                    traceparent: String::new(),
                    context: BTreeMap::new(),
                    mode: Default::default(),
                    idempotency_key: String::new(),
                    delay: None,
                    trigger: None,
                    depth: 0,
                    terms: Default::default(),
                };
                self.input(Input::Call { origin: Origin::Gateway(Ticket(self.ticket)), call });
                open += 1;
            }
            let before = self.answered;
            let (peer, result, payload) = self.results.pop_front().expect("somebody works");
            self.input(Input::Frame { peer, message: Some(ToNode::Result(result)), payload });
            open -= self.answered - before;
        }
    }

    fn input(&mut self, input: Input) {
        self.now += 5_000;
        let now = Now { mono: Mono(self.now), wall: Wall(self.now / 1_000_000) };
        self.node.handle(now, input);
        while let Some(output) = self.node.poll() {
            match output {
                Output::Send { peer, message: ToWorker::Invoke(invoke), payload } => {
                    let result =
                        v1::Result { call: invoke.call, attempt: invoke.attempt, ..Default::default() };
                    self.results.push_back((peer, result, payload));
                }
                Output::Reply { .. } => self.answered += 1,
                Output::StartInstance { process, secret, .. } => {
                    self.started.insert(process.0, secret);
                }
                _ => {}
            }
        }
        if self.node.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.node.handle_timeout(now);
        }
    }
}
