//! `bourse init`: this node's keys, for a grid of several nodes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bourse_peers::keys::{self, KEY_FILE, Loaded, PUBLIC_FILE};
use serde_json::json;

use super::{Error, OK};
use crate::config::{self, Config, Given};
use crate::daemon::files;

/// Makes this node's keys, by which other nodes know it, and prints the public one.
#[derive(clap::Args)]
#[command(after_help = "\
A node that serves on its own needs no keys. Those that make a grid know each
other by them: each one is told the public keys of the others. The secret one
stays in the data folder. If the keys are there already they are kept, and the
public one is printed again.

Examples:
  bourse init functions
  bourse init functions --json | jq -r .key")]
pub(crate) struct Init {
    /// The folder that is served
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Folder for the keys, the store and logs [default: .bourse in the folder served]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Print {key, made, data, files} as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(init: &Init) -> anyhow::Result<u8> {
    let folder = init.folder.canonicalize().map_err(|e| {
        Error::Refused(format!(
            "{} cannot be entered: {e}\n  hint: name the folder that is served, or make one: bourse new {0}",
            init.folder.display()
        ))
    })?;
    if !folder.is_dir() {
        let text = format!("{} is not a folder\n  hint: name the folder that is served", folder.display());
        return Err(Error::Refused(text).into());
    }
    let given: Given = init.data.iter().map(|data| ("data".to_owned(), data.clone())).collect();
    let data = Config::resolve(&folder, &given, config::variables())?.data();
    files::make_data(&data)?;
    let loaded = keys::load_or_make(&data)?;
    report(init, &data, &loaded)?;
    Ok(OK)
}

fn report(init: &Init, data: &Path, loaded: &Loaded) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let key = loaded.keys.public().to_hex();
    if init.json {
        let files = [KEY_FILE, PUBLIC_FILE];
        let told = json!({"key": key, "made": loaded.made, "data": data, "files": files});
        return writeln!(out, "{told}");
    }
    let how = if loaded.made { "made" } else { "kept, they were there already" };
    let shown = init.folder.display();
    writeln!(out, "this node's public key (its keys were {how}):\n\n  {key}\n")?;
    writeln!(out, "next, to join a grid, with what bourse ticket prints on one of its nodes:")?;
    writeln!(out, "  bourse join {shown} TICKET\n")?;
    writeln!(out, "or let it in by hand, there:")?;
    writeln!(out, "  bourse admit {key}\n")?;
    writeln!(out, "or, to be the first one, here:")?;
    writeln!(out, "  bourse up {shown} --listen 0.0.0.0:7071")
}
