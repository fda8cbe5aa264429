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

use crate::error::{BindError, EndpointError};

/// The longest path a Unix socket can have on Linux; one byte of the 108 ends it.
pub const IPC_PATH_BYTES_MAX: usize = 107;

/// An address to bind or to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket: `ipc:///run/bourse/node.sock`. The path is absolute.
    Ipc(PathBuf),
    /// `tcp://127.0.0.1:7071`; binding port 0 picks a free one.
    Tcp(SocketAddr),
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

/// A socket path that is ours while this lives. Dropping it removes the socket, if it is still the one we made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    made: Option<(u64, u64)>,
    /// Held, never read. The file stays behind: removing a lock that another waits for would make two owners.
    _lock: File,
}

impl SocketFile {
    /// Makes sure that `path` can be bound without taking anything from anyone.
    pub(crate) fn claim(path: &Path) -> Result<Self, BindError> {
        let length = path.as_os_str().as_bytes().len();
        if length > IPC_PATH_BYTES_MAX {
            return Err(BindError::PathTooLong { path: path.into(), length });
        }
        let mut lock_name = path.as_os_str().to_owned();
        lock_name.push(".lock");
        let lock_path = PathBuf::from(lock_name);
        secure_folder(path, &lock_path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|source| io(format!("open {}", lock_path.display()), source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(BindError::InUse(path.into())),
            Err(fs::TryLockError::Error(source)) => {
                return Err(io(format!("lock {}", lock_path.display()), source));
            }
        }
        refuse_if_taken(path)?;
        Ok(Self { path: path.into(), made: None, _lock: lock })
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
