//! A program of its own on a grid of real daemons, by the crate `bourse-client`: it joins with a ticket, asks what there is, calls
//! straight to sellers, and is told in words what goes wrong.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread;
use std::time::Duration;

use bourse_client::{
    CallId, Client, Code, Error, Horizon, KeyPair, Options, Overflow, Seed, Standing, Value,
};
use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;

use crate::support::command::{served, works};
use crate::support::{Daemon, Setup, joined, until, wait_for};

/// What the first one serves, which is not what the client is after: it is there first, keeps the store, and makes tickets.
const OFFICE: (&str, &str) = (
    "office.py",
    "
    from bourse import function

    @function
    def hello():
        return 'hello'
    ",
);

const WORK: (&str, &str) = (
    "work.py",
    "
    import os, time
    from bourse import context, function, state

    __version__ = '1.2.0'
    NODE = int(open(os.path.join(os.path.dirname(__file__), 'node.txt')).read())

    def note(path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, f'{NODE}\\n'.encode())
        os.close(file)

    @function
    def where():
        return NODE

    @function
    def add(a: int, b: int = 0):
        '''Adds.'''
        return a + b

    @function
    def echo(value):
        return value

    @function(retry={'attempts': 1})
    def fail():
        raise KeyError('no such thing')

    @function
    def count():
        n = state('counter/n').get(0) + 1
        state('counter/n').set(n)
        return n

    def held(gate):
        try:
            note(gate + '/began')
            while not os.path.exists(gate + '/open'):
                time.sleep(0.005)
                if context.cancelled:
                    raise RuntimeError('nobody waits')
        except BaseException:
            note(gate + '/stopped')
            raise
        return NODE

    @function
    def hold(gate: str):
        return held(gate)

    @function(idempotent=True)
    def hold_again(gate: str):
        return held(gate)

    @function(queue='parcels')
    def parcel(message):
        state('parcels/last').set(message)

    @function
    def last():
        return state('parcels/last').get(None)
    ",
);

fn office() -> Setup {
    Setup::new(&[OFFICE]).argument("--listen").argument("127.0.0.1:0")
}

/// One that works, with this number, and one slot.
fn worker(number: usize) -> Setup {
    let setup = Setup::new(&[WORK]).argument("--listen").argument("127.0.0.1:0").set("running", "1");
    setup.write("node.txt", &number.to_string());
    setup
}

/// The office, and so many workers, which have joined it: from 1.
fn grid(workers: usize) -> Vec<Daemon> {
    joined(std::iter::once(office()).chain((1..=workers).map(worker)))
}

fn ticket(daemon: &Daemon) -> String {
    works(&["ticket", "-C", &served(daemon), "--quiet"])
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

/// Awaits something with nothing but the standard library.
fn without_a_runtime<T>(work: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut work = pin!(work);
    loop {
        match work.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

/// A client that is let in by the first of them, and knows what the workers serve.
async fn client(grid: &[Daemon]) -> Client {
    let options = Options::default().queue_wait(Duration::from_secs(30));
    let client = Client::join_in_memory(&ticket(&grid[0]), options).await.expect("it is let in");
    knows(&client, "work").await;
    client
}

/// Waits until it is known that a module is served.
async fn knows(client: &Client, module: &str) {
    loop {
        let modules = client.modules().await.expect("it runs");
        if modules.iter().any(|known| known.name == module) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A folder by which a test says when a function may go on.
struct Gate(TempDir);

impl Gate {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> String {
        self.0.path().to_str().expect("text").to_owned()
    }

    fn lines(&self, name: &str) -> Vec<usize> {
        let path: PathBuf = self.0.path().join(name);
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Where it has begun.
    fn began(&self) -> usize {
        until("it begins", || self.lines("began").last().copied())
    }

    fn open(&self) {
        fs::write(self.0.path().join("open"), "").expect("a file");
    }
}

fn code(error: &Error) -> Code {
    error.code().unwrap_or_else(|| panic!("{error}"))
}

/// The keys of those to whom a daemon sells.
fn buyers(daemon: &Daemon) -> Vec<String> {
    let market = daemon.get("/v1/market").ok();
    let sold = market["sold"].as_array().expect("an array");
    sold.iter().map(|channel| channel["node"].as_str().expect("a key").to_owned()).collect()
}

#[test]
fn it_calls_straight_to_whoever_serves_and_goes_on_without_those_it_came_by() {
    let mut grid = grid(1);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    run(async {
        // 1. It joins by way of the office, and sees who and what is there.
        let client =
            Client::join(&ticket(&grid[0]), &keys, Options::default().name("till")).await.expect("in");
        knows(&client, "work").await;
        let key = client.key().to_hex();
        let nodes = client.nodes().await.expect("nodes");
        assert_eq!(nodes.iter().filter(|node| node.this && node.key == client.key()).count(), 1);
        assert_eq!(nodes.iter().filter(|node| node.store && !node.this).count(), 1, "{nodes:?}");
        let modules = client.modules().await.expect("modules");
        let work = modules.iter().find(|module| module.name == "work").expect("work");
        let add = work.functions.iter().find(|function| function.name == "add").expect("add");
        assert_eq!((work.version.to_string(), add.doc.as_str()), ("1.2.0".to_owned(), "Adds."));
        assert_eq!(add.parameters.iter().map(|p| p.required).collect::<Vec<_>>(), [true, false]);
        // 2. It calls what the office does not serve. The worker has sold to the client and to nobody else; the office has nothing of it.
        let reply = client.call("work.add").arg(40).named("b", 2).version("^1.1").await.expect("a sum");
        assert_eq!(reply.value(), Ok(Value::Int(42)));
        let near = client.call("work.where").horizon(Horizon::Machine).await.expect("a node");
        assert_eq!(near.value(), Ok(Value::Int(1)));
        assert_eq!(buyers(&grid[1]), std::slice::from_ref(&key));
        assert!(grid[0].get("/v1/market").ok()["bought"].as_array().expect("an array").is_empty());
        let bought = client.market().await.expect("the market").bought;
        assert_eq!(bought.iter().map(|b| b.module.as_str()).collect::<Vec<_>>(), ["work"]);
        assert!(bought.iter().all(|b| buyers(&grid[1]).contains(&key) && b.node != client.key()));
        // 3. Clones and tasks share it.
        let calls: Vec<_> = (0..20)
            .map(|n| tokio::spawn(client.clone().call("work.add").arg(n).arg(1).into_future()))
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            let sum = call.await.expect("no panic").expect("a sum").value();
            assert_eq!(sum, Ok(Value::Int(n as i128 + 1)));
        }
        // 4. The office, by which it came and which keeps the store, is gone: calls go on, what needs the store is told.
        let office = grid.remove(0).stop();
        for n in 0..5 {
            let sum = client.call("work.add").arg(n).await.expect("it goes on without the office");
            assert_eq!(sum.value(), Ok(Value::Int(n.into())));
        }
        let told = client.call("work.add").arg(1).queue_wait(Duration::from_millis(200)).start().await;
        assert_eq!(code(&told.expect_err("no store")), Code::StoreUnavailable);
        // 5. It leaves: the worker has its slots back, and nobody waits for the client.
        client.close().await;
        wait_for("what was sold is given back", || buyers(&grid[0]).is_empty());
        assert_eq!(client.call("work.where").await, Err(Error::Closed));
        assert!(matches!(client.nodes().await, Err(Error::Closed)));
        // 6. It comes back without a ticket, by way of those that it knew.
        let office = office.up();
        let client = Client::open(&keys, Options::default()).await.expect("its keys are enough");
        assert_eq!(client.key().to_hex(), key);
        knows(&client, "work").await;
        assert_eq!(client.call("work.where").await.expect("a node").value(), Ok(Value::Int(1)));
        client.close().await;
        drop(office);
    });
}

#[test]
fn what_is_durable_is_accepted_by_the_grid_and_its_end_awaited() {
    let grid = grid(1);
    run(async {
        let client = client(&grid).await;
        // 1. It is done once, also when it is asked for twice.
        let count = || client.call("work.count").idempotency_key("k").start();
        let (one, again) = (count().await.expect("accepted"), count().await.expect("accepted"));
        assert_eq!(one, again);
        assert_eq!(client.outcome(one).await.expect("a result").value(), Ok(Value::Int(1)));
        assert!(matches!(client.standing(one).await, Ok(Standing::Ended(Ok(_)))));
        // 2. State is the grid's, whoever calls.
        assert_eq!(client.call("work.count").await.expect("a number").value(), Ok(Value::Int(2)));
        assert_eq!(grid[1].call("work.count", json!([])).ok(), 3);
        // 3. One that fails, and one that there is not.
        let failed = client.call("work.fail").start().await.expect("accepted");
        let error = client.outcome(failed).await.expect_err("it fails");
        assert_eq!(code(&error), Code::FunctionError);
        assert!(
            error.to_string().contains("KeyError") && error.to_string().contains("no such thing"),
            "{error}"
        );
        let none = CallId::new(0, [7; 10]);
        assert_eq!(client.standing(none).await, Ok(Standing::Unknown));
        assert_eq!(code(&client.outcome(none).await.expect_err("there is none")), Code::NotFound);
        // 4. One that is ended by whoever has started it.
        let gate = Gate::new();
        let held = client.call("work.hold").arg(gate.path()).start().await.expect("accepted");
        gate.began();
        assert!(matches!(client.standing(held).await, Ok(Standing::Live { running: true, .. })));
        client.cancel(held).await.expect("it is cancelled");
        assert_eq!(code(&client.outcome(held).await.expect_err("it was ended")), Code::Cancelled);
        // 5. A message for a queue is a call of the function that has it.
        let value = Value::from(json!({"to": "alder", "weight": 3}));
        let published = client.publish_to_queue("parcels", value.clone()).await.expect("it is taken");
        assert_eq!(published.calls.len(), 1);
        client.outcome(published.calls[0]).await.expect("it is done");
        assert_eq!(client.call("work.last").await.expect("a value").value(), Ok(value));
        assert_eq!(client.publish_to_topic("news.none", ()).await.expect("it is taken").subscribers, 0);
        client.close().await;
    });
}

#[test]
fn a_call_that_is_dropped_stops_where_it_runs() {
    let grid = grid(1);
    run(async {
        let client = client(&grid).await;
        let gate = Gate::new();
        let call = tokio::spawn(client.call("work.hold").arg(gate.path()).into_future());
        // The task has to be let in before it can be looked for.
        tokio::task::yield_now().await;
        gate.began();
        call.abort();
        assert!(call.await.expect_err("it is aborted").is_cancelled());
        wait_for("the function hears of it", || gate.lines("stopped") == [1]);
        // The slot is free again, for this client as for others. Of what waits in line nothing ever begins.
        let gate = Gate::new();
        let first = tokio::spawn(client.call("work.hold").arg(gate.path()).into_future());
        tokio::task::yield_now().await;
        gate.began();
        let late = client.call("work.where").overflow(Overflow::Reject).await.expect_err("the slot is taken");
        assert_eq!(code(&late), Code::NoCapacity);
        let behind = Gate::new();
        let second = tokio::spawn(client.call("work.hold").arg(behind.path()).into_future());
        tokio::task::yield_now().await;
        second.abort();
        gate.open();
        assert_eq!(first.await.expect("no panic").expect("a node").value(), Ok(Value::Int(1)));
        assert_eq!(client.call("work.where").await.expect("a node").value(), Ok(Value::Int(1)));
        assert!(behind.lines("began").is_empty());
        client.close().await;
    });
}

#[test]
fn a_seller_that_dies_is_told_or_made_up_for() {
    let mut grid = grid(2);
    run(async {
        let client = client(&grid).await;
        // 1. What may not run twice is told. The call has a deadline of its own, which is not what ends it.
        let gate = Gate::new();
        let call = tokio::spawn(client.call("work.hold").arg(gate.path()).into_future());
        tokio::task::yield_now().await;
        let at = gate.began();
        let killed = grid.remove(at).kill();
        let error = call.await.expect("no panic").expect_err("nobody knows what it has done");
        assert_eq!(code(&error), Code::InstanceCrashed, "{error}");
        let back = killed.up();
        grid.insert(at, back);
        // 2. What may is tried again, wherever there is a slot.
        let gate = Gate::new();
        let call = tokio::spawn(client.call("work.hold_again").arg(gate.path()).into_future());
        tokio::task::yield_now().await;
        let at = gate.began();
        let killed = grid.remove(at).kill();
        wait_for("it begins elsewhere", || gate.lines("began").len() == 2);
        gate.open();
        let other = i128::try_from(3 - at).expect("a node");
        assert_eq!(call.await.expect("no panic").expect("a node").value(), Ok(Value::Int(other)));
        drop(killed);
        client.close().await;
    });
}

#[test]
fn of_many_calls_at_once_each_is_answered_or_stopped_and_nothing_is_left() {
    let grid = grid(2);
    run(async {
        let client = client(&grid).await;
        // 1. Many at once, every third of which nobody waits for in the end.
        let call = |n: u32| tokio::spawn(client.call("work.echo").arg(n).into_future());
        let calls: Vec<_> = (0..600).map(|n| (n, call(n))).collect();
        for (n, call) in calls {
            if n % 3 == 0 {
                call.abort();
                tokio::task::yield_now().await;
                continue;
            }
            assert_eq!(call.await.expect("no panic").expect("an answer").value(), Ok(Value::from(n)));
        }
        // 2. What is large, and what is too large.
        let large = Bytes::from(vec![7; 5 << 20]);
        let reply = client.call("work.echo").arg(large.clone()).await.expect("it fits");
        assert!(reply.payload == large && reply.value() == Ok(Value::Bytes(large)));
        let error = client.call("work.echo").payload(vec![0; (16 << 20) + 1]).await.expect_err("it does not");
        assert_eq!(code(&error), Code::TooLarge);
        // 3. A call that is under way when the client is closed has its answer; none is taken from then on.
        let gate = Gate::new();
        let held = tokio::spawn(client.call("work.hold").arg(gate.path()).into_future());
        tokio::task::yield_now().await;
        gate.began();
        let other = client.clone();
        let closing = tokio::spawn(async move { other.close().await });
        tokio::task::yield_now().await;
        let refused = loop {
            match client.call("work.where").queue_wait(Duration::ZERO).await {
                Err(Error::Closed) => break Error::Closed,
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert_eq!(refused, Error::Closed);
        assert!(!closing.is_finished(), "it waits for the call");
        gate.open();
        assert!(held.await.expect("no panic").is_ok());
        closing.await.expect("no panic");
        // 4. Nothing of it is left.
        for daemon in &grid[1..] {
            wait_for("what was sold is given back", || buyers(daemon).is_empty());
            wait_for("all slots are free", || daemon.get("/v1/market").ok()["free"] == 1);
        }
    });
}

#[test]
fn what_goes_wrong_is_told_with_what_to_do() {
    let mut grid = grid(1);
    let place = tempfile::tempdir().expect("a folder");
    let keys = place.path().join("keys");
    let options = || Options::default().patience(Duration::from_secs(3));
    let folder = served(&grid[0]);
    run(async {
        // 1. No ticket, half of one, one whose time is over, one that was revoked.
        let ticket_of = ticket(&grid[0]);
        for bad in ["nonsense", &ticket_of[..40]] {
            let error = Client::join(bad, &keys, options()).await.expect_err("it is none");
            assert!(
                matches!(error, Error::Ticket(_)) && error.to_string().contains("copy all of"),
                "{error}"
            );
        }
        let short = works(&["ticket", "-C", &folder, "--quiet", "--for", "1ms"]);
        let error = Client::join(&short, &keys, options()).await.expect_err("its time is over");
        assert!(matches!(error, Error::NotLetIn(_)) && error.to_string().contains("expired"), "{error}");
        let told: serde_json::Value =
            serde_json::from_str(&works(&["ticket", "-C", &folder, "--json"])).expect("JSON");
        works(&["revoke", told["key"].as_str().expect("a key"), "-C", &folder]);
        let revoked = told["ticket"].as_str().expect("a ticket");
        let error = Client::join(revoked, &keys, options()).await.expect_err("it is void");
        assert!(error.to_string().contains("revoked"), "{error}");
        // 2. Nothing was joined there.
        let error = Client::open(&keys, options()).await.expect_err("nothing was joined");
        assert!(matches!(error, Error::Folder(_)) && error.to_string().contains("join first"), "{error}");
        // 3. Two at once with the same keys; names that are none; what nobody serves.
        let client = Client::join(&ticket_of, &keys, options()).await.expect("it is let in");
        knows(&client, "work").await;
        let error = Client::open(&keys, options()).await.expect_err("it is in use");
        assert!(error.to_string().contains("another client uses the keys"), "{error}");
        let error = client.call("work").await.expect_err("no function");
        assert!(matches!(error, Error::Bad(_)) && error.to_string().contains("module.function"), "{error}");
        let error = client.call("work.hello").await.expect_err("no function");
        assert_eq!(code(&error), Code::NotFound);
        let error = client.call("work.where").version("^2").await.expect_err("no version");
        assert!(code(&error) == Code::NotFound && error.to_string().contains("1.2.0"), "{error}");
        let error = client.call("work.add").await.expect_err("an argument is missing");
        assert!(matches!(code(&error), Code::BadArguments | Code::FunctionError), "{error}");
        // 4. It is revoked while it runs: its calls are told so, and so is whoever opens it again.
        let key = client.key().to_hex();
        works(&["revoke", &key, "-C", &folder]);
        let error = loop {
            match client.call("work.where").queue_wait(Duration::from_millis(300)).await {
                Err(error @ Error::NotAdmitted(_)) => break error,
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        assert!(error.to_string().contains(&format!("bourse admit {key}")), "{error}");
        client.close().await;
        let error = Client::open(&keys, options()).await.expect_err("it is not admitted");
        assert!(matches!(error, Error::NotAdmitted(_)), "{error}");
        assert!(error.to_string().contains(&format!("bourse admit {key}")), "{error}");
        let error =
            Client::join(&ticket_of, &keys, options()).await.expect_err("a ticket does not undo that");
        assert!(error.to_string().contains("has been revoked"), "{error}");
        // 5. It is admitted again. Then all nodes are gone: calls are told within their time, and so is whoever comes.
        works(&["admit", &key, "-C", &folder]);
        let client = Client::open(&keys, options()).await.expect("it is admitted again");
        knows(&client, "work").await;
        client.call("work.where").await.expect("a node");
        let down: Vec<Setup> = grid.drain(..).map(Daemon::kill).collect();
        let error = loop {
            match client.call("work.where").queue_wait(Duration::from_millis(300)).await {
                Err(error @ Error::Unreachable(_)) if error.to_string().contains("nobody answers") => {
                    break error;
                }
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        assert!(error.to_string().contains("has to run"), "{error}");
        client.close().await;
        let error = Client::open(&keys, options()).await.expect_err("nobody");
        assert!(
            matches!(error, Error::Unreachable(_)) && error.to_string().contains("nobody answers"),
            "{error}"
        );
        let error = Client::join_in_memory(&ticket_of, options()).await.expect_err("nobody");
        assert!(
            matches!(error, Error::NotLetIn(_)) && error.to_string().contains("nobody answers"),
            "{error}"
        );
        drop(down);
    });
}

#[test]
fn keys_that_are_allowed_already_need_no_ticket() {
    let keys = KeyPair::generate();
    let daemon = worker(1).argument("--allow").argument(&keys.public().to_hex()).up();
    let nodes = daemon.get("/v1/nodes").ok();
    let seed =
        format!("{}@{}", nodes[0]["key"].as_str().unwrap_or(""), nodes[0]["address"].as_str().unwrap_or(""));
    let seed: Seed = seed.parse().expect("a key and an address");
    run(async {
        let client = Client::connect(keys, [seed.clone()], Options::default()).await.expect("it is allowed");
        knows(&client, "work").await;
        assert_eq!(client.call("work.where").await.expect("a node").value(), Ok(Value::Int(1)));
        // No runtime is needed, and many threads may share it.
        thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    let reply = without_a_runtime(client.call("work.where").into_future()).expect("a node");
                    assert_eq!(reply.value(), Ok(Value::Int(1)));
                });
            }
        });
        // The last handle that goes takes all with it.
        drop(client);
        wait_for("it has left", || buyers(&daemon).is_empty());
        let other =
            Client::connect(KeyPair::generate(), [seed], Options::default().patience(Duration::from_secs(3)));
        let error = other.await.expect_err("it is not allowed");
        assert!(matches!(error, Error::NotAdmitted(_)), "{error}");
    });
}
