//! The driver's line to the keeper: frames of its socket, carried by two tasks.

use bourse_wire::keeper::v1::{FromKeeper, ToKeeper, from_keeper, to_keeper};
use bourse_worker::codec;
use bourse_worker::keeper::Keeper;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// A running keeper.
pub(crate) struct KeeperLine {
    pub process: Keeper,
    to_keeper: mpsc::UnboundedSender<Vec<u8>>,
    from_keeper: mpsc::UnboundedReceiver<from_keeper::Message>,
}

impl KeeperLine {
    /// Starts a keeper and the tasks that talk to it.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let (process, socket) = Keeper::start()?;
        let (mut reader, mut writer) = UnixStream::from_std(socket)?.into_split();
        let (to_keeper, mut outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
        let (incoming, from_keeper) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(bytes) = outgoing.recv().await {
                if writer.write_all(&bytes).await.is_err() {
                    return; // The reader notices as well, and tells.
                }
            }
        });
        tokio::spawn(async move {
            let mut decoder = codec::Decoder::default();
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let read = reader.read(&mut buffer).await.unwrap_or(0);
                if read == 0 {
                    return;
                }
                decoder.push(&buffer[..read]);
                loop {
                    match decoder.next::<FromKeeper>() {
                        Ok(Some(FromKeeper { message: Some(message) })) => {
                            if incoming.send(message).is_err() {
                                return;
                            }
                        }
                        Ok(Some(FromKeeper { message: None })) => {}
                        Ok(None) => break,
                        Err(error) => {
                            tracing::error!(%error, "the keeper sent what cannot be read");
                            return;
                        }
                    }
                }
            }
        });
        Ok(Self { process, to_keeper, from_keeper })
    }

    /// Sends a message. If the keeper is gone, [`recv`](Self::recv) says so.
    pub(crate) fn send(&self, message: to_keeper::Message) {
        let mut bytes = Vec::new();
        match codec::encode(&ToKeeper { message: Some(message) }, &mut bytes) {
            Ok(()) => drop(self.to_keeper.send(bytes)),
            Err(error) => tracing::error!(%error, "a message to the keeper cannot be sent"),
        }
    }

    /// The next message; `None` once the keeper is gone. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Option<from_keeper::Message> {
        self.from_keeper.recv().await
    }
}
