//! The keeper with real processes: what it starts, what it reports, and that nothing gets away.
#![expect(clippy::unwrap_used, reason = "what can't be set up is a failed test")]

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bourse_wire::keeper::v1::from_keeper::Message as Heard;
use bourse_wire::keeper::v1::to_keeper::Message as Order;
use bourse_wire::keeper::v1::{Exited, Fork, FromKeeper, Shutdown, Signal, Spawn, ToKeeper, from_template};
use bourse_worker::codec::{self, Decoder};
use bourse_worker::environment::{self, Environment, Python};
use bourse_worker::keeper::{self, Keeper};
use bourse_worker::python::Program;
use bourse_worker::sdk;

const PATIENCE: Duration = Duration::from_secs(20);
const KILL: i32 = 9;

/// A keeper and the daemon's end of its socket.
struct House {
    keeper: Keeper,
    stream: UnixStream,
    decoder: Decoder,
    heard: VecDeque<Heard>,
    folder: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let program = OsStr::new(env!("CARGO_BIN_EXE_bourse-keeper"));
        let (keeper, stream) = Keeper::start_program(program, &[]).unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { keeper, stream, decoder: Decoder::default(), heard: VecDeque::new(), folder }
    }

    fn order(&mut self, message: Order) {
        let mut frame = Vec::new();
        codec::encode(&ToKeeper { message: Some(message) }, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    fn spawn(&mut self, process: u64, argv: &[&str]) {
        let spawn = self.program(process, argv);
        self.order(Order::Spawn(spawn));
    }

    fn shell(&mut self, process: u64, script: &str) {
        self.spawn(process, &["/bin/sh", "-c", script]);
    }

    fn program(&self, process: u64, argv: &[&str]) -> Spawn {
        Spawn {
            process,
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]),
            cwd: self.folder.path().to_str().unwrap().to_owned(),
            log: self.path("logs/out.log"),
            ..Default::default()
        }
    }

    fn template(&mut self, process: u64, how: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake_template.py");
        let spawn = Spawn { template: true, ..self.program(process, &["python3", "-S", script, how]) };
        self.order(Order::Spawn(spawn));
        self.started(process);
        assert!(matches!(self.hear(), Heard::Loaded(loaded) if loaded.template == process));
    }

    fn fork(&mut self, process: u64, template: u64) {
        self.order(Order::Fork(Fork {
            process,
            template,
            secret: b"key".to_vec().into(),
            ..Default::default()
        }));
    }

    fn kill(&mut self, process: u64, signal: i32, tree: bool) {
        self.order(Order::Signal(Signal { process, signal, tree }));
    }

    fn hear(&mut self) -> Heard {
        self.try_hear().expect("the keeper closed its socket")
    }

    fn try_hear(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            while let Some(FromKeeper { message }) = self.decoder.next().unwrap() {
                self.heard.extend(message);
            }
            if self.heard.is_empty() {
                let mut buffer = [0; 4096];
                match self.stream.read(&mut buffer) {
                    Ok(0) => return None,
                    Ok(n) => self.decoder.push(&buffer[..n]),
                    // A socket with a timeout is not restarted when the process was frozen and thawed.
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => panic!("the keeper says nothing: {e}"),
                }
            }
        }
    }

    fn started(&mut self, process: u64) -> u32 {
        match self.hear() {
            Heard::Started(started) if started.process == process => started.pid,
            other => panic!("process {process} should have started: {other:?}\n{}", self.log()),
        }
    }

    fn exited(&mut self, process: u64) -> Exited {
        match self.hear() {
            Heard::Exited(exited) if exited.process == process => exited,
            other => panic!("process {process} should have exited: {other:?}\n{}", self.log()),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("logs/out.log")).unwrap_or_default()
    }

    /// The process id that a script writes into a file.
    fn pid_in(&self, name: &str) -> u32 {
        let path = self.path(name);
        eventually(&format!("{name} is written"), || {
            fs::read_to_string(&path).ok()?.strip_suffix('\n')?.parse().ok()
        })
    }
}

fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::yield_now();
    }
}

fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().next()).is_some_and(|s| s != "Z")
}

fn dies(pid: u32) {
    eventually(&format!("process {pid} is dead"), || (!alive(pid)).then_some(()));
}

/// Writes its process id and lives on: in another session, not in its parent's care, deaf to SIGTERM.
const DAEMON: &str = "setsid sh -c 'trap \"\" TERM HUP INT; (echo $$ > daemon.tmp; mv daemon.tmp daemon; \
                      while :; do sleep 1000; done) ' > /dev/null 2>&1 < /dev/null & ";

#[test]
fn exits_are_reported_as_they_were() {
    let mut house = House::new();
    house.shell(1, "exit 0");
    assert!(house.started(1) > 0);
    assert_eq!(house.exited(1), Exited { process: 1, code: Some(0), ..Default::default() });
    house.shell(2, "exit 42");
    house.started(2);
    assert_eq!(house.exited(2).code, Some(42));
    house.shell(3, "kill -9 $$");
    house.started(3);
    assert_eq!(house.exited(3), Exited { process: 3, signal: Some(KILL), ..Default::default() });
    // A real-time signal has no name.
    house.shell(4, "kill -40 $$");
    house.started(4);
    assert_eq!(house.exited(4).signal, Some(40));
}

#[test]
fn what_cannot_start_says_why() {
    let mut house = House::new();
    fs::write(house.path("plain"), "echo hello\n").unwrap();
    fs::write(house.path("script"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(house.path("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let (plain, script) = (house.path("plain"), house.path("script"));
    let cases: [(&[&str], &str); 5] = [
        (&["/no/such/program"], "no such file: /no/such/program"),
        (&["no-such-program"], "no such file: no-such-program"),
        (&[&plain], "permission denied"),
        (&[&script], "interpreter"),
        (&[], "no program"),
    ];
    for (process, (argv, text)) in (1..).zip(cases) {
        house.spawn(process, argv);
        let exited = house.exited(process);
        assert!(exited.error.contains(text), "{argv:?}: {exited:?}");
        assert_eq!((exited.code, exited.signal), (None, None));
    }
    let spawn = Spawn { cwd: "/no/such/folder".into(), ..house.program(9, &["true"]) };
    house.order(Order::Spawn(spawn));
    assert_eq!(house.exited(9).error, "no such folder: /no/such/folder");
    let spawn =
        Spawn { secret: vec![1; keeper::SECRET_BYTES_MAX + 1].into(), ..house.program(10, &["true"]) };
    house.order(Order::Spawn(spawn));
    assert!(house.exited(10).error.contains("secret"));
    house.fork(11, 10);
    assert_eq!(house.exited(11).error, "its template is not running");
}

#[test]
fn a_process_gets_what_it_is_given_and_nothing_else() {
    let mut house = House::new();
    let script = "cat <&$BOURSE_SECRET_FD; echo; env | cut -d= -f1 | sort | tr '\\n' ' '; echo; \
                  ls /proc/self/fd | tr '\\n' ' '; echo; pwd; ps -o sid= -p $$ | tr -d ' '; echo oops >&2";
    let mut spawn = house.program(1, &["/bin/sh", "-c", script]);
    spawn.secret = b"s3cret".to_vec().into();
    spawn.env.insert("GREETING".into(), "hello".into());
    house.order(Order::Spawn(spawn));
    let pid = house.started(1);
    assert_eq!(house.exited(1).code, Some(0));
    let log = house.log();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "s3cret");
    assert_eq!(lines[1].trim(), "BOURSE_PROCESS BOURSE_SECRET_FD GREETING PATH PWD");
    // Standard ones, the secret, and the one that `ls` reads the folder with.
    assert_eq!(lines[2].split(' ').filter(|f| !f.is_empty()).count(), 5, "{log}");
    assert_eq!(Path::new(lines[3]).canonicalize().unwrap(), house.folder.path().canonicalize().unwrap());
    assert_eq!(lines[4], pid.to_string());
    assert_eq!(lines[5], "oops");
    let mode = fs::metadata(house.path("logs/out.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Not seen by a shell, which cleans up itself.
#[test]
fn no_signal_is_blocked_or_ignored() {
    let mut house = House::new();
    house.spawn(1, &["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
    house.started(1);
    assert_eq!(house.exited(1).code, Some(0));
    for line in house.log().lines() {
        let mask = u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
        // But for 32 and 33, which are the C library's own.
        assert_eq!(mask & !0x1_8000_0000, 0, "{line}");
    }
}

#[test]
fn signals_arrive() {
    let mut house = House::new();
    house.shell(1, "trap 'exit 5' TERM; echo $$ > ready; while :; do sleep 0.01; done");
    house.started(1);
    house.pid_in("ready");
    house.kill(1, 15, false);
    assert_eq!(house.exited(1).code, Some(5));
}

#[test]
fn killing_a_tree_leaves_nothing_of_it() {
    let mut house = House::new();
    house.shell(
        1,
        &format!("{DAEMON} sleep 1000 & echo $! > child; (setsid sleep 1000 & echo $! > other; wait)"),
    );
    house.started(1);
    house.shell(2, "sleep 1000");
    let bystander = house.started(2);
    let pids = [house.pid_in("daemon"), house.pid_in("child"), house.pid_in("other")];
    house.kill(1, KILL, true);
    assert_eq!(house.exited(1).signal, Some(KILL));
    pids.into_iter().for_each(dies);
    assert!(alive(bystander));
}

#[test]
fn what_an_instance_leaves_behind_ends_with_it() {
    // 1. It daemonises something, and leaves a child in its own group.
    let mut house = House::new();
    house.shell(1, &format!("{DAEMON} sleep 1000 & echo $! > child; while [ ! -e go ]; do sleep 0.01; done"));
    house.started(1);
    house.shell(2, "sleep 1000");
    let bystander = house.started(2);
    let pids = [house.pid_in("daemon"), house.pid_in("child")];
    // 2. It exits by itself.
    fs::write(house.path("go"), "").unwrap();
    assert_eq!(house.exited(1).code, Some(0));
    // 3. Both are gone, and what another instance runs is not.
    pids.into_iter().for_each(dies);
    assert!(alive(bystander));
}

#[test]
fn the_end_of_the_socket_is_the_end_of_everything() {
    let mut house = House::new();
    // 1. One that ignores SIGTERM, and one that has daemonised another and is gone from its view.
    house.shell(1, "trap '' TERM HUP INT; echo $$ > deaf; while :; do sleep 1000; done");
    let deaf = house.started(1);
    house.shell(2, &format!("{DAEMON} sleep 1000"));
    let sleeper = house.started(2);
    house.template(3, "honest");
    house.fork(4, 3);
    let forked = house.started(4);
    let daemon = house.pid_in("daemon");
    house.pid_in("deaf");
    // 2. Signals to the keeper itself end nothing.
    let keeper = house.keeper.pid().to_string();
    Command::new("kill").args(["-TERM", &keeper]).status().unwrap();
    Command::new("kill").args(["-INT", &keeper]).status().unwrap();
    house.shell(5, "exit 0");
    house.started(5);
    assert_eq!(house.exited(5).code, Some(0));
    // 3. The daemon dies.
    house.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(house.keeper.wait().unwrap().success());
    for pid in [deaf, sleeper, forked, daemon] {
        assert!(!alive(pid), "{pid} outlived the keeper");
    }
}

#[test]
fn shutdown_is_the_end_too() {
    let mut house = House::new();
    house.shell(1, "sleep 1000");
    let pid = house.started(1);
    house.order(Order::Shutdown(Shutdown {}));
    assert!(house.keeper.wait().unwrap().success());
    assert!(!alive(pid));
    assert_eq!(house.try_hear(), None);
}

#[test]
fn garbage_from_the_daemon_is_the_end_and_an_error() {
    let mut house = House::new();
    house.shell(1, "sleep 1000");
    let pid = house.started(1);
    house.stream.write_all(&[0xff; 64]).unwrap();
    assert_eq!(house.keeper.wait().unwrap().code(), Some(1));
    assert!(!alive(pid));
}

#[test]
fn a_template_forks_instances() {
    let mut house = House::new();
    house.template(1, "honest");
    house.fork(2, 1);
    house.fork(3, 1);
    let (two, three) = (house.started(2), house.started(3));
    assert!(alive(two) && alive(three));
    house.kill(2, KILL, true);
    assert_eq!(house.exited(2).signal, Some(KILL));
    // The template goes, its other instance stays.
    house.kill(1, KILL, true);
    assert_eq!(house.exited(1).signal, Some(KILL));
    assert!(alive(three));
    house.kill(3, 15, false);
    assert_eq!(house.exited(3).signal, Some(15));
}

#[test]
fn an_exit_that_overtakes_its_fork_is_not_lost() {
    let mut house = House::new();
    house.template(1, "quick");
    for process in 2..20 {
        house.fork(process, 1);
        house.started(process);
        assert_eq!(house.exited(process).code, Some(7));
    }
}

#[test]
fn a_kill_that_overtakes_the_fork_is_not_lost() {
    let mut house = House::new();
    house.template(1, "honest");
    house.fork(2, 1);
    house.kill(2, KILL, true);
    let pid = house.started(2);
    assert_eq!(house.exited(2).signal, Some(KILL));
    dies(pid);
}

#[test]
fn an_instance_that_its_template_has_not_told_of_is_no_stray() {
    let mut house = House::new();
    house.template(1, "late");
    house.fork(2, 1);
    eventually("it is forked", || fs::exists(house.path("forked")).unwrap().then_some(()));
    // Every exit makes the keeper look for strays.
    for process in 3..6 {
        house.shell(process, "exit 0");
        house.started(process);
        house.exited(process);
    }
    fs::write(house.path("go"), "").unwrap();
    assert!(alive(house.started(2)));
}

#[test]
fn a_bad_template_costs_its_own_forks_only() {
    for (how, error) in
        [("dies", "its template ended"), ("lies", "no process of its own"), ("refuses", "out of memory")]
    {
        let mut house = House::new();
        house.template(1, how);
        house.fork(2, 1);
        let exited = house.exited(2);
        assert!(exited.error.contains(error), "{how}: {exited:?}");
        if how != "refuses" {
            assert!(house.exited(1).error.is_empty(), "{how}");
        }
        house.shell(3, "exit 0");
        house.started(3);
        assert_eq!(house.exited(3).code, Some(0), "{how}");
    }
    let mut house = House::new();
    house.template(1, "garbage");
    assert_eq!(house.exited(1).signal, Some(KILL));
}

#[test]
fn many_quick_processes_leak_no_descriptors() {
    let mut house = House::new();
    let open = |house: &House| fs::read_dir(format!("/proc/{}/fd", house.keeper.pid())).unwrap().count();
    house.shell(0, "exit 0");
    house.started(0);
    house.exited(0);
    let before = open(&house);
    for process in 1..=200 {
        let spawn = Spawn {
            secret: b"key".to_vec().into(),
            template: true,
            ..house.program(process, &["/bin/true"])
        };
        house.order(Order::Spawn(spawn));
    }
    let (mut started, mut exited) = (0, 0);
    while exited < 200 {
        match house.hear() {
            Heard::Started(_) => started += 1,
            Heard::Exited(e) => exited += usize::from(e.code == Some(0)),
            Heard::Loaded(loaded) => panic!("{loaded:?}"),
        }
    }
    assert_eq!(started, 200);
    // It may be reading the process table just now.
    eventually("descriptors are closed", || (open(&house) <= before).then_some(()));
}

/// The SDK's own template and instance, with the environment that the tests keep.
#[test]
fn the_python_template_loads_reports_and_forks() {
    let mut house = House::new();
    let cache = std::env::var_os("BOURSE_TEST_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("environments"));
    let python = Python::find(None).unwrap();
    let spec = environment::Spec { python: &python, cache: &cache, requirements: None, variables: &[] };
    let environment = Environment::ensure(spec, |_| {}).unwrap();
    let root = house.folder.path().to_owned();
    fs::write(root.join("hello.py"), "from _words import WORD\n\ndef greet(name):\n    return WORD + name\n")
        .unwrap();
    fs::write(root.join("_words.py"), "WORD = 'hello '\n").unwrap();
    let program = Program {
        environment: &environment,
        sdk: &sdk::install(&cache).unwrap(),
        root: &root,
        name: "hello",
        module: &root.join("hello.py"),
        endpoint: &format!("ipc://{}", house.path("socket")),
        env: &BTreeMap::new(),
    };
    let spawn = program.template().unwrap().spawn(1);
    house.order(Order::Spawn(Spawn { template: true, log: house.path("logs/out.log"), ..spawn }));
    house.started(1);
    let report = match house.hear() {
        Heard::Loaded(loaded) => loaded.report.unwrap().message.unwrap(),
        other => panic!("{other:?}\n{}", house.log()),
    };
    let from_template::Message::Ready(ready) = report else { panic!("{report:?}\n{}", house.log()) };
    assert_eq!(ready.module.unwrap().functions[0].name, "greet");
    assert!(ready.files.contains(&"_words.py".to_owned()), "{:?}", ready.files);
    assert_eq!(ready.not_forkable, "");
    house.fork(2, 1);
    let pid = house.started(2);
    house.kill(2, KILL, true);
    assert_eq!(house.exited(2).signal, Some(KILL));
    dies(pid);
    assert!(!root.join("__pycache__").exists());
}

/// No other test here kills its keeper: the orphans would be this process's as well.
#[test]
fn a_killed_keeper_leaves_orphans_that_the_daemon_ends() {
    keeper::become_subreaper().unwrap();
    let mut house = House::new();
    house.shell(1, &format!("{DAEMON} sleep 1000"));
    let direct = house.started(1);
    house.template(2, "honest");
    house.fork(3, 2);
    let forked = house.started(3);
    let daemon = house.pid_in("daemon");
    house.keeper.kill().unwrap();
    house.keeper.wait().unwrap();
    let orphans = Keeper::reap_orphans(PATIENCE).unwrap();
    assert_eq!(orphans.left, 0);
    assert!(orphans.ended >= 2, "{orphans:?}");
    for pid in [direct, forked, daemon] {
        assert!(!alive(pid), "{pid} outlived the daemon's cleaning");
    }
}
