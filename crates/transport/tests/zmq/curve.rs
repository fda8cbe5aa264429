//! CURVE: only those on the list get in, and their key is known above.

use std::collections::BTreeSet;

use bourse_transport::{Curve, Dealer, Endpoint, Event, Key, KeyPair, Router, RouterOptions, Transport};

use crate::node::{End, bounds, within};
use crate::python::{python, start};

async fn node(own: &KeyPair, allowed: &[Key]) -> (End<Router>, Endpoint) {
    let mut options = RouterOptions::new(bounds());
    options.curve = Some(Curve { own: own.clone(), allowed: BTreeSet::from_iter(allowed.iter().copied()) });
    let mut router = Router::new(options).unwrap();
    let endpoint = router.bind(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap();
    (End::new(router), endpoint)
}

#[tokio::test]
async fn keys_are_read_and_written() {
    let keys = KeyPair::generate();
    let again = KeyPair::from_secret_z85(&keys.secret_z85()).unwrap();
    assert_eq!(again.public(), keys.public());
    assert_eq!(Key::from_z85(&keys.public().to_z85()).unwrap(), keys.public());
    assert!(Key::from_z85("short").is_err());
    assert!(!format!("{keys:?}").contains(&keys.secret_z85()));
}

#[tokio::test]
async fn an_allowed_key_goes_round_and_is_known() {
    let (own, peer) = (KeyPair::generate(), KeyPair::generate());
    let (mut node, endpoint) = node(&own, &[peer.public()]).await;
    let mut dealer =
        End::new(Dealer::connect_curve(&endpoint, &bounds(), peer.clone(), own.public()).unwrap());
    let there = dealer.opened().await;
    let Event::Opened { connection, key } = node.next().await else { panic!("expected Opened") };
    assert_eq!(key, Some(peer.public()));
    dealer.send(there, "header", "payload");
    let (header, payload) = node.frame(connection).await;
    node.transport.send(connection, header, payload).unwrap();
    assert_eq!(dealer.frame(there).await, ("header".into(), "payload".into()));
}

#[tokio::test]
async fn pyzmq_with_an_allowed_key_gets_in_and_all_others_do_not() {
    let Some(python) = python() else { return };
    let (own, peer, stranger) = (KeyPair::generate(), KeyPair::generate(), KeyPair::generate());
    let (mut node, endpoint) = node(&own, &[peer.public()]).await;
    let script = r#"
server, public, secret, stranger_public, stranger_secret = (arg.encode() for arg in args)
def curve(public, secret, server=server):
    return dealer(curve_publickey=public, curve_secretkey=secret, curve_serverkey=server, linger=0)
plain, unknown = dealer(linger=0), curve(stranger_public, stranger_secret)
wrong_server = curve(public, secret, server=stranger_public)
for socket in (plain, unknown, wrong_server):
    socket.send(b"let me in")
for _ in range(3):
    known = curve(public, secret)
    known.send_multipart([b"known", b"payload"])
    assert known.recv_multipart() == [b"known", b"payload"]
    known.close()
for socket in (plain, unknown, wrong_server):
    assert socket.poll(100) == 0
    socket.close()
"#;
    let args = [
        own.public().to_z85(),
        peer.public().to_z85(),
        peer.secret_z85(),
        stranger.public().to_z85(),
        stranger.secret_z85(),
    ];
    let args = args.each_ref().map(String::as_str);
    let mut child = start(python, &endpoint.to_string(), script, &args);
    // The next one may come before it is seen that the one before has gone.
    let (mut opened, mut frames, mut closed) = (0, 0, 0);
    while closed < 3 {
        match node.next().await {
            Event::Opened { key, .. } => {
                assert_eq!(key, Some(peer.public()));
                opened += 1;
            }
            Event::Frame { connection, header, payload } => {
                node.transport.send(connection, header, payload).unwrap();
                frames += 1;
            }
            Event::Closed { .. } => closed += 1,
            other => panic!("{other:?} of someone who may not enter"),
        }
    }
    assert_eq!((opened, frames), (3, 3));
    tokio::select! {
        event = node.next() => panic!("{event:?} of someone who may not enter"),
        exit = within("python to exit", child.wait()) => assert!(exit.unwrap().success()),
    }
}

#[tokio::test]
async fn an_empty_list_admits_nobody() {
    let (own, peer) = (KeyPair::generate(), KeyPair::generate());
    let (mut node, endpoint) = node(&own, &[]).await;
    let mut dealer = End::new(Dealer::connect_curve(&endpoint, &bounds(), peer, own.public()).unwrap());
    let told = async {
        let mut events = Vec::new();
        while dealer.transport.trouble().is_none() {
            // Nothing to report above; polled for what it notices.
            tokio::select! {
                () = dealer.transport.recv(&mut events) => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
            }
        }
        assert_eq!(events, []);
    };
    tokio::select! {
        event = node.next() => panic!("{event:?} of someone who may not enter"),
        () = within("the refusal", told) => {}
    }
}
