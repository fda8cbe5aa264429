//! WebSocket connections: with a client that is not ours, and byte by byte.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::support::{Daemon, PATIENCE, Script, Setup, wait_for};

pub(crate) const CHAT: (&str, &str) = (
    "chat.py",
    "
    import time
    from bourse import call, function, start, state

    @function(websocket='/chat/{room}')
    def talk(event, connection, message=None, room='', code=0):
        if event == 'open':
            if room == 'closed':
                raise ValueError('nobody comes in')
            return {'groups': [room]}
        if event == 'close':
            seen = state(f'closed/{room}')
            seen.set((seen.get() or []) + [code])
        elif message == 'all':
            return call('bourse.send', f'group:{room}', {'to': 'all'})
        elif message == 'boom':
            raise ValueError('boom')
        elif message == 'leave':
            call('bourse.leave', connection, room)
        elif message == 'close':
            call('bourse.close', connection, 4001, 'as you like')
        elif message == 'who':
            return connection
        else:
            return message

    @function(websocket={'path': '/log/{name}', 'durable': True})
    def log(event, name, message: dict = None):
        seen = state(f'log/{name}')
        seen.set((seen.get() or []) + [message['n'] if message else event])

    @function(websocket='/slow')
    def slow(event, message: str = ''):
        if event == 'message':
            time.sleep(0.05)
            return message

    @function
    def closed(room: str):
        return state(f'closed/{room}').get() or []

    @function
    def logged(name: str):
        return state(f'log/{name}').get() or []
    ",
);

/// Runs a script with the package `websockets`; `at` is the daemon's address.
fn script(daemon: &Daemon, text: &str) {
    script_with(&[daemon], &format!("    [at] = ats\n{text}"));
}

/// The same with several daemons, whose addresses are `ats`.
pub(crate) fn script_with(daemons: &[&Daemon], text: &str) {
    const PRELUDE: &str = "import asyncio, json, sys, websockets\nats = sys.argv[1:]\nasync def main():\n";
    let text = format!("{PRELUDE}{text}\nasyncio.run(main())\n");
    let addresses: Vec<String> = daemons.iter().map(|d| format!("ws://{}", d.client().address)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    assert!(Script::start(&text, &addresses).ends().success(), "see above");
}

#[test]
fn a_client_that_is_not_ours_talks_is_sent_to_and_is_closed() {
    let daemon = Daemon::start(&[CHAT]);
    script(
        &daemon,
        r#"
    async with websockets.connect(at + "/chat/tea") as a, websockets.connect(at + "/chat/tea") as b:
        # 1. What the function returns comes back, as what it is, in order.
        for message in ["hi", "", "größe", b"\x00\xff", "x" * 200_000]:
            await a.send(message)
            assert await a.recv() == message
        for n in range(20):
            await a.send(f"{n}")
        assert [await a.recv() for _ in range(20)] == [f"{n}" for n in range(20)]
        # 2. A group is sent to; the answer comes after it.
        await a.send("all")
        assert json.loads(await b.recv()) == {"to": "all"}
        assert json.loads(await a.recv()) == {"to": "all"}
        assert json.loads(await a.recv()) == {"sent": 2, "full": 0}
        await b.send("leave")
        await b.send("all")
        assert json.loads(await b.recv()) == {"sent": 1, "full": 0}
        assert json.loads(await a.recv()) == {"to": "all"}
        # 3. An error is told, and no reason to close.
        await a.send("boom")
        error = json.loads(await a.recv())["error"]
        assert (error["code"], error["detail"]) == ("function_error", "boom"), error
        await (await a.ping())
        # 4. The function closes.
        await a.send("close")
        try:
            await a.recv()
            assert False
        except websockets.ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as you like"), closed
    # 5. One that is not let in.
    try:
        async with websockets.connect(at + "/chat/closed"):
            assert False
    except websockets.InvalidStatus as refused:
        problem = json.loads(refused.response.body)
        assert (problem["status"], problem["detail"]) == (500, "nobody comes in"), problem
"#,
    );
    wait_for("both ends are told", || {
        let mut codes = daemon.call("chat.closed", json!({"room": "tea"})).ok();
        codes.as_array_mut().expect("a list").sort_by_key(Json::as_i64);
        codes == json!([1000, 4001])
    });
    assert_eq!(daemon.get("/v1/connections").ok()["total"], 0);
    // One that is gone is nobody's error.
    let gone = json!({"to": "nobody", "message": "x"});
    assert_eq!(daemon.call("bourse.send", gone).ok(), json!({"sent": 0, "full": 0}));
}

#[test]
fn durable_messages_and_the_end_of_a_client_that_is_cut_off_are_not_lost() {
    let daemon = Daemon::start(&[CHAT]);
    let mut a = Raw::open(&daemon, "/log/a");
    for n in 0..20 {
        a.text(&json!({"n": n}).to_string());
    }
    // What does not fit is told.
    a.text("no JSON");
    assert!(a.read_text().contains("bad_arguments"));
    // No close, no goodbye.
    a.socket.shutdown(Shutdown::Both).unwrap();
    let logged = || daemon.call("chat.logged", json!({"name": "a"})).ok();
    wait_for("all is there", || logged().as_array().map_or(0, Vec::len) == 22);
    let all = logged();
    for n in 0..20 {
        assert!(all.as_array().expect("a list").contains(&json!(n)), "{all}");
    }
    assert!(all.as_array().expect("a list").contains(&json!("close")));

    // A frame that is cut in the middle.
    let mut cut = Raw::open(&daemon, "/chat/cut");
    cut.socket.write_all(&[0x81, 0x85, 1, 2, 3, 4, 5]).unwrap();
    drop(cut);
    wait_for("its end is told", || daemon.call("chat.closed", json!({"room": "cut"})).ok() == json!([1006]));
}

#[test]
fn when_the_daemon_stops_connections_are_told_and_so_are_their_functions() {
    let daemon = Daemon::start(&[CHAT]);
    let mut a = Raw::open(&daemon, "/chat/stop");
    daemon.signal(Signal::TERM);
    let (opcode, payload) = a.frame();
    assert_eq!((opcode, u16::from_be_bytes([payload[0], payload[1]])), (8, 1001));
    drop(a);
    let mut daemon = daemon;
    daemon.wait_end();
    let daemon = daemon.kill().up();
    wait_for("its end is told", || daemon.call("chat.closed", json!({"room": "stop"})).ok() == json!([1001]));
}

#[test]
fn the_cases_of_the_protocol() {
    let daemon = Setup::new(&[CHAT]).set("payload", "64KiB").up();
    let open = || Raw::open(&daemon, "/chat/cases");
    // 1. Fragments, with a ping between them; a pong that nobody asked for is nothing.
    let mut a = open();
    a.send(0x01, b"one ");
    a.send(0x89, b"there?");
    a.send(0x00, b"two ");
    a.send(0x8a, b"unasked");
    a.send(0x80, b"three");
    assert_eq!(a.frame(), (10, b"there?".to_vec()));
    assert_eq!(a.read_text(), "one two three");
    // 2. A character that is split between fragments.
    a.send(0x01, &[0xe2, 0x82]);
    a.send(0x80, &[0xac]);
    assert_eq!(a.read_text(), "€");
    // 3. A frame that comes byte by byte.
    for byte in masked(0x81, b"slow") {
        a.socket.write_all(&[byte]).unwrap();
    }
    assert_eq!(a.read_text(), "slow");
    // 4. The close is answered with its code, and the connection ends.
    a.send(0x88, &[0x03, 0xe8, b'b', b'y', b'e']);
    assert_eq!(a.frame(), (8, vec![0x03, 0xe8, b'b', b'y', b'e']));
    a.ends();
    let mut bare = open();
    bare.send(0x88, b"");
    assert_eq!(bare.frame(), (8, Vec::new()));

    let text = |bytes: &[u8]| masked(0x81, bytes);
    let bad: [(&str, Vec<u8>, u16); 12] = [
        ("text that is not UTF-8", text(&[0xc3, 0x28]), 1007),
        ("a surrogate", text(&[0xed, 0xa0, 0x80]), 1007),
        ("text that ends in a character", text(&[0xe2, 0x82]), 1007),
        ("a frame that is too large", masked(0x82, &vec![0; 65_537]), 1009),
        (
            "a message that is",
            [masked(0x02, &vec![0; 40_000]), masked(0x80, &vec![0; 40_000])].concat(),
            1009,
        ),
        ("no mask", vec![0x81, 2, b'h', b'i'], 1002),
        ("a reserved bit", masked(0xc1, b"hi"), 1002),
        ("a reserved opcode", masked(0x83, b"hi"), 1002),
        ("a long ping", masked(0x89, &[0; 126]), 1002),
        ("a ping in pieces", masked(0x09, b"hi"), 1002),
        ("a continuation of nothing", masked(0x80, b"hi"), 1002),
        ("a close with half a code", masked(0x88, &[3]), 1002),
    ];
    for (what, bytes, code) in bad {
        let mut a = open();
        // It may be closed before all is written.
        let _ = a.socket.write_all(&bytes);
        let (opcode, payload) = a.frame();
        assert_eq!(opcode, 8, "{what}: {payload:?}");
        assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), code, "{what}");
    }
    // A new fragment where the last message is not finished.
    let mut a = open();
    a.send(0x01, b"one");
    a.send(0x81, b"two");
    assert_eq!(a.frame().0, 8);
}

#[test]
fn what_is_no_handshake_is_refused() {
    let daemon = Daemon::start(&[CHAT]);
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let ask = |headers: &[(&str, &str)]| {
        let socket = daemon.client().begin("GET", "/chat/x", headers, b"").unwrap();
        Raw { socket, read: Vec::new() }.head()
    };
    let with = |version: &'static str, key: &'static str, origin: &'static str| {
        let mut headers = vec![
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", version),
            ("sec-websocket-key", key),
        ];
        if !origin.is_empty() {
            headers.push(("origin", origin));
        }
        headers
    };
    assert!(ask(&with("13", key, "")).contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(ask(&with("8", key, "")).starts_with("HTTP/1.1 426"));
    assert!(ask(&with("13", "short", "")).starts_with("HTTP/1.1 400"));
    assert!(ask(&with("13", key, "https://evil.example")).starts_with("HTTP/1.1 403"));
    assert!(ask(&[]).starts_with("HTTP/1.1 426"));
}

#[test]
fn a_client_that_does_not_read_is_refused_more_and_one_that_sends_too_fast_has_to_wait() {
    let daemon = Daemon::start(&[CHAT]);
    let mut a = Raw::open(&daemon, "/chat/deaf");
    a.text("who");
    let id = a.read_text();
    let large = "x".repeat(1024 * 1024);
    let send = || daemon.call("bourse.send", json!({"to": id, "message": large}));
    let refused = (0..200).map(|_| send()).find(|answer| answer.status != 200).expect("its queue is bounded");
    refused.problem(503, "queue_full");
    // Others are sent to as ever.
    let mut b = Raw::open(&daemon, "/chat/b");
    b.text("hi");
    assert_eq!(b.read_text(), "hi");

    // 2. The function takes 20 messages a second; all arrive, in order.
    let mut slow = Raw::open(&daemon, "/slow");
    for n in 0..40 {
        slow.text(&n.to_string());
    }
    for n in 0..40 {
        assert_eq!(slow.read_text(), n.to_string());
    }
}

/// A connection, byte by byte.
struct Raw {
    socket: TcpStream,
    /// What was read beyond what was wanted.
    read: Vec<u8>,
}

impl Raw {
    #[track_caller]
    fn open(daemon: &Daemon, path: &str) -> Self {
        let headers = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let socket = daemon.client().begin("GET", path, &headers, b"").expect("it connects");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut raw = Self { socket, read: Vec::new() };
        let head = raw.head();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        raw
    }

    fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.take(1)[0]);
        }
        String::from_utf8(head).expect("a head is text")
    }

    #[track_caller]
    fn take(&mut self, n: usize) -> Vec<u8> {
        while self.read.len() < n {
            let mut some = [0; 4096];
            let n = self.socket.read(&mut some).expect("there is more");
            assert_ne!(n, 0, "the connection ends");
            self.read.extend_from_slice(&some[..n]);
        }
        self.read.drain(..n).collect()
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        self.socket.write_all(&masked(first, payload)).expect("it is connected");
    }

    fn text(&mut self, text: &str) {
        self.send(0x81, text.as_bytes());
    }

    /// The next frame's opcode and payload; the daemon sends whole messages.
    #[track_caller]
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(2);
        let n = match head[1] {
            126 => usize::from(u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))),
            127 => usize::try_from(u64::from_be_bytes(self.take(8).try_into().expect("eight bytes")))
                .expect("it fits"),
            n => usize::from(n),
        };
        assert_eq!(head[0] & 0xf0, 0x80, "it is one frame");
        (head[0] & 15, self.take(n))
    }

    #[track_caller]
    fn read_text(&mut self) -> String {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, 1, "{payload:?}");
        String::from_utf8(payload).expect("UTF-8")
    }

    fn ends(&mut self) {
        self.socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        assert_eq!(self.socket.read(&mut [0]).unwrap_or(0), 0, "nothing follows");
    }
}

/// A frame as clients send it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..=125 => frame.push(0x80 | u8::try_from(n).expect("a small number")),
        n @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(n).expect("a small number").to_be_bytes());
        }
        n => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
