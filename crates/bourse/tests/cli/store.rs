//! `store backup`, with and without a daemon.

use std::fs;

use crate::world::Folder;

const COUNT: &str = "
from bourse import function, state

@function
def up():
    n = state('count/n').get(0) + 1
    state('count/n').set(n)
    return n
";

#[test]
fn a_backup_can_be_gone_back_to() {
    let folder = Folder::with(&[("count.py", COUNT)]);
    let up = || folder.run(&["call", "count.up"]).text();
    let backup = |arguments: &[&str]| folder.run(&[&["store", "backup"], arguments].concat());

    // 1. While the daemon works.
    let daemon = folder.up(&[]);
    assert_eq!((up(), up()), ("1\n".into(), "2\n".into()));
    let told = backup(&["two.sqlite"]).text();
    assert!(told.contains("two.sqlite: ") && told.contains("a copy of "), "{told}");
    assert_eq!(up(), "3\n");
    backup(&["two.sqlite"]).exits(1).says("is there already").says("--replace");
    backup(&["nowhere/x.sqlite"]).exits(1);
    backup(&[".bourse/store.sqlite", "--replace"]).exits(1).says("is the store itself");

    // 2. After it was killed: what it had committed lies in the log yet.
    daemon.kill();
    let told = backup(&["three.sqlite", "--json"]).exits(0).json();
    assert_eq!(told["file"], folder.path().join("three.sqlite").display().to_string());

    // 3. Each is what it was.
    for (file, next) in [("two.sqlite", "3\n"), ("three.sqlite", "4\n")] {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(folder.path().join(format!(".bourse/store.sqlite{end}")));
        }
        fs::copy(folder.path().join(file), folder.path().join(".bourse/store.sqlite")).unwrap();
        let _daemon = folder.up(&[]);
        assert_eq!(up(), next, "{file}");
    }
}

#[test]
fn what_cannot_be_backed_up() {
    let folder = Folder::with(&[("count.py", COUNT)]);
    folder.run(&["store", "backup", "x"]).exits(3).says("no daemon was found");
    let daemon = folder.up(&["--store", "memory"]);
    folder.run(&["store", "backup", "x"]).exits(1).says("has no store").says("kept in memory");
    drop(daemon);

    // A file of an earlier run does not pass for what the daemon has in memory.
    drop(folder.up(&[]));
    let daemon = folder.up(&["--store", "memory"]);
    folder.run(&["store", "backup", "x"]).exits(1).says("does not use ");
    drop(daemon);
    folder.run(&["store", "backup", "x"]).exits(0);

    folder.write(".bourse/store.sqlite", "not a database at all");
    folder.run(&["store", "backup", "y"]).exits(1).says("store.sqlite is not a bourse store");
    assert!(!folder.path().join("y").exists());
}
