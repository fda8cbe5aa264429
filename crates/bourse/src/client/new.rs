//! `bourse new`: a folder with functions that work, to start from.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Error, OK};

/// Makes a folder with an example that works.
#[derive(clap::Args)]
#[command(after_help = "\
Templates:
  hello  functions in a plain Python file, with no import of ours
  state  functions with routes of their own and state on disk

Examples:
  bourse new shop
  bourse new notes --template state")]
pub(crate) struct New {
    /// The folder to make; it may be there if it is empty
    #[arg(value_name = "NAME")]
    folder: PathBuf,
    /// What to put into it
    #[arg(long, value_enum, default_value = "hello")]
    template: Template,
    /// Print {folder, files} as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Template {
    Hello,
    State,
}

const IGNORED: &str = ".bourse/\n__pycache__/\n";

impl Template {
    fn files(self) -> [(&'static str, &'static str); 3] {
        let (module, text, readme) = match self {
            Self::Hello => (
                "hello.py",
                include_str!("../../templates/hello/hello.py"),
                include_str!("../../templates/hello/README.md"),
            ),
            Self::State => (
                "notes.py",
                include_str!("../../templates/state/notes.py"),
                include_str!("../../templates/state/README.md"),
            ),
        };
        [(module, text), ("README.md", readme), (".gitignore", IGNORED)]
    }

    /// A call to try.
    fn try_it(self) -> &'static str {
        match self {
            Self::Hello => "bourse call hello.hello name=Ada",
            Self::State => "bourse call notes.write name=shopping body=tea",
        }
    }
}

pub(crate) fn run(new: &New) -> anyhow::Result<u8> {
    let folder = &new.folder;
    let refused = |text: String| anyhow::Error::from(Error::Refused(text));
    match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(false) => {}
        Ok(true) => {
            let text = format!(
                "{} is there and not empty\n  hint: name another folder; nothing was changed",
                folder.display()
            );
            return Err(refused(text));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) if e.kind() == ErrorKind::NotADirectory => {
            return Err(refused(format!(
                "{} is a file\n  hint: name a folder that is not there yet",
                folder.display()
            )));
        }
        Err(e) => return Err(refused(format!("{} cannot be looked at: {e}", folder.display()))),
    }
    let name = std::path::absolute(folder)?
        .file_name()
        .map_or_else(|| "functions".to_owned(), |n| n.to_string_lossy().into_owned());
    let files = new.template.files();
    fs::create_dir_all(folder)
        .and_then(|()| {
            files
                .iter()
                .try_for_each(|(file, text)| fs::write(folder.join(file), text.replace("FOLDER_NAME", &name)))
        })
        .map_err(|e| refused(format!("{} cannot be written: {e}", folder.display())))?;
    report(folder, new, &files.map(|(file, _)| file))?;
    Ok(OK)
}

fn report(folder: &Path, new: &New, files: &[&str]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if new.json {
        return writeln!(out, "{}", json!({"folder": std::path::absolute(folder)?, "files": files}));
    }
    let shown = folder.display();
    writeln!(out, "made {shown}: {}\n", files.join(", "))?;
    writeln!(out, "next:\n  bourse up {shown}    # serves it; leave it running")?;
    writeln!(out, "  {} -C {shown}    # from another terminal", new.template.try_it())?;
    writeln!(out, "  edit {shown}/{}, save, call again: what is saved is served", files[0])
}
