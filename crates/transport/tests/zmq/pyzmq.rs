//! Against libzmq, as Python's `zmq` package brings it.

use std::time::Duration;

use bourse_transport::{Event, SendError, Transport};
use bytes::Bytes;

use crate::node::{Node, within};
use crate::python::{python, start};

#[tokio::test]
async fn frames_go_round_over_ipc_and_tcp() {
    let Some(python) = python() else { return };
    let mut node = Node::ipc().await;
    let tcp = node.end.transport.bind(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let script = r#"
socket = dealer(**({"routing_id": args[0].encode()} if args else {}))
for header, payload in ((b"h", b""), (b"h" * 300, b"p"), (b"h", b"p" * (16 << 20)), (b"", b"p")):
    socket.send_multipart([header, payload])
    assert socket.recv_multipart() == [header, payload]
"#;
    for url in [node.url(), tcp.to_string()] {
        for name in [&[][..], &["named"]] {
            let mut child = start(python, &url, script, name);
            let connection = node.end.opened().await;
            assert_eq!(node.end.echo_until_closed(connection).await, 4);
            assert!(within("python to exit", child.wait()).await.unwrap().success());
        }
    }
}

#[tokio::test]
async fn a_probe_is_ignored_and_one_part_is_a_header() {
    let Some(python) = python() else { return };
    let mut node = Node::ipc().await;
    let script = r#"
socket = dealer(probe_router=1)
socket.send(b"alone")
assert socket.recv_multipart() == [b"alone", b""]
"#;
    let mut child = start(python, &node.url(), script, &[]);
    let connection = node.end.opened().await;
    assert_eq!(node.end.echo_until_closed(connection).await, 1);
    assert!(within("python to exit", child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn all_that_a_leaving_process_sent_comes_before_its_end() {
    let Some(python) = python() else { return };
    let mut node = Node::ipc().await;
    let script = r#"
socket = dealer()
for number in range(2000):
    socket.send_multipart([str(number).encode(), b"x" * 100])
socket.close()
context.term()
"#;
    // It is gone before the first event is read.
    let mut child = start(python, &node.url(), script, &[]);
    let exit = tokio::spawn(async move { child.wait().await });
    let connection = node.end.opened().await;
    for number in 0..2000 {
        assert_eq!(node.end.frame(connection).await.0, number.to_string());
    }
    node.end.over(connection).await;
    assert!(within("python to exit", exit).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn a_killed_process_is_noticed_after_its_last_frame() {
    let Some(python) = python() else { return };
    let mut node = Node::ipc().await;
    let script = r#"
socket = dealer()
for number in range(100):
    socket.send(str(number).encode())
socket.recv_multipart()
socket.send(b"now")
socket.recv_multipart()
signal.pause()
"#;
    let mut child = start(python, &node.url(), script, &[]);
    let connection = node.end.opened().await;
    for number in 0..100 {
        assert_eq!(node.end.frame(connection).await.0, number.to_string());
    }
    node.end.send(connection, "go on", "");
    assert_eq!(node.end.frame(connection).await.0, "now");
    within("the kill", child.kill()).await.unwrap();
    node.end.over(connection).await;
    let sent = node.end.transport.send(connection, "anyone?".into(), Bytes::new());
    assert_eq!(sent, Err(SendError::Gone));
}

#[tokio::test]
async fn one_who_stops_reading_is_held_off_and_others_do_not_notice() {
    let Some(python) = python() else { return };
    let mut node = Node::ipc().await;
    let script = r#"
socket = dealer(rcvhwm=1)
socket.send(b"I shall not read")
signal.pause()
"#;
    let mut child = start(python, &node.url(), script, &[]);
    let stopped = node.end.opened().await;
    node.end.frame(stopped).await;
    // 1. Far more than it takes, with time in between for what can leave.
    let block = Bytes::from(vec![7; 64 << 10]);
    let mut accepted = 0_usize;
    while node.end.transport.send(stopped, "block".into(), block.clone()).is_ok() {
        accepted += 1;
        assert!(accepted < 5000, "no bound in sight");
        tokio::task::yield_now().await;
    }
    let sent = node.end.transport.send(stopped, "block".into(), block.clone());
    assert_eq!(sent, Err(SendError::Full));
    // 2. Another goes round as if nothing were the matter.
    let script = r#"
socket = dealer()
for number in range(100):
    socket.send_multipart([b"h", b"p" * 1000])
    assert socket.recv_multipart() == [b"h", b"p" * 1000]
"#;
    let mut other = start(python, &node.url(), script, &[]);
    let connection = node.end.opened().await;
    assert_eq!(node.end.echo_until_closed(connection).await, 100);
    assert!(within("python to exit", other.wait()).await.unwrap().success());
    // 3. Its end is noticed although it was never read from.
    within("the kill", child.kill()).await.unwrap();
    node.end.over(stopped).await;
}

#[tokio::test]
async fn a_flood_that_is_never_read_by_its_sender_is_taken_in_bounds() {
    let Some(python) = python() else { return };
    let mut node = Node::ipc().await;
    let script = r#"
socket = dealer()
block = b"x" * (1 << 20)
for number in range(200):
    socket.send_multipart([b"h", block], copy=False)
socket.close()
context.term()
"#;
    let mut child = start(python, &node.url(), script, &[]);
    let connection = node.end.opened().await;
    let mut frames = 0;
    loop {
        match node.end.next().await {
            Event::Frame { header, payload, .. } => {
                frames += 1;
                // Sent back or refused, but never waited for.
                let _ = node.end.transport.send(connection, header, payload);
            }
            Event::Broken { .. } => {}
            Event::Closed { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((1..=200).contains(&frames), "{frames}");
    tokio::time::timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
}
