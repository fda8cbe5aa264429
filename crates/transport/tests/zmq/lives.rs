//! Connections come and go: what is promised about their beginning, order and end.

use std::collections::BTreeSet;

use bourse_transport::{Event, RouterOptions, SendError, Transport};
use bytes::Bytes;

use crate::node::{Node, bounds};
use crate::raw::{LAST, MORE, Raw};

#[tokio::test]
async fn closed_comes_after_every_frame() {
    for frames in [1_usize, 10, 200, 900] {
        let mut node = Node::ipc().await;
        // 1. A peer sends and leaves, while nobody reads events.
        let mut raw = Raw::greeted(&node.endpoint, b"").await;
        for number in 0..frames {
            raw.part(LAST, number.to_string().as_bytes()).await;
        }
        drop(raw);
        // 2. All of it is there, in order, and then the end.
        let connection = node.end.opened().await;
        for number in 0..frames {
            assert_eq!(node.end.frame(connection).await.0, number.to_string());
        }
        node.end.over(connection).await;
    }
}

#[tokio::test]
async fn the_newer_of_two_with_one_name_wins_and_the_older_gets_nothing_more() {
    let mut node = Node::ipc().await;
    // 1. A worker.
    let mut old = Raw::greeted(&node.endpoint, b"worker").await;
    let first = node.end.opened().await;
    node.end.send(first, "to the first", "");
    assert_eq!(old.read_part().await, Some((MORE, b"to the first".to_vec())));
    assert_eq!(old.read_part().await, Some((LAST, Vec::new())));
    // 2. Another one under its name; nobody has read events since.
    let mut new = Raw::greeted(&node.endpoint, b"worker").await;
    // 3. What is meant for the first does not reach the second.
    let sent = node.end.transport.send(first, "secret".into(), Bytes::new());
    assert_eq!(sent, Err(SendError::Gone));
    let reason = loop {
        match node.end.next().await {
            Event::Broken { connection, reason } if connection == first => break reason,
            Event::Opened { connection, .. } => {
                assert_ne!(connection, first);
                node.end.send(connection, "to the second", "");
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(reason.contains("identity"), "{reason}");
    node.end.closed(first).await;
    assert_eq!(new.read_part().await, Some((MORE, b"to the second".to_vec())));
    assert_eq!(old.read_part().await, None);
}

#[tokio::test]
async fn sending_to_one_who_left_is_gone() {
    let mut node = Node::ipc().await;
    let raw = Raw::greeted(&node.endpoint, b"").await;
    let connection = node.end.opened().await;
    drop(raw);
    node.end.closed(connection).await;
    let sent = node.end.transport.send(connection, "header".into(), Bytes::new());
    assert_eq!(sent, Err(SendError::Gone));
    node.end.transport.close(connection);
    assert_eq!(node.end.transport.connections(), 0);
}

#[tokio::test]
async fn an_unnamed_peer_can_be_spoken_to_first() {
    let mut node = Node::ipc().await;
    let mut raw = Raw::greeted(&node.endpoint, b"").await;
    let connection = node.end.opened().await;
    node.end.send(connection, "hello", "there");
    assert_eq!(raw.read_part().await, Some((MORE, b"hello".to_vec())));
    assert_eq!(raw.read_part().await, Some((LAST, b"there".to_vec())));
}

#[tokio::test]
async fn closing_lets_the_last_words_out_and_hears_no_more() {
    let mut node = Node::ipc().await;
    let mut raw = Raw::greeted(&node.endpoint, b"").await;
    let connection = node.end.opened().await;
    raw.part(LAST, b"late").await;
    node.end.send(connection, "refused", "because");
    node.end.transport.close(connection);
    node.end.closed(connection).await;
    assert_eq!(raw.read_part().await, Some((MORE, b"refused".to_vec())));
    assert_eq!(raw.read_part().await, Some((LAST, b"because".to_vec())));
    let cut_off = tokio::spawn(async move { raw.read_part().await });
    tokio::select! {
        event = node.end.next() => panic!("{event:?} after Closed"),
        end = cut_off => assert_eq!(end.unwrap(), None),
    }
}

#[tokio::test]
async fn a_thousand_come_and_go_and_leave_nothing_behind() {
    let mut node = Node::ipc().await;
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut seen = BTreeSet::new();
    let mut before = 0;
    for round in 0..1000 {
        let mut raw = Raw::greeted(&node.endpoint, b"").await;
        raw.part(LAST, b"x").await;
        drop(raw);
        let connection = node.end.opened().await;
        assert!(seen.insert(connection), "{connection:?} was used before");
        node.end.frame(connection).await;
        node.end.over(connection).await;
        if round == 10 {
            before = open_files();
        }
    }
    assert_eq!(node.end.transport.connections(), 0);
    // Other tests of this binary run meanwhile and have files of their own.
    let grown = open_files().saturating_sub(before);
    assert!(grown < 500, "{grown} more open files");
}

/// More changes than the ring holds happen while nobody reads: the list of connections puts it right.
#[tokio::test]
async fn changes_that_were_overrun_are_made_up_for() {
    let mut node = Node::ipc().await;
    let leaving = Raw::greeted(&node.endpoint, b"leaving").await;
    let _staying = Raw::greeted(&node.endpoint, b"staying").await;
    let (left, stayed) = (node.end.opened().await, node.end.opened().await);
    // 1. One leaves, 2000 come and go (three changes each), one comes; nobody reads.
    drop(leaving);
    for _ in 0..2000 {
        drop(Raw::greeted(&node.endpoint, b"").await);
    }
    let mut came = Raw::greeted(&node.endpoint, b"came").await;
    came.part(LAST, b"here").await;
    // 2. Every end that is told belongs to a beginning; the one that left is among them.
    let mut open = BTreeSet::from([left, stayed]);
    let mut here = None;
    while here.is_none() || open.contains(&left) {
        match node.end.next().await {
            Event::Opened { connection, .. } => assert!(open.insert(connection), "{connection:?} twice"),
            Event::Closed { connection } => assert!(open.remove(&connection), "{connection:?} twice"),
            Event::Broken { .. } => {}
            Event::Frame { connection, .. } => here = Some(connection),
        }
    }
    let here = here.unwrap();
    assert!(open.contains(&stayed) && open.contains(&here));
    // 3. Both can be sent to.
    node.end.send(here, "to the one that came", "");
    node.end.send(stayed, "to the one that stayed", "");
    assert_eq!(came.read_part().await, Some((MORE, b"to the one that came".to_vec())));
}

#[tokio::test]
async fn a_dropped_recv_loses_nothing() {
    let mut node = Node::ipc().await;
    let endpoint = node.endpoint.clone();
    let sending = tokio::spawn(async move {
        let mut raw = Raw::greeted(&endpoint, b"").await;
        for number in 0..3000 {
            raw.part(LAST, number.to_string().as_bytes()).await;
        }
    });
    let mut events = Vec::new();
    let (mut next, mut dropped, mut over) = (0, 0, false);
    while !over {
        tokio::select! {
            biased;
            () = node.end.transport.recv(&mut events) => {}
            () = tokio::task::yield_now() => dropped += 1,
        }
        for event in events.drain(..) {
            match event {
                Event::Frame { header, .. } => {
                    assert_eq!(header, next.to_string());
                    next += 1;
                }
                Event::Closed { .. } => over = true,
                _ => {}
            }
        }
    }
    sending.await.unwrap();
    assert_eq!(next, 3000);
    assert!(dropped > 0, "no recv was dropped: the test shows nothing");
}

#[tokio::test]
async fn a_silent_peer_is_found_out_by_heartbeats() {
    let mut options = RouterOptions::new(bounds());
    options.heartbeat_ms = 30;
    let mut node = Node::ipc_with(options).await;
    let _silent = Raw::greeted(&node.endpoint, b"").await;
    let connection = node.end.opened().await;
    node.end.broken(connection).await;
}
