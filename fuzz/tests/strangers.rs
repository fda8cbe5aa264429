//! What a stranger can send: frames on the worker socket, CBOR, route patterns, mail, frames of a template.

use std::time::Duration;

use bourse_node::{
    Config, Found, GridConfig, Input, Kind, LinkId, Node, Output, OwnStore, PeerId, Report, RevisionId,
};
use bourse_wire::beacon::{self, Datagram};
use bourse_wire::id::Incarnation;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::{Mono, Now, Wall};
use bourse_wire::v1::to_node::Message as ToNode;
use bourse_wire::value::Value;
use bourse_wire::{arguments, header, keeper, v1};
use bytes::Bytes;

/// How one input is made: which valid one to begin with, and what to change in it.
type Recipe = (u8, Vec<(u16, u8)>, Vec<u8>);

/// How long each target runs in an ordinary test run.
const TEST_TIME: Duration = Duration::from_secs(2);

fn broken(valid: &[Vec<u8>], (which, changes, tail): &Recipe) -> Vec<u8> {
    let mut bytes = valid[usize::from(*which) % valid.len()].clone();
    for (at, byte) in changes.iter().take(8) {
        if !bytes.is_empty() {
            let at = usize::from(*at) % bytes.len();
            bytes[at] = *byte;
        }
    }
    bytes.extend_from_slice(tail);
    bytes
}

fn check(valid: Vec<Vec<u8>>, target: impl Fn(Vec<u8>) + std::panic::RefUnwindSafe) {
    bolero::check!()
        .with_test_time(TEST_TIME)
        .with_type::<Recipe>()
        .for_each(move |recipe: &Recipe| target(broken(&valid, recipe)));
}

#[test]
fn cbor() {
    let item = Value::Array(vec![
        Value::Map(vec![
            (Value::Text("a".into()), Value::Int(-5)),
            (Value::Text("b".into()), Value::Float(1.5)),
        ]),
        Value::Bytes(Bytes::from_static(b"\x00\xff")),
        Value::Tag(1, Box::new(Value::Null)),
    ]);
    let indefinite = vec![0x9f, 0x5f, 0x41, 0xaa, 0xff, 0xbf, 0x61, b'k', 0x7f, 0x61, b'v', 0xff, 0xff, 0xff];
    check(vec![item.to_cbor().to_vec(), indefinite], |bytes| {
        if let Ok(value) = Value::from_cbor(&bytes) {
            // What was read can be written, and reads the same (NaN apart, which is not equal to itself).
            let again = Value::from_cbor(&value.to_cbor()).expect("what is written reads back");
            assert_eq!(again.to_cbor(), value.to_cbor());
            let _ = value.to_json();
        }
    });
}

#[test]
fn datagrams_of_discovery() {
    let beacon = beacon::Beacon { key: [7; 32], port: 7071, grid: "shop".to_owned() };
    let valid = [
        Datagram::Beacon(beacon.clone()),
        Datagram::Question { nonce: 1 },
        Datagram::Answer { nonce: 1, beacon },
    ];
    check(valid.iter().map(Datagram::encode).collect(), |bytes| {
        if let Some(said) = Datagram::decode(&bytes) {
            assert_eq!(Datagram::decode(&said.encode()), Some(said), "what was read can be said");
        }
    });
}

#[test]
fn call_arguments() {
    let valid = arguments::Arguments {
        positional: vec![Value::Int(1)],
        named: vec![("n".into(), Value::Bool(true))],
    };
    check(vec![valid.to_cbor().to_vec()], |bytes| {
        let _ = arguments::Arguments::from_cbor(&bytes);
    });
}

#[test]
fn route_patterns() {
    let valid = ["POST /kv/{key}", "GET /a/{b}/{*rest}", "DELETE /x"].map(|t| t.as_bytes().to_vec());
    check(valid.to_vec(), |bytes| {
        let _ = bourse_gateway::pattern::Pattern::parse(&String::from_utf8_lossy(&bytes));
    });
}

/// Whole conversations in SMTP, cut into pieces; what is taken as a mail is read.
#[test]
fn smtp_conversations() {
    use bourse_gateway::smtp::{Action, Delivery, Session, Settings, Verdict, mail_arguments};
    let settings = std::sync::Arc::new(Settings {
        hostname: "here".into(),
        bytes_max: 4_096,
        recipients_max: 3,
        starttls: true,
    });
    let hello = "EHLO me\r\nMAIL FROM:<a@b> SIZE=9 SMTPUTF8\r\nRCPT TO:<\"c d\"@[::1]>\r\nDATA\r\n";
    let plain = "From: =?utf-8?q?=C3=BC?= <a@b>\r\nTo: g: c@d;\r\nDate: Fri, 1 Jan 2027 10:00:00 +0100\r\n\r\n..t\r\n.\r\n";
    let parts = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html; charset=x\r\n\r\n<p>\r\n--b\r\n\
        Content-Disposition: attachment; filename*=utf-8''a\r\nContent-Transfer-Encoding: base64\r\n\r\nAA==\r\n--b--\r\n.\r\nQUIT\r\n";
    let valid = [plain, parts].map(|mail| [hello, mail].concat().into_bytes());
    bolero::check!().with_test_time(TEST_TIME).with_type::<(u8, Recipe)>().for_each(
        move |(piece, recipe): &(u8, Recipe)| {
            let mut session = Session::new(settings.clone());
            for bytes in broken(&valid, recipe).chunks(usize::from(*piece) + 1) {
                session.feed(bytes);
                while let Some(action) = session.poll() {
                    match action {
                        Action::Recipient(address) => {
                            // What it says is an address reads as the same one.
                            let text = address.to_string();
                            assert_eq!(bourse_gateway::smtp::Address::parse(&text), Ok(address));
                            session.recipient(Verdict::Taken);
                        }
                        Action::Deliver(mail) => {
                            let ends = mail.data.is_empty() || mail.data.ends_with(b"\r\n");
                            assert!(ends && mail.data.len() <= 4_096 && !mail.data.contains(&0));
                            let bare = |pair: &[u8]| (pair[0] == b'\r') != (pair[1] == b'\n');
                            assert!(!mail.data.windows(2).any(bare), "lines end with CR LF");
                            let _ = mail_arguments(&mail);
                            session.delivered(Delivery::Done("accepted".into()));
                        }
                        Action::StartTls => session.secured(),
                        Action::Close => {}
                    }
                }
                assert!(session.take_output().is_ascii());
            }
        },
    );
}

#[test]
fn template_frames() {
    let mut frame = Vec::new();
    let message = keeper::v1::FromTemplate {
        message: Some(keeper::v1::from_template::Message::Forked(keeper::v1::Forked {
            process: 1,
            pid: 2,
            error: "e".into(),
        })),
    };
    bourse_worker::codec::encode(&message, &mut frame).expect("a small frame");
    check(vec![frame], |bytes| {
        let mut decoder = bourse_worker::codec::Decoder::default();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next::<keeper::v1::FromTemplate>() {}
    });
}

/// Frames on the worker socket, from a stranger, from a client and from an instance that runs a call.
#[test]
fn worker_frames() {
    let call = Bytes::from_static(&[7; 16]);
    let key = Some(v1::Key { name: "s/k".into(), module: String::new() });
    let writes = vec![v1::Write { key: key.clone(), value: Bytes::from_static(b"v"), delete: false }];
    let messages = [
        ToNode::Hello(v1::Hello {
            version_min: 1,
            version_max: 1,
            role: 2,
            secret: Bytes::from_static(TOKEN),
            ..Default::default()
        }),
        ToNode::Result(v1::Result {
            call: call.clone(),
            attempt: 1,
            writes: writes.clone(),
            seq: 1,
            ..Default::default()
        }),
        ToNode::Call(v1::Call {
            request: 1,
            function: "m.f".into(),
            parent: call.clone(),
            attempt: 1,
            wait: true,
            writes,
            ..Default::default()
        }),
        ToNode::Wait(v1::Wait { call: call.clone(), attempt: 1, requests: vec![1, 2], any: true }),
        ToNode::Cancel(v1::CancelCall { request: 1 }),
        ToNode::Read(v1::Read {
            request: 3,
            call: call.clone(),
            attempt: 1,
            key: key.clone(),
            ..Default::default()
        }),
        ToNode::Scan(v1::Scan {
            request: 4,
            call: call.clone(),
            attempt: 1,
            prefix: key,
            limit: 5,
            ..Default::default()
        }),
        ToNode::Recalled(v1::Recalled {
            nonce: 1,
            calls: vec![v1::Invocation { call: call.clone(), attempt: 1 }],
        }),
        ToNode::Log(v1::Log { level: 2, message: "m".into(), call, ..Default::default() }),
        ToNode::Bye(v1::Bye {}),
    ];
    let valid = messages.map(|m| header::encode(&v1::ToNode { message: Some(m) }).to_vec());
    bolero::check!().with_test_time(TEST_TIME).with_type::<(u8, bool, Vec<Recipe>)>().for_each(
        move |(who, real_ids, recipes): &(u8, bool, Vec<Recipe>)| {
            let mut world = World::new();
            for recipe in recipes.iter().take(20) {
                let bytes = broken(&valid, recipe);
                if let Ok(mut decoded) = header::decode::<v1::ToNode>(bytes.into()) {
                    if *real_ids {
                        world.with_real_ids(&mut decoded.message);
                    }
                    let peer = [STRANGER, CLIENT, WORKER][usize::from(*who) % 3];
                    world.handle(Input::Frame {
                        peer,
                        message: decoded.message,
                        payload: Bytes::from_static(b"p"),
                    });
                }
            }
            world.now.mono = world.now.mono + Duration::from_secs(120);
            world.node.handle_timeout(world.now);
            world.node.check_invariants();
        },
    );
}

/// Frames of another node, before and after it has said who it is: about the market, and about calls.
#[test]
fn peer_frames() {
    let contact = |id: [u8; 32]| peer::Contact {
        id: id.to_vec().into(),
        incarnation: 7,
        address: "n:1".into(),
        domain: "d".into(),
    };
    let other = || Some(contact(PEER_KEY));
    let lot = || Some(peer::Lot { module: "m".into(), version: "0.0.0".into() });
    let token = |seq| Some(peer::Token { lot: lot(), epoch: 1, seq });
    let order = |terms, revision| peer::Order {
        module: "m".into(),
        terms: Some(terms),
        revision,
        quantity: 3,
        in_line: true,
    };
    let invoke = |id: u8| v1::Invoke {
        call: vec![id; 16].into(),
        attempt: 1,
        function: "f".into(),
        timeout_ms: 1_000,
        ..Default::default()
    };
    let claim = |revision, known, next, open| {
        Frame::Claim(peer::Claim {
            lot: lot(),
            epoch: 1,
            revision,
            want: 3,
            known,
            next,
            open,
            closed: false,
        })
    };
    let cancel = v1::to_worker::Message::Cancel(v1::Cancel::default());
    let messages = vec![
        Frame::Hello(peer::Hello { version_min: 1, version_max: 1, contact: other(), ..Default::default() }),
        Frame::Join(peer::Join { contact: other(), may_serve: true, first: true, view: 9, roster: 4 }),
        Frame::Grid(peer::Grid {
            authorities: vec![contact(PEER_KEY)],
            others: vec![contact([4; 32])],
            nodes: 9,
        }),
        Frame::Appoint(peer::Appoint {}),
        Frame::Mesh(peer::Mesh {
            contact: other(),
            view: 3,
            nodes: 2,
            authorities: vec![contact([5; 32])],
            roster: 4,
        }),
        Frame::Resign(peer::Resign { incarnation: 7 }),
        Frame::Orders(peer::Orders {
            contact: other(),
            all: true,
            orders: vec![
                order(peer::order::Terms::Sell("1.2.3".into()), 4),
                order(peer::order::Terms::Buy("^1".into()), 5),
            ],
        }),
        Frame::Matches(peer::Matches {
            matches: vec![peer::Match {
                requirement: "*".into(),
                revision: 1,
                lot: lot(),
                seller: other(),
                offered: 1,
                quantity: 2,
                in_line: true,
            }],
        }),
        Frame::Roster(peer::Roster {
            digest: 5,
            asks: true,
            entries: vec![peer::Entry {
                key: PEER_KEY.to_vec().into(),
                revision: 2,
                standing: peer::Standing::Ticket.into(),
                until_ms: 9,
                name: "alder".into(),
            }],
        }),
        Frame::Enroll(peer::Enroll { key: vec![7; 32].into(), name: "birch".into() }),
        claim(1, 0, 1, vec![]),
        claim(2, 2, 3, vec![1, 2]),
        Frame::Grant(peer::Grant { lot: lot(), epoch: 1, granted: 5, revoked: 1, ..Default::default() }),
        Frame::Run(peer::Run { token: token(1), invoke: Some(invoke(1)), queue_wait_ms: 50 }),
        Frame::Run(peer::Run { token: token(2), invoke: Some(invoke(2)), queue_wait_ms: 0 }),
        Frame::ToRunner(peer::ToRunner {
            token: token(1),
            message: Some(v1::ToWorker { message: Some(cancel) }),
        }),
        Frame::FromRunner(peer::FromRunner {
            token: token(1),
            message: Some(peer::from_runner::Message::Ended(peer::Ended::default())),
        }),
        Frame::Store(peer::Store {
            id: vec![9; 16].into(),
            term: 1,
            used: true,
            node: Some(peer::Contact { id: PEER_KEY.to_vec().into(), incarnation: 7, ..Default::default() }),
        }),
        forward(peer::forward::What::Call(v1::Call {
            function: "m.f".into(),
            mode: 1,
            ..Default::default()
        })),
        forward(peer::forward::What::Call(v1::Call { function: "m.f".into(), ..Default::default() })),
        forward(peer::forward::What::Publish(v1::Publish {
            to: Some(v1::publish::To::Topic("t".into())),
            ..Default::default()
        })),
        forward(peer::forward::What::Await(v1::Await { call: vec![7; 16].into(), ..Default::default() })),
        forward(peer::forward::What::Ask(peer::Ask { call: vec![7; 16].into(), what: 1 })),
        forward(peer::forward::What::Forget("m".into())),
        forward(peer::forward::What::Cancel(true)),
        Frame::Stock(peer::Stock {
            labels: vec!["eu".into()],
            items: vec![peer::stock::Item {
                name: "shop".into(),
                digest: vec![1; 32].into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        Frame::Assign(peer::Assign {
            items: vec![peer::assign::Item { name: "shop".into(), digest: vec![1; 32].into() }],
        }),
        Frame::Modules(peer::Modules {
            first: true,
            entries: vec![peer::modules::Entry {
                name: "other".into(),
                versions: vec![v1::Module {
                    name: "other".into(),
                    version: "1.2.3".into(),
                    functions: vec![v1::Function { name: "f".into(), ..Default::default() }],
                    ..Default::default()
                }],
            }],
        }),
        Frame::Forwarded(peer::Forwarded {
            request: 1,
            how: Some(peer::forwarded::How::Told(peer::Told { running: true, ..Default::default() })),
        }),
    ];
    let valid: Vec<Vec<u8>> = messages
        .into_iter()
        .map(|m| header::encode(&peer::ToPeer { message: Some(m), ..Default::default() }).to_vec())
        .collect();
    let greeting: peer::ToPeer = header::decode(valid[0].clone().into()).expect("it was made here");
    bolero::check!().with_test_time(TEST_TIME).with_type::<(bool, Vec<Recipe>)>().for_each(
        move |(known, recipes): &(bool, Vec<Recipe>)| {
            let mut world = World::new();
            let link = LinkId(1);
            world.handle(Input::PeerOpened { link, key: PEER_KEY });
            if *known {
                let message = greeting.message.clone();
                world.handle(Input::PeerFrame { link, message, payload: Bytes::new() });
            }
            for recipe in recipes.iter().take(30) {
                if let Ok(frame) = header::decode::<peer::ToPeer>(broken(&valid, recipe).into()) {
                    let payload = Bytes::from_static(b"p");
                    world.handle(Input::PeerFrame { link, message: frame.message, payload });
                }
                world.now.mono = world.now.mono + Duration::from_millis(7);
                world.node.handle_timeout(world.now);
            }
            world.handle(Input::PeerClosed { link });
            for _ in 0..60 {
                world.now.mono = world.now.mono + Duration::from_secs(1);
                world.node.handle_timeout(world.now);
            }
            world.node.check_invariants();
        },
    );
}

fn forward(what: peer::forward::What) -> Frame {
    Frame::Forward(peer::Forward { request: 5, what: Some(what), ..Default::default() })
}

const PEER_KEY: [u8; 32] = [9; 32];
const TOKEN: &[u8] = b"a token of this node";
const STRANGER: PeerId = PeerId(1);
const CLIENT: PeerId = PeerId(2);
const WORKER: PeerId = PeerId(3);

/// A node with one module, one client, and one instance that runs the client's call.
struct World {
    node: Node,
    now: Now,
    /// The running call.
    call: Bytes,
}

impl World {
    fn new() -> Self {
        let grid = GridConfig {
            id: [1; 32],
            address: "n:0".into(),
            domain: "d".into(),
            seeds: Vec::new(),
            may_serve: true,
            sell_max: None,
            name: String::new(),
            roster: Vec::new(),
            store: Some(OwnStore { id: [1; 16], used: false, offered: true }),
            known_store: None,
            catalogue: Vec::new(),
            times: Default::default(),
        };
        let config = Config { token: Bytes::from_static(TOKEN), grid: Some(grid), ..Config::new(2) };
        let now = Now { mono: Mono(1), wall: Wall(1_000) };
        let mut world = Self { node: Node::new(config, Incarnation(1), [3; 32]), now, call: Bytes::new() };
        let found = Found { name: "m".into(), revision: RevisionId("r1".into()), kind: Kind::Python };
        let mut secret = Bytes::new();
        for output in world.handle(Input::Deploy { modules: vec![found] }) {
            if let Output::StartTemplate { process, .. } = output {
                let functions = vec![v1::Function { name: "f".into(), ..Default::default() }];
                let module = v1::Module { name: "m".into(), functions, ..Default::default() };
                world.handle(Input::Loaded {
                    template: process,
                    report: Report::Ready { module, not_forkable: String::new() },
                });
            }
        }
        world.hello(CLIENT, v1::Role::Client, Bytes::from_static(TOKEN));
        let call = ToNode::Call(v1::Call { request: 9, function: "m.f".into(), ..Default::default() });
        for output in world.handle(Input::Frame { peer: CLIENT, message: Some(call), payload: Bytes::new() })
        {
            if let Output::StartInstance { secret: given, .. } = output {
                secret = given;
            }
        }
        for output in world.hello(WORKER, v1::Role::Worker, secret) {
            if let Output::Send { message: v1::to_worker::Message::Invoke(invoke), .. } = output {
                world.call = invoke.call;
            }
        }
        assert!(!world.call.is_empty(), "the instance runs a call: else the target tests nothing");
        world
    }

    fn hello(&mut self, peer: PeerId, role: v1::Role, secret: Bytes) -> Vec<Output> {
        let hello =
            v1::Hello { version_min: 1, version_max: 1, role: role.into(), secret, ..Default::default() };
        self.handle(Input::Frame { peer, message: Some(ToNode::Hello(hello)), payload: Bytes::new() })
    }

    fn handle(&mut self, input: Input) -> Vec<Output> {
        self.node.handle(self.now, input);
        self.node.check_invariants();
        std::iter::from_fn(|| self.node.poll()).collect()
    }

    /// Past the first check: messages name the call that really runs.
    fn with_real_ids(&self, message: &mut Option<ToNode>) {
        let call = self.call.clone();
        match message {
            Some(ToNode::Result(m)) => (m.call, m.attempt) = (call, 1),
            Some(ToNode::Call(m)) => (m.parent, m.attempt) = (call, 1),
            Some(ToNode::Wait(m)) => (m.call, m.attempt) = (call, 1),
            Some(ToNode::Read(m)) => (m.call, m.attempt) = (call, 1),
            Some(ToNode::Scan(m)) => (m.call, m.attempt) = (call, 1),
            _ => {}
        }
    }
}
