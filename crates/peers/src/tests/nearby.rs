//! Nodes of one user on one machine: by sockets, and by tcp wherever that does not work.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::*;

/// Where a runtime folder would be.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("bourse/links")
    }

    async fn node(&self, own: &KeyPair, allowed: &[&KeyPair]) -> Node {
        Node::near(own, allowed, bounds(), Some(self.folder())).await
    }

    fn socket(&self, of: &KeyPair) -> PathBuf {
        Sockets::new(self.folder()).unwrap().path(of.public())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn by(node: &Node, other: &KeyPair) -> Option<Carrier> {
    node.peers.carriers().get(&other.public().0).copied()
}

/// Dials, and says something both ways.
async fn link(first: &mut Node, one: &KeyPair, second: &mut Node, two: &KeyPair) -> (Link, Link) {
    first.dial(second);
    let there = first.opened(two, true).await;
    let here = second.opened(one, false).await;
    first.send(there, "hello", "there");
    assert_eq!(second.frame(here).await, ("hello".into(), "there".into()));
    second.send(here, "hello", "here");
    assert_eq!(first.frame(there).await, ("hello".into(), "here".into()));
    (there, here)
}

#[tokio::test]
async fn a_node_on_this_machine_is_reached_by_its_socket() {
    let machine = Machine::new();
    let [one, two] = std::array::from_fn(|_| KeyPair::generate());
    let mut first = machine.node(&one, &[&two]).await;
    let mut second = machine.node(&two, &[&one]).await;
    // 1. Nobody else can enter.
    for folder in [machine.folder(), machine.0.path().join("bourse")] {
        assert_eq!(mode(&folder), 0o700);
    }
    assert_eq!(mode(&machine.socket(&two)), 0o600);
    // 2. The address does not matter.
    first.peers.dial(two.public().0, "no-such-host.invalid:7");
    let there = first.opened(&two, true).await;
    let here = second.opened(&one, false).await;
    assert_eq!((by(&first, &two), by(&second, &one)), (Some(Carrier::Ipc), Some(Carrier::Ipc)));
    first.send(there, "hello", "there");
    assert_eq!(second.frame(here).await, ("hello".into(), "there".into()));
    // 3. One that has no sockets comes by tcp, and is reached by tcp.
    let three = KeyPair::generate();
    let mut third = Node::new(&three, &[&one, &two]).await;
    first.peers.list.trust(three.public());
    second.peers.list.trust(three.public());
    link(&mut first, &one, &mut third, &three).await;
    link(&mut third, &three, &mut second, &two).await;
    assert_eq!((by(&first, &three), by(&second, &three)), (Some(Carrier::Tcp), Some(Carrier::Tcp)));
    assert_eq!((by(&third, &one), by(&third, &two)), (Some(Carrier::Tcp), Some(Carrier::Tcp)));
    // 4. Hung up on, it is not shown any more.
    first.peers.hang_up(there);
    first.closed(there).await;
    second.closed(here).await;
    assert_eq!((by(&first, &two), by(&second, &one)), (None, None));
}

#[tokio::test]
async fn a_node_on_another_network_is_not_reached_by_its_socket() {
    let machine = Machine::new();
    let [one, two] = std::array::from_fn(|_| KeyPair::generate());
    let mut first = machine.node(&one, &[&two]).await;
    let mut second = machine.node(&two, &[&one]).await;
    first.peers.sockets.as_mut().unwrap().network.1 += 1;
    link(&mut first, &one, &mut second, &two).await;
    assert_eq!(by(&first, &two), Some(Carrier::Tcp));
}

/// Whatever is at the place of a node's socket, the node is reached by tcp, soon.
#[tokio::test]
async fn what_is_no_socket_of_the_node_is_no_hindrance() {
    let [one, two, other] = std::array::from_fn(|_| KeyPair::generate());
    for what in ["nobody", "a file", "another key", "another key that admits nobody", "no key", "silence"] {
        let machine = Machine::new();
        let mut first = machine.node(&one, &[&two, &other]).await;
        let mut second = Node::new(&two, &[&one]).await;
        let socket = machine.socket(&two);
        let curve = |allowed: &[Key]| {
            let allowed = Allowed::from_iter(allowed.iter().copied());
            Some(Curve { own: other.clone(), allowed })
        };
        let imposter = |curve: Option<Curve>| {
            let endpoint = Endpoint::Ipc(socket.clone());
            async move {
                let mut router =
                    Router::new(RouterOptions { curve, ..RouterOptions::new(bounds()) }).unwrap();
                router.bind(&endpoint).await.unwrap();
                router
            }
        };
        let (mut listener, mut router) = (None, None);
        match what {
            "nobody" => drop(UnixListener::bind(&socket).unwrap()),
            "a file" => fs::write(&socket, "no socket").unwrap(),
            "another key" => router = Some(imposter(curve(&[one.public()])).await),
            "another key that admits nobody" => router = Some(imposter(curve(&[])).await),
            "no key" => router = Some(imposter(None).await),
            _ => listener = Some(UnixListener::bind(&socket).unwrap()),
        }
        assert!(fs::symlink_metadata(&socket).is_ok(), "{what}");
        let start = Instant::now();
        link(&mut first, &one, &mut second, &two).await;
        let took = start.elapsed();
        println!("{what}: {took:?}");
        assert_eq!(by(&first, &two), Some(Carrier::Tcp), "{what}");
        assert!(took < Duration::from_millis(REACH_MS_MAX), "{what}: {took:?}");
        if listener.is_none() {
            assert!(
                took < Duration::from_millis(dialed::NEARBY_MS_MAX),
                "{what}: it was waited for: {took:?}"
            );
        }
        if let Some(router) = &router {
            assert_eq!(router.connections(), 0, "{what}: nobody is let in");
        }
    }
}

#[tokio::test]
async fn the_list_of_keys_counts_at_the_socket() {
    let machine = Machine::new();
    let [one, two, stranger] = std::array::from_fn(|_| KeyPair::generate());
    let mut first = machine.node(&one, &[]).await;
    let allow = |node: &Node, keys: &[&KeyPair]| {
        let lines: String = keys.iter().map(|keys| format!("{} name\n", keys.public().to_hex())).collect();
        fs::write(node.data.path().join(allowed::ALLOWED_FILE), lines).unwrap();
    };
    let mut second = machine.node(&two, &[&one]).await;
    // 1. Who is not on it is not let in, and hears why, by tcp.
    let mut third = machine.node(&stranger, &[&one]).await;
    third.dial(&first);
    let why = first.is_quiet_during(third.not_reached(&one)).await;
    assert!(why.contains("does not admit this key"), "{why}");
    // 2. Who is taken off it is cut off, whoever has dialed.
    allow(&first, &[&two]);
    first.peers.look();
    for first_dials in [false, true] {
        let (here, there) = if first_dials {
            link(&mut first, &one, &mut second, &two).await
        } else {
            let (there, here) = link(&mut second, &two, &mut first, &one).await;
            (here, there)
        };
        assert_eq!(by(&first, &two), Some(Carrier::Ipc));
        allow(&first, &[]);
        assert_eq!(first.closed(here).await, "its key is not allowed any more");
        second.closed(there).await;
        second.dial(&first);
        assert!(second.not_reached(&one).await.contains("does not admit this key"));
        // 3. Allowed again, it is let in.
        allow(&first, &[&two]);
        first.peers.look();
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_node_that_ends_and_little_of_one_that_is_killed() {
    let machine = Machine::new();
    let [one, two] = std::array::from_fn(|_| KeyPair::generate());
    // 1. Two end: one in order, one is dropped.
    machine.node(&one, &[]).await.peers.shut_down().await;
    assert_eq!(machine.files(), [""; 0].map(PathBuf::from));
    drop(machine.node(&one, &[]).await);
    assert_eq!(machine.files(), [""; 0].map(PathBuf::from));
    // 2. What one leaves that was killed is removed by the next that comes.
    let socket = machine.socket(&one);
    let lock = socket.with_extension("lock");
    drop(UnixListener::bind(&socket).unwrap());
    fs::write(&lock, "").unwrap();
    let mut second = machine.node(&two, &[&one]).await;
    let socket_of_two = machine.socket(&two);
    let mut left = [socket_of_two.clone(), socket_of_two.with_extension("lock")];
    left.sort();
    assert_eq!(machine.files(), left);
    // 3. Or it takes it itself, when it comes again.
    drop(UnixListener::bind(&socket).unwrap());
    fs::write(&lock, "").unwrap();
    let mut first = machine.node(&one, &[&two]).await;
    link(&mut second, &two, &mut first, &one).await;
    assert_eq!(by(&second, &one), Some(Carrier::Ipc));
}

#[tokio::test]
async fn a_node_that_can_have_no_socket_does_without() {
    let [one, two] = std::array::from_fn(|_| KeyPair::generate());
    for what in ["a folder that others can enter", "a path that is too long", "another with its key"] {
        let machine = Machine::new();
        let mut folder = machine.folder();
        let mut other = None;
        match what {
            "a folder that others can enter" => {
                fs::create_dir(folder.parent().unwrap()).unwrap();
                fs::set_permissions(folder.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
            }
            "a path that is too long" => folder = machine.0.path().join("x".repeat(80)).join("links"),
            _ => other = Some(machine.node(&two, &[]).await),
        }
        let mut first = Node::near(&one, &[&two], bounds(), Some(folder.clone())).await;
        let mut second = Node::near(&two, &[&one], bounds(), Some(folder)).await;
        link(&mut first, &one, &mut second, &two).await;
        assert_eq!(by(&first, &two), Some(Carrier::Tcp), "{what}");
        drop(other);
    }
}
