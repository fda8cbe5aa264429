//! `config`: from the files, without a daemon.

use serde_json::json;

use crate::world::Folder;

#[test]
fn each_setting_says_where_it_comes_from() {
    let file = "[daemon]\nidle = \"1m\"\ntoken = \"hush-hush\"\n[modules.shop]\ntimeout = \"5s\"\n[routes]\n\"GET /x\" = \"shop.x\"\n";
    let folder = Folder::with(&[("bourse.toml", file), ("shop.py", "")]);
    let show = |arguments: &[&str]| {
        folder.run_with(&[&["config", "show"], arguments].concat(), b"", &[("BOURSE_DEPTH", "7")])
    };

    let text = show(&[]).text();
    let line = |name: &str| {
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("no {name}: {text}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("queue"), "queue 10000 default");
    assert_eq!(line("depth"), "depth 7 environment, BOURSE_DEPTH");
    assert_eq!(line("idle"), format!("idle 1m {}/bourse.toml", folder.path().display()));
    assert_eq!(line("modules.shop.timeout"), "modules.shop.timeout 5s bourse.toml");
    assert!(!text.contains("hush-hush"));

    let all = show(&["--json"]).exits(0).json();
    assert_eq!(
        (&all["settings"]["idle"]["value"], &all["settings"]["idle"]["source"]),
        (&json!("1m"), &json!("file"))
    );
    assert_eq!(
        (&all["settings"]["token"]["value"], &all["modules"]["shop"]["timeout"]),
        (&json!("(hidden)"), &json!("5s"))
    );
    assert_eq!(all["routes"]["GET /x"], "shop.x");
    assert!(show(&["--about"]).text().contains("an instance without work stops after this"));

    folder.write("bourse.toml", "[daemon]\nidel = 1");
    show(&[]).exits(1).says("there is no setting \"idel\" (did you mean \"idle\"?)");
    folder.write("bourse.toml", "[modules.shop]\nhttp = \"x\"");
    show(&[]).exits(1).says("is a setting of the daemon");
    folder.run(&["config", "show", "nowhere"]).exits(1).says("nowhere cannot be entered");
}

/// If this fails: `cargo run -p bourse -- config schema > docs/bourse.schema.json`.
#[test]
fn the_schema_in_the_docs_is_the_programs() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bourse.schema.json");
    let printed = Folder::new().run(&["config", "schema"]).text();
    assert!(std::fs::read_to_string(&path).unwrap() == printed, "{} is old", path.display());
}
