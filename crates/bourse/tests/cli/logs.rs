//! `logs`, from files alone and with a daemon that writes them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use crate::world::{Folder, bourse};

const DAEMON: &str = r#"{"timestamp":"2026-11-20T12:51:14.123456Z","level":"INFO","message":"shop: revision a serves","target":"bourse"}
{"timestamp":"2026-11-20T12:51:15.5Z","level":"WARN","function":"other.f","message":"KeyError: 'x'","target":"bourse"}
"#;

#[test]
fn the_daemons_lines_and_the_modules_output() {
    let folder = Folder::with(&[
        (".bourse/logs/bourse-daemon.log", DAEMON),
        (".bourse/logs/shop.log", "one\ntwo\n"),
        (".bourse/logs/other.log", "three\n"),
    ]);
    assert_eq!(
        folder.run(&["logs"]).text(),
        "other | three\nshop | one\nshop | two\n\
         2026-11-20T12:51:14.123Z  INFO shop: revision a serves\n\
         2026-11-20T12:51:15.5Z  WARN KeyError: 'x' function=other.f\n"
    );
    assert_eq!(
        folder.run(&["logs", "shop", "-n", "1"]).text(),
        "shop | two\n2026-11-20T12:51:14.123Z  INFO shop: revision a serves\n"
    );
    let json = folder.run(&["logs", "other", "--json"]).text();
    let lines: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        (&lines[0]["module"], &lines[0]["output"], &lines[1]["level"]),
        (&"other".into(), &"three".into(), &"WARN".into())
    );
    folder
        .run(&["logs", "shopp"])
        .exits(1)
        .says("hold nothing about shopp")
        .says("there is output of other, shop");
}

#[test]
fn following_goes_on_through_rotation() {
    let folder = Folder::with(&[(".bourse/logs/bourse-daemon.log", ""), (".bourse/logs/shop.log", "one\n")]);
    let logs = folder.path().join(".bourse/logs");
    let mut command = bourse(&folder.path());
    let mut child = command.args(["logs", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = || lines.next().unwrap();
    assert_eq!(next(), "shop | one");
    let append = |name: &str, text: &str| {
        fs::File::options()
            .create(true)
            .append(true)
            .open(logs.join(name))
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    };
    // 1. More, in pieces.
    append("shop.log", "two");
    append("shop.log", " and a half\n");
    assert_eq!(next(), "shop | two and a half");
    // 2. Another file in its place.
    fs::rename(logs.join("shop.log"), logs.join("shop.log.1")).unwrap();
    append("shop.log", "a new file\n");
    assert_eq!(next(), "shop | a new file");
    // 3. Cut back.
    fs::write(logs.join("shop.log"), "cut\n").unwrap();
    assert_eq!(next(), "shop | cut");
    // 4. A module that is new, and the daemon.
    append("late.log", "hello\n");
    assert_eq!(next(), "late | hello");
    append("bourse-daemon.log", "{\"level\":\"INFO\",\"message\":\"bye\"}\n");
    assert_eq!(next(), "  INFO bye");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_functions_words_arrive() {
    let module = "from bourse import log\n\ndef say(what: str):\n    print('printed', what)\n    log.warning('logged', what=what)\n";
    let folder = Folder::with(&[("talk.py", module)]);
    let daemon = folder.up(&[]);
    folder.run(&["call", "talk.say", "what=hello"]).exits(0);
    // The last words of a daemon can be read when it is gone.
    drop(daemon);
    let text = folder.run(&["logs", "talk"]).text();
    assert!(
        text.contains("talk | printed hello\n") && text.contains(" WARN talk: logged what=hello"),
        "{text}"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = Folder::with(&[(".bourse/logs/bourse-daemon.log", &"x\n".repeat(100_000))]);
    let mut command = bourse(&folder.path());
    let mut child =
        command.args(["logs", "-n", "100000"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}
