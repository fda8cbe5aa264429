//! Scanning and watching served folders.
#![expect(clippy::unwrap_used, reason = "what can't be set up is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bourse_worker::scan::{self, Broken, Found, Kind, Scan, Warning, scan};
use bourse_worker::watch::{Mode, Watch};

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        put(folder.path(), name, content);
    }
    folder
}

fn put(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn look(root: &Path) -> (BTreeMap<String, Found>, Vec<Broken>, Vec<Warning>) {
    match scan(root).unwrap() {
        Scan::Done { found, broken, warnings } => {
            (found.into_iter().map(|f| (f.name.clone(), f)).collect(), broken, warnings)
        }
        held => panic!("{held:?}"),
    }
}

#[test]
fn modules_are_found_and_the_rest_is_not() {
    let folder = folder(&[
        ("one.py", ""),
        ("_helper.py", ""),
        (".hidden.py", ""),
        ("readme.md", ""),
        ("pack/__init__.py", ""),
        ("pack/data/table.csv", ""),
        ("pack/__pycache__/x.pyc", ""),
        ("lib/shared.py", ""),
        ("venv/pyvenv.cfg", ""),
        ("venv/__init__.py", ""),
        (".bourse/env/x.py", ""),
        (
            "tool/bourse.toml",
            "[module]\ncommand = ['./run', '-v']\ntimeout = '5s'\n[module.env]\nLEVEL = '3'\n",
        ),
        ("tool/run", ""),
        ("bourse.toml", "http = '127.0.0.1:0'\n[modules.one.env]\nA = 'b'\n"),
    ]);
    let (found, broken, warnings) = look(folder.path());
    assert_eq!((broken, warnings), (vec![], vec![]));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["one", "pack", "tool"]);
    assert_eq!(
        (&found["one"].kind, &found["one"].files),
        (&Kind::PythonFile, &vec![PathBuf::from("one.py")])
    );
    assert_eq!(found["one"].settings.env["A"], "b");
    assert_eq!(found["pack"].kind, Kind::PythonPackage);
    assert_eq!(
        found["pack"].files,
        [PathBuf::from("pack/__init__.py"), PathBuf::from("pack/data/table.csv")]
    );
    assert_eq!(found["tool"].kind, Kind::Process(vec!["./run".into(), "-v".into()]));
    assert_eq!(found["tool"].settings.env["LEVEL"], "3");
    assert_eq!(found["tool"].settings.options["timeout"].as_str(), Some("5s"));
    assert_eq!(found["tool"].path, folder.path().join("tool"));
}

#[test]
fn what_cannot_be_served_says_why() {
    let folder = folder(&[
        ("my-module.py", ""),
        ("class.py", ""),
        ("twice.py", ""),
        ("twice/__init__.py", ""),
        ("bad/bourse.toml", "[module\n"),
        ("none/bourse.toml", "[module]\n"),
        ("own/__init__.py", ""),
        ("own/bourse.toml", "[module.env]\nBOURSE_X = '1'\n"),
        ("good.py", ""),
        ("bourse.toml", "[modules.gone]\ntimeout = '1s'\n"),
    ]);
    let (found, broken, warnings) = look(folder.path());
    assert_eq!(found.keys().collect::<Vec<_>>(), ["good"]);
    let reasons: BTreeMap<_, _> = broken.iter().map(|b| (b.name.as_str(), b.reason.as_str())).collect();
    assert!(
        reasons["twice"].contains("twice.py and twice/") || reasons["twice"].contains("twice/ and twice.py")
    );
    assert!(reasons["bad"].contains("bad/bourse.toml"), "{reasons:?}");
    assert!(reasons["none"].contains("neither"), "{reasons:?}");
    assert!(reasons["own"].contains("BOURSE_X"), "{reasons:?}");
    let warnings: Vec<_> = warnings.iter().map(|w| w.reason.as_str()).collect();
    assert!(warnings.iter().any(|w| w.contains("my_module would do")), "{warnings:?}");
    assert!(warnings.iter().any(|w| w.contains("keyword")), "{warnings:?}");
    assert!(warnings.iter().any(|w| w.contains("[modules.gone]")), "{warnings:?}");
}

#[test]
fn a_deploy_holds_the_scan() {
    let folder = folder(&[("one.py", ""), (scan::DEPLOY_LOCK, "")]);
    assert!(matches!(scan(folder.path()).unwrap(), Scan::Held { .. }));
    fs::remove_file(folder.path().join(scan::DEPLOY_LOCK)).unwrap();
    assert_eq!(look(folder.path()).0.len(), 1);
}

#[test]
fn links_in_circles_end() {
    let folder = folder(&[("pack/__init__.py", ""), ("pack/sub/a.py", "")]);
    symlink("..", folder.path().join("pack/sub/up")).unwrap();
    symlink("self", folder.path().join("pack/self")).unwrap();
    symlink(folder.path(), folder.path().join("pack/sub/root")).unwrap();
    let (found, ..) = look(folder.path());
    assert!(found["pack"].files.len() < 10, "{found:?}");
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    assert!(matches!(scan(Path::new("/no/such/folder")), Err(scan::Error::Folder { .. })));
}

fn watch(root: &Path) -> (Watch, Receiver<()>) {
    let (tell, told) = channel();
    let watch = Watch::start(root, move || _ = tell.send(())).unwrap();
    (watch, told)
}

fn notices(told: &Receiver<()>, what: &str) {
    told.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("not noticed: {what}"));
    // A burst that was longer than expected is told twice.
    while told.recv_timeout(Duration::from_millis(150)).is_ok() {}
}

#[test]
fn changes_are_noticed() {
    let folder = folder(&[("one.py", "x = 1"), ("pack/__init__.py", "")]);
    let root = folder.path();
    let (watch, told) = watch(root);
    assert_eq!(watch.mode(), Mode::Inotify);
    put(root, "one.py", "x = 2");
    notices(&told, "a save");
    put(root, ".one.py.swap", "x = 3");
    fs::rename(root.join(".one.py.swap"), root.join("one.py")).unwrap();
    notices(&told, "a rename over a file");
    put(root, "new/deep/__init__.py", "");
    notices(&told, "a new folder");
    put(root, "new/deep/__init__.py", "x = 1");
    notices(&told, "a save in a new folder");
    put(root, "requirements.txt", "six");
    notices(&told, "requirements");
    fs::remove_file(root.join("one.py")).unwrap();
    notices(&told, "a removal");
    put(root, scan::DEPLOY_LOCK, "");
    notices(&told, "a deploy");
}

#[test]
fn what_nobody_would_see_is_not_noticed() {
    let folder = folder(&[("one.py", "")]);
    let (_watch, told) = watch(folder.path());
    put(folder.path(), ".bourse/store.db", "x");
    put(folder.path(), "__pycache__/one.pyc", "x");
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
    put(folder.path(), "one.py", "x = 1");
    notices(&told, "a save");
}

#[test]
fn a_folder_that_vanishes_is_found_again() {
    let folder = folder(&[("served/one.py", "")]);
    let root = folder.path().join("served");
    let (watch, told) = watch(&root);
    fs::remove_dir_all(&root).unwrap();
    notices(&told, "the removal of the folder");
    assert!(matches!(watch.mode(), Mode::Polling(_)));
    put(&root, "one.py", "x = 1");
    notices(&told, "the folder's return");
    assert_eq!(watch.mode(), Mode::Inotify);
    put(&root, "one.py", "x = 2");
    notices(&told, "a save after its return");
}
