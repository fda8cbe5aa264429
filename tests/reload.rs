//! Hot reload: what is saved is served, and what is broken leaves the running one alone.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::support::{Daemon, Setup, skipped, until, wait_for};

fn module(answer: &str) -> String {
    format!("def answer():\n    return {answer:?}\n")
}

/// Time until a function gives this.
#[track_caller]
fn serves(daemon: &Daemon, function: &str, expected: &Json) -> Duration {
    let start = Instant::now();
    until(&format!("{function} gives {expected}"), || {
        let response = daemon.call(function, json!({}));
        (response.status == 200 && response.json() == *expected).then_some(())
    });
    start.elapsed()
}

#[test]
fn a_save_is_served_in_under_a_second() {
    let daemon = Daemon::start(&[
        (
            "shop.py",
            "import _prices\nfrom lib import words\ndef answer(): return [_prices.PRICE, words.WORD, 1]\n",
        ),
        ("_prices.py", "PRICE = 1\n"),
        ("lib/words.py", "WORD = 'one'\n"),
    ]);
    assert_eq!(daemon.call("shop.answer", json!({})).ok(), json!([1, "one", 1]));
    let mut times = Vec::new();
    // 1. The module, written in place and by renaming over it.
    daemon.write(
        "shop.py",
        "import _prices\nfrom lib import words\ndef answer(): return [_prices.PRICE, words.WORD, 2]\n",
    );
    times.push(serves(&daemon, "shop.answer", &json!([1, "one", 2])));
    daemon.replace(
        "shop.py",
        "import _prices\nfrom lib import words\ndef answer(): return [_prices.PRICE, words.WORD, 3]\n",
    );
    times.push(serves(&daemon, "shop.answer", &json!([1, "one", 3])));
    // 2. Files that it imports, beside it and in a folder.
    daemon.write("_prices.py", "PRICE = 2\n");
    times.push(serves(&daemon, "shop.answer", &json!([2, "one", 3])));
    daemon.replace("lib/words.py", "WORD = 'two'\n");
    times.push(serves(&daemon, "shop.answer", &json!([2, "two", 3])));
    // 3. Many saves in a row: the last one counts.
    for n in 0..10 {
        daemon.write("_prices.py", &format!("PRICE = {}\n", 10 + n));
    }
    times.push(serves(&daemon, "shop.answer", &json!([19, "two", 3])));
    println!("from save to answer: {times:.0?}");
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
}

#[test]
fn a_broken_save_is_reported_and_the_running_one_goes_on() {
    let daemon = Daemon::start(&[("shop.py", &module("first"))]);
    assert_eq!(daemon.call("shop.answer", json!({})).ok(), "first");
    daemon.write("shop.py", "def answer(:\n");
    daemon.wait_log("does not load; the one before goes on: SyntaxError");
    assert_eq!(daemon.call("shop.answer", json!({})).ok(), "first");
    let shown = daemon.get("/v1/modules").ok();
    assert_eq!(shown[0]["failure"]["type"], "SyntaxError");
    assert!(shown[0]["failure"]["traceback"].as_str().expect("one").contains("shop.py\", line 1"), "{shown}");
    daemon.write("shop.py", "import nowhere_to_be_found\n");
    daemon.wait_log("ModuleNotFoundError: No module named 'nowhere_to_be_found'");
    assert_eq!(daemon.call("shop.answer", json!({})).ok(), "first");
    // An import that never ends holds up nobody.
    daemon.write("shop.py", "import time\ntime.sleep(1000)\n");
    assert_eq!(daemon.call("shop.answer", json!({})).ok(), "first");
    daemon.write("shop.py", &module("mended"));
    serves(&daemon, "shop.answer", &json!("mended"));
    assert_eq!(daemon.get("/v1/modules").ok()[0]["failure"], Json::Null);
    // Back to what it was before.
    daemon.write("shop.py", &module("first"));
    serves(&daemon, "shop.answer", &json!("first"));
}

#[test]
fn a_helper_that_breaks_and_is_mended() {
    let daemon = Daemon::start(&[
        ("shop.py", "import _help\ndef answer(): return _help.X\n"),
        ("_help.py", "X = 1\n"),
    ]);
    serves(&daemon, "shop.answer", &json!(1));
    daemon.write("_help.py", "X = \n");
    daemon.wait_log("does not load; the one before goes on");
    serves(&daemon, "shop.answer", &json!(1));
    daemon.write("_help.py", "X = 3\n");
    serves(&daemon, "shop.answer", &json!(3));
    // A helper that comes into being when it is needed.
    daemon.write("shop.py", "import _more\ndef answer(): return _more.Y\n");
    daemon.wait_log("No module named '_more'");
    daemon.write("_more.py", "Y = 4\n");
    serves(&daemon, "shop.answer", &json!(4));
}

#[test]
fn a_file_that_is_saved_while_a_module_fails_to_load_mends_it() {
    // The module itself plays the one who saves, just before it is known to have failed.
    let daemon = Daemon::start(&[(
        "shop.py",
        "
        import pathlib
        try:
            import _more
        except ImportError:
            pathlib.Path(__file__).with_name('_more.py').write_text('Y = 4')
            raise
        def answer(): return _more.Y
        ",
    )]);
    serves(&daemon, "shop.answer", &json!(4));
    assert!(daemon.log().contains("No module named '_more'"), "{}", daemon.log());
}

#[test]
fn calls_in_flight_end_on_the_revision_they_began_on() {
    let slow = |answer: &str| {
        format!(
            "import time\ndef answer(seconds: float = 0):\n    time.sleep(seconds)\n    return {answer:?}\n"
        )
    };
    let daemon = Daemon::start(&[("shop.py", &slow("old"))]);
    daemon.call("shop.answer", json!({})).ok();
    let running = daemon.call_beside("shop.answer", json!({"seconds": 2}));
    wait_for("it runs", || daemon.get("/v1/status").ok()["running"] == 1);
    daemon.write("shop.py", &slow("new"));
    serves(&daemon, "shop.answer", &json!("new"));
    assert!(!running.is_finished());
    assert_eq!(running.join().expect("it answers").ok(), "old");
    wait_for("the old one has gone", || daemon.instances().len() == 1);
}

#[test]
fn modules_come_go_and_change_their_names_without_a_restart() {
    let daemon = Daemon::start(&[("one.py", &module("one"))]);
    daemon
        .write("two.py", "from bourse import function\n@function(http='GET /two')\ndef answer(): return 2\n");
    serves(&daemon, "two.answer", &json!(2));
    assert_eq!(daemon.get("/two").ok(), 2);
    fs::rename(daemon.folder().join("two.py"), daemon.folder().join("three.py")).expect("it is renamed");
    serves(&daemon, "three.answer", &json!(2));
    wait_for("the old name is gone", || daemon.call("two.answer", json!({})).status == 404);
    wait_for("the route goes to the new one", || daemon.get("/two").status == 200);
    fs::remove_file(daemon.folder().join("three.py")).expect("it is removed");
    wait_for("it is gone", || daemon.get("/two").status == 404);
    // A file becomes a package of the same name.
    fs::remove_file(daemon.folder().join("one.py")).expect("it is removed");
    daemon.write("one/__init__.py", "from .part import WORD\ndef answer(): return WORD\n");
    daemon.write("one/part.py", "WORD = 'package'\n");
    serves(&daemon, "one.answer", &json!("package"));
    daemon.write("one/part.py", "WORD = 'part'\n");
    serves(&daemon, "one.answer", &json!("part"));
}

#[test]
fn a_module_that_exists_twice_is_reported_and_what_ran_goes_on() {
    let daemon = Daemon::start(&[("one.py", &module("one"))]);
    serves(&daemon, "one.answer", &json!("one"));
    daemon.write("one/__init__.py", &module("two"));
    daemon.wait_log("are both called one: rename or remove one of them");
    assert_eq!(daemon.call("one.answer", json!({})).ok(), "one");
    fs::remove_file(daemon.folder().join("one.py")).expect("it is removed");
    serves(&daemon, "one.answer", &json!("two"));
}

#[test]
fn a_deploy_lock_holds_the_scan() {
    let daemon = Daemon::start(&[("one.py", &module("old"))]);
    daemon.write(".bourse-deploy.lock", "");
    daemon.wait_log(".bourse-deploy.lock holds the folder");
    daemon.write("one.py", "def answer(:\n");
    daemon.write("two.py", &module("two"));
    // Time for a scan to be wrong: what is served stays.
    for _ in 0..50 {
        assert_eq!(daemon.call("one.answer", json!({})).ok(), "old");
        daemon.call("two.answer", json!({})).problem(404, "not_found");
    }
    daemon.write("one.py", &module("new"));
    fs::remove_file(daemon.folder().join(".bourse-deploy.lock")).expect("it is removed");
    serves(&daemon, "one.answer", &json!("new"));
    serves(&daemon, "two.answer", &json!("two"));
    assert!(!daemon.log().contains("does not load"));
}

#[test]
fn requirements_that_change_make_another_environment() {
    let daemon = Daemon::start(&[(
        "needs.py",
        "
        def version():
            try:
                import six
                return six.__version__
            except ImportError:
                return None
        ",
    )]);
    serves(&daemon, "needs.version", &Json::Null);
    // A requirement that nobody can meet is reported; what runs goes on.
    daemon.write("requirements.txt", "protobuf<3\n");
    daemon.wait_log("the Python environment:");
    serves(&daemon, "needs.version", &Json::Null);
    daemon.write("requirements.txt", "six==1.17.0\n");
    let start = Instant::now();
    let answer = until("the new environment serves, or cannot be made", || {
        if daemon.log().matches("the Python environment:").count() > 1 {
            return Some(None);
        }
        let answer = daemon.call("needs.version", json!({})).ok();
        (answer == "1.17.0").then_some(Some(answer))
    });
    match answer {
        Some(_) => println!("from requirements to answer: {:.1?}", start.elapsed()),
        None => skipped("the package index cannot be reached"),
    }
}

#[test]
fn settings_and_routes_change_without_a_restart() {
    let daemon = Setup::new(&[
        (
            "shop.py",
            "import time\ndef answer(seconds: float = 0):\n    time.sleep(seconds)\n    return 'yes'\n",
        ),
        ("bourse.toml", "[routes]\n'GET /a' = 'shop.answer'\n[modules.shop]\ntimeout = '50s'\n"),
    ])
    .up();
    assert_eq!(daemon.get("/a").ok(), "yes");
    // 1. Routes and a module's settings.
    daemon.replace("bourse.toml", "[routes]\n'GET /b' = 'shop.answer'\n[modules.shop]\ntimeout = '100ms'\n");
    wait_for("the new route is there", || daemon.get("/b").status == 200);
    assert_eq!(daemon.get("/a").status, 404);
    wait_for("the new timeout counts", || daemon.get("/b?seconds=3").status == 504);
    // 2. Settings of the daemon: those that can change do, the others ask for a restart.
    daemon.replace(
        "bourse.toml",
        "[daemon]\ntimeout = '50ms'\npayload = '1MiB'\n[routes]\n'GET /b' = 'shop.answer'\n",
    );
    daemon.wait_log("payload changes with the next start");
    wait_for("the default counts", || daemon.get("/b?seconds=3").text().contains("0.05"));
    // 3. What counts from now on is said, and what does not because it is said elsewhere.
    daemon.replace(
        "bourse.toml",
        "[daemon]\nrunning = 3\nhttp = '127.0.0.1:9'\n[routes]\n'GET /b' = 'shop.answer'\n",
    );
    daemon.wait_log("running is 3 now");
    daemon.wait_log("http changes nothing: it is set by the command line");
    // 4. Of the routes, those that cannot be are left out.
    let routes = "[routes]\n'GET /b' = 'shop.answer'\n'GET b' = 'shop.answer'\n'GET /v1/x' = 'shop.answer'\n'GET /c' = 'shop.answer'\n";
    daemon.replace("bourse.toml", routes);
    wait_for("the new route is there", || daemon.get("/c").status == 200);
    assert_eq!(daemon.get("/b").ok(), "yes");
    daemon.wait_log("the route \"GET b\": the path \"b\" does not start with /");
    daemon.wait_log("the route \"GET /v1/x\":");
    // 5. What cannot be read is reported, and what was there before counts.
    daemon.replace("bourse.toml", "[daemon]\ntimeuot = '50ms'\n");
    daemon.wait_log("there is no setting \"timeuot\" (did you mean \"timeout\"?)");
    assert_eq!(daemon.get("/b").ok(), "yes");
    daemon.replace("bourse.toml", "[daemon\n");
    daemon.wait_log("bourse.toml");
    assert_eq!(daemon.get("/b").ok(), "yes");
    // 6. Gone, everything is as if it had never been there.
    fs::remove_file(daemon.folder().join("bourse.toml")).expect("it is removed");
    wait_for("the route is gone", || daemon.get("/b").status == 404);
    daemon.call("shop.answer", json!({"seconds": 0.2})).ok();
}

#[test]
fn a_setting_that_is_not_known_is_said_once() {
    let daemon = Daemon::start(&[("shop.py", &module("yes"))]);
    daemon.write("bourse.toml", "[modules.shop]\nidel = '1s'\n");
    daemon.wait_log("there is no setting \"idel\" (did you mean \"idle\"?)");
    for n in 0..3 {
        daemon.write("other.py", &module(&n.to_string()));
        serves(&daemon, "other.answer", &json!(n.to_string()));
    }
    assert_eq!(daemon.log().matches("idel").count(), 1, "{}", daemon.log());
    assert_eq!(daemon.call("shop.answer", json!({})).ok(), "yes");
}
