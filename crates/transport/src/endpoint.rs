//! Where to bind and to connect, and taking possession of a socket path.
//!
//! The ZeroMQ library replaces whatever is at the path it binds, a live daemon's socket too. So a path is
//! claimed first: a folder that nobody else can enter, a lock beside the socket, and a look at what is there.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::error::{BindError, EndpointError};

/// The longest path a Unix socket can have on Linux; one byte of the 108 ends it.
pub const IPC_PATH_BYTES_MAX: usize = 107;

/// What the name of a socket's lock ends with.
const LOCK: &str = ".lock";

/// How often a lock that somebody holds is tried again, after a millisecond each.
const CLAIM_TRIES: u32 = 20;

/// Files that are looked at by one [`sweep`].
const SWEPT_MAX: usize = 1024;

/// An address to bind or to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket: `ipc:///run/bourse/node.sock`. The path is absolute.
    Ipc(PathBuf),
    /// `tcp://127.0.0.1:7071`; binding port 0 picks a free one.
    Tcp(SocketAddr),
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// A Unix socket of this machine.
    Ipc,
    /// tcp.
    Tcp,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipc => "ipc",
            Self::Tcp => "tcp",
        })
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("ipc://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Ipc(path))
            } else {
                Err(EndpointError::Path(text.into()))
            };
        }
        match text.strip_prefix("tcp://") {
            Some(address) => address.parse().map(Self::Tcp).map_err(|_| EndpointError::Address(text.into())),
            None => Err(EndpointError::Scheme(text.into())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipc(path) => write!(f, "ipc://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl Endpoint {
    pub(crate) fn to_omq(&self) -> omq_tokio::Endpoint {
        use omq_tokio::endpoint::Host;
        match self {
            Self::Ipc(path) => omq_tokio::Endpoint::Ipc(omq_tokio::IpcPath::Filesystem(path.clone())),
            Self::Tcp(address) => {
                omq_tokio::Endpoint::Tcp { host: Host::Ip(address.ip()), port: address.port() }
            }
        }
    }
}

/// What an endpoint of the library is carried by; all that is neither is on the network.
pub(crate) fn carrier(endpoint: &omq_tokio::Endpoint) -> Carrier {
    match endpoint {
        omq_tokio::Endpoint::Ipc(_) => Carrier::Ipc,
        _ => Carrier::Tcp,
    }
}

/// A socket path that is ours while this lives. Dropping it removes the socket, if it is still the one we made, and the
/// lock beside it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    made: Option<(u64, u64)>,
    lock: Lock,
}

/// A lock file that is held while this lives. Who holds it may remove it: whoever had opened it before finds out that it is
/// not the file of that name any more, and begins anew, so that there are never two owners.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    file: File,
}

impl SocketFile {
    /// Makes sure that `path` can be bound without taking anything from anyone.
    pub(crate) fn claim(path: &Path) -> Result<Self, BindError> {
        let length = path.as_os_str().as_bytes().len();
        if length > IPC_PATH_BYTES_MAX {
            return Err(BindError::PathTooLong { path: path.into(), length });
        }
        let mut lock_name = path.as_os_str().to_owned();
        lock_name.push(LOCK);
        let lock_path = PathBuf::from(lock_name);
        secure_folder(path, &lock_path)?;
        let failed = |source| io(format!("lock {}", lock_path.display()), source);
        let mut lock = Lock::take(&lock_path, true).map_err(failed)?;
        for _ in 0..CLAIM_TRIES {
            if lock.is_some() {
                break;
            }
            // Somebody who sweeps holds it for a moment.
            std::thread::sleep(Duration::from_millis(1));
            lock = Lock::take(&lock_path, true).map_err(failed)?;
        }
        let lock = lock.ok_or_else(|| BindError::InUse(path.into()))?;
        refuse_if_taken(path)?;
        Ok(Self { path: path.into(), made: None, lock })
    }

    /// To be called once the socket is bound: only we may connect, and only this very file is removed.
    pub(crate) fn bound(&mut self) -> Result<(), BindError> {
        let failed = |source| io(format!("set the permissions of {}", self.path.display()), source);
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let found = fs::symlink_metadata(&self.path).map_err(failed)?;
        self.made = Some((found.dev(), found.ino()));
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path).ok().map(|found| (found.dev(), found.ino()));
        if self.made.is_some() && now == self.made {
            // Failing leaves a stale socket, which the next bind replaces.
            let _ = fs::remove_file(&self.path);
        }
        self.lock.remove();
    }
}

impl Lock {
    /// `None` if somebody else holds it. One that is not there is made, or is an error.
    fn take(path: &Path, make: bool) -> std::io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().create(make).truncate(false).write(true).mode(0o600).open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Ok(None),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            let (own, there) = (file.metadata()?, fs::metadata(path).ok());
            if there.is_some_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
                return Ok(Some(Self { path: path.into(), file }));
            }
        }
    }

    fn remove(&self) {
        // If it stays, it is a file that nobody holds: whoever comes next takes it.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Removes the sockets, and their locks, of processes that were killed. For a folder in which many have theirs, and those that
/// are gone may never come back for them.
pub fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(SWEPT_MAX) {
        let lock_path = entry.path();
        let Some(path) = lock_path.to_str().and_then(|path| path.strip_suffix(LOCK)) else { continue };
        if let Ok(Some(lock)) = Lock::take(&lock_path, false) {
            if refuse_if_taken(Path::new(path)).is_ok() {
                let _ = fs::remove_file(path);
            }
            lock.remove();
        }
    }
}

/// Makes the folder with mode 0700. One that others may enter is closed to them where that can hurt nobody:
/// it is ours and holds nothing else.
fn secure_folder(path: &Path, lock_path: &Path) -> Result<(), BindError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let failed = |what: &str| {
        let what = format!("{what} {}", folder.display());
        move |source| io(what, source)
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make the folder"))?;
    let found = fs::metadata(folder).map_err(failed("look at the folder"))?;
    let open = |why| Err(BindError::OpenFolder { folder: folder.into(), why });
    if found.uid() != rustix::process::geteuid().as_raw() {
        return open("it belongs to another user");
    }
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(failed("list the folder"))? {
        let entry = entry.map_err(failed("list the folder"))?.path();
        if entry != path && entry != lock_path {
            return open("and holds other files");
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed("set the permissions of"))
}

/// A socket on which nobody listens any more may be replaced, nothing else.
fn refuse_if_taken(path: &Path) -> Result<(), BindError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(io(format!("look at {}", path.display()), source)),
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.into()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(BindError::InUse(path.into())),
    }
}

fn io(what: String, source: std::io::Error) -> BindError {
    BindError::Io { what, source }
}
