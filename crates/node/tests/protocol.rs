//! What strangers and broken workers may do to a node: nothing.

mod common;

use bourse_node::{Config, Input};
use bourse_wire::v1;
use bourse_wire::v1::to_node::Message as ToNode;
use bourse_wire::v1::to_worker::Message as ToWorker;
use bytes::Bytes;
use common::Step::{Call, Hang, Return, ReturnWhileWaiting, Run, Submit};
use common::{Module, Start, TOKEN, World, config, hello};

fn module() -> Module {
    Module::new("m", "r1").function("f", [Run(10), Return("x")]).function("hang", [Hang])
}

/// A world where a call hangs in the first instance, its connection, and the call's id.
fn running(config: Config) -> (World, bourse_node::PeerId, Bytes, bourse_node::Ticket) {
    let mut w = World::with(config).deploy(module());
    let ticket = w.call("m.hang");
    w.run(30);
    let process = w.of("m")[0];
    let (peer, call) = (w.peer(process), w.worker(process).running.as_ref().expect("it runs").call.clone());
    (w, peer, call, ticket)
}

fn result(call: &Bytes, attempt: u32) -> ToNode {
    ToNode::Result(v1::Result { call: call.clone(), attempt, ..Default::default() })
}

#[test]
fn an_answer_to_a_call_it_was_not_given() {
    let (mut w, peer, call, ticket) = running(config());
    w.say(peer, result(&Bytes::from(vec![9; 16]), 1), "").say(peer, result(&Bytes::from("short"), 1), "");
    w.say(peer, result(&call, 2), "").say(peer, result(&call, 0), "");
    assert_eq!(w.code(ticket), "unanswered");
    assert!(w.noted("which it does not run"));
    w.say(peer, result(&call, 1), "right");
    assert_eq!(w.ok(ticket), "right");
}

#[test]
fn an_answer_given_twice() {
    let (mut w, peer, call, ticket) = running(config());
    w.say(peer, result(&call, 1), "first").say(peer, result(&call, 1), "second");
    assert_eq!(w.ok(ticket), "first");
    w.node.check_quiet();
}

#[test]
fn an_answer_never_given() {
    let (mut w, _, _, ticket) = running(config());
    w.settle();
    assert_eq!(w.code(ticket), "timeout");
    w.run(2_000).node.check_quiet();
}

#[test]
fn an_answer_while_it_waits_for_others() {
    let module = module().function("odd", [Submit("m.f", String::new()), ReturnWhileWaiting]);
    let mut w = World::new().deploy(module);
    let call = w.call("m.odd");
    w.settle();
    assert_eq!(w.code(call), "instance_crashed");
    assert!(w.failure(call).message.contains("while that waited"), "{:?}", w.failure(call));
    w.run(100).node.check_quiet();
}

#[test]
fn protocol_version_2() {
    let mut w = World::new().deploy(module().instances(Start::Version(2)));
    let call = w.call("m.f");
    w.settle();
    assert_eq!(w.code(call), "protocol_version");
    assert!(w.failure(call).message.contains("version 1") && w.failure(call).message.contains("2 to 2"));
    let peer = w.connect();
    let mut h = hello(v1::Role::Client, TOKEN);
    (h.version_min, h.version_max) = (2, 3);
    w.say(peer, ToNode::Hello(h), "");
    assert_eq!(w.refused(peer).unwrap().code, "protocol_version");
    w.run(1_000).node.check_quiet();
}

#[test]
fn who_asks_before_hello_is_refused() {
    let mut w = World::new().deploy(module());
    for message in [ToNode::Call(v1::Call::default()), ToNode::Wait(v1::Wait::default())] {
        let peer = w.connect();
        w.say(peer, message, "").run(1);
        assert_eq!(w.refused(peer).expect("it was refused").code, "protocol");
        assert!(w.closed.contains(&peer));
    }
    let peer = w.connect();
    w.input(Input::Frame { peer, message: None, payload: Bytes::new() });
    assert_eq!(w.refused(peer).expect("it was refused").code, "protocol");
}

#[test]
fn what_needs_no_answer_is_passed_over_before_hello() {
    let mut w = World::new().deploy(module());
    let peer = w.connect();
    w.say(peer, ToNode::Pong(v1::Pong::default()), "").say(peer, result(&Bytes::new(), 1), "").run(1);
    assert!(w.refused(peer).is_none() && !w.closed.contains(&peer));
    w.say(peer, ToNode::Bye(v1::Bye {}), "").run(1);
    assert!(w.closed.contains(&peer));
}

#[test]
fn secrets_and_tokens() {
    let mut w = World::new().deploy(module());
    for (role, secret) in [
        (v1::Role::Worker, TOKEN),
        (v1::Role::Worker, b"".as_slice()),
        (v1::Role::Client, b"another of 16 by"),
        (v1::Role::Client, b""),
        (v1::Role::Attached, b"a token"),
    ] {
        let peer = w.connect();
        w.say(peer, ToNode::Hello(hello(role, secret)), "");
        assert_eq!(w.refused(peer).unwrap().code, "unauthorized", "{role:?}");
    }
    // A node without a token admits nobody, not even with an empty one.
    let mut w = World::with(Config { token: Bytes::new(), ..config() });
    let peer = w.connect();
    w.say(peer, ToNode::Hello(hello(v1::Role::Client, b"")), "");
    assert_eq!(w.refused(peer).unwrap().code, "unauthorized");
}

#[test]
fn a_client_that_sends_what_only_a_worker_may() {
    let mut w = World::new().deploy(module());
    for message in [
        result(&Bytes::new(), 0),
        ToNode::Wait(v1::Wait::default()),
        ToNode::Read(v1::Read::default()),
        ToNode::Recalled(v1::Recalled::default()),
    ] {
        let peer = w.client();
        w.client_call(peer, 1, "m.f").say(peer, message, "").run(1);
        assert_eq!(w.refused(peer).unwrap().code, "protocol");
        assert!(w.closed.contains(&peer));
    }
    assert_eq!(w.node.status().calls, 0, "what it had asked for is cancelled");
    w.run(100).node.check_quiet();
}

#[test]
fn request_numbers_used_again() {
    let mut w = World::new().deploy(module());
    let peer = w.client();
    // 1. After the answer: that is allowed.
    w.client_call(peer, 1, "m.f").run(100).client_call(peer, 1, "m.f").run(100);
    assert_eq!(w.replies(peer), [(1, "x".to_owned()), (1, "x".to_owned())]);
    // 2. Before it: not.
    w.client_call(peer, 2, "m.f").client_call(peer, 2, "m.f").run(1);
    assert_eq!(w.refused(peer).unwrap().code, "protocol");
    // 3. A worker that does so is ended.
    let (mut w, peer, call, ticket) = running(config());
    let nested =
        v1::Call { request: 5, function: "m.f".into(), parent: call, attempt: 1, ..Default::default() };
    w.say(peer, ToNode::Call(nested.clone()), "").say(peer, ToNode::Call(nested), "").settle();
    assert_eq!(w.code(ticket), "instance_crashed");
    w.run(100).node.check_quiet();
}

#[test]
fn a_client_s_calls_and_cancels() {
    let mut w = World::new().deploy(module());
    let peer = w.client();
    w.client_call(peer, 1, "m.f")
        .client_call(peer, 2, "m.hang")
        .client_call(peer, 3, "nonsense")
        .client_call(peer, 4, "m.g");
    w.run(100).say(peer, ToNode::Cancel(v1::CancelCall { request: 2 }), "");
    w.say(peer, ToNode::Cancel(v1::CancelCall { request: 99 }), "");
    let replies = w.replies(peer);
    let expected = [(3, "bad_request"), (4, "not_found"), (1, "x"), (2, "cancelled")];
    assert_eq!(replies, expected.map(|(r, s)| (r, s.to_owned())));
}

#[test]
fn calls_of_one_client_are_bounded() {
    let mut w = World::with(Config { requests_max: 3, ..config() }).deploy(module());
    let peer = w.client();
    for request in 1..=5 {
        w.client_call(peer, request, "m.f");
    }
    assert_eq!(w.replies(peer), [(4, "queue_full".to_owned()), (5, "queue_full".to_owned())]);
    w.run(200).client_call(peer, 6, "m.f").run(100);
    assert_eq!(w.replies(peer).len(), 6);
}

#[test]
fn requests_of_an_invocation_that_has_ended() {
    let (mut w, peer, call, _) = running(config());
    w.say(peer, result(&call, 1), "");
    let key = Some(v1::Key { name: "n".into(), module: String::new() });
    let nested = v1::Call {
        request: 1,
        function: "m.f".into(),
        parent: call.clone(),
        attempt: 1,
        ..Default::default()
    };
    w.say(peer, ToNode::Call(nested), "");
    w.say(
        peer,
        ToNode::Read(v1::Read { request: 2, call: call.clone(), attempt: 1, key, ..Default::default() }),
        "",
    );
    w.say(peer, ToNode::Wait(v1::Wait { call, attempt: 1, requests: vec![1], any: false }), "");
    assert_eq!(w.node.status().calls, 0);
    w.node.check_quiet();
}

#[test]
fn a_wait_for_what_was_never_asked_is_no_wait() {
    let (mut w, peer, call, ticket) = running(config());
    for any in [false, true] {
        w.say(peer, ToNode::Wait(v1::Wait { call: call.clone(), attempt: 1, requests: vec![1, 2], any }), "");
        w.say(peer, ToNode::Wait(v1::Wait { call: call.clone(), attempt: 1, requests: vec![], any }), "");
    }
    w.say(peer, result(&call, 1), "x");
    assert_eq!(w.ok(ticket), "x");
}

#[test]
fn a_bye_while_it_waits() {
    let module = module().function("outer", [Call("m.hang", String::new())]);
    let mut w = World::new().deploy(module);
    let call = w.call("m.outer");
    w.run(30);
    let process = w.of("m")[0];
    let peer = w.peer(process);
    w.say(peer, ToNode::Bye(v1::Bye {}), "").settle();
    assert_eq!(w.code(call), "instance_crashed");
    w.run(2_000);
    w.run(70_000).node.check_quiet();
}

#[test]
fn what_an_expelled_worker_still_says_is_not_heard() {
    let (mut w, peer, call, ticket) = running(config());
    let nested = v1::Call {
        request: 5,
        function: "m.f".into(),
        parent: call.clone(),
        attempt: 1,
        ..Default::default()
    };
    w.say(peer, ToNode::Call(nested.clone()), "").say(peer, ToNode::Call(nested), "");
    w.say(peer, result(&call, 1), "too late").settle();
    assert_eq!(w.code(ticket), "instance_crashed");
    w.run(100).node.check_quiet();
}

#[test]
fn a_message_of_a_later_version_is_passed_over() {
    let mut w = World::new().deploy(module());
    let peer = w.client();
    w.input(Input::Frame { peer, message: None, payload: Bytes::from("?") });
    w.client_call(peer, 1, "m.f").run(100);
    assert_eq!(w.replies(peer).len(), 1);
    assert!(matches!(w.mail[&peer][0].0, ToWorker::Welcome(_)));
}
