//! The connecting end against the end that is connected to.

use bourse_transport::{Dealer, Endpoint, Event, Router, RouterOptions, SendError, Transport};
use bytes::Bytes;

use crate::node::{End, Node, bounds};
use crate::raw::{LAST, MORE};

#[tokio::test]
async fn frames_go_both_ways_in_order() {
    let mut node = Node::ipc().await;
    let mut dealer = node.dealer();
    let there = dealer.opened().await;
    let here = node.end.opened().await;
    for number in 0..500 {
        dealer.transport.send(there, number.to_string().into(), Bytes::from(vec![7; number])).unwrap();
    }
    for number in 0..500 {
        let (header, payload) = node.end.frame(here).await;
        assert_eq!((header, payload.len()), (number.to_string().into(), number));
        node.end.transport.send(here, "back".into(), payload).unwrap();
    }
    for number in 0..500 {
        assert_eq!(dealer.frame(there).await.1.len(), number);
    }
    dealer.transport.shut_down().await;
    node.end.closed(here).await;
}

#[tokio::test]
async fn what_is_sent_before_shutting_down_arrives() {
    let mut node = Node::ipc().await;
    let mut dealer = node.dealer();
    let there = dealer.opened().await;
    let here = node.end.opened().await;
    dealer.send(there, "last", "words");
    dealer.transport.shut_down().await;
    assert_eq!(node.end.frame(here).await, ("last".into(), "words".into()));
    node.end.over(here).await;
}

#[tokio::test]
async fn it_waits_for_a_router_and_comes_back_as_a_new_connection() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Ipc(folder.path().join("node.sock"));
    // 1. Nobody there.
    let mut dealer = End::new(Dealer::connect(&endpoint, &bounds()).unwrap());
    assert_eq!(dealer.transport.connection(), None);
    let mut lives = Vec::new();
    for _ in 0..3 {
        // 2. A router comes, they speak.
        let mut router = Router::new(RouterOptions::new(bounds())).unwrap();
        router.bind(&endpoint).await.unwrap();
        let mut node = End::new(router);
        let there = dealer.opened().await;
        assert_eq!(dealer.transport.connection(), Some(there));
        let here = node.opened().await;
        dealer.send(there, "hello", "");
        assert_eq!(node.frame(here).await.0, "hello");
        // 3. It goes; what was meant for this life is not sent in the next.
        node.transport.shut_down().await;
        dealer.over(there).await;
        let sent = dealer.transport.send(there, "stale".into(), Bytes::new());
        assert_eq!(sent, Err(SendError::Gone));
        lives.push(there);
    }
    lives.dedup();
    assert_eq!(lives.len(), 3);
}

#[tokio::test]
async fn closing_one_end_is_seen_at_the_other() {
    let mut node = Node::ipc().await;
    let mut dealer = node.dealer();
    let (there, here) = (dealer.opened().await, node.end.opened().await);
    // 1. The router closes; the last words arrive, then the end, then the next life.
    node.end.send(here, "refused", "");
    node.end.transport.close(here);
    node.end.closed(here).await;
    assert_eq!(dealer.frame(there).await.0, "refused");
    dealer.over(there).await;
    let (there, here) = (dealer.opened().await, node.end.opened().await);
    // 2. The dealer closes.
    dealer.send(there, "bye", "");
    dealer.transport.close(there);
    dealer.closed(there).await;
    assert_eq!(node.end.frame(here).await.0, "bye");
    node.end.over(here).await;
    assert_ne!(dealer.opened().await, there);
}

#[tokio::test]
async fn it_can_say_why_it_is_not_connected() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Ipc(folder.path().join("nobody.sock"));
    let mut dealer = Dealer::connect(&endpoint, &bounds()).unwrap();
    let mut events = Vec::new();
    let waited = tokio::time::timeout(std::time::Duration::from_millis(50), dealer.recv(&mut events)).await;
    assert!(waited.is_err() && events.is_empty());
    assert_eq!(dealer.trouble(), Some("nobody answers"));
}

/// A router that breaks the framing, played by a stream made by hand.
#[tokio::test]
async fn three_parts_end_the_connection_at_this_end_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("raw.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let mut dealer = End::new(Dealer::connect(&Endpoint::Ipc(path), &bounds()).unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let ready = b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06ROUTER\x08Identity\0\0\0\0";
        stream.write_all(&[crate::raw::greeting(), ready.to_vec()].concat()).await.unwrap();
        stream.write_all(&[LAST, 2, b'o', b'k', MORE, 0, MORE, 0, LAST, 0, LAST, 1, b'x']).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    });
    let there = dealer.opened().await;
    assert_eq!(dealer.frame(there).await.0, "ok");
    let reason = dealer.broken(there).await;
    assert!(reason.contains("3 parts"), "{reason}");
    crate::node::within("the cut", server).await.unwrap();
}

#[tokio::test]
async fn a_router_that_shuts_down_sends_what_it_had() {
    let mut node = Node::ipc().await;
    let mut dealer = node.dealer();
    let there = dealer.opened().await;
    let here = node.end.opened().await;
    node.end.send(here, "goodbye", "all");
    node.shut_down().await;
    assert_eq!(
        dealer.next().await,
        Event::Frame { connection: there, header: "goodbye".into(), payload: "all".into() }
    );
    dealer.over(there).await;
}
