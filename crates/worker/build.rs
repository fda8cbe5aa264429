//! Lists the Python SDK's files, for `src/sdk.rs` to carry.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/python/src").canonicalize()?;
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root.join("bourse"), &mut files)?;
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&root)?.to_str().ok_or("an SDK file whose name is not UTF-8")?;
        writeln!(list, "    ({name:?}, include_bytes!({file:?})),")?;
    }
    list.push_str("]\n");
    fs::write(Path::new(&std::env::var("OUT_DIR")?).join("sdk_files.rs"), list)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    println!("cargo:rerun-if-changed={}", folder.display());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "__pycache__" && name != "tests" {
            collect(&path, files)?;
        } else if name == "py.typed" || (name.ends_with(".py") && !name.starts_with('.')) {
            files.push(path);
        }
    }
    Ok(())
}
