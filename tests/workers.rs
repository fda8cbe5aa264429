//! What strangers and liars send to the worker socket.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::json;

use crate::support::{Daemon, Setup, python_home, wait_for};

const HELLO: (&str, &str) = ("hello.py", "def hello(): return 'hello'\n");

/// The frame of a worker by hand: says hello as `module`, then does with each invocation what `body` says.
fn fake(body: &str, version: &str) -> Setup {
    let (python, sdk) = python_home();
    let script = format!(
        r#"
import os, sys, time
sys.path.insert(0, {sdk:?})
import zmq
from bourse import _messages as m
secret = os.fdopen(int(os.environ["BOURSE_SECRET_FD"]), "rb").read()
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(os.environ["BOURSE_ENDPOINT"])

def send(message, payload=b""):
    socket.send_multipart([message.SerializeToString(), payload])

def result(call, attempt, payload=b"\xf5", seq=0):
    message = m.ToNode()
    message.result.call, message.result.attempt, message.result.seq = call, attempt, seq
    send(message, payload)

hello = m.ToNode()
hello.hello.version_min, hello.hello.version_max = {version}
hello.hello.role = m.ROLE_WORKER
hello.hello.secret = secret
hello.hello.agent = "fake 1.0"
hello.hello.pid = os.getpid()
hello.hello.module.name = "fake"
for name in ("work", "fine"):
    hello.hello.module.functions.add(name=name)
send(hello)
while True:
    header, payload = socket.recv_multipart()
    message = m.ToWorker.FromString(header)
    kind = message.WhichOneof("message")
    if kind == "ping":
        pong = m.ToNode()
        pong.pong.nonce = message.ping.nonce
        send(pong)
    elif kind == "stop":
        bye = m.ToNode()
        bye.bye.SetInParent()
        send(bye)
        sys.exit(0)
    elif kind == "refused":
        sys.exit(1)
    elif kind == "invoke":
        invoke = message.invoke
        if invoke.function == "fine":
            result(invoke.call, invoke.attempt)
            continue
{body}
"#
    );
    let settings = format!("[module]\ncommand = [{python:?}, \"-u\", \"fake.py\"]\ninstances_max = 1\n");
    let setup = Setup::new(&[HELLO]);
    std::fs::create_dir(setup.folder().join("fake")).expect("a folder");
    std::fs::write(setup.folder().join("fake/fake.py"), script).expect("a file");
    std::fs::write(setup.folder().join("fake/bourse.toml"), settings).expect("a file");
    setup
}

#[test]
fn a_worker_that_answers_what_it_was_not_asked() {
    let daemon = fake("        result(os.urandom(16), 1); result(b'', 0); result(invoke.call, invoke.attempt + 7); result(invoke.call, invoke.attempt)", "1, 1").up();
    assert_eq!(daemon.call("fake.work", json!({})).ok(), true);
    daemon.wait_log("which it does not run: ignored");
    assert_eq!(daemon.call("fake.fine", json!({})).ok(), true);
}

#[test]
fn a_worker_that_answers_twice() {
    let daemon = fake(
        "        [result(invoke.call, invoke.attempt, p) for p in (b'\\x01', b'\\x02', b'\\x03')]",
        "1, 1",
    )
    .up();
    for _ in 0..3 {
        assert_eq!(daemon.call("fake.work", json!({})).ok(), 1);
    }
    daemon.wait_log("which it does not run: ignored");
}

#[test]
fn a_worker_that_never_answers() {
    let daemon = fake("        pass", "1, 1").set("interrupt_grace", "100ms").up();
    daemon.send("POST", "/v1/call/fake.work?timeout=200ms", &[], b"").problem(504, "timeout");
    assert_eq!(daemon.call("fake.fine", json!({})).ok(), true);
}

#[test]
fn a_worker_that_sends_nonsense_ends() {
    for nonsense in [
        "        socket.send_multipart([b'\\xff\\xff\\xff', b''])",
        "        socket.send(b'alone')",
        "        socket.send_multipart([b'a', b'b', b'c'])",
        "        socket.send_multipart([b'\\x00' * (2 << 20), b''])",
        "        socket.send_multipart([b'', b'\\x00' * (40 << 20)])",
        "        result(invoke.call, invoke.attempt, b'\\x9f\\x01')",
    ] {
        let daemon = fake(nonsense, "1, 1").up();
        let answer = daemon.send("POST", "/v1/call/fake.work?timeout=3s", &[], b"");
        assert!(matches!(answer.status, 500 | 502 | 504), "{nonsense}: {answer}");
        assert_eq!(daemon.call("fake.fine", json!({})).ok(), true, "{nonsense}");
        assert_eq!(daemon.call("hello.hello", json!({})).ok(), "hello");
    }
}

#[test]
fn a_worker_that_speaks_another_version_is_refused() {
    let daemon = fake("        pass", "2, 3").up();
    daemon.wait_log("this node speaks version 1 of the worker protocol, fake 1.0 speaks 2 to 3");
    daemon.call("fake.fine", json!({})).problem(505, "protocol_version");
    assert_eq!(daemon.call("hello.hello", json!({})).ok(), "hello");
}

#[test]
fn a_worker_that_claims_more_than_it_has() {
    // It waits for calls it never made, reads state of a call it does not run, and says bye in the middle.
    let daemon = fake(
        r#"
        message = m.ToNode(); message.wait.call, message.wait.attempt = invoke.call, invoke.attempt; message.wait.requests.extend([7, 8]); send(message)
        message = m.ToNode(); message.read.request = 1; message.read.call = os.urandom(16); message.read.key.name = "x"; send(message)
        message = m.ToNode(); message.recalled.nonce = 99; send(message)
        message = m.ToNode(); message.call.request = 1; message.call.function = "not a name"; message.call.parent = invoke.call; message.call.attempt = invoke.attempt; send(message)
        message = m.ToNode(); message.bye.SetInParent(); send(message); sys.exit(0)"#,
        "1, 1",
    )
    .up();
    let answer = daemon.send("POST", "/v1/call/fake.work?timeout=2s", &[], b"");
    assert!(matches!(answer.status, 502..=504), "{answer}");
    assert_eq!(daemon.call("fake.fine", json!({})).ok(), true);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn a_command_that_cannot_be_run() {
    let daemon = Setup::new(&[
        HELLO,
        ("gone/bourse.toml", "[module]\ncommand = ['./no-such-program']\n"),
        ("ends/bourse.toml", "[module]\ncommand = ['/bin/false']\n"),
        ("empty/bourse.toml", "[module]\ncommand = []\n"),
    ])
    .up();
    daemon.wait_log("no such file: ");
    daemon.wait_log("no-such-program");
    daemon.wait_log("exited with code 1");
    daemon.wait_log("command names no program");
    daemon.call("gone.f", json!({})).problem(502, "module_failed");
    assert_eq!(daemon.call("hello.hello", json!({})).ok(), "hello");
}

#[test]
fn a_route_that_is_taken_is_left_out_and_nothing_else() {
    const SHOP: &str = "
        from bourse import function
        @function(http='GET /a')
        def a(): return 'shop'
        ";
    let setup = fake("", "1, 1");
    setup.write("shop.py", SHOP);
    let daemon = setup.up();
    assert_eq!(daemon.get("/a").ok(), "shop");
    // 1. Another program comes, of whose routes one is taken and one is the daemon's own.
    let script = daemon.folder().join("fake/fake.py");
    let routes = "hello.hello.module.functions[1].http.extend(['GET /a', 'GET /v1/mine', 'GET /fine'])";
    let text = std::fs::read_to_string(&script)
        .expect("a file")
        .replace("send(hello)", &format!("{routes}\nsend(hello)"));
    std::fs::write(&script, text).expect("a file");
    wait_for("its own route is there", || daemon.get("/fine").status == 200);
    daemon.wait_log("the route \"GET /a\" already belongs to shop.a");
    daemon.wait_log("\"GET /v1/mine\"");
    assert_eq!(daemon.get("/a").ok(), "shop");
    assert_eq!(daemon.call("fake.fine", json!({})).ok(), true);
    // 2. What is loaded meanwhile is not to blame.
    daemon.write("another.py", &SHOP.replace("GET /a", "GET /b"));
    wait_for("it is served", || daemon.get("/b").status == 200);
    // 3. A developer's process attaches what the daemon would not serve, under a name that comes first.
    daemon.write("aside.py", &SHOP.replace("'GET /a'", "['GET /a', 'GET /c']"));
    daemon.wait_log("aside: revision");
    let (python, sdk) = python_home();
    let mut attached = Command::new(python);
    attached.args(["-m", "bourse", "attach"]).arg(daemon.folder().join("aside.py")).env("PYTHONPATH", sdk);
    let mut attached = attached.stdout(std::process::Stdio::null()).spawn().expect("Python runs");
    wait_for("it is attached", || daemon.call("aside.a", json!({})).status == 200);
    assert_eq!(daemon.get("/c").ok(), "shop");
    assert_eq!(daemon.get("/a").ok(), "shop");
    daemon.wait_log("aside.a: the route \"GET /a\" already belongs to shop.a");
    attached.kill().expect("it runs");
    attached.wait().expect("it has ended");
}

#[test]
fn a_route_that_is_left_out_is_not_announced() {
    let setup = fake("", "1, 1");
    let script = setup.folder().join("fake/fake.py");
    let routes = "hello.hello.module.functions[1].http.append('GET /v1/mine')";
    let text = std::fs::read_to_string(&script).expect("a file");
    std::fs::write(&script, text.replace("send(hello)", &format!("{routes}\nsend(hello)"))).expect("a file");
    let daemon = setup.up();
    daemon.wait_log("fake.fine  POST /v1/call/fake.fine");
}

#[test]
fn strangers_at_the_socket_harm_nobody() {
    let daemon = Daemon::start(&[HELLO]);
    let path = daemon.endpoint();
    let path = path.strip_prefix("ipc://").expect("a socket file");
    let greeting: Vec<u8> = [&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0][..], b"NULL", &[0; 48]].concat();
    let endless = [&greeting[..], &[6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    let half: Vec<UnixStream> = [
        &b""[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 10],
        &greeting,
        &greeting[..30],
        &endless,
        &[0; 100_000],
    ]
    .into_iter()
    .map(|bytes| {
        let mut socket = UnixStream::connect(path).expect("it is open");
        let _ = socket.write_all(bytes); // it may have hung up already
        socket
    })
    .collect();
    for _ in 0..10 {
        assert_eq!(daemon.call("hello.hello", json!({})).ok(), "hello");
    }
    drop(half);
    let (python, sdk) = python_home();
    let script = format!(
        r#"
import os, sys
sys.path.insert(0, {sdk:?})
import zmq
from bourse import _messages as m
context = zmq.Context()

def stranger(*messages):
    socket = context.socket(zmq.DEALER)
    socket.connect({endpoint:?})
    for message in messages:
        socket.send_multipart(message)
    return socket

def hello(**fields):
    message = m.ToNode()
    message.hello.version_min = message.hello.version_max = 1
    for name, value in fields.items():
        setattr(message.hello, name, value)
    return [message.SerializeToString(), b""]

def code(socket):
    header, _ = socket.recv_multipart()
    return m.ToWorker.FromString(header).refused.failure.code

call = m.ToNode()
call.call.function = "hello.hello"
for messages, expected in [
    ([hello(role=m.ROLE_CLIENT, secret=b"guess")], "unauthorized"),
    ([hello(role=m.ROLE_ATTACHED, secret=b"")], "unauthorized"),
    ([hello(role=m.ROLE_WORKER, secret=os.urandom(32))], "unauthorized"),
    ([hello()], "protocol"),
    ([[call.SerializeToString(), b""]], "protocol"),
    ([[b"", b""]], "protocol"),
]:
    socket = stranger(*messages)
    assert socket.poll(10000), expected
    found = code(socket)
    assert found == expected, (found, expected)
for messages in ([[b"\xff" * 100, b""]], [[b"x"]], [[b"a", b"b", b"c", b"d"]], [[b"\x00" * (3 << 20), b""]], [[b""] * 50]):
    stranger(*messages)
context.destroy(linger=1000)
print("done")
"#,
        endpoint = daemon.endpoint()
    );
    let done = Command::new(python).args(["-c", &script]).output().expect("Python runs");
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), daemon.log());
    assert_eq!(daemon.call("hello.hello", json!({})).ok(), "hello");
    wait_for("it says so", || daemon.log().contains("a connection was refused"));
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert!(daemon.resident_mib() < 200, "{} MiB", daemon.resident_mib());
}
