//! `init`, and the settings about other nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::world::Folder;

#[test]
fn keys_are_made_once_and_kept() {
    let folder = Folder::new();
    let first = folder.run(&["init"]).text();
    let public = fs::read_to_string(folder.path().join(".bourse/node.pub")).unwrap();
    let key = public.trim();
    assert!(key.len() == 64 && first.contains(key) && first.contains("were made"), "{first}");
    for next in ["bourse join . TICKET", &format!("bourse admit {key}"), "bourse up . --listen"] {
        assert!(first.contains(next), "no {next:?} in {first}");
    }
    let secret = folder.path().join(".bourse/node.key");
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!first.contains(fs::read_to_string(&secret).unwrap().trim()));
    // Again, from elsewhere, as JSON.
    assert!(folder.run(&["init", "."]).text().contains("were kept"));
    let told = folder.run(&["init", ".", "--json"]).exits(0).json();
    assert_eq!((told["key"].as_str(), told["made"].as_bool()), (Some(key), Some(false)));
    // Another data folder is another node.
    let other = folder.run(&["init", "--data", "elsewhere", "--json"]).exits(0).json();
    assert_ne!(other["key"].as_str(), Some(key));
    assert!(folder.path().join("elsewhere/node.key").exists());
    // What others could read is no secret.
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    folder.run(&["init"]).exits(1).says("can be read by others (its mode is 644)");
    folder.run(&["init", "nowhere"]).exits(1).says("nowhere cannot be entered");
}

#[test]
fn what_is_no_node_is_refused_on_the_command_line() {
    let folder = Folder::new();
    let key = "ab".repeat(32);
    let refused = |arguments: &[&str], why: &str| {
        folder.run(&[&["up", "."], arguments].concat()).exits(1).says(why);
    };
    refused(&["--listen", "nowhere"], "\"nowhere\" is not an address");
    refused(&["--join", "10.0.0.7:7071"], "is not KEY@HOST:PORT");
    refused(&["--join", "alder@10.0.0.7:7071"], "\"alder\" is not a key");
    refused(&["--join", &format!("{key}@10.0.0.7")], "\"10.0.0.7\" is not HOST:PORT");
    refused(&["--allow", &key, "--allow", &key[1..]], "is not a key: 64 hexadecimal digits");
}
