//! What sources find, and what they make of what is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use bourse_transport::Allowed;
use bourse_wire::beacon::{Beacon, Datagram};

use super::*;

fn key(digit: u8) -> Key {
    Key([digit; 32])
}

fn card(digit: u8, port: u16, grid: &str) -> Card {
    Card::new(key(digit), SocketAddr::from(([127, 0, 0, 1], port)), grid)
}

fn lead(digit: u8, port: u16) -> Found {
    Found::Lead(Lead { key: key(digit), address: format!("127.0.0.1:{port}"), trusted: true })
}

fn look(machine: &mut Machine) -> Vec<Found> {
    let mut found = Vec::new();
    // Until the time of change is old enough to tell, each look reads the folder.
    machine.look(&mut found);
    found
}

fn refused(folder: &Path) -> String {
    Machine::start(folder, card(1, 1, "")).err().expect("it is refused").to_string()
}

#[test]
fn daemons_of_one_machine_see_each_other_come_and_go() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("bourse/nodes");
    // 1. The second one sees the first, and is seen.
    let mut one = Machine::start(&folder, card(1, 1, "shop")).unwrap();
    assert_eq!(look(&mut one), []);
    let mut two = Machine::start(&folder, card(2, 2, "shop")).unwrap();
    assert_eq!((look(&mut one), look(&mut two)), (vec![lead(2, 2)], vec![lead(1, 1)]));
    assert_eq!((look(&mut one), look(&mut two)), (vec![], vec![]));
    // 2. Another grid is another one.
    let mut other = Machine::start(&folder, card(3, 3, "")).unwrap();
    assert_eq!((look(&mut one), look(&mut other)), (vec![], vec![]));
    // 3. One ends, and comes again at another port, before anybody has looked.
    drop(two);
    let two = Machine::start(&folder, card(2, 22, "shop")).unwrap();
    assert_eq!(look(&mut one), [lead(2, 22)]);
    // 4. It ends, and nothing is left.
    drop(two);
    assert_eq!(look(&mut one), [Found::Gone { key: key(2), trusted: true }]);
    drop((one, other));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_file_without_a_lock_is_nobodys() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("bourse/nodes");
    let mut one = Machine::start(&folder, card(1, 1, "")).unwrap();
    // As one that was killed leaves it, and one that was killed while it wrote.
    let left = [folder.join(key(2).to_hex()), folder.join(format!("{}.17", key(3).to_hex()))];
    for path in &left {
        fs::write(path, serde_json::to_string(&card(2, 2, "")).unwrap()).unwrap();
    }
    let file = fs::File::options().write(true).open(&left[1]).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(120)).unwrap();
    let new = folder.join(format!("{}.18", key(3).to_hex()));
    fs::write(&new, "").unwrap();
    assert_eq!(look(&mut one), []);
    assert!(left.iter().all(|path| !path.exists()), "they are removed");
    assert!(new.exists(), "somebody may be about to write it");
    // Whoever has that key may come again.
    let two = Machine::start(&folder, card(2, 2, "")).unwrap();
    assert_eq!(look(&mut one), [lead(2, 2)]);
    drop(two);
}

#[test]
fn somebody_tidies_up() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("bourse/nodes");
    let mut one = Machine::start(&folder, card(1, 1, "")).unwrap();
    let mut two = Machine::start(&folder, card(2, 2, "")).unwrap();
    assert_eq!(look(&mut one), [lead(2, 2)]);
    fs::remove_dir_all(place.path().join("bourse")).unwrap();
    assert_eq!(look(&mut two), []);
    look(&mut one);
    assert_eq!(look(&mut two), [lead(1, 1)]);
}

#[test]
fn one_key_is_one_daemon() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("bourse/nodes");
    let _one = Machine::start(&folder, card(1, 1, "")).unwrap();
    let said = refused(&folder);
    assert!(said.contains("runs already, as process") && said.contains("hint: "), "{said}");
}

#[test]
fn a_folder_that_others_can_enter_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let (parent, folder) = (place.path().join("bourse"), place.path().join("bourse/nodes"));
    for open in [&parent, &folder] {
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(open, fs::Permissions::from_mode(0o750)).unwrap();
        let said = refused(&folder);
        assert!(said.contains("can be entered by others (its mode is 750)"), "{said}");
        assert!(said.contains(&open.display().to_string()) && said.contains("hint: remove it"), "{said}");
        fs::remove_dir_all(&parent).unwrap();
    }
    std::os::unix::fs::symlink(place.path(), &parent).unwrap();
    assert!(refused(&folder).contains("is no folder"), "a link may point anywhere");
    fs::remove_file(&parent).unwrap();
    // Root may give it to somebody else, as another user might have made it.
    fs::create_dir(&parent).unwrap();
    if std::os::unix::fs::chown(&parent, Some(12_345), None).is_ok() {
        assert!(refused(&folder).contains("belongs to the user 12345"));
    }
}

#[test]
fn what_is_no_file_of_a_daemon_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("bourse/nodes");
    let mut one = Machine::start(&folder, card(1, 1, "")).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join(key(4).to_hex())).unwrap();
    // A file that is held, and says something else than its name does, or nothing.
    let held = ["nonsense", "{}", &serde_json::to_string(&card(5, 5, "")).unwrap()].map(|text| {
        let path = folder.join(key(u8::try_from(text.len()).unwrap()).to_hex());
        fs::write(&path, text).unwrap();
        let file = fs::File::open(path).unwrap();
        file.lock().unwrap();
        file
    });
    assert_eq!(look(&mut one), []);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 6);
    drop(held);
}

#[test]
fn a_beacon_of_an_allowed_node_is_a_lead() {
    let beacon = |digit: u8, grid: &str| {
        Datagram::Beacon(Beacon { key: [digit; 32], port: 7, grid: grid.to_owned() }).encode()
    };
    let allowed = Allowed::from_iter([key(1), key(2), key(4)]);
    let mut ear = Ear::new(key(1), "shop", allowed.clone());
    let start = tokio::time::Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let from = |last: u8| IpAddr::from([10, 0, 0, last]);
    let lead = |last: u8| Some(Lead { key: key(2), address: format!("10.0.0.{last}:7"), trusted: false });
    // 1. It is one when it is heard first, and again after a while, wherever it is then.
    assert_eq!(ear.hear(at(0), &beacon(2, "shop"), from(2)), lead(2));
    assert_eq!(ear.hear(at(1), &beacon(2, "shop"), from(3)), None);
    assert_eq!(ear.hear(at(2), &beacon(2, "shop"), from(3)), lead(3));
    // 2. An echo, another grid, a question, nonsense, and who is not allowed are none.
    for other in [
        beacon(1, "shop"),
        beacon(4, "bakery"),
        beacon(4, ""),
        Datagram::Question { nonce: 1 }.encode(),
        b"nonsense".to_vec(),
        vec![],
        beacon(3, "shop"),
    ] {
        assert_eq!(ear.hear(at(3), &other, from(4)), None, "{other:?}");
    }
    // 3. It is allowed later.
    allowed.admit(key(3));
    assert_eq!(ear.hear(at(4), &beacon(3, "shop"), from(4)).map(|lead| lead.key), Some(key(3)));
    // 4. Who is silent for a minute, or is not allowed any more, is gone.
    assert_eq!(ear.forget(at(60)), []);
    assert_eq!(ear.forget(at(63)), [key(2)]);
    allowed.revoke(key(3));
    assert_eq!(ear.forget(at(63)), [key(3)]);
    // 5. However many keys are invented, few are kept.
    for digits in 0..10_000_u32 {
        let mut stranger = [9; 32];
        stranger[..4].copy_from_slice(&digits.to_be_bytes());
        let beacon = Beacon { key: stranger, port: 7, grid: "shop".to_owned() };
        assert_eq!(ear.hear(at(64), &Datagram::Beacon(beacon).encode(), from(9)), None);
    }
    assert!(ear.kept() < 100, "{}", ear.kept());
}

#[test]
fn who_listens_everywhere_is_reached_on_loopback() {
    for (listening, reached) in [
        ("0.0.0.0:7", "127.0.0.1:7"),
        ("[::]:7", "[::1]:7"),
        ("10.0.0.7:7", "10.0.0.7:7"),
        ("127.0.0.1:7", "127.0.0.1:7"),
    ] {
        assert_eq!(near(listening.parse().unwrap()).to_string(), reached);
    }
}
