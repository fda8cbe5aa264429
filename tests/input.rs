//! What people get wrong before anything runs, and what they are told.

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Daemon, Setup, wait_for};

const HELLO: (&str, &str) = ("hello.py", "def hello(name: str = 'you'): return f'hello {name}'\n");

/// Every part is said.
#[track_caller]
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
}

#[test]
fn a_folder_that_is_not_there_or_is_none() {
    let setup = Setup::new(&[]);
    fs::remove_dir(setup.folder()).expect("it is removed");
    says(&setup.refused(), &["error: the folder", "does not exist", "hint: make one"]);
    let setup = Setup::new(&[]);
    fs::remove_dir(setup.folder()).expect("it is removed");
    fs::write(setup.folder(), "").expect("a file");
    says(&setup.refused(), &["is not a folder", "hint: name the folder that holds it"]);
}

#[test]
fn a_folder_without_functions_says_what_to_do_and_serves_what_comes() {
    let daemon = Daemon::start(&[("notes.txt", "nothing"), ("constants.py", "X = 1\n")]);
    says(
        &daemon.log(),
        &["holds no function; nothing is served until that changes", "hint: save a file such as hello.py"],
    );
    says(
        &daemon.call("hello.hello", json!({})).problem(404, "not_found"),
        &["there is no function hello.hello"],
    );
    daemon.write(HELLO.0, HELLO.1);
    wait_for("it is served", || daemon.call("hello.hello", json!({})).status == 200);
}

#[test]
fn modules_that_do_not_load_are_reported_with_their_own_traceback() {
    let daemon = Daemon::start(&[
        HELLO,
        ("broken.py", "def f():\n    return (\n"),
        ("imports.py", "import no_such_package\ndef f(): pass\n"),
        ("raises.py", "def g(): return 1 / 0\ng()\ndef f(): pass\n"),
        ("exits.py", "import sys\nsys.exit(3)\n"),
        ("dies.py", "import os\nos._exit(4)\n"),
        ("wrong-name.py", "def f(): pass\n"),
        ("class.py", "def f(): pass\n"),
        ("option.py", "from bourse import function\n@function(exclusive=3)\ndef f(): pass\n"),
        (
            "twice.py",
            "from bourse import function\n@function(name='same')\ndef a(): pass\n@function(name='same')\ndef b(): pass\n",
        ),
        ("route.py", "from bourse import function\n@function(http='GET no-slash')\ndef a(): pass\n"),
        ("streams.py", "def f():\n    yield 1\n"),
        ("version.py", "__version__ = 'one'\ndef f(): pass\n"),
    ]);
    let log = daemon.log();
    says(
        &log,
        &[
            "broken: revision",
            "SyntaxError",
            "broken.py\", line 2",
            "imports: revision",
            "ModuleNotFoundError: No module named 'no_such_package'",
            "imports.py\", line 1",
            "raises: revision",
            "ZeroDivisionError",
            "raises.py\", line 2",
            "exits: revision",
            "SystemExit",
            "dies: revision",
            "exited with code 4",
            "\"wrong-name\" can't be a module's name",
            "wrong_name would do",
            "\"class\" can't be a module's name: it is a Python keyword",
            "option: revision",
            "exclusive",
            "twice: revision",
            "same",
            "route: revision",
            "no-slash",
            "streams: revision",
            "generator",
            "version: revision",
            "semantic version",
        ],
    );
    assert!(!log.contains("_discover.py"), "our own frames are of no use to anybody:\n{log}");
    assert_eq!(daemon.call("hello.hello", json!({})).ok(), "hello you");
    let said = daemon.call("broken.f", json!({})).problem(502, "module_failed");
    says(&said, &["SyntaxError"]);
}

#[test]
fn two_functions_with_one_route() {
    let route = |name: &str| {
        format!("from bourse import function\n@function(http='GET /same')\ndef f(): return {name:?}\n")
    };
    let daemon = Daemon::start(&[("one.py", &route("one")), ("two.py", &route("two"))]);
    let log = daemon.log();
    says(&log, &["GET /same", "one.f", "two.f", "hint: give one of them another route"]);
    let served = daemon.get("/same").ok();
    let (loser, winner) = if served == "one" { ("two", "one") } else { ("one", "two") };
    daemon.call(&format!("{loser}.f"), json!({})).problem(502, "module_failed");
    // When the other one goes, this one's next save is served.
    fs::remove_file(daemon.folder().join(format!("{winner}.py"))).expect("it is removed");
    wait_for("the other is served now", || daemon.get("/same").text() == format!("{loser:?}"));
    let same_module = "from bourse import function\n@function(http='GET /same')\ndef f(): pass\n@function(http='GET /same')\ndef g(): pass\n";
    let daemon = Daemon::start(&[("one.py", same_module)]);
    says(&daemon.log(), &["one: revision", "GET /same"]);
}

#[test]
fn settings_that_are_not_known() {
    for (toml, parts) in [
        ("[daemon]\nqueue_wiat = '1s'\n", &["\"queue_wiat\"", "did you mean \"queue_wait\"?"][..]),
        ("[deamon]\n", &["\"deamon\"", "did you mean \"daemon\"?"]),
        ("timeout = '1s'\n", &["did you mean \"[daemon] timeout\"?"]),
        ("[daemon]\ntimeout = 'soon'\n", &["timeout", "is not a duration such as"]),
        ("[daemon]\nrunning = 0\n", &["running"]),
        ("[daemon]\nping = 0\n", &["ping"]),
        ("[daemon]\nhttp = 'nowhere'\n", &["is not an address such as 127.0.0.1:7070"]),
        ("[modules.hello]\nidel = '1s'\n", &["\"idel\"", "did you mean \"idle\"?", "hello"]),
        ("[modules.hello]\nhttp = '127.0.0.1:1'\n", &["http is a setting of the daemon"]),
        ("[modules]\nhello = 3\n", &["bourse.toml", "hello"]),
        ("[modules.hello.env]\nBOURSE_X = 'y'\n", &["BOURSE_X is set by Bourse itself"]),
        ("[routes]\n'GET /x' = 3\n", &["GET /x", "module.function"]),
        ("[routes]\n'GET x' = 'hello.hello'\n", &["GET x"]),
        ("[routes]\n'GET /x' = 'hello'\n", &["hello", "module.function"]),
        ("[daemon\n", &["bourse.toml", "cannot be read"]),
        ("daemon = 3\n", &["daemon"]),
    ] {
        println!("{toml}");
        let said = Setup::new(&[HELLO, ("bourse.toml", toml)]).refused();
        says(&said, parts);
        assert!(said.starts_with("error: "), "{said}");
    }
    says(&Setup::new(&[HELLO]).set("tmeout", "1s").refused(), &["\"tmeout\"", "did you mean \"timeout\"?"]);
    says(&Setup::new(&[HELLO]).variable("BOURSE_TIMEOUT", "soon").refused(), &["BOURSE_TIMEOUT", "duration"]);
    says(
        &Setup::new(&[HELLO]).set("store", "oracle").refused(),
        &["\"oracle\" is not supported", "hint: use sqlite"],
    );
    says(&Setup::new(&[HELLO]).variable("BOURSE_IDEL", "1s").refused(), &["BOURSE_IDEL", "\"BOURSE_IDLE\"?"]);
    says(&Setup::new(&[HELLO]).set("log", "loud").refused(), &["\"loud\" is no level", "warn, info"]);
    let table = [HELLO, ("bourse.toml", "[module]\ntimeout = '3s'\n")];
    says(&Setup::new(&table).refused(), &["[module]", "hint:", "[modules.NAME]"]);
    let module = [HELLO, ("bourse.toml", "[modules.hello]\nqueue = 0\n")];
    says(&Setup::new(&module).refused(), &["queue = 0", "must be above zero"]);
    says(&Setup::new(&[HELLO]).set("log", "a=b=c").refused(), &["log", "hint: use error, warn"]);
}

#[test]
fn a_folder_of_its_own_with_a_setting_that_is_not_known() {
    let daemon = Daemon::start(&[
        HELLO,
        ("pack/__init__.py", "def f(): return 1\n"),
        ("pack/bourse.toml", "[module]\nidel = '1s'\n"),
    ]);
    says(&daemon.log(), &["pack", "\"idel\"", "did you mean \"idle\"?"]);
    daemon.call("hello.hello", json!({})).ok();
    daemon.write("pack/bourse.toml", "[module]\nidle = '1s'\n");
    wait_for("it is mended", || daemon.call("pack.f", json!({})).status == 200);
}

#[test]
fn a_route_to_a_function_that_does_not_exist_is_reported() {
    let daemon = Daemon::start(&[HELLO, ("bourse.toml", "[routes]\n'GET /x' = 'hello.helo'\n")]);
    says(&daemon.log(), &["[routes]", "GET /x", "hello.helo"]);
    daemon.get("/x").problem(404, "not_found");
}

#[test]
fn a_data_folder_that_cannot_be_made() {
    let said = Setup::new(&[HELLO]).argument("--data").argument("/proc/nope").refused();
    says(&said, &["the data folder /proc/nope cannot be made: "]);
    assert!(said.trim_end().ends_with("hint: name another with --data"), "{said}");
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let setup = Setup::new(&[HELLO]).http(&address);
    says(&setup.refused(), &[&address, "in use", "hint: stop what listens there"]);
}

#[test]
fn a_python_that_is_none() {
    let setup = Setup::new(&[HELLO]).set("python", "/nowhere/python3");
    let daemon = setup.launch();
    daemon.wait_log("/nowhere/python3");
    daemon.wait_log("hint:");
}

#[test]
fn a_python_that_comes_later() {
    let place = tempfile::tempdir().expect("a folder");
    let python = place.path().join("python");
    let setup = Setup::new(&[HELLO]).set("python", python.to_str().expect("UTF-8"));
    // 1. Without it the daemon is as ready as it gets, and says why nothing is served.
    let daemon = setup.up();
    let refused = daemon.call("hello.hello", json!({}));
    refused.problem(502, "module_failed");
    says(daemon.get("/v1/modules").text(), &["there is no Python environment for it", "no such file"]);
    assert_eq!(daemon.log().matches("no such file").count(), 1, "{}", daemon.log());
    // 2. It is tried again, without anything that would tell.
    std::fs::write(&python, "#!/bin/sh\nexec python3 \"$@\"\n").expect("a file");
    std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    wait_for("it serves", || daemon.call("hello.hello", json!({})).status == 200);
}

#[test]
fn requirements_that_cannot_be_met_and_are_mended() {
    let daemon = Setup::new(&[HELLO, ("requirements.txt", "protobuf<3\n")]).up();
    let refused = daemon.call("hello.hello", json!({}));
    says(refused.text(), &["protobuf<3 can't be served"]);
    refused.problem(502, "module_failed");
    daemon.write("requirements.txt", "");
    wait_for("it serves", || daemon.call("hello.hello", json!({})).status == 200);
}

#[test]
fn what_makes_an_environment_ends_with_the_daemon() {
    let place = tempfile::tempdir().expect("a folder");
    let python = place.path().join("python");
    let script = "#!/bin/sh\ncase \"$*\" in\n\
        *' -c '*) printf '3.12.0\\n%s\\nFake linux\\nTrue\\n' \"$0\";;\n\
        *) echo 'Collecting patience'; sh -c 'sleep 1000; :'; :;;\nesac\n";
    std::fs::write(&python, script).expect("a file");
    std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    for which in [Signal::KILL, Signal::INT] {
        let environments = place.path().join(format!("{which:?}"));
        let setup = Setup::new(&[HELLO])
            .set("python", python.to_str().expect("UTF-8"))
            .set("environments", environments.to_str().expect("UTF-8"));
        let mut daemon = setup.launch();
        daemon.wait_log("making a Python environment");
        // The daemon, its keeper, and the four that make the environment.
        wait_for("it is being made", || daemon.processes().len() >= 6);
        daemon.signal(which);
        daemon.wait_end();
        daemon.wait_gone();
    }
}
