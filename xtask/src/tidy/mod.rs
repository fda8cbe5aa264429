//! The repository's own rules, as a test.
//!
//! | file | checks |
//! |---|---|
//! | `graph` | ARCHITECTURE.md states the real dependency graph; it points down; pure crates stay pure |
//! | `promises` | GUARANTEES.md names tests that exist; each error code has its page |
//! | `links` | links between markdown files lead somewhere |
//! | `sources` | the form of files: length, white space, heads, words that stay out |
//! | [`crate::proto`] | generated files are current |

mod graph;
mod links;
mod promises;
mod sources;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A text file of the repository.
pub(crate) struct File {
    /// Relative to the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// What is wrong, a line each.
pub(crate) fn check() -> Result<Vec<String>> {
    let files = files()?;
    let mut problems = graph::check(&files)?;
    problems.extend(promises::check(&files));
    problems.extend(links::check(&files));
    problems.extend(sources::check(&files));
    problems.extend(listing(&files));
    problems.extend(crate::proto::check()?);
    Ok(problems)
}

/// All that git tracks, or would if it were added; what is not UTF-8 is left out.
fn files() -> Result<Vec<File>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(crate::root())
        .output()
        .context("tidy needs git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut files = Vec::new();
    for path in String::from_utf8(output.stdout)?.split_terminator('\0') {
        let Ok(bytes) = fs::read(crate::root().join(path)) else { continue };
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File { path: path.to_owned(), text });
        }
    }
    Ok(files)
}

/// The worker that docs/protocol.md shows is the one in the examples.
fn listing(files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    let worker = text(files, "examples/worker_plain/worker.py", &mut problems);
    let page = text(files, "docs/protocol.md", &mut problems);
    if !page.contains(&format!("```python\n{worker}```\n")) {
        problems.push("docs/protocol.md does not show examples/worker_plain/worker.py as it is".to_owned());
    }
    problems
}

/// The text of one file; empty, and a problem, if it is not there.
fn text<'a>(files: &'a [File], path: &str, problems: &mut Vec<String>) -> &'a str {
    match files.iter().find(|f| f.path == path) {
        Some(file) => &file.text,
        None => {
            problems.push(format!("{path} is missing"));
            ""
        }
    }
}

/// The lines of the first fenced block of that name.
fn block<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let open = format!("```{name}");
    text.lines().skip_while(|l| *l != open).skip(1).take_while(|l| *l != "```").collect()
}
