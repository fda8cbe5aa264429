//! That the hosts which tests of several machines stand on do what they say.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Hosts, Setup, skipped, until};

/// Long enough for a packet to come that is not lost.
const SOON: Duration = Duration::from_millis(200);

/// One byte there, and what came until then.
fn comes(from: &mut TcpStream, to: &mut TcpStream, byte: u8) -> bool {
    from.write_all(&[byte]).expect("there is room in the socket");
    to.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut got = [0];
    match to.read_exact(&mut got) {
        Ok(()) => got == [byte],
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(e) => panic!("{e}"),
    }
}

/// The next byte, however long the sender waits before it sends once more.
fn byte(from: &mut TcpStream) -> u8 {
    from.set_read_timeout(None).expect("no timeout");
    let mut got = [0];
    from.read_exact(&mut got).expect("a byte");
    got[0]
}

#[test]
fn cables_are_cut_and_healed() {
    let hosts = match Hosts::new(3) {
        Ok(hosts) => hosts,
        Err(why) => return skipped(&why),
    };
    // 1. Two of them are connected, each from its own thread; the addresses are theirs.
    let address = SocketAddr::from((hosts.address(1), 7071));
    let listener = hosts.inside(1, || TcpListener::bind(address).expect("a port of its own"));
    let mut one = hosts.inside(0, || TcpStream::connect(address).expect("a way there"));
    let (mut two, from) = listener.accept().expect("a connection");
    assert_eq!(from.ip(), hosts.address(0));
    assert!(comes(&mut one, &mut two, 1) && comes(&mut two, &mut one, 2));
    // 2. One way only is lost; what was sent comes when it is healed.
    hosts.mute(0, 1);
    assert!(!comes(&mut one, &mut two, 3), "it was muted");
    assert!(comes(&mut two, &mut one, 4), "the other way goes on");
    hosts.unmute(0, 1);
    assert_eq!(byte(&mut two), 3);
    // 3. Both ways are lost, and the third host still reaches the first.
    hosts.cut(1);
    assert!(!comes(&mut one, &mut two, 5) && !comes(&mut two, &mut one, 6), "it was cut");
    let open = SocketAddr::from((hosts.address(0), 7071));
    let other = hosts.inside(0, || TcpListener::bind(open).expect("a port of its own"));
    hosts.inside(2, || drop(TcpStream::connect_timeout(&open, SOON).expect("a way there")));
    drop(other);
    hosts.heal(1);
    assert_eq!((byte(&mut two), byte(&mut one)), (5, 6));
    // 4. A program runs there.
    let mut shown = hosts.command(2, "ip");
    let shown = shown.args(["-brief", "address"]).stdin(Stdio::null()).output().expect("it runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&format!("{}/24", hosts.address(2))), "{shown}");
    // 5. Nothing is left.
    let names: Vec<String> = (0..3).map(|at| hosts.name(at)).collect();
    drop((hosts, one, two, listener));
    until("they are gone", || {
        names.iter().all(|name| !std::path::Path::new("/run/netns").join(name).exists()).then_some(())
    });
}

#[test]
fn a_daemon_runs_on_a_host() {
    let hosts = match Hosts::new(1) {
        Ok(hosts) => hosts,
        Err(why) => return skipped(&why),
    };
    let daemon = Setup::new(&[]).on(&hosts, 0).up();
    assert_eq!(hosts.inside(0, || daemon.get("/healthz").status), 200);
    let http = SocketAddr::from((hosts.address(0), daemon.client().address.port()));
    hosts.inside(0, || TcpStream::connect(http).expect_err("it listens on the host's loopback only"));
}

#[test]
fn packets_are_held_up() {
    let hosts = match Hosts::new(2) {
        Ok(hosts) => hosts,
        Err(why) => return skipped(&why),
    };
    let delay = Duration::from_millis(30);
    if let Err(why) = hosts.delay(0, delay) {
        return skipped(&why);
    }
    let address = SocketAddr::from((hosts.address(1), 7071));
    let _listener = hosts.inside(1, || TcpListener::bind(address).expect("a port of its own"));
    let start = Instant::now();
    hosts.inside(0, || drop(TcpStream::connect(address).expect("a way there")));
    assert!(start.elapsed() >= delay, "{:?}", start.elapsed());
}
