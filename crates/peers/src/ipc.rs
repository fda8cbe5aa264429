//! The Unix sockets of the nodes that one user runs on one machine. Where a node has its own follows from its key alone, so
//! that whoever is to dial it looks there first, and needs not be told anything.
//!
//! ```text
//! $XDG_RUNTIME_DIR/bourse/links/91d0…4e     named after the node's key and the network that it is on
//! ```
//!
//! A socket only carries: CURVE proves who is at its other end, as over tcp, so one that is stale, or somebody else's, costs an
//! attempt and gets nobody in. Only the user can enter the folder, and a process on another network (a container, a network
//! namespace) looks for another name: what is cut off by its network is cut off.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;

use bourse_transport::{Endpoint, IPC_PATH_BYTES_MAX, Key, Router};

use crate::own;

/// The network that this thread is on: what it opens is there, whatever the process does.
const NETWORK: &str = "/proc/thread-self/ns/net";

/// The folder's name.
const FOLDER: &str = "links";

/// Hexadecimal digits of a socket's name.
const NAME_DIGITS: usize = 32;

/// Where this user's sockets are: below the runtime folder, or in `/tmp` where their paths would be too long for a socket.
pub fn folder() -> PathBuf {
    shorter(own::runtime_folder()).join(FOLDER)
}

fn shorter(runtime: PathBuf) -> PathBuf {
    let bytes = runtime.as_os_str().as_bytes().len() + "/".len() + FOLDER.len() + "/".len() + NAME_DIGITS;
    if bytes <= IPC_PATH_BYTES_MAX { runtime } else { own::temporary_folder() }
}

/// The sockets in a folder, as seen from one network.
pub(crate) struct Sockets {
    folder: PathBuf,
    /// The device and the inode of its namespace.
    pub(crate) network: (u64, u64),
}

impl Sockets {
    /// `None` where it cannot be known which network this is.
    pub(crate) fn new(folder: PathBuf) -> Option<Self> {
        match fs::metadata(NETWORK) {
            Ok(network) => Some(Self { folder, network: (network.dev(), network.ino()) }),
            Err(error) => {
                tracing::warn!(
                    "{NETWORK} cannot be looked at: {error}; nodes of this machine are spoken with over tcp"
                );
                None
            }
        }
    }

    /// Has a router listen for the nodes of this machine as well, as the node with this key.
    pub(crate) async fn bind(&self, router: &mut Router, key: Key) -> anyhow::Result<()> {
        for folder in self.folder.parent().into_iter().chain([&*self.folder]) {
            own::make_private_folder(folder)?;
        }
        // Nodes that were killed, and may never come back, have left theirs.
        bourse_transport::sweep(&self.folder);
        router.bind(&Endpoint::Ipc(self.path(key))).await?;
        Ok(())
    }

    /// The socket of a node, if there is one that this user has made.
    pub(crate) fn find(&self, key: Key) -> Option<PathBuf> {
        let path = self.path(key);
        let found = fs::symlink_metadata(&path).ok()?;
        (found.file_type().is_socket() && found.uid() == rustix::process::geteuid().as_raw()).then_some(path)
    }

    pub(crate) fn path(&self, key: Key) -> PathBuf {
        let (device, inode) = self.network;
        let mut hasher = blake3::Hasher::new_derive_key("bourse 2026 the socket of a node");
        hasher.update(&key.0).update(&device.to_be_bytes()).update(&inode.to_be_bytes());
        let name = hasher.finalize().to_hex();
        self.folder.join(&name[..NAME_DIGITS])
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_path_follows_from_the_key_and_the_network() {
        let here = Sockets::new("/run/user/1000/bourse/links".into()).unwrap();
        let elsewhere =
            Sockets { network: (here.network.0, here.network.1 + 1), folder: here.folder.clone() };
        let [one, two] = [Key([1; 32]), Key([2; 32])];
        assert_eq!(here.path(one), Sockets::new(here.folder.clone()).unwrap().path(one));
        assert_ne!(here.path(one), here.path(two));
        assert_ne!(here.path(one), elsewhere.path(one));
        assert_eq!(here.path(one).file_name().unwrap().len(), NAME_DIGITS);
    }

    #[test]
    fn a_path_is_never_too_long() {
        let bytes = |folder: &Path| {
            let sockets = Sockets::new(folder.join(FOLDER)).unwrap();
            sockets.path(Key([1; 32])).as_os_str().as_bytes().len()
        };
        let mut runtime = PathBuf::from("/run");
        while bytes(&runtime) < IPC_PATH_BYTES_MAX {
            assert_eq!(shorter(runtime.clone()), runtime);
            runtime.as_mut_os_string().push("n");
        }
        assert_eq!(shorter(runtime.clone()), runtime, "the longest that fits");
        runtime.as_mut_os_string().push("n");
        assert_eq!(shorter(runtime), own::temporary_folder());
    }

    #[test]
    fn what_is_no_socket_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let sockets = Sockets::new(folder.path().to_owned()).unwrap();
        let key = Key([1; 32]);
        assert_eq!(sockets.find(key), None);
        fs::write(sockets.path(key), "").unwrap();
        assert_eq!(sockets.find(key), None);
        fs::remove_file(sockets.path(key)).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(sockets.path(key)).unwrap();
        assert_eq!(sockets.find(key), Some(sockets.path(key)));
    }
}
