//! `new`, `completions` and the help texts.

use crate::world::Folder;

#[test]
fn what_is_made_works() {
    let folder = Folder::new();
    let told = folder.run(&["new", "shop"]).text();
    assert!(
        told.contains("bourse up shop") && told.contains("bourse call hello.hello name=Ada -C shop"),
        "{told}"
    );
    let made = folder.run(&["new", "deep/notes", "--template", "state", "--json"]).exits(0).json();
    assert_eq!(made["files"], serde_json::json!(["notes.py", "README.md", ".gitignore"]));

    let shop = Folder::new();
    shop.run(&["new", "."]).exits(0);
    let _daemon = shop.up(&[]);
    assert_eq!(shop.run(&["call", "hello.hello", "name=Ada"]).text(), "\"hello Ada\"\n");
    assert_eq!(shop.run(&["call", "hello.add", "a=1", "b=2"]).text(), "3\n");
    let readme = std::fs::read_to_string(shop.path().join("README.md")).unwrap();
    assert!(!readme.contains("FOLDER_NAME"));
}

#[test]
fn the_template_with_state_keeps_it() {
    let notes = Folder::new();
    notes.run(&["new", ".", "--template", "state"]).exits(0);
    let daemon = notes.up(&[]);
    notes.run(&["call", "notes.write", "name=shopping", "body=tea"]).exits(0);
    assert_eq!(
        notes.run(&["call", "notes.write", "name=shopping", "body=milk"]).text(),
        "{\"name\":\"shopping\",\"times\":2}\n"
    );
    daemon.kill();
    let _daemon = notes.up(&[]);
    assert_eq!(
        notes.run(&["call", "notes.read", "name=shopping"]).text(),
        "{\"text\":\"milk\",\"times\":2}\n"
    );
    assert_eq!(notes.run(&["call", "notes.names"]).text(), "[\"shopping\"]\n");
}

#[test]
fn nothing_is_written_over() {
    let folder = Folder::with(&[("full/precious", ""), ("file", "")]);
    folder.run(&["new", "full"]).exits(1).says("full is there and not empty");
    folder.run(&["new", "file"]).exits(1).says("file is a file");
    folder.run(&["new", "file/below"]).exits(1);
    folder.run(&["new", "x", "--template", "helo"]).exits(2).says("hello");
    assert_eq!(std::fs::read_dir(folder.path().join("full")).unwrap().count(), 1);
}

#[test]
fn completions_and_help() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(folder.run(&["completions", shell]).text().contains("bourse"));
    }
    for command in [
        &["up"][..],
        &["call"],
        &["map"],
        &["ps"],
        &["logs"],
        &["new"],
        &["completions"],
        &["config", "show"],
        &["config", "schema"],
        &["store", "backup"],
    ] {
        let help = folder.run(&[command, &["--help"]].concat()).text();
        assert!(help.contains("Example"), "{command:?} shows no example:\n{help}");
    }
    assert!(folder.run(&["--help"]).text().contains("Exit status:"));
}
