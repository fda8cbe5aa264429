//! What is kept of deployments, in the data folder.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bourse_node::{Canary, Deployment, Digest};
use bourse_peers::own;
use serde_json::{Value, json};

/// The list of deployments, at the node that keeps the store.
const LIST_FILE: &str = "deployments.json";
/// Bundles, there.
const BUNDLES_FOLDER: &str = "bundles";
/// What a node serves of bundles.
const DEPLOYED_FOLDER: &str = "deployed";
/// What it served last, there.
const SERVED_FILE: &str = "list";

/// Whether a deployment can be called so: its name is that of a folder.
pub(crate) fn is_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=100).contains(&name.len()) && name.chars().all(is_part)
}

/// Where a bundle's files are, or will be.
pub(super) fn folder(data: &Path, name: &str, digest: Digest) -> PathBuf {
    data.join(DEPLOYED_FOLDER).join(name).join(hex(&digest))
}

/// Where a bundle is kept.
pub(super) fn bundle(data: &Path, digest: Digest) -> PathBuf {
    data.join(BUNDLES_FOLDER).join(hex(&digest))
}

/// Keeps a bundle, whole or not at all.
pub(super) fn keep_bundle(file: &Path, bundle: &[u8]) -> anyhow::Result<()> {
    fs::create_dir_all(file.parent().expect("it is in a folder"))?;
    let fresh = file.with_extension("new");
    fs::write(&fresh, bundle)?;
    fs::File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, file).with_context(|| format!("{} cannot be written", file.display()))
}

/// The list, as it was kept.
pub(super) fn load(data: &Path) -> anyhow::Result<Vec<Deployment>> {
    let path = data.join(LIST_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
    };
    let read = || -> Option<Vec<Deployment>> {
        let all: Value = serde_json::from_str(&text).ok()?;
        all.as_array()?.iter().map(deployment).collect()
    };
    read().with_context(|| {
        format!("{} is no list of deployments\n  hint: the daemon writes this file; without it nothing is deployed, and what nodes serve stays as it is", path.display())
    })
}

/// Keeps the list, and of the bundles those that are on it.
pub(super) fn save(data: &Path, all: &[Deployment]) -> anyhow::Result<()> {
    let one = |d: &Deployment| {
        json!({
            "name": d.name,
            "digest": hex(&d.digest),
            "previous": d.previous.map(|digest| hex(&digest)),
            "canary": d.canary.map(|canary| json!({"digest": hex(&canary.digest), "nodes": canary.nodes})),
            "count": d.count,
            "labels": d.labels,
        })
    };
    let list: Value = all.iter().map(one).collect();
    own::write_private(&data.join(LIST_FILE), format!("{list:#}\n"))?;
    let used: Vec<String> = all
        .iter()
        .flat_map(|d| [Some(d.digest), d.previous, d.canary.map(|canary| canary.digest)])
        .flatten()
        .map(|digest| hex(&digest))
        .collect();
    for entry in fs::read_dir(data.join(BUNDLES_FOLDER)).into_iter().flatten().flatten() {
        if !used.iter().any(|name| entry.file_name() == **name) {
            // One that stays takes room, and no more.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// What was served last.
pub(super) fn served(data: &Path) -> Vec<(String, Digest)> {
    let text = fs::read_to_string(data.join(DEPLOYED_FOLDER).join(SERVED_FILE)).unwrap_or_default();
    let read = |line: &str| {
        let (name, digest) = line.split_once(' ')?;
        let digest = unhex(digest)?;
        (is_name(name) && folder(data, name, digest).is_dir()).then(|| (name.to_owned(), digest))
    };
    text.lines().filter_map(read).collect()
}

/// Keeps what is served.
pub(super) fn keep_served(data: &Path, served: &[(&str, Digest)]) -> anyhow::Result<()> {
    fs::create_dir_all(data.join(DEPLOYED_FOLDER))?;
    let text: String = served.iter().map(|(name, digest)| format!("{name} {}\n", hex(digest))).collect();
    own::write_private(&data.join(DEPLOYED_FOLDER).join(SERVED_FILE), &text)
}

/// Removes the files of a deployment, but for those of these bundles.
pub(super) fn clear(data: &Path, name: &str, but: &[Digest]) {
    let but: Vec<String> = but.iter().map(hex).collect();
    for entry in fs::read_dir(data.join(DEPLOYED_FOLDER).join(name)).into_iter().flatten().flatten() {
        if but.iter().all(|but| entry.file_name() != **but) {
            // One that stays takes room, and no more.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn deployment(json: &Value) -> Option<Deployment> {
    let digest = |json: &Value| unhex(json.as_str()?);
    let number = |json: &Value| u32::try_from(json.as_u64()?).ok();
    let canary =
        |json: &Value| Some(Canary { digest: digest(&json["digest"])?, nodes: number(&json["nodes"])? });
    let label = |json: &Value| json.as_str().map(str::to_owned);
    Some(Deployment {
        name: json["name"].as_str().filter(|name| is_name(name))?.to_owned(),
        digest: digest(&json["digest"])?,
        previous: digest(&json["previous"]),
        canary: canary(&json["canary"]),
        count: number(&json["count"]),
        labels: json["labels"].as_array()?.iter().map(label).collect::<Option<_>>()?,
    })
}

/// A digest, for people and for names of files.
pub(super) fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Digest> {
    let is_hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok();
    let bytes: Option<Vec<u8>> = is_hex.then(|| (0..32).map(byte).collect()).flatten();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_what_is_not_on_the_list_goes() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        assert_eq!(load(data).unwrap(), []);
        let one = Deployment {
            name: "shop".to_owned(),
            digest: [1; 32],
            previous: Some([2; 32]),
            canary: Some(Canary { digest: [3; 32], nodes: 2 }),
            count: Some(5),
            labels: vec!["gpu".to_owned()],
        };
        let two = Deployment {
            name: "b".into(),
            previous: None,
            canary: None,
            count: None,
            labels: vec![],
            ..one.clone()
        };
        for digest in 1..=4 {
            keep_bundle(&bundle(data, [digest; 32]), b"x").unwrap();
        }
        save(data, &[one.clone(), two.clone()]).unwrap();
        assert_eq!(load(data).unwrap(), [one, two]);
        assert!(bundle(data, [3; 32]).is_file() && !bundle(data, [4; 32]).exists());
        fs::write(data.join(LIST_FILE), "[{}]").unwrap();
        assert!(load(data).unwrap_err().to_string().contains("no list of deployments"));
    }

    #[test]
    fn what_was_served_is_known_as_long_as_it_is_there() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        for digest in [1, 2] {
            fs::create_dir_all(folder(data, "shop", [digest; 32])).unwrap();
        }
        keep_served(data, &[("shop", [2; 32]), ("gone", [1; 32])]).unwrap();
        assert_eq!(served(data), [("shop".to_owned(), [2; 32])]);
        clear(data, "shop", &[[2; 32]]);
        assert!(!folder(data, "shop", [1; 32]).exists() && folder(data, "shop", [2; 32]).exists());
        for bad in ["", "../x", "a/b", "ä", &"x".repeat(101)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
