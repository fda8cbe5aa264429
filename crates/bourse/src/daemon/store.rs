//! The store's threads: one that writes, one that reads, and one that reads at length. Requests go in by channels, answers come back to the
//! driver; nothing is decided here.

use std::sync::mpsc;
use std::thread;

use bourse_durable::batch::Batch;
use bourse_durable::message::StorePage;
use bourse_durable::{StoreAnswer, StoreRequest, Token};
use bourse_store::{Limit, Range, Reader, Store};
use tokio::sync::mpsc::UnboundedSender;

use super::lister::List;

/// Batches that one sync to disk may carry.
const BATCHES_PER_COMMIT: usize = 256;

/// Where the driver puts its requests. Dropping it ends the threads, after what they were given.
pub(crate) struct StoreThreads {
    writes: Option<mpsc::Sender<(Token, Batch)>>,
    reads: Option<mpsc::Sender<(Token, StoreRequest)>>,
    lists: Option<mpsc::Sender<List>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl StoreThreads {
    /// Starts them. Answers go to `answers`, in any order.
    pub(crate) fn start(
        mut store: Box<dyn Store>,
        answers: UnboundedSender<(Token, StoreAnswer)>,
    ) -> anyhow::Result<Self> {
        let mut reader = store.reader()?;
        let mut listed = store.reader()?;
        let (writes, to_write) = mpsc::channel::<(Token, Batch)>();
        let (reads, to_read) = mpsc::channel::<(Token, StoreRequest)>();
        let written = answers.clone();
        let writer = thread::Builder::new().name("bourse-store".into()).spawn(move || {
            while let Ok(first) = to_write.recv() {
                let (mut tokens, mut batches) = (vec![first.0], vec![first.1]);
                while let Ok((token, batch)) = to_write.try_recv() {
                    tokens.push(token);
                    batches.push(batch);
                    if batches.len() >= BATCHES_PER_COMMIT {
                        break;
                    }
                }
                for (token, outcome) in tokens.into_iter().zip(store.commit(&batches)) {
                    // The driver is gone only when the daemon ends.
                    let _ = written.send((token, StoreAnswer::Committed(outcome)));
                }
            }
        })?;
        let reader = thread::Builder::new().name("bourse-reader".into()).spawn(move || {
            while let Ok((token, request)) = to_read.recv() {
                let _ = answers.send((token, read(&mut *reader, request)));
            }
        })?;
        let (lists, to_list) = mpsc::channel::<List>();
        let lister = thread::Builder::new().name("bourse-lister".into()).spawn(move || {
            while let Ok(list) = to_list.recv() {
                list.make(&mut *listed);
            }
        })?;
        let threads = vec![writer, reader, lister];
        Ok(Self { writes: Some(writes), reads: Some(reads), lists: Some(lists), threads })
    }

    /// Hands over a request. Its answer comes later.
    pub(crate) fn ask(&self, token: Token, request: StoreRequest) {
        const ALIVE: &str = "the store's threads live as long as the driver";
        match request {
            StoreRequest::Commit(batch) => {
                self.writes.as_ref().expect(ALIVE).send((token, batch)).expect(ALIVE)
            }
            read => self.reads.as_ref().expect(ALIVE).send((token, read)).expect(ALIVE),
        }
    }

    /// Hands over a list to be made. It answers by itself.
    pub(crate) fn list(&self, list: List) {
        // Dropped where the thread has ended, which answers too.
        let _ = self.lists.as_ref().map(|lists| lists.send(list));
    }

    /// Waits until everything that was handed over is done.
    pub(crate) fn finish(mut self) {
        drop((self.writes.take(), self.reads.take(), self.lists.take()));
        for thread in self.threads.drain(..) {
            // A panic there has been reported by itself.
            let _ = thread.join();
        }
    }
}

fn read(reader: &mut dyn Reader, request: StoreRequest) -> StoreAnswer {
    use std::ops::Bound;
    match request {
        StoreRequest::Owner(partition) => StoreAnswer::Owner(reader.owner(partition)),
        StoreRequest::Read { partition, key } => StoreAnswer::Read(reader.read(partition, &key)),
        StoreRequest::Scan { partition, start, end, rows_max, bytes_max } => {
            let range = Range { from: Bound::Included(start), until: Bound::Excluded(end) };
            let page = reader.scan(partition, &range, Limit { rows: rows_max, bytes: bytes_max });
            StoreAnswer::Scanned(page.map(|p| StorePage { rows: p.rows, more: p.more }))
        }
        StoreRequest::Commit(_) => unreachable!("commits go to the writing thread"),
    }
}
