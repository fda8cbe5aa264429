//! Why something was refused. The texts are for the person who runs the daemon, and say what to do.

use std::path::PathBuf;

use crate::endpoint::IPC_PATH_BYTES_MAX;

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection has ended, or never was.
    #[error("the connection is gone")]
    Gone,
    /// The peer reads too slowly: as many frames as the bound allows wait for it already.
    #[error("the connection's send queue is full")]
    Full,
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither `ipc://` nor `tcp://`.
    #[error("`{0}` is not an endpoint; write ipc:///folder/name.sock or tcp://ADDRESS:PORT")]
    Scheme(String),
    /// The part after `ipc://` is not an absolute path.
    #[error("`{0}` needs an absolute path after ipc://")]
    Path(String),
    /// The part after `tcp://` is not an IP address and port.
    #[error("`{0}` needs an IP address and a port after tcp://, such as 127.0.0.1:7071 or [::1]:7071")]
    Address(String),
}

/// Why an endpoint could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The operating system allows no longer path for a socket.
    #[error(
        "the socket path {path} is {length} bytes long and at most {max} are possible; choose a shorter folder",
        path = path.display(), max = IPC_PATH_BYTES_MAX
    )]
    PathTooLong {
        /// The path that was asked for.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Another process serves this path.
    #[error("{path} is in use by another running process; stop it or choose another path", path = .0.display())]
    InUse(PathBuf),
    /// There is something at the path which is not a socket, and it is not ours to remove.
    #[error("{path} exists and is not a socket; choose another path", path = .0.display())]
    NotASocket(PathBuf),
    /// Others may enter the folder, and closing it to them could break something.
    #[error("the folder {path} is open to others ({why}); choose one that holds nothing but the socket",
        path = folder.display())]
    OpenFolder {
        /// The socket's folder.
        folder: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Anyone who reaches this address could speak, since there is no CURVE.
    #[error(
        "{0} is reachable from other machines and there are no keys to tell who connects; use CURVE, or loopback"
    )]
    Exposed(std::net::SocketAddr),
    /// The operating system refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its answer.
        source: std::io::Error,
    },
    /// The ZeroMQ library refused.
    #[error("cannot bind {endpoint}: {reason}")]
    Refused {
        /// The endpoint that was asked for.
        endpoint: String,
        /// The library's words.
        reason: String,
    },
}

/// Why a [`Dealer`](crate::Dealer) could not be made. A peer that is merely not there is no error: it may come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot connect to {endpoint}: {reason}")]
pub struct ConnectError {
    /// The endpoint that was asked for.
    pub endpoint: String,
    /// The library's words.
    pub reason: String,
}

/// Why a text is not a CURVE key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a CURVE key is 40 characters of Z85")]
pub struct KeyError;

/// Why a text is not a key in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal digits")]
pub struct HexError;
