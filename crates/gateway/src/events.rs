//! Server-sent events (HTML Living Standard §9.2): how a durable call stands, whenever that changes, until it has ended.
//!
//! ```text
//! event: status      data: as GET /v1/calls/{id}        at first, and at each change
//! event: ended       data: the same                     then the stream ends
//! ```

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bourse_wire::id::CallId;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::calls::{Asking, look};
use crate::{Ask, Gateway, Standing};

/// Between two looks at a call that has not ended.
const LOOK: Duration = Duration::from_secs(1);
/// After so long without an event a comment is sent: that is how a client that is gone is found out.
const STILL_THERE: Duration = Duration::from_secs(15);
/// Events that may wait for a client.
const EVENTS_MAX: usize = 16;

/// The body of such an answer.
#[derive(Debug)]
pub(crate) struct Events(mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Tells how a call stands from now on; it stood like `first` when it was looked at. Ends by itself.
pub(crate) fn follow(gateway: Gateway, call: CallId, first: Standing) -> Events {
    let (events, received) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        // Whoever does not listen any more is found out by a send that fails.
        let _ = tell(&gateway, call, first, &events).await;
    });
    Events(received)
}

async fn tell(gateway: &Gateway, call: CallId, first: Standing, events: &mpsc::Sender<Bytes>) -> Option<()> {
    let dev = gateway.config().dev;
    let json = |standing: &Standing| standing.to_json(call, true, dev).unwrap_or(Value::Null);
    let mut said = json(&first);
    if let Standing::Ended(_) = first {
        return send(events, "ended", &said).await;
    }
    send(events, "status", &said).await?;
    let end = Asking::begin(gateway, call, Ask::Await).ok()?.answer();
    tokio::pin!(end);
    let (mut next, mut heard) = (Instant::now() + LOOK, Instant::now());
    loop {
        tokio::select! {
            ended = &mut end => return send(events, "ended", &json(&ended.ok()?)).await,
            () = sleep_until(next) => {
                next += LOOK;
                let now = look(gateway, call).await.map(|standing| json(&standing)).unwrap_or_else(|_| said.clone());
                if now != said {
                    send(events, "status", &now).await?;
                    (said, heard) = (now, Instant::now());
                } else if heard.elapsed() >= STILL_THERE {
                    events.send(Bytes::from_static(b":\n\n")).await.ok()?;
                    heard = Instant::now();
                }
            }
        }
    }
}

/// JSON has no line ends of its own, so an event is one line of data.
async fn send(events: &mpsc::Sender<Bytes>, name: &str, data: &Value) -> Option<()> {
    events.send(format!("event: {name}\ndata: {data}\n\n").into()).await.ok()
}
