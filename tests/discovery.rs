//! Daemons that find each other without being told where: on one machine, on one network, by name.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::grid::WORK;
use crate::support::{Daemon, Grid, Hosts, Pending, Setup, skipped, until, wait_for};

/// A user's runtime folder.
fn runtime() -> TempDir {
    tempfile::Builder::new().prefix("b-run-").tempdir().expect("a temporary folder")
}

/// A node that serves the functions of the grid's tests, and knows them by this number.
fn node(at: usize) -> Setup {
    let setup = Setup::new(&[WORK]).set("running", "1").set("queue_wait", "30s");
    setup.write("node.txt", &at.to_string());
    setup
}

/// One that looks for others on the machine.
fn here(runtime: &TempDir, at: usize, grid: &str) -> Setup {
    let runtime = runtime.path().to_str().expect("text");
    let setup = node(at).variable("XDG_RUNTIME_DIR", runtime);
    ["--discover", "machine", "--grid", grid].into_iter().fold(setup, Setup::argument)
}

fn key(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.data().join("node.pub")).expect("a key").trim().to_owned()
}

/// The keys of the others that a node is connected with.
fn met(daemon: &Daemon) -> Vec<String> {
    let all = daemon.get("/v1/nodes").ok();
    let is_there = |node: &&Json| !node["heard_ms_ago"].is_null();
    let keys = all.as_array().expect("an array").iter().filter(is_there);
    let key_of = |node: &Json| node["key"].as_str().expect("a key").to_owned();
    let own = key(daemon);
    keys.map(key_of).filter(|key| *key != own).collect()
}

#[track_caller]
fn wait_met(daemon: &Daemon, others: &[&Daemon]) {
    let mut keys: Vec<String> = others.iter().map(|other| key(other)).collect();
    keys.sort();
    wait_for(&format!("it is connected with {} others", others.len()), || met(daemon) == keys);
}

/// Calls of the first one run at the second one, too.
#[track_caller]
fn wait_shared(one: &Daemon, two: usize) {
    wait_for("a call runs at the other node", || {
        let calls: Vec<_> = (0..3).map(|_| one.call_beside("work.where", json!([0.2]))).collect();
        let ran: Vec<Json> = calls.into_iter().map(|call| call.join().expect("an answer").ok()).collect();
        ran.contains(&json!(two))
    });
}

fn files(runtime: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(runtime.path().join("bourse/nodes")).expect("the folder of nodes");
    entries.map(|entry| entry.expect("a file").file_name().into_string().expect("text")).collect()
}

#[test]
fn daemons_of_one_user_on_one_machine_are_a_grid() {
    let runtime = runtime();
    // 1. Two that were told nothing of each other.
    let one = here(&runtime, 1, "shop").up();
    let two = here(&runtime, 2, "shop").up();
    wait_met(&one, &[&two]);
    wait_met(&two, &[&one]);
    wait_shared(&one, 2);
    // 2. One of another grid is seen and left alone: the one that comes after it is met.
    let other = here(&runtime, 8, "bakery").up();
    let three = here(&runtime, 3, "shop").up();
    wait_for("three is met", || met(&one).contains(&key(&three)));
    assert!(!met(&one).contains(&key(&other)) && met(&other).is_empty());
    // 3. One that ends is gone, with its file, and the others go on.
    let key_of_two = key(&two);
    two.stop();
    assert!(!files(&runtime).contains(&key_of_two));
    wait_met(&one, &[&three]);
    wait_shared(&one, 3);
    // 4. One that is killed leaves its file, which harms nobody: the others know that it is gone, and remove it.
    let key_of_three = key(&three);
    let three = three.kill();
    assert!(files(&runtime).contains(&key_of_three));
    wait_met(&one, &[]);
    one.call("work.where", json!([])).ok();
    wait_for("the file is removed", || !files(&runtime).contains(&key_of_three));
    // 5. It comes again, at another port, and is met again.
    let three = three.up();
    wait_met(&one, &[&three]);
    wait_shared(&one, 3);
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    let runtime = runtime();
    fs::create_dir(runtime.path().join("bourse")).expect("a folder");
    let mode = fs::Permissions::from_mode(0o777);
    fs::set_permissions(runtime.path().join("bourse"), mode).expect("its mode is changed");
    let said = here(&runtime, 1, "").refused();
    assert!(said.contains("can be entered by others (its mode is 777)") && said.contains("hint: "), "{said}");
    assert!(!runtime.path().join("bourse/nodes").exists());
}

/// Calls of one node of a grid run at another, too.
#[track_caller]
fn wait_bought(grid: &Grid, buyer: usize, seller: usize) {
    wait_for("a call runs at the other node", || {
        let calls = [(); 3].map(|()| grid.begin(buyer, "work.where", json!([0.2])));
        calls.map(Pending::ok).contains(&json!(seller))
    });
}

/// Nodes on hosts of their own, with one slot each, that are told nothing of each other; or `None` where there can't be any.
fn strangers(count: u8) -> Option<Grid> {
    match Hosts::new(count) {
        Ok(hosts) => Some(Grid::strangers_on(hosts, &vec![1; count.into()], &[WORK])),
        Err(why) => {
            skipped(&why);
            None
        }
    }
}

#[test]
fn nodes_on_one_network_hear_each_other() {
    let Some(mut grid) = strangers(3) else { return };
    for at in 0..3 {
        grid.change(at, |setup| setup.argument("--discover").argument("multicast").set("grid", "shop"));
    }
    grid.allow(0, &[1]);
    grid.allow(1, &[0]);
    grid.allow(2, &[]);
    // 1. Two that allow each other meet, and trade.
    grid.start(0);
    grid.start(1);
    grid.wait_met(0, &[1]);
    grid.wait_met(1, &[0]);
    wait_bought(&grid, 0, 1);
    // 2. One that nobody allows is named, and left alone.
    grid.start(2);
    let stranger = format!("its key is not allowed here: {}", grid.key(2));
    grid.daemon(0).wait_log(&stranger);
    grid.daemon(1).wait_log(&stranger);
    assert_eq!((grid.met(0), grid.met(2)), (vec![1], vec![]));
    // 3. Once it is allowed it is met, by its next beacon; it was said once.
    grid.allow(0, &[1, 2]);
    grid.allow(2, &[0]);
    grid.wait_met(0, &[1, 2]);
    assert_eq!(grid.daemon(0).log().matches(&stranger).count(), 1);
}

#[test]
fn a_port_that_is_taken_is_said() {
    let taken = std::net::UdpSocket::bind("0.0.0.0:0").expect("a port");
    let group = format!("239.192.70.71:{}", taken.local_addr().expect("its address").port());
    let setup = node(1).set("multicast", &group).argument("--discover").argument("multicast");
    let said = setup.refused();
    assert!(
        said.contains(&format!("by multicast at {group}")) && said.contains("hint: name another port"),
        "{said}"
    );
}

/// A DNS server of its own, at port 53 of an address of loopback. Dropping it ends it.
struct Server(Child);

impl Server {
    /// With these records, as dnsmasq takes them; or `None` where it cannot be had.
    fn start(ip: IpAddr, records: &[String]) -> Option<Self> {
        let path = ["/usr/sbin/dnsmasq", "dnsmasq"].into_iter().find(|path| {
            !matches!(Command::new(path).arg("--version").stdout(Stdio::null()).status(), Err(e) if e.kind() == ErrorKind::NotFound)
        });
        let Some(path) = path else {
            skipped("dnsmasq is missing; it is in Debian's dnsmasq-base: apt-get install dnsmasq-base");
            return None;
        };
        let mut command = Command::new(path);
        let user = String::from_utf8(Command::new("id").arg("-un").output().expect("it starts").stdout)
            .expect("text");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file",
            "--no-resolv",
            "--no-hosts",
        ]);
        command.args(["--bind-interfaces", "--port=7053", "--local=/test/", "--log-facility=-"]);
        command.arg(format!("--user={}", user.trim())).arg(format!("--listen-address={ip}")).args(records);
        Some(Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nodes_behind_a_name_are_asked_who_they_are() {
    let mut grid = Grid::strangers(&[1, 1, 1, 1], &[WORK]);
    let ip = |at: usize| grid.address(at).ip();
    let server = SocketAddr::new(ip(3), 7053);
    // The last address is one at which nobody listens.
    let records = [
        format!("--host-record=nodes.test,{}", ip(0)),
        format!("--host-record=nodes.test,{}", ip(3)),
        format!("--host-record=zero.test,{}", ip(0)),
        format!("--host-record=one.test,{}", ip(1)),
        "--srv-host=_bourse._tcp.grid.test,zero.test,7071,10".to_owned(),
        "--srv-host=_bourse._tcp.grid.test,one.test,7071,20".to_owned(),
    ];
    let Some(_server) = Server::start(server.ip(), &records) else { return };
    for (at, source) in [(1, "dns:nodes.test:7071"), (2, "dns:_bourse._tcp.grid.test")] {
        let server = server.to_string();
        grid.change(at, |setup| setup.argument("--discover").argument(source).set("resolver", &server));
    }
    grid.allow(0, &[1, 2]);
    grid.allow(1, &[]);
    grid.allow(2, &[0, 1]);
    // 1. A key that is not allowed is named; once it is, the node is found by the addresses of its name.
    grid.start(0);
    grid.start(1);
    grid.daemon(1).wait_log(&format!("its key is not allowed here: {}", grid.key(0)));
    assert_eq!((grid.met(0), grid.met(1)), (vec![], vec![]));
    grid.allow(1, &[0, 2]);
    grid.wait_met(1, &[0]);
    wait_bought(&grid, 0, 1);
    // 2. Another one finds both by SRV records.
    grid.start(2);
    grid.wait_met(2, &[0, 1]);
    // 3. The node goes on without the one that it has found, and finds it again.
    grid.kill(0);
    grid.wait_met(1, &[2]);
    grid.start(0);
    grid.wait_met(1, &[0, 2]);
}

#[test]
fn a_name_that_nobody_knows_is_said_once_and_does_not_keep_it_from_serving() {
    let grid = Grid::strangers(&[1], &[WORK]);
    let ip = grid.address(0).ip();
    let Some(_server) = Server::start(ip, &[]) else { return };
    let setup = node(1)
        .set("resolver", &format!("{ip}:7053"))
        .argument("--discover")
        .argument("dns:nowhere.test:7071");
    let daemon = setup.up();
    let said = "no node is found by dns:nowhere.test:7071: ";
    daemon.wait_log(said);
    assert_eq!(daemon.call("work.where", json!([])).ok(), 1);
    assert_eq!(daemon.log().matches(said).count(), 1, "{}", daemon.log());
}

#[test]
fn who_asks_is_answered_with_less_and_who_talks_nonsense_is_not() {
    let mut grid = Grid::strangers(&[1], &[WORK]);
    grid.change(0, |setup| setup.set("grid", &"x".repeat(63)));
    grid.start(0);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(grid.address(0)).expect("an address");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let mut question = b"BRSE\x01\x02\x01\x02\x03\x04\x05\x06\x07\x08".to_vec();
    question.resize(128, 0);
    // 1. Nonsense first: a short question, an answer, and bytes of all kinds.
    socket.send(&question[..127]).expect("it is sent");
    for length in 0..300 {
        let nonsense: Vec<u8> =
            (0..length).map(|at| u8::try_from((at * 31 + length) % 256).expect("a byte")).collect();
        socket.send(&nonsense).expect("it is sent");
    }
    // 2. What is answered is the question alone.
    let mut bytes = [0; 512];
    let length = until("an answer", || {
        socket.send(&question).expect("it is sent");
        socket.recv(&mut bytes).ok()
    });
    assert!(length < question.len(), "{length}");
    assert_eq!(&bytes[..14], b"BRSE\x01\x03\x01\x02\x03\x04\x05\x06\x07\x08");
    assert_eq!(bytes[14..16], 7071_u16.to_be_bytes());
    let hex: String = bytes[16..48].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, grid.key(0));
    assert_eq!(grid.call(0, "work.where", json!([])).ok(), 0);
}
