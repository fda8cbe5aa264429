//! A gateway on a real socket, with a daemon behind it that answers by a function's name.
#![expect(clippy::unwrap_used, reason = "a test's own scaffolding")]

use std::net::SocketAddr;
use std::time::Duration;

use bourse_gateway::{Answer, Ask, Config, Deployed, Event, Gateway, Routes, Standing, Success, Ticket};
use bourse_wire::arguments::Arguments;
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::record::v1 as record;
use bourse_wire::v1;
use bourse_wire::value::Value;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Nothing here takes this long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    hung: mpsc::UnboundedReceiver<Ticket>,
    cancelled: mpsc::UnboundedReceiver<Ticket>,
    release: watch::Sender<bool>,
    shutdown: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let world = Self::starting(config);
        world.gateway.set_ready(true);
        world
    }

    /// One whose daemon is not ready yet.
    pub(crate) fn starting(config: Config) -> Self {
        let (events, inbox) = mpsc::unbounded_channel();
        let gateway = Gateway::new(config, events);
        gateway.set_routes(Routes::new(&[demo()], &[]).unwrap());
        let listener = gateway.listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr();
        let (stop, shutdown) = oneshot::channel::<()>();
        let served = tokio::spawn(listener.serve(async { drop(shutdown.await) }));
        let (hung_tx, hung) = mpsc::unbounded_channel();
        let (cancelled_tx, cancelled) = mpsc::unbounded_channel();
        let (release, released) = watch::channel(false);
        tokio::spawn(daemon(inbox, hung_tx, cancelled_tx, released));
        Self { gateway, address, hung, cancelled, release, shutdown: Some(stop), served: Some(served) }
    }

    pub(crate) fn refuses_open_address() -> bool {
        let (events, _) = mpsc::unbounded_channel();
        Gateway::new(Config::default(), events).listen(([0, 0, 0, 0], 0).into()).is_err()
    }

    pub(crate) async fn connect(&self) -> Socket {
        Socket { stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> String {
        let mut socket = self.connect().await;
        socket.send(request.as_bytes()).await;
        let head = request.starts_with("HEAD");
        if head { socket.head().await } else { socket.answer().await }
    }

    pub(crate) async fn ask_owned(&self, request: String) -> String {
        self.ask(&request).await
    }

    /// The next call of `demo.hang`.
    pub(crate) async fn hung(&mut self) -> Ticket {
        patiently(self.hung.recv()).await.unwrap()
    }

    pub(crate) async fn cancelled(&mut self) -> Ticket {
        patiently(self.cancelled.recv()).await.unwrap()
    }

    /// Lets `demo.hang` answer.
    pub(crate) fn release(&self) {
        self.release.send_replace(true);
    }

    pub(crate) fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn ended(&mut self) {
        patiently(self.served.take().unwrap()).await.unwrap();
    }

    /// Until the gateway has seen all that was sent: a request that comes later is answered.
    pub(crate) async fn settle(&self) {
        for _ in 0..3 {
            self.ask("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        }
    }

    /// Until the gateway has closed all connections.
    pub(crate) async fn all_closed(&self) {
        patiently(async {
            while self.gateway.connections() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

pub(crate) struct Socket {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Socket {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        patiently(self.stream.write_all(bytes)).await.unwrap();
    }

    /// The other side may have hung up in the middle.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let _ = patiently(self.stream.write_all(bytes)).await;
    }

    pub(crate) async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Closes with a reset instead of an end.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// One answer's head.
    pub(crate) async fn head(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await > 0, "cut off: {}", String::from_utf8_lossy(&self.read));
        };
        String::from_utf8_lossy(&self.read.drain(..end).collect::<Vec<_>>()).into_owned()
    }

    /// All that comes until this has come.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            if so_far.contains(end) {
                self.read.clear();
                return so_far;
            }
            assert!(self.more().await > 0, "cut off: {so_far}");
        }
    }

    /// One answer.
    pub(crate) async fn answer(&mut self) -> String {
        let head = self.head().await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |l| l.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more().await > 0, "cut off after {head}");
        }
        head + &String::from_utf8_lossy(&self.read.drain(..length).collect::<Vec<_>>())
    }

    /// All until the end, or until the connection breaks.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    async fn more(&mut self) -> usize {
        patiently(self.stream.read_buf(&mut self.read)).await.unwrap_or(0)
    }
}

pub(crate) fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
}

async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

fn demo() -> Deployed {
    let function = |name: &str, parameters: &[&str], http: &[&str]| v1::Function {
        name: name.into(),
        parameters: parameters
            .iter()
            .map(|name| v1::Parameter { name: (*name).into(), required: true, ..Default::default() })
            .collect(),
        http: http.iter().map(|h| (*h).into()).collect(),
        ..Default::default()
    };
    let functions = vec![
        function("echo", &["body"], &[]),
        function("store", &["key", "body"], &["POST /kv/{key}"]),
        function("terms", &[], &[]),
        function("fail", &[], &[]),
        function("busy", &[], &[]),
        function("drop", &[], &[]),
        function("hang", &[], &[]),
        function("page", &[], &[]),
        function("smuggle", &[], &[]),
    ];
    Deployed { module: v1::Module { name: "demo".into(), functions, ..Default::default() } }
}

/// Call 1 is done, 2 waits, 3 is a dead letter; there are no others. What is asked for is done.
fn standing(call: CallId, ask: Ask) -> Standing {
    let record = record::Call { function: "demo.echo".into(), ..Default::default() };
    let live = || Standing::Live { record: Box::new(record.clone()), running: false, again_in: None };
    let ended = |status: record::ended::Status| record::Ended {
        function: "demo.echo".into(),
        status: status.into(),
        failure: (status != record::ended::Status::Done).then(|| Code::FunctionError.because("boom")),
        result: Value::Text("x".into()).to_cbor(),
        http: Some(v1::HttpResponse { status: 201, headers: Vec::new() }),
        ..Default::default()
    };
    let ended = |status| Standing::Ended(Box::new(ended(status)));
    match (call.made_ms(), ask) {
        (1, _) => ended(record::ended::Status::Done),
        (2, Ask::Cancel) => ended(record::ended::Status::Cancelled),
        (3, Ask::Replay) | (2, _) => live(),
        (3, _) => ended(record::ended::Status::Dead),
        _ => Standing::Nothing,
    }
}

async fn daemon(
    mut inbox: mpsc::UnboundedReceiver<Event>,
    hung: mpsc::UnboundedSender<Ticket>,
    cancelled: mpsc::UnboundedSender<Ticket>,
    released: watch::Receiver<bool>,
) {
    let mut never = Vec::new();
    while let Some(event) = inbox.recv().await {
        let (call, ticket, reply) = match event {
            Event::Call { call, ticket, reply } => (call, ticket, reply),
            Event::Cancel { ticket } => {
                let _ = cancelled.send(ticket);
                continue;
            }
            Event::Ask { ask: Ask::Await, reply, .. } => {
                never.push(reply);
                continue;
            }
            Event::Ask { call, ask, reply, .. } => {
                let _ = reply.send(Ok(standing(call, ask)));
                continue;
            }
            Event::Publish { message, reply, .. } => {
                let to = format!("{:?} {:?} {}", message.to, message.delay, message.idempotency_key);
                let message = Value::from_cbor(&message.payload).unwrap();
                let payload = Value::Array(vec![Value::Text(to), message]).to_cbor();
                let result = Ok(Success { payload, ..Success::default() });
                let _ = reply.send(Answer { call: Some(CallId::new(1, [0; 10])), result });
                continue;
            }
            Event::Forget { module, reply, .. } => {
                let payload = Value::Text(module).to_cbor();
                let result = Ok(Success { payload, ..Success::default() });
                let _ = reply.send(Answer { call: None, result });
                continue;
            }
            Event::Grid { change, reply } => {
                let _ = reply.send(Ok(format!("{change:?}").into()));
                continue;
            }
            Event::Deploy { name, deploy, reply } => {
                let _ = reply.send(Ok(format!("{name} {deploy:?}").into()));
                continue;
            }
            Event::Inspect { what, reply } => {
                let _ = reply.send(Ok(format!("{what:?}").into()));
                continue;
            }
        };
        let arguments = Arguments::from_cbor(&call.arguments).unwrap();
        let success = |value: Value| Ok(Success { payload: value.to_cbor(), ..Success::default() });
        let page = |headers: &[(&str, &str)]| v1::HttpResponse {
            status: 201,
            headers: headers
                .iter()
                .map(|(n, v)| v1::Header { name: (*n).into(), value: (*v).into() })
                .collect(),
        };
        let text = Bytes::from_static(b"<p>");
        let result = match call.function.function() {
            "echo" => success(arguments.named[0].1.clone()),
            "store" => success(Value::Map(
                ["key", "body"]
                    .iter()
                    .filter_map(|k| arguments.named.iter().find(|(n, _)| n == k))
                    .map(|(k, v)| (Value::Text(k.clone()), v.clone()))
                    .collect(),
            )),
            "terms" => success(Value::Text(format!(
                "{:?} {:?} {}",
                call.timeout.unwrap(),
                call.queue_wait.unwrap(),
                call.version
            ))),
            "fail" => {
                Err(v1::Failure { r#type: "KeyError".into(), ..Code::FunctionError.because("no such key") })
            }
            "busy" => Err(Code::NoCapacity.because("full").retry_after(Duration::from_millis(1500))),
            "page" => Ok(Success { payload: text, content_type: "text/html".into(), http: Some(page(&[])) }),
            "smuggle" => {
                let http = Some(page(&[("Transfer-Encoding", "chunked")]));
                Ok(Success { payload: text, content_type: "text/html".into(), http })
            }
            "hang" => {
                let _ = hung.send(ticket);
                let mut released = released.clone();
                tokio::spawn(async move {
                    if released.wait_for(|r| *r).await.is_ok() {
                        let _ = reply.send(Answer { call: None, result: Ok(Success::default()) });
                    }
                });
                continue;
            }
            _ => continue,
        };
        let _ = reply.send(Answer { call: Some(CallId::new(ticket.0, [7; 10])), result });
    }
}
