//! What other nodes serve, as this one knew last: the file `catalogue` in the data folder, written by what drives the node alone.
//!
//! It holds one message of the peer protocol, `Modules`. It is a memory and nothing more: a node without it hears the same from the
//! others, only later.

use std::path::Path;

use anyhow::Context as _;
use bourse_wire::peer::v1 as peer;
use bourse_wire::v1;
use prost::Message as _;

use crate::own;

/// Which file it is.
const CATALOGUE_FILE: &str = "catalogue";

/// What is kept. A file that is none is as good as no file.
pub fn load(data: &Path) -> Vec<v1::Module> {
    let path = data.join(CATALOGUE_FILE);
    let Ok(bytes) = std::fs::read(&path) else { return Vec::new() };
    match peer::Modules::decode(bytes.as_slice()) {
        Ok(modules) => modules.entries.into_iter().flat_map(|entry| entry.versions).collect(),
        Err(error) => {
            tracing::warn!("{} is not what this daemon writes, and is left out: {error}", path.display());
            Vec::new()
        }
    }
}

/// Writes it, whole or not at all.
pub fn save(data: &Path, modules: Vec<v1::Module>) -> anyhow::Result<()> {
    let entry =
        |module: v1::Module| peer::modules::Entry { name: module.name.clone(), versions: vec![module] };
    let modules = peer::Modules { first: true, entries: modules.into_iter().map(entry).collect() };
    let path = data.join(CATALOGUE_FILE);
    own::write_private(&path, modules.encode_to_vec())
        .with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_what_is_none_is_left_out() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(load(data.path()), Vec::new());
        let module = |name: &str, version: &str| v1::Module {
            name: name.to_owned(),
            version: version.to_owned(),
            functions: vec![v1::Function { name: "f".to_owned(), ..Default::default() }],
            ..Default::default()
        };
        let modules = vec![module("a", "1.0.0"), module("a", "2.0.0"), module("b", "")];
        save(data.path(), modules.clone()).unwrap();
        assert_eq!(load(data.path()), modules);
        std::fs::write(data.path().join(CATALOGUE_FILE), [0xff; 40]).unwrap();
        assert_eq!(load(data.path()), Vec::new());
    }
}
