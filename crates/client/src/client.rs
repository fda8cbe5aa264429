//! The handle: what a program holds of its client.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bourse_node::Ask;
use bourse_node::durable::work::Seen;
use bourse_peers::join::Join;
use bourse_peers::ticket::Ticket;
use bourse_peers::{enroll, own};
use bourse_transport::{Key, KeyPair};
use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::options::{Channel, QueueName, TopicName};
use bourse_wire::record::v1 as record;
use bourse_wire::record::v1::ended::Status;
use bourse_wire::time::Now;
use bourse_wire::value::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::driver::{Driver, REQUESTS_MAX, Request};
use crate::place::{Known, Place};
use crate::{Call, Error, Market, Module, Node, Options, Publish, Reply, view};

/// A client of a grid; see the crate. Clones are the same client.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    key: Key,
    requests: mpsc::Sender<Request>,
    /// Of calls that nobody waits for any more. There is at most one for each that is under way.
    dropped: mpsc::UnboundedSender<u64>,
    tickets: AtomicU64,
    /// Closed when the loop has ended.
    running: watch::Receiver<()>,
}

/// How a durable call stands.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Standing {
    /// There is no such call, or none any more: it is remembered for a day after its end.
    Unknown,
    /// It has not ended.
    Live {
        /// An attempt is on its way.
        running: bool,
        /// Attempts that have begun.
        attempts: u32,
    },
    /// It has ended, with this result or failure.
    Ended(Result<Reply, Error>),
}

/// How a client gets to what it knows when it begins.
enum Beginning {
    Ticket(Ticket),
    Folder,
    Known(Box<Known>),
}

impl Client {
    /// Joins a grid with a ticket, which `bourse ticket` prints on any of its nodes, and keeps the keys in a folder: the next time
    /// [`open`](Self::open) needs no ticket. Keys that are there already are kept.
    pub async fn join(ticket: &str, folder: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let ticket = read(ticket)?;
        Self::begin(Place::folder(folder.as_ref())?, Beginning::Ticket(ticket), options).await
    }

    /// The same with keys that are gone with the client. Each time, another key comes onto the grid's list: for tests, and for what
    /// lives long.
    pub async fn join_in_memory(ticket: &str, options: Options) -> Result<Self, Error> {
        let ticket = read(ticket)?;
        Self::begin(Place::Memory, Beginning::Ticket(ticket), options).await
    }

    /// Comes back to the grid that it has joined, with the keys in this folder. It begins with those nodes that it knew last.
    pub async fn open(folder: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        Self::begin(Place::folder(folder.as_ref())?, Beginning::Folder, options).await
    }

    /// Comes back if it has joined before, else joins with the ticket: for programs that are started again and again the same way.
    pub async fn open_or_join(
        folder: impl AsRef<Path>,
        ticket: &str,
        options: Options,
    ) -> Result<Self, Error> {
        match crate::place::has_joined(folder.as_ref()) {
            true => Self::open(folder, options).await,
            false => Self::join(ticket, folder, options).await,
        }
    }

    /// Begins with keys that the grid's nodes allow already, by way of these nodes; nothing is kept.
    pub async fn connect(
        keys: KeyPair,
        seeds: impl IntoIterator<Item = Join>,
        options: Options,
    ) -> Result<Self, Error> {
        let seeds: Vec<Join> = seeds.into_iter().collect();
        let mut options = options;
        options.allow.extend(seeds.iter().map(|seed| seed.key));
        let known = Known { keys, members: Vec::new(), seeds, store: None, catalogue: Vec::new() };
        Self::begin(Place::Memory, Beginning::Known(Box::new(known)), options).await
    }

    /// Starts the loop on a thread of its own, and waits until the grid is reached.
    async fn begin(place: Place, beginning: Beginning, options: Options) -> Result<Self, Error> {
        let (requests, to_take) = mpsc::channel(REQUESTS_MAX);
        let (dropped, to_cancel) = mpsc::unbounded_channel();
        let (began, begins) = oneshot::channel();
        let (is_running, running) = watch::channel(());
        let work = move || {
            // It ends with the thread, whatever becomes of that.
            let _is_running = is_running;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(e) => {
                    let why = format!("no runtime can be made for a client: {e}");
                    // Whoever wanted it may have gone.
                    return drop(began.send(Err(Error::Bad(why))));
                }
            };
            runtime.block_on(async move {
                match start(place, beginning, &options, to_take, to_cancel).await {
                    Err(error) => drop(began.send(Err(error))),
                    Ok((key, driver)) => {
                        let (reached, outcome) = oneshot::channel();
                        if began.send(Ok((key, outcome))).is_ok() {
                            driver.run(reached).await;
                        }
                    }
                }
            });
        };
        let thread = thread::Builder::new().name("bourse-client".to_owned()).spawn(work);
        thread.map_err(|e| Error::Bad(format!("no thread can be made for a client: {e}")))?;
        let (key, reached) = begins.await.map_err(|_| Error::Closed)??;
        let inner = Inner { key, requests, dropped, tickets: AtomicU64::new(1), running };
        let client = Self { inner: Arc::new(inner) };
        match reached.await.map_err(|_| Error::Closed)? {
            Ok(()) => Ok(client),
            Err(error) => {
                client.wait_end().await; // so that its folder is free again
                Err(error)
            }
        }
    }

    /// Its public key, by which the grid knows it: what `bourse revoke` takes.
    pub fn key(&self) -> Key {
        self.inner.key
    }

    /// A call of `module.function`, to be given arguments and awaited.
    pub fn call(&self, function: impl Into<String>) -> Call {
        Call::new(self.clone(), function.into())
    }

    /// A message for the one function that has this queue, to be awaited.
    pub fn publish_to_queue(&self, queue: &str, value: impl Into<Value>) -> Publish {
        let to = QueueName::new(queue).map(Channel::Queue).map_err(|e| Error::Bad(e.to_string()));
        Publish::new(self.clone(), to, &value.into())
    }

    /// A message for all functions that listen to this topic, to be awaited.
    pub fn publish_to_topic(&self, topic: &str, value: impl Into<Value>) -> Publish {
        let to = TopicName::new(topic).map(Channel::Topic).map_err(|e| Error::Bad(e.to_string()));
        Publish::new(self.clone(), to, &value.into())
    }

    /// Waits for the end of a durable call. Dropping this leaves the call as it is.
    pub async fn outcome(&self, call: CallId) -> Result<Reply, Error> {
        match self.about(call, Ask::Await).await? {
            Standing::Ended(outcome) => outcome,
            Standing::Unknown => Err(Error::failed(Some(call), no_such_call(call))),
            Standing::Live { .. } => Err(Error::Closed),
        }
    }

    /// How a durable call stands.
    pub async fn standing(&self, call: CallId) -> Result<Standing, Error> {
        self.about(call, Ask::Look).await
    }

    /// Ends a durable call. How it stands then.
    pub async fn cancel(&self, call: CallId) -> Result<Standing, Error> {
        self.about(call, Ask::Cancel).await
    }

    /// The nodes that this client knows, itself among them: the authorities, and those that it has to do with.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        self.look(view::nodes).await
    }

    /// What any node serves: each version of each module, the newest first.
    pub async fn modules(&self) -> Result<Vec<Module>, Error> {
        self.look(|node, _| view::modules(node)).await
    }

    /// The same as the modules describe themselves, with all options: for a program that serves them further.
    pub async fn described(&self) -> Result<Vec<bourse_wire::v1::Module>, Error> {
        self.look(|node, _| view::described(node)).await
    }

    /// What this client has bought, and what it is short of.
    pub async fn market(&self) -> Result<Market, Error> {
        self.look(|node, _| view::market(node)).await
    }

    /// Leaves the grid in order: calls that are under way may end, nothing new is taken, what was bought is given back, and the
    /// thread has ended when this returns. All clones are closed then.
    pub async fn close(&self) {
        // It may be closed already.
        let _ = self.inner.requests.send(Request::Close).await;
        self.wait_end().await;
    }

    async fn wait_end(&self) {
        let mut running = self.inner.running.clone();
        while running.changed().await.is_ok() {}
    }

    /// Asks, and waits for the answer. Whoever drops this wants none any more.
    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(u64, oneshot::Sender<Result<T, Error>>) -> Request,
    ) -> Result<T, Error> {
        let ticket = self.inner.tickets.fetch_add(1, Ordering::Relaxed);
        let (reply, answered) = oneshot::channel();
        let mut open = Open { answered, dropped: &self.inner.dropped, ticket, sent: false };
        self.inner.requests.send(request(ticket, reply)).await.map_err(|_| Error::Closed)?;
        open.sent = true;
        let answer = (&mut open.answered).await;
        open.sent = false;
        answer.unwrap_or(Err(Error::Closed))
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&bourse_node::Node, Now) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, seen) = oneshot::channel();
        let look = move |node: &bourse_node::Node, now: Now| {
            // Whoever asked may have gone.
            let _ = reply.send(look(node, now));
        };
        self.inner.requests.send(Request::Look(Box::new(look))).await.map_err(|_| Error::Closed)?;
        seen.await.map_err(|_| Error::Closed)
    }

    async fn about(&self, call: CallId, ask: Ask) -> Result<Standing, Error> {
        let seen = self.ask(|ticket, reply| Request::Ask { ticket, call, ask, reply }).await?;
        Ok(match *seen {
            Seen::Nothing => Standing::Unknown,
            Seen::Live { record, running, .. } => Standing::Live { running, attempts: record.attempts },
            Seen::Ended(ended) => Standing::Ended(outcome(call, *ended)),
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("key", &self.inner.key.to_hex()).finish_non_exhaustive()
    }
}

/// Something that was asked, and is not answered.
struct Open<'a, T> {
    // First, so that it is closed when the driver hears of the end.
    answered: oneshot::Receiver<T>,
    dropped: &'a mpsc::UnboundedSender<u64>,
    ticket: u64,
    /// The driver has it, or is about to.
    sent: bool,
}

impl<T> Drop for Open<'_, T> {
    fn drop(&mut self) {
        self.answered.close();
        if self.sent {
            // It may have ended.
            let _ = self.dropped.send(self.ticket);
        }
    }
}

fn read(ticket: &str) -> Result<Ticket, Error> {
    ticket.parse().map_err(|why: &str| Error::Ticket(why.to_owned()))
}

/// What has to be known, and a loop around it.
async fn start(
    place: Place,
    beginning: Beginning,
    options: &Options,
    requests: mpsc::Receiver<Request>,
    dropped: mpsc::UnboundedReceiver<u64>,
) -> Result<(Key, Driver), Error> {
    let known = match beginning {
        Beginning::Known(known) => *known,
        Beginning::Folder => place.load()?,
        Beginning::Ticket(ticket) => {
            let keys = place.keys()?;
            let name = match options.name.as_str() {
                "" => own::hostname().unwrap_or_default(),
                given => given.to_owned(),
            };
            let let_in = enroll::ask_for_it(&keys, &name, &ticket).await;
            let let_in = let_in.map_err(|e| Error::NotLetIn(format!("{e:#}")))?;
            place.learn(keys, let_in)?
        }
    };
    let key = known.keys.public();
    Ok((key, Driver::new(known, place, options, requests, dropped).await?))
}

fn no_such_call(call: CallId) -> bourse_wire::v1::Failure {
    Code::NotFound
        .because(format!("there is no durable call {call}"))
        .hint("it is forgotten a day after its end; `bourse calls` shows those that there are")
}

/// What came of a durable call.
fn outcome(call: CallId, ended: record::Ended) -> Result<Reply, Error> {
    match ended.status() {
        Status::Done | Status::Unspecified => {
            Ok(Reply { call: Some(call), payload: ended.result, content_type: ended.content_type })
        }
        Status::Joined => Err(Error::failed(
            Some(call),
            Code::Conflict
                .because(format!("the call was joined with another one, {}", joined(&ended.joined)))
                .hint("ask for the outcome of that one"),
        )),
        Status::Dead | Status::Cancelled => {
            let failure = ended.failure.unwrap_or_else(|| Code::Cancelled.because("the call was cancelled"));
            Err(Error::failed(Some(call), failure))
        }
    }
}

fn joined(id: &[u8]) -> String {
    CallId::from_wire(id).map_or_else(|| "which is not told".to_owned(), |id| id.to_string())
}
