//! CURVE: only those on the list get in, and their key is known above.

use bourse_transport::{
    Allowed, Curve, Dealer, DealerOptions, Endpoint, Event, Key, KeyPair, Router, RouterOptions, SendError,
    Transport,
};

use crate::node::{End, bounds, within};
use crate::python::{python, start};

async fn node(own: &KeyPair, allowed: &[Key]) -> (End<Router>, Endpoint) {
    node_with(own, &Allowed::from_iter(allowed.iter().copied())).await
}

async fn node_with(own: &KeyPair, allowed: &Allowed) -> (End<Router>, Endpoint) {
    let mut options = RouterOptions::new(bounds());
    options.curve = Some(Curve { own: own.clone(), allowed: allowed.clone() });
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
    let again = KeyPair::from_secret_hex(&keys.secret_hex()).unwrap();
    assert_eq!(again.public(), keys.public());
    let hex = keys.public().to_hex();
    assert_eq!(hex.len(), 64);
    for same in [hex.clone(), hex.to_uppercase()] {
        assert_eq!(Key::from_hex(&same).unwrap(), keys.public());
    }
    for bad in ["", "0", &hex[1..], &format!("{hex}0"), &format!("+{}", &hex[1..]), &"ä".repeat(32)] {
        assert!(Key::from_hex(bad).is_err(), "{bad}");
    }
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
    tokio::select! {
        event = node.next() => panic!("{event:?} of someone who may not enter"),
        () = trouble(&mut dealer.transport, "does not admit") => {}
    }
}

/// Polls a dealer that does not get through, until it says why.
async fn trouble(dealer: &mut Dealer, why: &str) {
    let mut events = Vec::new();
    let told = async {
        while !dealer.trouble().is_some_and(|trouble| trouble.contains(why)) {
            // Nothing to report above; polled for what it notices.
            tokio::select! {
                () = dealer.recv(&mut events) => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
            }
        }
    };
    within(why, told).await;
    assert_eq!(events, []);
}

#[tokio::test]
async fn a_dealer_that_expects_another_key_does_not_get_through_and_says_so() {
    let (own, peer, other) = (KeyPair::generate(), KeyPair::generate(), KeyPair::generate());
    let (mut node, endpoint) = node(&own, &[peer.public()]).await;
    let mut dealer = Dealer::connect_curve(&endpoint, &bounds(), peer, other.public()).unwrap();
    tokio::select! {
        event = node.next() => panic!("{event:?} of someone who wants another"),
        () = trouble(&mut dealer, "it has another key than expected") => {}
    }
}

#[tokio::test]
async fn a_dealer_says_what_it_finds_instead_of_a_router() {
    // 1. One that says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint::Tcp(silent.local_addr().unwrap());
    let (own, other) = (KeyPair::generate(), KeyPair::generate());
    let mut dealer = Dealer::connect_curve(&endpoint, &bounds(), own.clone(), other.public()).unwrap();
    trouble(&mut dealer, "nothing comes").await;
    // 2. One that says something else.
    let babbler = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::Tcp(babbler.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while let Ok((mut stream, _)) = babbler.accept().await {
            let _ = stream.write_all(&[b'x'; 100]).await;
        }
    });
    let mut dealer = Dealer::connect_curve(&endpoint, &bounds(), own.clone(), other.public()).unwrap();
    trouble(&mut dealer, "greeting").await;
    // 3. Nothing at all.
    drop(silent);
    let nowhere = "tcp://127.0.0.1:9".parse().unwrap();
    let mut dealer = Dealer::connect_curve(&nowhere, &bounds(), own, other.public()).unwrap();
    trouble(&mut dealer, "nobody answers").await;
}

#[tokio::test]
async fn the_list_can_change_while_the_router_runs() {
    let (own, peer) = (KeyPair::generate(), KeyPair::generate());
    let allowed = Allowed::nobody();
    let (mut node, endpoint) = node_with(&own, &allowed).await;
    let mut dealer =
        End::new(Dealer::connect_curve(&endpoint, &bounds(), peer.clone(), own.public()).unwrap());
    // 1. Not admitted, then admitted: the dealer, which goes on trying, gets through.
    trouble(&mut dealer.transport, "does not admit").await;
    assert!(allowed.admit(peer.public()) && !allowed.admit(peer.public()));
    let there = dealer.opened().await;
    let Event::Opened { connection: here, key } = node.next().await else { panic!("expected Opened") };
    assert_eq!(key, Some(peer.public()));
    // 2. Taken off the list, its connection lives until it is closed; then it does not come back.
    assert_eq!(allowed.replace([own.public()]), [peer.public()].into());
    assert!(!allowed.admits(peer.public()) && !allowed.revoke(peer.public()) && allowed.count() == 1);
    dealer.send(there, "still", "here");
    assert_eq!(node.frame(here).await.0, "still");
    node.transport.close(here);
    node.closed(here).await;
    dealer.over(there).await;
    tokio::select! {
        event = node.next() => panic!("{event:?} of one who was taken off the list"),
        () = trouble(&mut dealer.transport, "does not admit") => {}
    }
}

#[tokio::test]
async fn a_line_ends_with_its_connection() {
    let (own, peer) = (KeyPair::generate(), KeyPair::generate());
    let (mut node, endpoint) = node(&own, &[peer.public()]).await;
    let options = DealerOptions {
        curve: Some((peer, own.public())),
        heartbeat_ms: 1_000,
        ..DealerOptions::new(bounds())
    };
    let mut dealer = End::new(Dealer::new(&endpoint, options).unwrap());
    assert!(dealer.transport.line().is_none());
    let there = dealer.opened().await;
    let here = node.opened().await;
    let line = dealer.transport.line().unwrap();
    line.send("header".into(), "payload".into()).unwrap();
    assert_eq!(node.frame(here).await, ("header".into(), "payload".into()));
    // A header alone, in one part, both ways.
    line.send_part("alone".into()).unwrap();
    assert_eq!(node.frame(here).await, ("alone".into(), "".into()));
    node.transport.send_part(here, "alone".into()).unwrap();
    assert_eq!(dealer.frame(there).await, ("alone".into(), "".into()));
    node.transport.close(here);
    node.closed(here).await;
    dealer.over(there).await;
    assert_eq!(line.send("header".into(), "late".into()), Err(SendError::Gone));
    // The next life has a line of its own.
    dealer.opened().await;
    let here = node.opened().await;
    assert_eq!(line.send("header".into(), "late".into()), Err(SendError::Gone));
    dealer.transport.line().unwrap().send("next".into(), "life".into()).unwrap();
    assert_eq!(node.frame(here).await, ("next".into(), "life".into()));
}
