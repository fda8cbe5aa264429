//! Links between markdown files lead somewhere.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::File;

pub(super) fn check(files: &[File]) -> Vec<String> {
    let mut there: BTreeSet<PathBuf> = BTreeSet::new();
    for file in files {
        there.extend(Path::new(&file.path).ancestors().map(Path::to_owned));
    }
    let mut problems = Vec::new();
    for file in files.iter().filter(|f| f.path.ends_with(".md")) {
        for target in targets(&file.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
            let found = if path.is_empty() { PathBuf::from(&file.path) } else { normal(&folder.join(path)) };
            if !there.contains(&found) {
                problems.push(format!("{}: the link to {target} leads nowhere", file.path));
                continue;
            }
            let other = files.iter().find(|f| Path::new(&f.path) == found);
            if let Some(other) = other.filter(|_| !heading.is_empty())
                && !anchors(&other.text).contains(heading)
            {
                problems.push(format!("{}: {target}: there is no such heading", file.path));
            }
        }
    }
    problems
}

/// What `](…)` encloses, outside code.
fn targets(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in prose(text) {
        for (at, part) in line.split('`').enumerate() {
            // A link's own text may be code, so its end stands in an even part all the same.
            if at % 2 == 0 {
                found
                    .extend(part.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(t, _)| t));
            }
        }
    }
    found
}

fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Headings as GitHub names them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|l| l.starts_with('#')).map(|l| l.trim_start_matches('#').trim());
    let name = |heading: &str| {
        heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(name).collect()
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_prose_are_found_and_those_in_code_are_not() {
        let text = "a [b](c.md) and `[d](e.md)` and [`f`](../g.md#h)\n```\n[i](j.md)\n```\n";
        assert_eq!(targets(text), ["c.md", "../g.md#h"]);
    }

    #[test]
    fn dead_links_are_problems() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file("README.md", "[a](docs/a.md#so-it-is) [b](docs) [c](#x) [d](docs/d.md)"),
            file("docs/a.md", "# So it is!\n[up](../README.md) [no](a.md#such)"),
        ];
        let problems = check(&files);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
