//! Binding takes nothing from anyone, and lets nobody else in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use bourse_transport::{BindError, Endpoint, IPC_PATH_BYTES_MAX, Router, RouterOptions, sweep};

use crate::node::bounds;

fn router() -> Router {
    Router::new(RouterOptions::new(bounds())).unwrap()
}

async fn bind(path: &Path) -> Result<Router, BindError> {
    let mut router = router();
    router.bind(&Endpoint::Ipc(path.into())).await?;
    Ok(router)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_folder_is_made_and_both_are_closed_to_others() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("made/for/it/node.sock");
    let router = bind(&path).await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&path), 0o600);
    router.shut_down().await;
    assert!(!path.exists(), "the socket is removed");
}

#[tokio::test]
async fn a_folder_open_to_others_is_closed_only_if_it_is_empty() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("open");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    drop(bind(&folder.join("node.sock")).await.unwrap());
    assert_eq!(mode(&folder), 0o700);

    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join("index.html"), "served by someone else").unwrap();
    let refused = bind(&folder.join("node.sock")).await.unwrap_err();
    assert!(matches!(refused, BindError::OpenFolder { .. }), "{refused}");
    assert_eq!(mode(&folder), 0o755);
}

#[tokio::test]
async fn the_longest_path_binds_and_a_longer_one_says_so() {
    let root = tempfile::tempdir().unwrap();
    let room = IPC_PATH_BYTES_MAX - root.path().as_os_str().len() - 1;
    bind(&root.path().join("x".repeat(room))).await.unwrap();
    let refused = bind(&root.path().join("x".repeat(room + 1))).await.unwrap_err();
    assert!(refused.to_string().contains("is 108 bytes long and at most 107 are possible"), "{refused}");
}

#[tokio::test]
async fn a_live_socket_is_not_stolen() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("node.sock");
    // 1. Of another router: the lock says so.
    let first = bind(&path).await.unwrap();
    let refused = bind(&path).await.unwrap_err();
    assert!(matches!(refused, BindError::InUse(_)), "{refused}");
    tokio::net::UnixStream::connect(&path).await.expect("the first still listens");
    // 2. Once it is gone, the path is free.
    first.shut_down().await;
    drop(bind(&path).await.unwrap());
    // 3. Of a program that knows no lock: a connection says so.
    let foreign = root.path().join("foreign.sock");
    let _listener = UnixListener::bind(&foreign).unwrap();
    let refused = bind(&foreign).await.unwrap_err();
    assert!(matches!(refused, BindError::InUse(_)), "{refused}");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_file_is_not() {
    let root = tempfile::tempdir().unwrap();
    let stale = root.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    bind(&stale).await.unwrap();

    let file = root.path().join("precious");
    fs::write(&file, "data").unwrap();
    let refused = bind(&file).await.unwrap_err();
    assert!(matches!(refused, BindError::NotASocket(_)), "{refused}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "data");
}

#[tokio::test]
async fn sweeping_takes_what_is_stale_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let _live = bind(&path("live")).await.unwrap();
    // 1. What is left of two that were killed: one before it had its socket.
    drop(UnixListener::bind(path("killed")).unwrap());
    fs::write(path("killed.lock"), "").unwrap();
    fs::write(path("early.lock"), "").unwrap();
    // 2. What is not ours to judge: a socket whose owner knows no lock, one that listens beside a lock that nobody
    //    holds, a file.
    drop(UnixListener::bind(path("foreign")).unwrap());
    let _listener = UnixListener::bind(path("listens")).unwrap();
    fs::write(path("listens.lock"), "").unwrap();
    fs::write(path("file"), "data").unwrap();
    fs::write(path("file.lock"), "").unwrap();
    sweep(root.path());
    let left = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, ["file", "foreign", "listens", "live", "live.lock"]);
    tokio::net::UnixStream::connect(path("live")).await.expect("it still listens");
    sweep(&path("no such folder"));
}

#[test]
fn a_lock_that_is_removed_never_makes_two_owners() {
    // Threads that claim one path and let go of it again: a file that says who has it would be there twice.
    let root = tempfile::tempdir().unwrap();
    let (path, owner) = (root.path().join("node.sock"), root.path().join("owner"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let mut times = 0;
                while times < 25 {
                    let Ok(router) = runtime.block_on(bind(&path)) else { continue };
                    fs::OpenOptions::new().write(true).create_new(true).open(&owner).expect("one owner");
                    fs::remove_file(&owner).unwrap();
                    runtime.block_on(router.shut_down());
                    times += 1;
                }
            });
        }
    });
}

#[tokio::test]
async fn dropping_removes_the_socket_unless_it_is_anothers_by_now() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("node.sock");
    let router = bind(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(router);
    assert!(path.exists());
}

#[tokio::test]
async fn tcp_tells_its_port_and_stays_on_loopback() {
    let mut router = router();
    let bound = router.bind(&"tcp://127.0.0.1:0".parse().unwrap()).await.unwrap();
    let Endpoint::Tcp(address) = bound else { panic!("{bound}") };
    assert_ne!(address.port(), 0);
    tokio::net::TcpStream::connect(address).await.unwrap();

    let refused = router.bind(&"tcp://0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(matches!(refused, BindError::Exposed(_)), "{refused}");
    let mut options = RouterOptions::new(bounds());
    options.exposed = true;
    let mut told = Router::new(options).unwrap();
    told.bind(&"tcp://0.0.0.0:0".parse().unwrap()).await.unwrap();
}

#[test]
fn endpoints_are_read_and_written() {
    for text in ["ipc:///run/bourse/node.sock", "tcp://127.0.0.1:7071", "tcp://[::1]:7071"] {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
    }
    for text in
        ["", "ipc://node.sock", "ipc://", "ipc://@abstract", "tcp://localhost:1", "tcp://1.2.3.4", "udp://x"]
    {
        let refused = text.parse::<Endpoint>().unwrap_err().to_string();
        assert!(
            refused.contains(text) && (refused.contains("needs") || refused.contains("write")),
            "{refused}"
        );
    }
}
