//! Peers that break the rules. In each: the breaker is cut off, nobody else notices.

use bourse_transport::{Event, RouterOptions, Transport};
use tokio::io::AsyncReadExt;

use crate::node::{FRAME_BYTES_MAX, Node, bounds, within};
use crate::raw::{LAST, MORE, Raw, greeting, part_head};

/// One honest peer goes round once.
async fn check_serves(node: &mut Node) {
    let mut honest = Raw::greeted(&node.endpoint, b"").await;
    let connection = node.end.opened().await;
    honest.part(MORE, b"header").await;
    honest.part(LAST, b"payload").await;
    let (header, payload) = node.end.frame(connection).await;
    node.end.transport.send(connection, header, payload).unwrap();
    assert_eq!(honest.read_part().await, Some((MORE, b"header".to_vec())));
    assert_eq!(honest.read_part().await, Some((LAST, b"payload".to_vec())));
    drop(honest);
    node.end.closed(connection).await;
}

#[tokio::test]
async fn garbage_instead_of_a_greeting_is_never_seen_above() {
    let mut node = Node::ipc().await;
    let half = greeting()[..20].to_vec();
    let no_mechanism = [&greeting()[..12], &[b'X'; 52]].concat();
    let no_ready = [greeting(), part_head(LAST, 200), vec![7; 200]].concat();
    for bytes in
        [vec![0; 64], vec![0xff; 300], b"GET / HTTP/1.1\r\n\r\n".repeat(9), half, no_mechanism, no_ready]
    {
        let mut raw = Raw::connect(&node.endpoint).await;
        raw.bytes(&bytes).await;
        drop(raw);
    }
    check_serves(&mut node).await;
}

#[tokio::test]
async fn a_peer_that_does_not_greet_is_dropped_in_time() {
    let mut bounds = bounds();
    bounds.handshake_ms_max = 50;
    bounds.handshakes_max = 2;
    let mut node = Node::ipc_with(RouterOptions::new(bounds)).await;
    let mut silent = [Raw::connect(&node.endpoint).await, Raw::connect(&node.endpoint).await];
    for raw in &mut silent {
        raw.bytes(&greeting()[..11]).await;
    }
    // The router sends its own greeting, and then the end.
    for raw in &mut silent {
        let mut sent = Vec::new();
        within("the end of the stream", raw.0.read_to_end(&mut sent)).await.unwrap();
    }
    check_serves(&mut node).await;
}

#[tokio::test]
async fn a_frame_cut_in_half_is_not_handed_in() {
    let mut node = Node::ipc().await;
    let mut raw = Raw::greeted(&node.endpoint, b"").await;
    let connection = node.end.opened().await;
    raw.part(LAST, b"whole").await;
    raw.part(MORE, b"header without payload").await;
    raw.bytes(&part_head(LAST, 1000)).await;
    raw.bytes(&[7; 500]).await;
    drop(raw);
    assert_eq!(node.end.frame(connection).await.0, "whole");
    node.end.over(connection).await;
    check_serves(&mut node).await;
}

#[tokio::test]
async fn a_frame_beyond_the_bound_is_refused_before_it_is_read() {
    let mut node = Node::ipc().await;
    let mut raw = Raw::greeted(&node.endpoint, b"").await;
    let connection = node.end.opened().await;
    raw.part(LAST, b"before").await;
    assert_eq!(node.end.frame(connection).await.0, "before");
    raw.bytes(&part_head(LAST, 1 << 30)).await;
    let reason = node.end.broken(connection).await;
    assert!(reason.contains("too large"), "{reason}");
    check_serves(&mut node).await;
}

#[tokio::test]
async fn the_largest_frame_passes_and_one_byte_more_does_not() {
    for (extra, passes) in [(0, true), (1, false)] {
        let mut node = Node::ipc().await;
        let mut raw = Raw::greeted(&node.endpoint, b"").await;
        let connection = node.end.opened().await;
        let body = vec![7; FRAME_BYTES_MAX - 6 + extra];
        let sending = tokio::spawn(async move {
            raw.part(MORE, b"header").await;
            // Refused half-way, the rest cannot be written.
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut raw.0, &part_head(LAST, body.len() as u64)).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.0, &body).await;
            raw
        });
        if passes {
            assert_eq!(node.end.frame(connection).await.1.len(), FRAME_BYTES_MAX - 6);
        } else {
            node.end.broken(connection).await;
        }
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn three_parts_are_not_a_frame() {
    let mut node = Node::ipc().await;
    let mut raw = Raw::greeted(&node.endpoint, b"").await;
    let connection = node.end.opened().await;
    raw.part(LAST, b"one part is a header alone").await;
    raw.part(LAST, b"").await; // as ZMQ_PROBE_ROUTER sends it: ignored
    for flags in [MORE, MORE, LAST] {
        raw.part(flags, b"x").await;
    }
    raw.part(LAST, b"after").await;
    let (header, payload) = node.end.frame(connection).await;
    assert_eq!((&header[..], &payload[..]), (&b"one part is a header alone"[..], &b""[..]));
    let reason = node.end.broken(connection).await;
    assert!(reason.contains("3 parts"), "{reason}");
    assert_eq!(raw.read_part().await, None, "the peer is cut off");
    check_serves(&mut node).await;
}

#[tokio::test]
async fn an_endless_message_takes_no_more_than_the_bound() {
    let mut node = Node::ipc().await;
    let mut raw = Raw::greeted(&node.endpoint, b"").await;
    let connection = node.end.opened().await;
    let parts = [MORE, 0].repeat(4096); // 4096 empty parts, and always one more to come
    let sending = tokio::spawn(async move {
        while tokio::io::AsyncWriteExt::write_all(&mut raw.0, &parts).await.is_ok() {}
    });
    node.end.broken(connection).await;
    within("the peer to be cut off", sending).await.unwrap();
    check_serves(&mut node).await;
}

#[tokio::test]
async fn more_connections_than_the_bound_are_closed() {
    let mut bounds = bounds();
    bounds.connections_max = 2;
    let mut node = Node::ipc_with(RouterOptions::new(bounds)).await;
    let one = Raw::greeted(&node.endpoint, b"").await;
    let first = node.end.opened().await;
    let _two = Raw::greeted(&node.endpoint, b"").await;
    node.end.opened().await;
    let mut three = Raw::greeted(&node.endpoint, b"").await;
    three.part(LAST, b"not heard").await;
    let refused = tokio::spawn(async move { three.read_part().await });
    tokio::select! {
        event = node.end.next() => panic!("{event:?} of a connection beyond the bound"),
        end = refused => assert_eq!(end.unwrap(), None),
    }
    drop(one);
    assert_eq!(node.end.next().await, Event::Closed { connection: first });
    check_serves(&mut node).await;
}
