//! Several daemons that know each other's keys: side by side on loopback, or each on a host of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::hosts::Door;
use super::{Client, Daemon, Hosts, JSON, Response, Setup, until, wait_for};

/// By convention.
const PORT: u16 = 7071;

/// Some nodes. Number 0 is there first, and the only one that the others are told of.
pub(crate) struct Grid {
    // Before the hosts, so that they end first.
    nodes: Vec<Node>,
    /// Where gates are.
    place: TempDir,
    hosts: Option<Hosts>,
}

struct Node {
    key: String,
    address: SocketAddr,
    is: Is,
}

enum Is {
    Up(Daemon),
    Down(Setup),
    /// Between the two.
    Moving,
}

/// A request whose answer is still to come.
pub(crate) struct Pending(TcpStream);

impl Pending {
    #[track_caller]
    pub(crate) fn answer(self) -> Response {
        Response::read(self.0).expect("the daemon answers")
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Json {
        self.answer().ok()
    }

    /// The caller goes away.
    pub(crate) fn leave(self) {
        drop(self);
    }

    /// Nothing has come so far.
    pub(crate) fn is_open(&self) -> bool {
        self.0.set_nonblocking(true).expect("a socket");
        let open = self.0.peek(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        self.0.set_nonblocking(false).expect("a socket");
        open
    }
}

impl Grid {
    /// Nodes with so many slots each, that serve these files. None of them runs yet.
    pub(crate) fn planned(slots: &[usize], files: &[(&str, &str)]) -> Self {
        Self::on_loopback(slots, files, true)
    }

    /// The same, and none is told of another.
    pub(crate) fn strangers(slots: &[usize], files: &[(&str, &str)]) -> Self {
        Self::on_loopback(slots, files, false)
    }

    fn on_loopback(slots: &[usize], files: &[(&str, &str)], join: bool) -> Self {
        // Each test has addresses of loopback for itself.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let process = std::process::id();
        let grid = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = |at: u8| {
            let [_, _, high, low] = process.to_be_bytes();
            Ipv4Addr::new(127, 1 + high % 250, low, u8::try_from(grid * 16).expect("few grids") + at + 1)
        };
        Self::at(slots, files, None, join, address)
    }

    /// The same, each on one of the hosts.
    pub(crate) fn planned_on(hosts: Hosts, slots: &[usize], files: &[(&str, &str)]) -> Self {
        Self::on(hosts, slots, files, true)
    }

    /// The same, and none is told of another.
    pub(crate) fn strangers_on(hosts: Hosts, slots: &[usize], files: &[(&str, &str)]) -> Self {
        Self::on(hosts, slots, files, false)
    }

    fn on(hosts: Hosts, slots: &[usize], files: &[(&str, &str)], join: bool) -> Self {
        let addresses: Vec<Ipv4Addr> = (0..slots.len()).map(|at| hosts.address(narrow(at))).collect();
        Self::at(slots, files, Some(hosts), join, |at| addresses[usize::from(at)])
    }

    /// Nodes that run and know each other.
    #[track_caller]
    pub(crate) fn new(slots: &[usize], files: &[(&str, &str)]) -> Self {
        let mut grid = Self::planned(slots, files);
        grid.start_all();
        grid
    }

    fn at(
        slots: &[usize],
        files: &[(&str, &str)],
        hosts: Option<Hosts>,
        join: bool,
        address: impl Fn(u8) -> Ipv4Addr,
    ) -> Self {
        let setups: Vec<Setup> = slots.iter().map(|_| Setup::new(files)).collect();
        let keys: Vec<String> = setups.iter().map(init).collect();
        let addresses: Vec<SocketAddr> =
            (0..slots.len()).map(|at| (address(narrow(at)), PORT).into()).collect();
        let nodes = setups.into_iter().enumerate().map(|(at, setup)| {
            // By which a function knows where it runs.
            setup.write("node.txt", &at.to_string());
            let mut setup = setup
                .set("running", &slots[at].to_string())
                // A free seller is found late if there are busy ones, and a busy machine is later still.
                .set("queue_wait", "30s")
                .argument("--listen")
                .argument(&addresses[at].to_string());
            if join && at > 0 {
                setup = setup.argument("--join").argument(&format!("{}@{}", keys[0], addresses[0]));
            }
            if let Some(hosts) = &hosts {
                setup = setup.on(hosts, narrow(at));
            }
            Node { key: keys[at].clone(), address: addresses[at], is: Is::Down(setup) }
        });
        let nodes = nodes.collect();
        let place = tempfile::Builder::new().prefix("b-gates-").tempdir().expect("a temporary folder");
        let grid = Self { nodes, place, hosts };
        for at in 0..slots.len() {
            let others: Vec<usize> = (0..slots.len()).filter(|other| *other != at).collect();
            grid.allow(at, &others);
        }
        grid
    }

    /// Changes how a node that is down is started.
    pub(crate) fn change(&mut self, at: usize, change: impl FnOnce(Setup) -> Setup) {
        let Is::Down(setup) = std::mem::replace(&mut self.nodes[at].is, Is::Moving) else {
            panic!("node {at} runs")
        };
        self.nodes[at].is = Is::Down(change(setup));
    }

    /// Starts all of them, and waits until all know each other.
    #[track_caller]
    pub(crate) fn start_all(&mut self) {
        for at in 0..self.nodes.len() {
            self.launch(at);
        }
        for at in 0..self.nodes.len() {
            self.daemon_mut(at).wait_ready();
        }
        for at in 0..self.nodes.len() {
            let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != at).collect();
            // A grid has three authorities, which are all connected; other nodes stay with two of them.
            match others.len() {
                0..3 => self.wait_met(at, &others),
                _ => wait_for(&format!("node {at} is connected with two"), || self.met(at).len() >= 2),
            }
        }
    }

    /// Starts one of them, and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(&mut self, at: usize) {
        self.launch(at);
        self.daemon_mut(at).wait_ready();
    }

    fn launch(&mut self, at: usize) {
        let is = match std::mem::replace(&mut self.nodes[at].is, Is::Moving) {
            Is::Down(setup) => Is::Up(setup.launch()),
            other => other,
        };
        self.nodes[at].is = is;
    }

    /// `kill -9`.
    #[track_caller]
    pub(crate) fn kill(&mut self, at: usize) {
        let Is::Up(daemon) = std::mem::replace(&mut self.nodes[at].is, Is::Moving) else {
            panic!("node {at} does not run")
        };
        self.nodes[at].is = Is::Down(daemon.kill());
    }

    /// `SIGTERM`, until it has ended.
    #[track_caller]
    pub(crate) fn stop(&mut self, at: usize) {
        let Is::Up(daemon) = std::mem::replace(&mut self.nodes[at].is, Is::Moving) else {
            panic!("node {at} does not run")
        };
        self.nodes[at].is = Is::Down(daemon.stop());
    }

    pub(crate) fn daemon(&self, at: usize) -> &Daemon {
        match &self.nodes[at].is {
            Is::Up(daemon) => daemon,
            _ => panic!("node {at} does not run"),
        }
    }

    fn daemon_mut(&mut self, at: usize) -> &mut Daemon {
        match &mut self.nodes[at].is {
            Is::Up(daemon) => daemon,
            _ => panic!("node {at} does not run"),
        }
    }

    pub(crate) fn hosts(&self) -> &Hosts {
        self.hosts.as_ref().expect("these nodes have hosts of their own")
    }

    /// The way to where a node's own clients are.
    pub(crate) fn door(&self, at: usize) -> Door {
        self.hosts.as_ref().map_or_else(Door::open, |hosts| hosts.door(narrow(at)))
    }

    pub(crate) fn key(&self, at: usize) -> &str {
        &self.nodes[at].key
    }

    /// Where other nodes reach it.
    pub(crate) fn address(&self, at: usize) -> SocketAddr {
        self.nodes[at].address
    }

    /// A node speaks with these, from when it has seen the file.
    pub(crate) fn allow(&self, at: usize, others: &[usize]) {
        let lines: String =
            others.iter().map(|other| format!("{}  node {other}\n", self.nodes[*other].key)).collect();
        let data = match &self.nodes[at].is {
            Is::Up(daemon) => daemon.data(),
            Is::Down(setup) => setup.folder().join(".bourse"),
            Is::Moving => unreachable!("it is up or down by now"),
        };
        fs::write(data.join("allowed"), lines).expect("a file is written");
    }
}

/// Asking them.
impl Grid {
    #[track_caller]
    pub(crate) fn get(&self, at: usize, path: &str) -> Response {
        self.begin_with(at, "GET", path, b"").answer()
    }

    #[track_caller]
    pub(crate) fn call(&self, at: usize, function: &str, arguments: Json) -> Response {
        self.begin(at, function, arguments).answer()
    }

    /// A call, without waiting for what comes of it.
    #[track_caller]
    pub(crate) fn begin(&self, at: usize, function: &str, arguments: Json) -> Pending {
        let path = format!("/v1/call/{function}");
        self.begin_with(at, "POST", &path, arguments.to_string().as_bytes())
    }

    fn begin_with(&self, at: usize, method: &str, path: &str, body: &[u8]) -> Pending {
        let client: Client = self.daemon(at).client();
        let begin = || client.begin(method, path, JSON, body).expect("the daemon is there");
        // A socket stays where it was made, whoever reads it.
        Pending(match &self.hosts {
            Some(hosts) => hosts.inside(narrow(at), begin),
            None => begin(),
        })
    }

    /// Makes a durable call. Its id, once it is accepted.
    #[track_caller]
    pub(crate) fn accept(&self, at: usize, function: &str, arguments: Json) -> String {
        let answer = self.call(at, &format!("{function}?mode=async"), arguments);
        assert_eq!(answer.status, 202, "{answer}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// What is told of a durable call, once it has ended.
    #[track_caller]
    pub(crate) fn ended(&self, at: usize, id: &str) -> Json {
        until("the durable call ends", || {
            let call = self.get(at, &format!("/v1/calls/{id}?poll=5s")).ok();
            (!call["ended_at"].is_null()).then_some(call)
        })
    }

    /// The other nodes that a node is connected with.
    pub(crate) fn met(&self, at: usize) -> Vec<usize> {
        let all = self.get(at, "/v1/nodes").ok();
        let is_there = |other: &usize| {
            let of = |node: &Json| node["key"] == self.nodes[*other].key && !node["heard_ms_ago"].is_null();
            *other != at && all.as_array().expect("an array").iter().any(of)
        };
        (0..self.nodes.len()).filter(is_there).collect()
    }

    /// Waits until a node is connected with just these.
    #[track_caller]
    pub(crate) fn wait_met(&self, at: usize, others: &[usize]) {
        wait_for(&format!("node {at} is connected with {others:?}"), || self.met(at) == others);
    }

    /// A place for calls to wait at.
    pub(crate) fn gate(&self, name: &str) -> Gate {
        let path = self.place.path().join(name);
        fs::create_dir(&path).expect("a gate has a name of its own");
        Gate { path }
    }

    /// Takes a slot of a node by a call of its own, until the gate is opened.
    #[track_caller]
    pub(crate) fn occupy(&self, at: usize, gate: &Gate) -> Pending {
        // Another node may have bought the slot, and gives it back when there is no other: so those that run elsewhere
        // stay there until one runs at home.
        let mut strays = Vec::new();
        loop {
            let call = self.begin(at, "work.hold", json!([gate.path]));
            if gate.wait_began(strays.len() + 1).last() == Some(&at) {
                let count = strays.len();
                strays.into_iter().for_each(Pending::leave);
                wait_for("they have stopped elsewhere", || gate.stopped().len() == count);
                return call;
            }
            strays.push(call);
        }
    }

    /// Waits until a node has an instance of `work` that is free, so that its next call finds it.
    #[track_caller]
    pub(crate) fn warm(&self, at: usize) {
        wait_for("a call runs at home", || self.call(at, "work.where", json!([])).ok() == at);
    }
}

/// A place where calls wait until it is opened, and say that they are there.
pub(crate) struct Gate {
    pub(crate) path: PathBuf,
}

impl Gate {
    /// Nodes where a call has come to the gate, in that order.
    pub(crate) fn began(&self) -> Vec<usize> {
        self.lines("began")
    }

    /// Nodes where a call was told to stop while it waited.
    pub(crate) fn stopped(&self) -> Vec<usize> {
        self.lines("stopped")
    }

    /// Waits until so many have come.
    #[track_caller]
    pub(crate) fn wait_began(&self, count: usize) -> Vec<usize> {
        until(&format!("{count} calls are at the gate"), || {
            Some(self.began()).filter(|began| began.len() >= count)
        })
    }

    /// Lets all through, from now on.
    pub(crate) fn open(&self) {
        fs::write(self.path.join("open"), "").expect("a file is written");
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<usize> {
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// Makes a node's keys. The public one.
fn init(setup: &Setup) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bourse"));
    let output = command.arg("init").arg(setup.folder()).arg("--json").output().expect("it starts");
    let told: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    told["key"].as_str().expect("a key").to_owned()
}

fn narrow(at: usize) -> u8 {
    u8::try_from(at).expect("few nodes")
}
