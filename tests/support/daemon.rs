//! A daemon that serves a folder of its own.

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::{Client, Hosts, PATIENCE, Response, signal, until, wait_for, with_mark};

/// Making the Python environment for the first time takes a download.
const START_PATIENCE: Duration = Duration::from_secs(300);

/// A folder and how to serve it.
pub(crate) struct Setup {
    /// Holds `served/`, `tmp/` (the daemon's sockets) and what the daemon says.
    place: TempDir,
    arguments: Vec<String>,
    http: String,
    variables: Vec<(String, String)>,
    /// The shell's `ulimit` arguments.
    limits: String,
    /// What runs the program, with its arguments.
    wrapper: Vec<String>,
}

/// Runs a program as the first process of a pid namespace, as the one of a container is.
const CONTAINED: [&str; 6] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];

impl Setup {
    /// Files by name; their common indentation is taken off.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let place = tempfile::Builder::new().prefix("b-").tempdir().expect("a temporary folder");
        for folder in ["served", "tmp"] {
            fs::create_dir(place.path().join(folder)).expect("a folder in it");
        }
        let setup = Self {
            place,
            arguments: Vec::new(),
            http: "127.0.0.1:0".to_owned(),
            variables: Vec::new(),
            limits: String::new(),
            wrapper: Vec::new(),
        };
        for (name, text) in files {
            setup.write(name, text);
        }
        setup
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.place.path().join("served")
    }

    /// Saves a file in place.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.folder().join(name);
        fs::create_dir_all(path.parent().expect("it is in the folder")).expect("its folder");
        fs::write(path, dedent(text)).expect("a file is written");
    }

    /// Saves a file as most editors do: a new one takes its name.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let path = self.folder().join(name);
        let new = path.with_extension("tmp~");
        fs::write(&new, dedent(text)).expect("a file is written");
        fs::rename(new, path).expect("it takes the name");
    }

    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The address to listen on; else any free port of loopback.
    pub(crate) fn http(mut self, address: &str) -> Self {
        address.clone_into(&mut self.http);
        self
    }

    /// A setting, as `--set name=value`.
    pub(crate) fn set(self, name: &str, value: &str) -> Self {
        self.argument("--set").argument(&format!("{name}={value}"))
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Resource limits, as the shell's `ulimit` takes them.
    pub(crate) fn limits(mut self, limits: &str) -> Self {
        limits.clone_into(&mut self.limits);
        self
    }

    /// To be the first process of a pid namespace; `None` where none can be made. What it says of process ids is then
    /// true in there only.
    pub(crate) fn contained(mut self) -> Option<Self> {
        let can = Command::new(CONTAINED[0]).args(&CONTAINED[1..]).arg("true").output();
        self.wrapper = CONTAINED.map(str::to_owned).to_vec();
        can.is_ok_and(|ended| ended.status.success()).then_some(self)
    }

    /// To run on one of the hosts: its HTTP is reached from [`inside`](Hosts::inside) there only.
    pub(crate) fn on(mut self, hosts: &Hosts, at: u8) -> Self {
        self.wrapper = hosts.wrapper(at);
        self
    }

    fn mark(&self) -> String {
        format!("TMPDIR={}", self.place.path().join("tmp").display())
    }

    fn command(&self) -> Command {
        let binary = env!("CARGO_BIN_EXE_bourse");
        let limit = format!("ulimit {} && exec \"$@\"", self.limits);
        let mut words: Vec<&str> = self.wrapper.iter().map(String::as_str).collect();
        if !self.limits.is_empty() {
            words.extend(["/bin/sh", "-c", &limit, "sh"]);
        }
        words.push(binary);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
            .arg("up")
            .arg(self.folder())
            .args(["--http", &self.http, "--ready-file"])
            .arg(self.ready_file());
        command.args(&self.arguments);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BOURSE_")) {
            command.env_remove(name);
        }
        command.env("BOURSE_ENVIRONMENTS", environments()).env_remove("XDG_RUNTIME_DIR");
        command.env("TMPDIR", self.place.path().join("tmp")).envs(self.variables.iter().map(|(n, v)| (n, v)));
        command.current_dir(self.place.path()).stdin(Stdio::null());
        command
    }

    fn ready_file(&self) -> PathBuf {
        self.place.path().join("ready")
    }

    fn log_file(&self) -> PathBuf {
        self.place.path().join("log")
    }

    /// Starts the daemon without waiting for it.
    pub(crate) fn launch(self) -> Daemon {
        let _ = fs::remove_file(self.ready_file());
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let mut command = self.command();
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let child = command.spawn().expect("the daemon starts");
        let nowhere = Client { address: ([127, 0, 0, 1], 9).into() };
        Daemon { setup: Some(self), child, client: nowhere }
    }

    /// Starts the daemon, and waits until it is ready.
    #[track_caller]
    pub(crate) fn up(self) -> Daemon {
        let mut daemon = self.launch();
        daemon.wait_ready();
        daemon
    }

    /// Starts a daemon that is to refuse, and gives what it says. The exit code must be 1.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        let mut daemon = self.launch();
        let status = daemon.wait_end();
        let log = daemon.log();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        log
    }
}

/// A running daemon. Dropping it kills it, and whatever it has left.
pub(crate) struct Daemon {
    /// `None` once it was taken to start another.
    setup: Option<Setup>,
    child: Child,
    client: Client,
}

impl Daemon {
    /// Serves these files.
    #[track_caller]
    pub(crate) fn start(files: &[(&str, &str)]) -> Self {
        Setup::new(files).up()
    }

    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        let start = Instant::now();
        let ready = self.ready_file();
        let address = loop {
            match fs::read_to_string(&ready) {
                Ok(text) if text.ends_with('\n') => break text,
                _ => {}
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the daemon ended with {ended:?}:\n{}", self.log());
            assert!(start.elapsed() < START_PATIENCE, "the daemon is not ready:\n{}", self.log());
            std::thread::sleep(super::LOOK);
        };
        let address =
            address.lines().next().unwrap_or_default().strip_prefix("http://").expect("an address").parse();
        let mut address: std::net::SocketAddr = address.expect("an address");
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        self.client = Client { address };
    }

    pub(crate) fn client(&self) -> Client {
        self.client
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    pub(crate) fn keeper(&self) -> i32 {
        number(&self.get("/v1/status").ok()["keeper_pid"])
    }

    /// Process ids of the instances.
    pub(crate) fn instances(&self) -> Vec<i32> {
        let all = self.get("/v1/instances").ok();
        all.as_array().expect("an array").iter().map(|i| number(&i["pid"])).filter(|pid| *pid > 0).collect()
    }

    /// Everything it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until it has said this.
    #[track_caller]
    pub(crate) fn wait_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < super::PATIENCE, "it never said {text:?}:\n{}", self.log());
            std::thread::sleep(super::LOOK);
        }
    }

    /// What a module's functions have printed.
    pub(crate) fn output(&self, module: &str) -> String {
        fs::read_to_string(self.data().join(format!("logs/{module}.log"))).unwrap_or_default()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder().join(".bourse")
    }

    /// The worker protocol's endpoint.
    pub(crate) fn endpoint(&self) -> String {
        let text = fs::read(self.data().join("daemon.json")).expect("a running daemon says where it is");
        let contact: Json = serde_json::from_slice(&text).expect("JSON");
        contact["endpoint"].as_str().expect("an endpoint").to_owned()
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    #[track_caller]
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        until("the daemon ends", || self.child.try_wait().expect("a child"))
    }

    /// `kill -9`. Gives the folder back, to start another.
    #[track_caller]
    pub(crate) fn kill(mut self) -> Setup {
        self.signal(Signal::KILL);
        self.wait_end();
        self.setup.take().expect("a daemon has its folder until it is given up")
    }

    /// `SIGTERM`: it finishes what it does. Gives the folder back, to start another.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Setup {
        self.signal(Signal::TERM);
        let status = self.wait_end();
        assert!(status.success(), "it ended with {status}:\n{}", self.log());
        self.setup.take().expect("a daemon has its folder until it is given up")
    }

    /// How much memory it uses, in MiB.
    pub(crate) fn resident_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
    }
}

impl Setup {
    /// Everything that runs because of it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        with_mark(&self.mark())
    }

    /// Waits until nothing of it runs.
    #[track_caller]
    pub(crate) fn wait_gone(&self) {
        wait_for("all processes have ended", || self.processes().is_empty());
    }
}

impl Deref for Daemon {
    type Target = Setup;

    fn deref(&self) -> &Setup {
        self.setup.as_ref().expect("a daemon has its folder until it is given up")
    }
}

/// Asking it.
impl Daemon {
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.client.get(path)
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.client.post(path, body)
    }

    /// A call by name, with named or positional arguments.
    #[track_caller]
    pub(crate) fn call(&self, function: &str, arguments: Json) -> Response {
        self.client.call(function, &arguments)
    }

    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.client.send(method, path, headers, body)
    }

    /// Makes a durable call. Its id, once it is accepted.
    #[track_caller]
    pub(crate) fn accept(&self, function: &str, arguments: &Json) -> String {
        let answer = self.client.call(&format!("{function}?mode=async"), arguments);
        assert_eq!(answer.status, 202, "{answer}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Waits until a durable call is done, and gives its result.
    #[track_caller]
    pub(crate) fn result(&self, id: &str) -> Json {
        // In a long run, a call may be long.
        let times = if std::env::var_os("BOURSE_TEST_LONG").is_some() { 20 } else { 1 };
        let deadline = Instant::now() + PATIENCE * times;
        let mut call = loop {
            let call = self.get(&format!("/v1/calls/{id}?poll=10s")).ok();
            if !call["ended_at"].is_null() {
                break call;
            }
            assert!(Instant::now() < deadline, "the call has not ended: {call}");
        };
        assert_eq!(call["status"], "done", "{call}");
        call["result"].take()
    }

    /// Calls from another thread.
    pub(crate) fn call_beside(&self, function: &str, arguments: Json) -> JoinHandle<Response> {
        let (client, function) = (self.client, function.to_owned());
        thread::spawn(move || client.call(&function, &arguments))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        signal(self.pid(), Signal::KILL);
        let _ = self.child.wait();
        if let Some(setup) = &self.setup {
            if thread::panicking() {
                eprintln!("--- the daemon said:\n{}", self.log());
            }
            for pid in setup.processes() {
                signal(pid, Signal::KILL);
            }
        }
    }
}

/// Where all tests keep their Python environments: one is made once, and used by all.
fn environments() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("environments")
}

/// An interpreter with the SDK's requirements, and the folder of the SDK: for programs that speak the worker
/// protocol themselves.
pub(crate) fn python_home() -> &'static (String, String) {
    static HOME: OnceLock<(String, String)> = OnceLock::new();
    HOME.get_or_init(|| {
        let daemon = Daemon::start(&[(
            "home.py",
            "
            import os, sys, bourse
            def where():
                return [sys.executable, os.path.dirname(os.path.dirname(bourse.__file__))]
            ",
        )]);
        let home = daemon.call("home.where", json!({})).ok();
        let text = |at: usize| home[at].as_str().expect("a path").to_owned();
        (text(0), text(1))
    })
}

fn number(json: &Json) -> i32 {
    json.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default()
}

/// Takes off the indentation that all lines share, and a first empty line.
pub(super) fn dedent(text: &str) -> String {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let common = text.lines().filter(|l| !l.trim().is_empty()).map(indentation).min().unwrap_or(0);
    text.lines().map(|line| line.get(common..).unwrap_or_default().to_owned() + "\n").collect()
}
