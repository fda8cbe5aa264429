//! Mail over real sockets, with a daemon that answers as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bourse_gateway::{Answer, Call, Config, Deployed, Event, Gateway, Routes, Success, smtp};
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

/// What is answered to the next calls: nothing, or a failure. Success when there is nothing left.
type Script = Arc<Mutex<VecDeque<Option<Code>>>>;

struct World {
    address: SocketAddr,
    script: Script,
    calls: Arc<Mutex<Vec<Call>>>,
    stop: Option<oneshot::Sender<()>>,
}

impl World {
    fn new(limits: smtp::Limits) -> Self {
        let (events, mut inbox) = mpsc::unbounded_channel();
        let gateway = Gateway::new(Config::default(), events);
        gateway.set_routes(Routes::new(&[shop()], &[]).expect("routes"));
        gateway.set_ready(true);
        let config = smtp::Config {
            address: ([127, 0, 0, 1], 0).into(),
            open: false,
            hostname: "here".to_owned(),
            bytes_max: 100_000,
            recipients_max: 100,
            tls: None,
            limits,
        };
        let listener = gateway.listen_smtp(config).expect("a free port");
        let address = listener.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(listener.serve(async { drop(stopped.await) }));
        let (script, calls) = (Script::default(), Arc::default());
        let (answers, seen): (Script, Arc<Mutex<Vec<Call>>>) = (Arc::clone(&script), Arc::clone(&calls));
        tokio::spawn(async move {
            while let Some(event) = inbox.recv().await {
                let Event::Call { call, reply, .. } = event else { continue };
                let failure = answers.lock().expect("a lock").pop_front().flatten();
                seen.lock().expect("a lock").push(call);
                let result = failure.map_or(Ok(Success::default()), |code| Err(code.because("as told")));
                let call = result.is_ok().then(|| CallId::from_wire(&[7; 16]).expect("an id"));
                let _ = reply.send(Answer { call, result });
            }
        });
        Self { address, script, calls, stop: Some(stop) }
    }

    fn answer(&self, answers: &[Option<Code>]) {
        self.script.lock().expect("a lock").extend(answers);
    }

    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().expect("a lock"))
    }

    /// Sends a mail to these, and gives what is said at its end.
    async fn send(&self, text: &str, recipients: &[&str]) -> String {
        let mut socket = TcpStream::connect(self.address).await.expect("it listens");
        let to: String = recipients.iter().map(|to| format!("RCPT TO:<{to}>\r\n")).collect();
        let mail = format!("EHLO me\r\nMAIL FROM:<a@b>\r\n{to}DATA\r\n{text}\r\n.\r\nQUIT\r\n");
        socket.write_all(mail.as_bytes()).await.expect("it reads");
        let all = all(&mut socket).await;
        all.split_once("354 ").expect("data is awaited").1.lines().nth(1).expect("a reply").to_owned()
    }
}

async fn all(socket: &mut TcpStream) -> String {
    let mut all = String::new();
    socket.read_to_string(&mut all).await.expect("it closes in order");
    all
}

fn shop() -> Deployed {
    let function = |name: &str, parameters: &[&str], mail: &str| v1::Function {
        name: name.to_owned(),
        parameters: parameters
            .iter()
            .map(|name| v1::Parameter { name: (*name).to_owned(), required: true, ..Default::default() })
            .collect(),
        options: [("mail".to_owned(), format!("\"{mail}\""))].into(),
        ..Default::default()
    };
    let functions = vec![
        function("order", &["mail"], "orders@x"),
        function("keep", &["raw", "recipient"], "keep@x"),
        function("count", &[], "count@x"),
    ];
    Deployed { module: v1::Module { name: "shop".to_owned(), functions, ..Default::default() } }
}

#[tokio::test]
async fn each_recipient_is_one_durable_call() {
    let world = World::new(smtp::Limits::default());
    let said = world.send("Subject: s\r\n\r\nt", &["orders+7@x", "keep@x", "count@x"]).await;
    assert_eq!(said, "250 2.0.0 accepted as call 07070707-0707-0707-0707-070707070707 and 2 more");
    let calls = world.calls();
    let names: Vec<_> = calls.iter().map(|call| call.function.as_str()).collect();
    assert_eq!(names, ["shop.order", "shop.keep", "shop.count"]);
    for (call, recipient) in calls.iter().zip(["orders+7@x", "keep@x", "count@x"]) {
        let trigger = call.trigger.as_ref().expect("a mail wakes it");
        assert_eq!((trigger.kind.as_str(), trigger.name.as_str()), ("mail", recipient));
        assert!(call.asynchronous && call.timeout.is_none() && call.idempotency_key.len() == 64);
    }
}

#[tokio::test]
async fn a_mail_that_is_sent_again_doubles_nothing() {
    let world = World::new(smtp::Limits::default());
    let keys = || world.calls().into_iter().map(|call| call.idempotency_key).collect::<Vec<_>>();
    for text in ["Message-ID: <1@b>\r\n\r\nt", "Subject: without\r\n\r\nt"] {
        // 1. One of two recipients' calls is not stored.
        world.answer(&[None, Some(Code::StoreUnavailable)]);
        let said = world.send(text, &["orders@x", "keep@x"]).await;
        assert!(said.starts_with("451 4.3.0 as told"), "{said}");
        let first = keys();
        assert_ne!(first[0], first[1]);
        // 2. It comes again, and again in vain, and then it is stored: always as the same calls.
        world.answer(&[Some(Code::QueueFull), None]);
        let said = world.send(text, &["orders@x", "keep@x"]).await;
        assert!(said.starts_with("452 4.3.1 as told"), "{said}");
        assert_eq!(keys(), first);
        assert!(world.send(text, &["orders@x", "keep@x"]).await.starts_with("250"));
        assert_eq!(keys(), first);
        // 3. After 250, an equal one is the same only if it says so.
        assert!(world.send(text, &["orders@x", "keep@x"]).await.starts_with("250"));
        assert_eq!(keys() == first, text.starts_with("Message-ID"), "{text}");
    }
}

#[tokio::test]
async fn what_is_said_depends_on_why_it_is_not_stored() {
    let world = World::new(smtp::Limits::default());
    for (code, reply) in [
        (Code::StoreUnavailable, "451 4.3.0"),
        (Code::ModuleFailed, "451 4.3.0"),
        (Code::NotFound, "451 4.3.0"),
        (Code::QueueFull, "452 4.3.1"),
        (Code::ShuttingDown, "421 4.3.2"),
        (Code::TooLarge, "554 5.6.0"),
    ] {
        world.answer(&[Some(code)]);
        let said = world.send("t", &["orders@x"]).await;
        assert!(said.starts_with(reply), "{code:?}: {said}");
    }
}

#[tokio::test]
async fn who_says_nothing_is_told_so_and_who_is_too_many_as_well() {
    let limits = smtp::Limits {
        connections_max: 1,
        idle_max: Duration::from_millis(300),
        data_max: Duration::from_millis(600),
        ..Default::default()
    };
    let world = World::new(limits);
    let mut first = TcpStream::connect(world.address).await.expect("it listens");
    first
        .write_all(b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<orders@x>\r\nDATA\r\nhalf")
        .await
        .expect("it reads");
    let mut second = TcpStream::connect(world.address).await.expect("it listens");
    assert!(all(&mut second).await.starts_with("421 4.3.2 too many connections"));
    // One that sends a byte now and then does not last for ever either.
    let dripping = async {
        while first.write_all(b"x").await.is_ok() {
            let mut said = [0; 1_000];
            let heard = tokio::time::timeout(Duration::from_millis(100), first.read(&mut said)).await;
            if let Ok(Ok(n)) = heard
                && String::from_utf8_lossy(&said[..n]).contains("421 4.4.2")
            {
                return;
            }
        }
        panic!("it was never told");
    };
    tokio::time::timeout(Duration::from_secs(20), dripping).await.expect("an end");
    assert_eq!(world.calls().len(), 0, "half a mail is none");
}

#[tokio::test]
async fn a_daemon_that_stops_says_so() {
    let mut world = World::new(smtp::Limits::default());
    let mut idle = TcpStream::connect(world.address).await.expect("it listens");
    idle.write_all(b"EHLO me\r\n").await.expect("it reads");
    let mut greeting = [0; 3];
    idle.read_exact(&mut greeting).await.expect("a greeting");
    world.stop.take().expect("it runs").send(()).expect("it runs");
    assert!(all(&mut idle).await.contains("421 4.3.2 the daemon is stopping"));
}
