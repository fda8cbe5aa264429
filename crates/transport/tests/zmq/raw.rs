//! A peer made by hand, byte for byte: ZMTP 3.1 with the NULL mechanism (<https://rfc.zeromq.org/spec/37/>).

use bourse_transport::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::node::within;

pub(crate) const MORE: u8 = 1;
pub(crate) const LAST: u8 = 0;
const COMMAND: u8 = 4;
const LONG: u8 = 2;

pub(crate) struct Raw(pub(crate) UnixStream);

impl Raw {
    /// A bare connection.
    pub(crate) async fn connect(endpoint: &Endpoint) -> Self {
        let Endpoint::Ipc(path) = endpoint else { panic!("ipc only") };
        Self(UnixStream::connect(path).await.unwrap())
    }

    /// A connection with the handshake done, under a name of its own or (empty) none.
    pub(crate) async fn greeted(endpoint: &Endpoint, identity: &[u8]) -> Self {
        let mut raw = Self::connect(endpoint).await;
        raw.bytes(&greeting()).await;
        let mut ready = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity".to_vec();
        ready.extend((identity.len() as u32).to_be_bytes());
        ready.extend(identity);
        raw.part(COMMAND, &ready).await;
        let mut theirs = [0; 64];
        within("the greeting", raw.0.read_exact(&mut theirs)).await.unwrap();
        let (flags, body) = raw.read_part().await.unwrap();
        assert_eq!((flags, &body[..6]), (COMMAND, &b"\x05READY"[..]));
        raw
    }

    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn part(&mut self, flags: u8, body: &[u8]) {
        let mut bytes = part_head(flags, body.len() as u64);
        bytes.extend(body);
        self.bytes(&bytes).await;
    }

    /// The next part, or `None` at the end of the stream.
    pub(crate) async fn read_part(&mut self) -> Option<(u8, Vec<u8>)> {
        let flags = within("a part", self.0.read_u8()).await.ok()?;
        let length = if flags & LONG == 0 {
            u64::from(self.0.read_u8().await.ok()?)
        } else {
            self.0.read_u64().await.ok()?
        };
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).await.ok()?;
        Some((flags & !LONG, body))
    }
}

pub(crate) fn greeting() -> Vec<u8> {
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 1];
    bytes.extend(b"NULL");
    bytes.resize(64, 0);
    bytes
}

/// What announces a part of this length.
pub(crate) fn part_head(flags: u8, length: u64) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(short) => vec![flags, short],
        Err(_) => {
            let mut bytes = vec![flags | LONG];
            bytes.extend(length.to_be_bytes());
            bytes
        }
    }
}
