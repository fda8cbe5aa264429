//! Two and more of them in one process, over loopback.

use std::collections::VecDeque;
use std::fs;
use std::future::Future;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

mod nearby;
mod pace;

/// Far beyond what anything here takes; reached only by a test that fails.
const DEADLINE: Duration = Duration::from_secs(20);
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// A node's lines, with their events read one at a time.
struct Node {
    peers: Peers,
    found: VecDeque<PeerEvent>,
    data: TempDir,
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

fn bounds() -> Bounds {
    Bounds {
        send_frames_max: SEND_FRAMES_MAX,
        connections_max: ACCEPTED_MAX,
        ..Bounds::new(HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX)
    }
}

impl Node {
    async fn new(own: &KeyPair, allowed: &[&KeyPair]) -> Self {
        Self::with(own, allowed, bounds()).await
    }

    async fn with(own: &KeyPair, allowed: &[&KeyPair], bounds: Bounds) -> Self {
        Self::near(own, allowed, bounds, None).await
    }

    /// The same, with sockets for nodes of this machine in a folder.
    async fn near(own: &KeyPair, allowed: &[&KeyPair], bounds: Bounds, ipc: Option<PathBuf>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let list = List::load(data.path(), allowed.iter().map(|keys| keys.public()), &[]).unwrap();
        let any = ([127, 0, 0, 1], 0).into();
        let peers = Peers::with(own.clone(), list, bounds, Some(any), ipc).await.unwrap();
        Self { peers, found: VecDeque::new(), data }
    }

    fn address(&self) -> String {
        self.peers.address().unwrap().to_string()
    }

    fn dial(&mut self, other: &Self) {
        self.peers.dial(other.peers.key(), &other.address());
    }

    async fn next(&mut self) -> PeerEvent {
        while self.found.is_empty() {
            let mut events = Vec::new();
            within("an event", self.peers.recv(&mut events)).await;
            assert!(!events.is_empty(), "recv returns with something");
            self.found.extend(events);
        }
        self.found.pop_front().unwrap()
    }

    /// Nothing happens as long as the other future goes on.
    async fn is_quiet_during<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::select! {
            event = self.next() => panic!("{event:?} where nothing should happen"),
            done = within("the other", other) => done,
        }
    }

    async fn opened(&mut self, by: &KeyPair, dialed: bool) -> Link {
        match self.next().await {
            PeerEvent::Opened { link, key, dialed: is_dialed } => {
                assert_eq!((key, is_dialed), (by.public().0, dialed));
                link
            }
            other => panic!("expected Opened, got {other:?}"),
        }
    }

    async fn frame(&mut self, from: Link) -> (Bytes, Bytes) {
        match self.next().await {
            PeerEvent::Frame { link, header, payload } if link == from => (header, payload),
            other => panic!("expected a frame of {from}, got {other:?}"),
        }
    }

    async fn closed(&mut self, which: Link) -> String {
        match self.next().await {
            PeerEvent::Closed { link, why } if link == which => why,
            other => panic!("expected Closed of {which}, got {other:?}"),
        }
    }

    async fn not_reached(&mut self, which: &KeyPair) -> String {
        match self.next().await {
            PeerEvent::NotReached { node, why } if node == which.public().0 => why,
            other => panic!("expected NotReached, got {other:?}"),
        }
    }

    fn send(&mut self, to: Link, header: &'static str, payload: &'static str) {
        self.peers.send(to, header.into(), payload.into()).unwrap();
    }
}

/// Two nodes with a link that the first has dialed.
async fn pair() -> (Node, Link, Node, Link) {
    let (one, two) = (KeyPair::generate(), KeyPair::generate());
    let (mut first, mut second) = (Node::new(&one, &[&two]).await, Node::new(&two, &[&one]).await);
    first.dial(&second);
    let there = first.opened(&two, true).await;
    let here = second.opened(&one, false).await;
    (first, there, second, here)
}

#[tokio::test]
async fn two_nodes_speak_and_hang_up_and_dial_again() {
    let (mut first, there, mut second, here) = pair().await;
    // 1. Both ways, in order.
    for number in 0..500_u32 {
        first.peers.send(there, number.to_string().into(), vec![7; number as usize].into()).unwrap();
    }
    for number in 0..500_u32 {
        let (header, payload) = second.frame(here).await;
        assert_eq!((header, payload.len()), (number.to_string().into(), number as usize));
        second.peers.send(here, "back".into(), payload).unwrap();
    }
    for number in 0..500 {
        assert_eq!(first.frame(there).await.1.len(), number);
    }
    // 2. The one that was dialed hangs up; its last words arrive, and nobody dials by itself.
    second.send(here, "last", "words");
    second.peers.hang_up(here);
    assert_eq!(second.closed(here).await, "this node has hung up");
    assert_eq!(first.frame(there).await, ("last".into(), "words".into()));
    assert_eq!(first.closed(there).await, dialed::IN_ORDER);
    for link in [here, there] {
        assert_eq!(first.peers.send(link, "x".into(), Bytes::new()), Err(SendError::Gone));
        assert_eq!(second.peers.send(link, "x".into(), Bytes::new()), Err(SendError::Gone));
    }
    // 3. It is dialed again; then the dialing one hangs up.
    first.dial(&second);
    let PeerEvent::Opened { link: again, .. } = first.next().await else { panic!("expected Opened") };
    let PeerEvent::Opened { link: later, .. } = second.next().await else { panic!("expected Opened") };
    assert!(again != there && later != here, "links are never used twice");
    first.send(again, "good", "bye");
    first.peers.hang_up(again);
    assert_eq!(first.closed(again).await, "this node has hung up");
    let told = second.frame_and_end(later);
    tokio::select! {
        event = first.next() => panic!("{event:?} after the end"),
        frame = told => assert_eq!(frame, ("good".into(), "bye".into())),
    }
}

impl Node {
    /// A frame, and then the end.
    async fn frame_and_end(&mut self, link: Link) -> (Bytes, Bytes) {
        let frame = self.frame(link).await;
        self.closed(link).await;
        frame
    }
}

#[tokio::test]
async fn a_node_is_dialed_once_at_a_time() {
    let (mut first, there, mut second, here) = pair().await;
    for _ in 0..3 {
        first.dial(&second);
    }
    first.send(there, "hello", "");
    assert_eq!(second.frame(here).await.0, "hello");
    second.send(here, "again", "");
    assert_eq!(first.frame(there).await.0, "again");
    // The other one may dial as well: that is another link.
    second.dial(&first);
    let PeerEvent::Opened { dialed: true, .. } = second.next().await else { panic!("expected Opened") };
    let PeerEvent::Opened { dialed: false, .. } = first.next().await else { panic!("expected Opened") };
}

#[tokio::test]
async fn who_is_not_reached_is_told_with_the_reason_and_in_time() {
    let (one, two, other) = (KeyPair::generate(), KeyPair::generate(), KeyPair::generate());
    let mut first = Node::new(&one, &[&one, &two, &other]).await;
    let mut second = Node::new(&two, &[]).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [nowhere, silent] = ["127.0.0.1:9".to_owned(), silent.local_addr().unwrap().to_string()];
    let there = second.address();
    let stranger = KeyPair::generate();
    for (what, node, address, why) in [
        ("nobody listens", &two, &nowhere, "nobody answers"),
        ("nothing is said", &two, &silent, "nothing comes"),
        ("it has another key", &other, &there, "it has another key than expected"),
        ("we are not on its list", &two, &there, "does not admit this key"),
        ("it is not on ours", &stranger, &there, "its key is not allowed here"),
        ("it is this node", &one, &there, "own key"),
        ("no such name", &two, &"no-such-host.invalid:7".to_owned(), "address cannot be found"),
        ("no address", &two, &"nonsense".to_owned(), "address cannot be found"),
    ] {
        let start = Instant::now();
        first.peers.dial(node.public().0, address);
        let told = second.is_quiet_during(first.not_reached(node)).await;
        assert!(told.contains(why), "{what}: {told}");
        assert!(
            start.elapsed() < Duration::from_millis(REACH_MS_MAX + 1_000),
            "{what}: {:?}",
            start.elapsed()
        );
        assert!(first.peers.dialed.is_empty() && first.peers.nodes.is_empty(), "{what}");
    }
    // It comes later: a name, and an address of it where nothing listens.
    let mut second = Node::new(&two, &[&one]).await;
    let name = format!("localhost:{}", second.peers.address().unwrap().port());
    first.peers.dial(two.public().0, &name);
    first.opened(&two, true).await;
    second.opened(&one, false).await;
}

#[tokio::test]
async fn a_key_that_is_taken_off_the_list_is_cut_off() {
    let [one, two, three] = std::array::from_fn(|_| KeyPair::generate());
    let mut first = Node::new(&one, &[]).await;
    let allow = |node: &Node, keys: &[&KeyPair]| {
        let lines: String = keys.iter().map(|keys| format!("{} name\n", keys.public().to_hex())).collect();
        fs::write(node.data.path().join(allowed::ALLOWED_FILE), lines).unwrap();
    };
    let mut second = Node::new(&two, &[&one]).await;
    let mut third = Node::new(&three, &[&one]).await;
    // 1. The file comes while it runs.
    allow(&first, &[&two, &three]);
    first.peers.look();
    second.dial(&first);
    let to_first = second.opened(&one, true).await;
    let from_second = first.opened(&two, false).await;
    first.dial(&third);
    let to_third = first.opened(&three, true).await;
    let from_first = third.opened(&one, false).await;
    // 2. It loses both: the link that was accepted, and the one that was dialed. Looking is done by itself.
    allow(&first, &[]);
    let mut ended = Vec::new();
    for _ in 0..2 {
        let PeerEvent::Closed { link, why } = first.next().await else { panic!("expected Closed") };
        assert_eq!(why, "its key is not allowed any more");
        ended.push(link);
    }
    ended.sort_unstable();
    let mut both = [from_second, to_third];
    both.sort_unstable();
    assert_eq!(ended, both);
    second.closed(to_first).await;
    third.closed(from_first).await;
    // 3. Neither gets in again, nor is dialed.
    second.dial(&first);
    assert!(second.not_reached(&one).await.contains("does not admit"));
    first.dial(&third);
    assert!(first.not_reached(&three).await.contains("not allowed here"));
    // 4. Allowed again, it is.
    allow(&first, &[&two]);
    first.peers.look();
    second.dial(&first);
    second.opened(&one, true).await;
    first.opened(&two, false).await;
}

/// One that stops reading gets a typed refusal, and the others do not notice.
#[tokio::test]
async fn a_stalled_node_holds_up_nobody() {
    let [one, two, three] = std::array::from_fn(|_| KeyPair::generate());
    let bounds = Bounds { send_frames_max: 64, recv_frames_max: 64, ..bounds() };
    let mut first = Node::with(&one, &[&two, &three], bounds.clone()).await;
    let mut third = Node::new(&three, &[&one]).await;
    first.dial(&third);
    let lively = first.opened(&three, true).await;
    let back = third.opened(&one, false).await;
    for accepts in [true, false] {
        let mut stalled = Node::with(&two, &[&one], bounds.clone()).await;
        let link = if accepts {
            stalled.dial(&first);
            stalled.opened(&one, true).await;
            first.opened(&two, false).await
        } else {
            first.dial(&stalled);
            let link = first.opened(&two, true).await;
            stalled.opened(&one, false).await;
            link
        };
        // 1. It reads nothing, and is sent to until there is no more room. In between, the other one is spoken with.
        let payload = Bytes::from(vec![1; 64 << 10]);
        let mut sent = 0;
        let mut slowest = Duration::ZERO;
        while first.peers.send(link, "flood".into(), payload.clone()).is_ok() {
            sent += 1;
            assert!(sent < 10_000, "there is no bound");
            let start = Instant::now();
            first.send(lively, "ping", "");
            assert_eq!(third.frame(back).await.0, "ping");
            third.send(back, "pong", "");
            assert_eq!(first.frame(lively).await.0, "pong");
            slowest = slowest.max(start.elapsed());
        }
        assert_eq!(first.peers.send(link, "flood".into(), payload), Err(SendError::Full));
        println!(
            "accepted {accepts}: {sent} frames of 64 KiB until Full; slowest round trip of the other {slowest:?}"
        );
        // 2. It is hung up on, which is done at once.
        first.peers.hang_up(link);
        first.closed(link).await;
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    }
}

/// One that sends faster than it is read is held up, and takes the turn from nobody.
#[tokio::test]
async fn a_flood_takes_the_turn_from_nobody() {
    let [one, two, three] = std::array::from_fn(|_| KeyPair::generate());
    let mut first = Node::new(&one, &[&two, &three]).await;
    let (mut flooding, mut third) = (Node::new(&two, &[&one]).await, Node::new(&three, &[&one]).await);
    first.dial(&flooding);
    let flood = first.opened(&two, true).await;
    let back = flooding.opened(&one, false).await;
    first.dial(&third);
    let lively = first.opened(&three, true).await;
    let there = third.opened(&one, false).await;
    let flooding = tokio::spawn(async move {
        let mut sent = 0;
        while sent < 20_000 {
            match flooding.peers.send(back, "flood".into(), Bytes::new()) {
                Ok(()) => sent += 1,
                Err(SendError::Full) => tokio::task::yield_now().await,
                Err(SendError::Gone) => panic!("it has gone"),
            }
        }
        flooding
    });
    let (mut floods, mut pings, mut since) = (0, 0, 0);
    let mut longest = 0;
    first.send(lively, "ping", "");
    while floods < 20_000 {
        tokio::select! {
            event = first.next() => match event {
                PeerEvent::Frame { link, .. } if link == flood => { floods += 1; since += 1; }
                PeerEvent::Frame { link, .. } => {
                    assert_eq!(link, lively);
                    (pings, longest, since) = (pings + 1, longest.max(since), 0);
                    first.send(lively, "ping", "");
                }
                other => panic!("{other:?}"),
            },
            event = third.next() => {
                assert!(matches!(event, PeerEvent::Frame { .. }));
                third.send(there, "pong", "");
            }
        }
    }
    flooding.await.unwrap();
    println!("{pings} round trips during 20000 frames, at most {longest} frames between two");
    assert!(pings > 5, "{pings}");
}

#[tokio::test]
async fn strangers_are_never_seen_above_and_disturb_nobody() {
    let (mut first, there, mut second, here) = pair().await;
    let address = second.peers.address().unwrap();
    let mut strangers = Vec::new();
    let mut plain = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 1];
    plain.extend(b"NULL");
    plain.resize(64, 0);
    let mut half_curve = plain.clone();
    half_curve[12..17].copy_from_slice(b"CURVE");
    half_curve.extend([4, 200]);
    half_curve.extend(b"\x05HELLO\x01\x00");
    half_curve.extend([9; 193]);
    for garbage in
        [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 5000], vec![0xff; 5000], plain, half_curve, vec![]]
    {
        for _ in 0..10 {
            let mut stranger = TcpStream::connect(address).await.unwrap();
            let _ = stranger.write_all(&garbage).await;
            strangers.push(stranger);
        }
    }
    // They are there, some of them wait; the link goes on, and nothing else is told.
    for _ in 0..20 {
        first.send(there, "ping", "");
        assert_eq!(second.frame(here).await.0, "ping");
        second.send(here, "pong", "");
        assert_eq!(first.frame(there).await.0, "pong");
    }
    // Those that spoke nonsense are cut off.
    for mut stranger in strangers.into_iter().take(30) {
        let mut rest = Vec::new();
        let _ = second.is_quiet_during(stranger.read_to_end(&mut rest)).await;
    }
    assert_eq!(second.peers.listening.as_ref().unwrap().accepted.len(), 1);
}

#[tokio::test]
async fn frames_beyond_the_bounds_end_the_link() {
    // 1. A header that is too large, both ways; made by one whose own bound is larger.
    for dialed in [false, true] {
        let (mut first, there, mut second, here) = pair().await;
        let header = Bytes::from(vec![0; HEADER_BYTES_MAX + 1]);
        let (why, mut other) = if dialed {
            let listening = second.peers.listening.as_mut().unwrap();
            listening.router.send(connection(here), header, "x".into()).unwrap();
            (first.closed(there).await, second)
        } else {
            let line = first.peers.dialed[&there].line.as_ref().unwrap();
            line.send(header, "x".into()).unwrap();
            (second.closed(here).await, first)
        };
        assert!(why.contains(&format!("header of {} bytes", HEADER_BYTES_MAX + 1)), "{why}");
        assert!(matches!(other.next().await, PeerEvent::Closed { .. }));
    }
    // 2. Something that no node sends.
    let (mut first, there, mut second, here) = pair().await;
    first.peers.dialed[&there].line.as_ref().unwrap().send_part("\0\0\0\x05four".into()).unwrap();
    assert!(second.closed(here).await.contains("no frame of a node"));
    first.closed(there).await;
    // 3. The largest frame passes, one byte more does not.
    let (mut first, there, mut second, here) = pair().await;
    let payload = Bytes::from(vec![0; PAYLOAD_BYTES_MAX]);
    first.peers.send(there, vec![0; HEADER_BYTES_MAX].into(), payload).unwrap();
    assert_eq!(second.frame(here).await.1.len(), PAYLOAD_BYTES_MAX);
    let payload = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    first.peers.send(there, vec![0; HEADER_BYTES_MAX].into(), payload).unwrap();
    second.closed(here).await;
    first.closed(there).await;
}

#[tokio::test]
async fn a_dropped_recv_loses_nothing() {
    for dialed in [false, true] {
        let (first, there, second, here) = pair().await;
        let ((mut sender, to), (mut node, from)) =
            if dialed { ((second, here), (first, there)) } else { ((first, there), (second, here)) };
        let sending = tokio::spawn(async move {
            for number in 0..3000 {
                sender.peers.send(to, number.to_string().into(), Bytes::new()).unwrap();
                if number % 50 == 0 {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
            }
            sender
        });
        let (mut next, mut dropped) = (0, 0);
        let mut events = Vec::new();
        while next < 3000 {
            tokio::select! {
                biased;
                () = node.peers.recv(&mut events) => {}
                () = tokio::task::yield_now() => dropped += 1,
            }
            for event in events.drain(..) {
                let PeerEvent::Frame { link, header, .. } = event else { panic!("{event:?}") };
                assert_eq!((link, header), (from, next.to_string().into()));
                next += 1;
            }
        }
        assert!(dropped > 0, "no recv was dropped: the test shows nothing");
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_shut_down_lets_the_last_words_out() {
    let (mut first, there, mut second, here) = pair().await;
    first.send(there, "good", "bye");
    first.peers.shut_down().await;
    assert_eq!(second.frame(here).await, ("good".into(), "bye".into()));
    second.closed(here).await;
}

#[tokio::test]
async fn what_is_said_at_one_moment_travels_together_and_arrives_in_order() {
    use crate::carry::{self, Came};
    use bourse_node::LinkId;
    use bourse_wire::peer::v1 as peer;
    use bourse_wire::peer::v1::to_peer::Message;

    let (mut a, link, mut b, _) = pair().await;
    let fetch = |n: u8| Message::Fetch(peer::Fetch { digest: vec![n; 4].into() });
    // 1. Those without a payload ride with the one before; one with a payload is a frame of its own.
    a.peers.say(LinkId(link), fetch(0), Bytes::from_static(b"first"));
    (1..=3).for_each(|n| _ = a.peers.say(LinkId(link), fetch(n), Bytes::new()));
    a.peers.say(LinkId(link), fetch(4), Bytes::from_static(b"second"));
    a.peers.flush();
    // 2. More than fit travel in several.
    (5..=200).for_each(|n| _ = a.peers.say(LinkId(link), fetch(n), Bytes::new()));
    a.peers.flush();
    a.peers.flush();
    let node = bourse_node::Node::new(bourse_node::Config::new(1), bourse_wire::id::Incarnation(1), [1; 32]);
    let (mut said, mut frames) = (Vec::new(), 0);
    while said.len() < 201 {
        if let Came::Frame { message, payload, more, .. } = carry::read(&node, b.next().await) {
            frames += 1;
            said.extend(carry::in_order(message, payload, more));
        }
    }
    let wanted = (0..=200).map(|n| {
        let payload: &[u8] = match n {
            0 => b"first",
            4 => b"second",
            _ => b"",
        };
        (Some(fetch(n)), Bytes::copy_from_slice(payload))
    });
    assert_eq!(said, wanted.collect::<Vec<_>>());
    assert!((4..8).contains(&frames), "{frames}");
}

#[tokio::test]
async fn whoever_is_cut_off_hears_the_last_words() {
    use bourse_market::NodeId;
    use bourse_market::roster::{Entry, Standing};
    use bourse_node::LinkId;
    use bourse_wire::peer::v1::{Beat, to_peer::Message};

    let (mut first, there, mut second, here) = pair().await;
    let entry = Entry {
        key: NodeId(second.peers.key()),
        revision: 1,
        standing: Standing::Revoked,
        name: String::new(),
    };
    first.peers.say(LinkId(there), Message::Beat(Beat {}), Bytes::from_static(b"you are revoked"));
    first.peers.obey(&[entry]);
    first.closed(there).await;
    assert_eq!(second.frame(here).await.1, "you are revoked");
}
