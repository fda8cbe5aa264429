//! Random deployments, calls, crashes, cancellations, late, repeated and nonsensical frames. After each input the
//! node's invariants are checked; after the faults have stopped, every call is answered, once, and nothing is left.
//! A seed that fails is run alone with `BOURSE_SEED=n`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: it reads its seed and uses all cores"
)]

mod common;

use bourse_node::durable::batch::Outcome;
use bourse_node::{Config, Input, Kind, PeerId, Ticket};
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use bytes::Bytes;
use common::Step::{
    Call, Crash, Fail, Freeze, Hang, Increment, Leave, Log, Read, Return, Run, Scan, Submit, Sum, Try,
    WaitAll, WaitAny, Write,
};
use common::{Module, Start, Step, World, config, ms};

const SEEDS: u64 = 320;
const FAULTS: u64 = 60;
/// Whatever the seeds do, they do it so often in all: else they test nothing.
const ANSWERS_MIN: usize = 8_000;

const NAMES: [&str; 9] = ["a.f", "a.g", "a.h", "b.f", "b.g", "b.h", "c.f", "c.g", "c.h"];

struct Story {
    w: World,
    tickets: Vec<Ticket>,
    clients: Vec<(PeerId, u64)>,
    attached: Vec<PeerId>,
    revisions: u64,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("BOURSE_SEED").is_some() {
            eprintln!("{}", self.w.trace.text());
        }
    }
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut w = World::new();
        w.seed = Some(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let bounded = Config {
            running_max: 1 + w.random(4) as usize,
            instances_max: 2 + w.random(6) as usize,
            depth_max: 6,
            requests_max: 20,
            ..config()
        };
        let mut module = bounded.module.clone();
        module.blocked_max = w.random(6) as usize;
        module.queue_max = 5 + w.random(50) as usize;
        module.instances_min = w.random(2) as usize;
        let seed = w.seed;
        let mut w = World::with(Config { module, ..bounded });
        w.seed = seed;
        w.exits_late = w.random(2) == 0;
        let mut story =
            Self { w, tickets: Vec::new(), clients: Vec::new(), attached: Vec::new(), revisions: 0 };
        for name in ["a", "b", "c"] {
            let module = story.module(name);
            story.w.save(module);
        }
        story.w.run(100);
        story
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.w.random(all.len() as u64) as usize]
    }

    fn module(&mut self, name: &str) -> Module {
        self.revisions += 1;
        // Sometimes one that was there before.
        let revision = self.w.random(self.revisions) + 1;
        let mut module = Module::new(name, &format!("r{revision}"));
        for function in ["f", "g", "h"] {
            let steps: Vec<Step> = (0..self.w.random(5)).map(|_| self.step()).collect();
            module = module.computed(function, move |argument| {
                let depth = argument.parse::<u64>().unwrap_or(0);
                let deeper = |step: &Step| match step.clone() {
                    Call(f, _) => Call(f, (depth + 1).to_string()),
                    Try(f, _) => Try(f, (depth + 1).to_string()),
                    Submit(f, _) => Submit(f, (depth + 1).to_string()),
                    other => other,
                };
                let nests = |s: &&Step| matches!(s, Call(..) | Try(..) | Submit(..));
                steps.iter().filter(|s| depth < 3 || !nests(s)).map(deeper).collect()
            });
        }
        module.load_ms = self.w.random(100);
        module.kind = self.one_of(&[Kind::Python, Kind::Python, Kind::Python, Kind::Process]);
        module.instances = match self.w.random(12) {
            0 => Start::Dying(1),
            1 => Start::SayingWhyNot("no"),
            2 => Start::Version(2),
            3 => Start::Never,
            _ => Start::Well,
        };
        module.broken = (self.w.random(10) == 0).then_some("SyntaxError");
        module.not_forkable = self.one_of(&["", "", "", "threads"]);
        module
    }

    fn step(&mut self) -> Step {
        let function = self.one_of(&NAMES);
        let key = self.one_of(&["k", "k/1", "l"]);
        match self.w.random(30) {
            0..=3 => Run(self.w.random(4)),
            4 => Run(self.w.random(300)),
            5..=7 => Call(function, String::new()),
            8 | 9 => Try(function, String::new()),
            10..=13 => Submit(function, String::new()),
            14 | 15 => WaitAll,
            16 => WaitAny,
            17 | 18 => Read(key),
            19 => Scan(key),
            20 | 21 => Write(key, "1"),
            22 => Increment(key),
            23 => Fail("boom"),
            24 => {
                if self.w.random(2) == 0 {
                    Crash
                } else {
                    Fail("bang")
                }
            }
            25 => {
                if self.w.random(4) == 0 {
                    Hang
                } else {
                    Log("line")
                }
            }
            26 => {
                if self.w.random(4) == 0 {
                    Freeze
                } else {
                    Sum
                }
            }
            27 => {
                if self.w.random(4) == 0 {
                    Leave
                } else {
                    Return("x")
                }
            }
            _ => Return("x"),
        }
    }

    /// One thing that a world may do to a node.
    fn fault(&mut self) {
        let pause = self.one_of(&[0, 0, 1, 1, 3, 10, 40, 200]);
        self.w.run(pause);
        let workers: Vec<PeerId> = self.w.workers.keys().copied().collect();
        match self.w.random(24) {
            0..=9 => {
                let function = self.one_of(&NAMES);
                let (timeout, wait) = (self.w.random(4), self.w.random(4));
                for _ in 0..=self.w.random(6) {
                    let ticket = self.w.call_with(function, "0", |c| {
                        c.timeout = (timeout > 0).then(|| ms([0, 20, 200, 2_000][timeout as usize]));
                        c.queue_wait = (wait > 0).then(|| ms([0, 0, 50, 1_000][wait as usize]));
                    });
                    self.tickets.push(ticket);
                }
            }
            10 | 11 if !self.tickets.is_empty() => {
                let tickets = self.tickets.clone();
                let ticket = self.one_of(&tickets);
                self.w.cancel(ticket);
            }
            12 => {
                let alive: Vec<_> =
                    self.w.processes.iter().filter(|(_, p)| p.alive).map(|(id, _)| *id).collect();
                if !alive.is_empty() {
                    let process = self.one_of(&alive);
                    self.w.kill_9(process);
                }
            }
            13 if !workers.is_empty() => {
                let peer = self.one_of(&workers);
                self.w.hang_up(peer);
            }
            14 => {
                let name = self.one_of(&["a", "b", "c"]);
                let module = self.module(name);
                self.w.save(module);
            }
            15 => {
                let name = self.one_of(&["a", "b", "c"]);
                self.w.remove(name);
            }
            16 | 17 if !self.w.heard.is_empty() => {
                // A frame that was sent comes again.
                let at = self.w.random(self.w.heard.len() as u64) as usize;
                let (peer, message, payload) = self.w.heard[at].clone();
                if !self.w.closed.contains(&peer) {
                    self.w.input(Input::Frame { peer, message: Some(message), payload });
                }
            }
            18 => self.nonsense(&workers),
            19 => {
                let outcome = match self.w.random(3) {
                    0 => Outcome::Failed("disk full".into()),
                    1 => Outcome::Unknown("timed out".into()),
                    _ => Outcome::Failed("?".into()),
                };
                self.w.store.outcomes.push_back(outcome);
                self.w.store.away = (self.w.random(3) == 0).then_some("away");
            }
            20 if !workers.is_empty() => {
                let peer = self.one_of(&workers);
                let how = self.w.random(3);
                let worker = self.w.workers.get_mut(&peer).unwrap();
                match how {
                    0 => worker.frozen = true,
                    1 => worker.stubborn = true,
                    _ => worker.clinging = true,
                }
            }
            21 => {
                let peer = self.w.client();
                self.clients.push((peer, 1));
            }
            22 if !self.clients.is_empty() => {
                let at = self.w.random(self.clients.len() as u64) as usize;
                if self.w.random(4) == 0 {
                    let (peer, _) = self.clients.remove(at);
                    self.w.hang_up(peer);
                } else {
                    let function = self.one_of(&NAMES);
                    let (peer, request) = &mut self.clients[at];
                    *request += 1;
                    let (peer, request) = (*peer, *request);
                    if !self.w.closed.contains(&peer) {
                        self.w.client_call(peer, request, function);
                    }
                }
            }
            23 => {
                if self.attached.is_empty() || self.w.random(2) == 0 {
                    let name = self.one_of(&["a", "b", "d"]);
                    let module = self.module(name);
                    self.attached.push(self.w.attach(module));
                } else {
                    let peer = self.attached.remove(0);
                    if !self.w.closed.contains(&peer) {
                        self.w.hang_up(peer);
                    }
                }
            }
            _ => {}
        }
    }

    /// A message that makes no sense, from somebody.
    fn nonsense(&mut self, workers: &[PeerId]) {
        let peer = match self.w.random(4) {
            0 => self.w.connect(),
            1 if !self.clients.is_empty() => self.clients[0].0,
            _ if !workers.is_empty() => self.one_of(workers),
            _ => self.w.connect(),
        };
        if !self.w.closed.contains(&peer) {
            let message = self.message();
            self.w.input(Input::Frame { peer, message, payload: Bytes::from_static(b"\xff nonsense") });
        }
    }

    fn message(&mut self) -> Option<ToNode> {
        let calls: Vec<Bytes> = self.w.heard.iter().filter_map(|(_, m, _)| call_of(m)).collect();
        let call = match self.w.random(4) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"not a call"),
            _ if calls.is_empty() => Bytes::from_static(&[1; 16]),
            _ => calls[self.w.random(calls.len() as u64) as usize].clone(),
        };
        let (attempt, request) = (self.w.random(3) as u32, self.w.random(20));
        let key = match self.w.random(4) {
            0 => None,
            1 => Some(v1::Key { name: "/".into(), module: "\0".into() }),
            2 => Some(v1::Key { name: "k".repeat(5_000), module: "b".into() }),
            _ => Some(v1::Key { name: "k/2".into(), module: String::new() }),
        };
        let writes =
            vec![v1::Write { key: key.clone(), value: Bytes::from_static(b"v"), delete: request > 10 }];
        let function = self.one_of(&["", ".", "a", "a.f", "b.g", "x.y", "a.nope"]).to_owned();
        Some(match self.w.random(12) {
            0 => ToNode::Hello(v1::Hello {
                version_max: request as u32,
                role: request as i32,
                ..Default::default()
            }),
            1 => ToNode::Result(v1::Result { call, attempt, writes, seq: u64::MAX, ..Default::default() }),
            2 => ToNode::Call(v1::Call {
                request,
                function,
                parent: call,
                attempt,
                wait: request > 5,
                timeout_ms: request * 1_000,
                queue_wait_ms: u64::MAX,
                writes,
                version: "?".repeat(attempt as usize),
                ..Default::default()
            }),
            3 => ToNode::Wait(v1::Wait {
                call,
                attempt,
                requests: vec![request, request + 1, u64::MAX],
                any: attempt > 1,
            }),
            4 => ToNode::Cancel(v1::CancelCall { request }),
            5 => ToNode::Read(v1::Read { request, call, attempt, key, writes }),
            6 => ToNode::Scan(v1::Scan {
                request,
                call,
                attempt,
                prefix: key,
                after: "\u{10ffff}".into(),
                limit: u32::MAX,
                keys_only: true,
                writes,
            }),
            7 => ToNode::Pong(v1::Pong { nonce: request }),
            8 => ToNode::Recalled(v1::Recalled {
                nonce: request,
                calls: vec![v1::Invocation { call, attempt }; 3],
            }),
            9 => ToNode::Log(v1::Log { level: -1, call, ..Default::default() }),
            10 => ToNode::Bye(v1::Bye {}),
            _ => return None,
        })
    }

    /// The faults stop, and time passes.
    fn liveness(&mut self) {
        self.w.store.outcomes.clear();
        self.w.store.away = None;
        for worker in self.w.workers.values_mut() {
            worker.clinging = false;
        }
        self.w.settle();
        self.w.run(150_000);
        // Attached processes stay however long their functions take: their developers end them.
        for peer in std::mem::take(&mut self.attached) {
            if !self.w.closed.contains(&peer) {
                self.w.hang_up(peer);
            }
        }
        self.w.run(50_000).node.check_quiet();
        let unanswered = self.tickets.iter().filter(|t| !self.w.answers.contains_key(t)).count();
        assert_eq!(unanswered, 0, "every call is answered");
        self.w.input(Input::Drain).run(100_000);
        assert!(self.w.drained, "and it can be stopped");
        let left: Vec<_> = self.w.processes.iter().filter(|(_, p)| p.alive).map(|(id, _)| *id).collect();
        assert!(left.is_empty(), "processes are left: {left:?}");
    }
}

fn call_of(message: &ToNode) -> Option<Bytes> {
    match message {
        ToNode::Result(r) => Some(r.call.clone()),
        ToNode::Call(c) => Some(c.parent.clone()),
        ToNode::Read(r) => Some(r.call.clone()),
        _ => None,
    }
}

fn run(seed: u64) -> usize {
    let mut story = Story::new(seed);
    for _ in 0..FAULTS {
        story.fault();
    }
    story.liveness();
    story.w.answers.len()
}

#[test]
fn whatever_happens_every_call_is_answered_once_and_nothing_is_left() {
    if let Some(seed) = std::env::var("BOURSE_SEED").ok().and_then(|s| s.parse().ok()) {
        run(seed);
        return;
    }
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8) as u64;
    let some = |first: u64| move || (first..SEEDS).step_by(threads as usize).map(seed_of).sum::<usize>();
    let runs: Vec<_> = (0..threads).map(|first| std::thread::spawn(some(first))).collect();
    let answers: usize = runs.into_iter().map(|run| run.join().expect("see the seed above")).sum();
    assert!(answers >= ANSWERS_MIN, "{answers} calls were answered in all");
}

fn seed_of(seed: u64) -> usize {
    std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|e| {
        eprintln!("it was BOURSE_SEED={seed}");
        std::panic::resume_unwind(e)
    })
}

#[test]
fn nonsense_from_anybody_reaches_no_assertion() {
    for seed in 1..=20 {
        let mut story = Story::new(seed + 1_000_000);
        for i in 0..400 {
            if i % 10 == 0 {
                let function = story.one_of(&NAMES);
                let ticket = story.w.call(function);
                story.tickets.push(ticket);
                story.w.run(5);
            }
            let workers: Vec<PeerId> = story.w.workers.keys().copied().collect();
            story.nonsense(&workers);
        }
        story.liveness();
    }
}
