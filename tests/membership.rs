//! Who belongs to a grid: nodes join with a ticket, all hear of it, and whoever is revoked is cut off by all.

use serde_json::Value as Json;

use crate::support::command::{bourse, fails, served, text, works};
use crate::support::{Daemon, Setup, wait_for};

const HELLO: (&str, &str) = (
    "hello.py",
    "
    from bourse import function

    @function
    def hello():
        return 'hello'
    ",
);

fn setup() -> Setup {
    Setup::new(&[HELLO]).argument("--listen").argument("127.0.0.1:0")
}

/// How many nodes a daemon is connected with, itself among them.
fn nodes(daemon: &Daemon) -> usize {
    let all = daemon.get("/v1/nodes").ok();
    all.as_array().expect("an array").iter().filter(|node| !node["heard_ms_ago"].is_null()).count()
}

fn members(daemon: &Daemon) -> Vec<(String, String)> {
    let all = daemon.get("/v1/members").ok();
    let of = |entry: &Json| {
        let text = |name: &str| entry[name].as_str().expect("text").to_owned();
        (text("key"), text("standing"))
    };
    let mut all: Vec<_> = all.as_array().expect("an array").iter().map(of).collect();
    all.retain(|(_, standing)| standing != "ticket");
    all
}

#[test]
fn nodes_join_with_a_ticket_and_whoever_is_revoked_is_cut_off() {
    let first = setup().up();
    let folder = served(&first);
    let ticket = works(&["ticket", "-C", &folder, "--quiet"]);
    // 1. Two more come with the same ticket; they know each other, too, and nobody was told a key.
    let joining = [setup(), setup()];
    let keys = joining.each_ref().map(|setup| {
        let told = works(&["join", &text(&setup.folder()), &ticket, "--json"]);
        let told: Json = serde_json::from_str(&told).expect("JSON");
        told["key"].as_str().expect("a key").to_owned()
    });
    let [second, third] = joining.map(Setup::up);
    for daemon in [&first, &second, &third] {
        wait_for("all three are connected", || nodes(daemon) == 3);
        wait_for("all three are on the list", || members(daemon).len() == 3);
        assert!(members(daemon).iter().all(|(_, standing)| standing == "member"));
    }
    // 2. A ticket of one that has joined is as good. And one is enough to begin with, none is needed to go on: the first is gone.
    let ticket = works(&["ticket", "-C", &served(&second), "--quiet"]);
    let first = first.stop();
    let fourth = setup();
    works(&["join", &text(&fourth.folder()), &ticket]);
    let fourth = fourth.up();
    wait_for("it is connected with both", || nodes(&fourth) == 3);
    let third = third.stop().up();
    wait_for("who starts again begins with those that it knew", || nodes(&third) == 3);
    // 3. The third is revoked at the fourth: all cut it off, also the first, which was not there, when it hears of it.
    works(&["revoke", &keys[1], "-C", &served(&fourth)]);
    wait_for("it is alone", || nodes(&third) == 1);
    third.wait_log("this node's key was revoked");
    wait_for("the others go on", || nodes(&second) == 2 && nodes(&fourth) == 2);
    let first = first.up();
    let standing = |key: &str| members(&first).into_iter().find(|(of, _)| of == key).expect("it is listed").1;
    wait_for("the first has heard of it", || standing(&keys[1]) == "revoked" && nodes(&first) == 3);
    // 4. A ticket does not undo that; a node does.
    let third = third.stop();
    let refused = fails(&["join", &text(&third.folder()), &ticket]);
    assert!(refused.contains("has been revoked") && refused.contains("bourse admit"), "{refused}");
    works(&["admit", &keys[1], "-C", &served(&first)]);
    let third = third.up();
    // One of four need not be linked with all.
    wait_for("it is one of them again", || nodes(&third) >= 3);
}

#[test]
fn a_ticket_that_is_of_no_use_says_why() {
    let daemon = setup().up();
    let folder = served(&daemon);
    let other = setup();
    let place = text(&other.folder());
    // 1. It has expired.
    let ticket = works(&["ticket", "-C", &folder, "--quiet", "--for", "1ms"]);
    wait_for("its time is over", || bourse(&["join", &place, &ticket]).err.contains("has expired"));
    // 2. It was revoked.
    let told = works(&["ticket", "-C", &folder, "--json"]);
    let told: Json = serde_json::from_str(&told).expect("JSON");
    let (ticket, key) = (told["ticket"].as_str().expect("text"), told["key"].as_str().expect("text"));
    works(&["revoke", key, "-C", &folder]);
    let refused = fails(&["join", &place, ticket]);
    assert!(refused.contains("does not admit this key") && refused.contains("revoked"), "{refused}");
    // 3. It is none, or not all of it.
    let refused = fails(&["join", &place, &ticket[..40]]);
    assert!(refused.contains("this is no ticket") && refused.contains("copy all of"), "{refused}");
    assert!(fails(&["join", &place, "nonsense"]).contains("begins with bourse-ticket-"));
    // 4. Nobody is there any more.
    let ticket = works(&["ticket", "-C", &folder, "--quiet"]);
    drop(daemon.stop());
    let refused = fails(&["join", &place, &ticket]);
    assert!(refused.contains("nobody answers") && refused.contains("has to run"), "{refused}");
    // 5. A daemon that serves the folder would not hear of it; and one that nobody can connect with has no tickets.
    let daemon = other.up();
    let refused = fails(&["join", &place, &ticket]);
    assert!(refused.contains("stop it, join, and start it again"), "{refused}");
    drop(daemon);
    let alone = Daemon::start(&[HELLO]);
    let refused = fails(&["ticket", "-C", &served(&alone)]);
    assert!(refused.contains("--listen"), "{refused}");
    assert!(fails(&["admit", "nonsense", "-C", &served(&alone)]).contains("64 hexadecimal digits"));
}
