//! Which daemon a command is for, and what it says when there is none.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use crate::world::Folder;

const HELLO: &str = "def hello():\n    return 'hello'\n";

#[test]
fn the_daemon_is_found_from_everywhere() {
    let folder = Folder::with(&[("hello.py", HELLO), ("below/and/below/x", "")]);
    let elsewhere = Folder::new();
    let daemon = folder.up(&[]);
    let (here, url) = (folder.path().display().to_string(), daemon.url.as_str());
    let data = format!("{here}/.bourse");
    let hello = ["call", "hello.hello"];
    let good = |done: crate::world::Done| assert_eq!(done.text(), "\"hello\"\n");

    good(folder.run(&hello));
    for flags in [
        ["-C", &here],
        ["--folder", &here],
        ["--data", &data],
        ["--url", url],
        ["--url", url.trim_start_matches("http://")],
    ] {
        good(elsewhere.run(&[&hello[..], &flags[..]].concat()));
    }
    for variable in [("BOURSE_URL", url), ("BOURSE_DATA", data.as_str())] {
        good(elsewhere.run_with(&hello, b"", &[variable]));
    }
    // What is said beats what is set.
    let set = [("BOURSE_URL", "http://127.0.0.1:1")];
    good(elsewhere.run_with(&[&hello[..], &["-C", &here]].concat(), b"", &set));
    elsewhere.run_with(&hello, b"", &set).exits(3);

    // From a folder below.
    let below = Command::new(env!("CARGO_BIN_EXE_bourse"))
        .args(hello)
        .current_dir(folder.path().join("below/and/below"))
        .output();
    assert_eq!(below.unwrap().stdout, b"\"hello\"\n");

    // A second daemon on the same folder is refused, and says where the first one is.
    folder
        .run(&["up", ".", "--http", "127.0.0.1:0"])
        .exits(1)
        .says("is served already, by process ")
        .says(url);

    // Once it has stopped, and once it was killed.
    drop(daemon);
    folder.run(&hello).exits(3).says("no daemon runs on ").says(&format!("bourse up {here}"));
    folder.up(&[]).kill();
    folder.run(&hello).exits(3).says("is not running: process ").says(&format!("bourse up {here}"));
}

#[test]
fn the_settings_of_a_folder_count() {
    let folder = Folder::with(&[
        ("hello.py", HELLO),
        ("bourse.toml", "[daemon]\ndata = \"kept\"\ntoken = \"secret\""),
    ]);
    let elsewhere = Folder::new();
    let daemon = folder.up(&[]);
    assert!(folder.path().join("kept/daemon.json").exists());
    assert_eq!(folder.run(&["call", "hello.hello"]).text(), "\"hello\"\n");
    let here = folder.path().display().to_string();
    assert_eq!(elsewhere.run(&["call", "hello.hello", "-C", &here]).text(), "\"hello\"\n");

    let call = ["call", "hello.hello", "--url", &daemon.url];
    elsewhere.run(&call).exits(1).says("error: Unauthorized");
    elsewhere.run(&[&call[..], &["--token", "wrong"]].concat()).exits(1).says("error: Unauthorized");
    assert_eq!(elsewhere.run(&[&call[..], &["--token", "secret"]].concat()).text(), "\"hello\"\n");
    assert_eq!(elsewhere.run_with(&call, b"", &[("BOURSE_TOKEN", "secret")]).text(), "\"hello\"\n");
}

#[test]
fn nobody_there() {
    let folder = Folder::new();
    folder.run(&["ps"]).exits(3).says("no daemon was found").says("bourse up FOLDER");
    folder.run(&["ps", "-C", "."]).exits(3).says("has no data of a daemon");
    folder.run(&["logs"]).exits(3).says("no daemon was found");
    folder.run(&["ps", "--url", "https://127.0.0.1:1"]).exits(2).says("only http is spoken");
    folder.run(&["ps", "--url", "http://"]).exits(2);
    folder.run(&["ps", "--url", "http://127.0.0.1:1", "-C", "."]).exits(2).says("cannot be used with");

    // A port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    folder.run(&["ps", "--url", &format!("http://{free}")]).exits(3).says("no daemon answers at ");

    // What a daemon has left that ended long ago, and nonsense.
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let contact = |pid: u32| {
        format!(
            r#"{{"pid": {pid}, "http": "http://{free}", "endpoint": "", "token_file": "", "folder": "/srv/shop", "version": "0"}}"#
        )
    };
    folder.write(".bourse/daemon.json", &contact(ended.id()));
    folder
        .run(&["ps"])
        .exits(3)
        .says("the daemon of /srv/shop is not running: process ")
        .says("bourse up /srv/shop");
    folder.write(".bourse/daemon.json", &contact(std::process::id()));
    folder.run(&["ps"]).exits(3).says("no daemon answers at ");
    folder.write(".bourse/daemon.json", "{");
    folder.run(&["ps"]).exits(3).says("daemon.json cannot be used");
    fs::remove_file(folder.path().join(".bourse/daemon.json")).unwrap();
}

/// Answers one connection, after its request's head, with these bytes.
fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        stream.write_all(bytes).unwrap();
    });
    url
}

#[test]
fn strange_answers() {
    let folder = Folder::new();
    // The call may have run: scripts can tell.
    let call = |bytes| folder.run(&["call", "a.b", "--url", &answering(bytes)]);
    call(b"").exits(4).says("broke before the answer came").says("may have run, or not");
    call(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").exits(4);
    call(b"SSH-2.0-OpenSSH_9.2\r\n").exits(4);
    let ps = |bytes| folder.run(&["ps", "--url", &answering(bytes)]);
    ps(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").exits(3).says("is not a daemon");
    ps(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").exits(3).says("is not a daemon");
}
