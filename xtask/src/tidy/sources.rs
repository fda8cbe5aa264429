//! The form of files.

use super::File;

/// What one head holds, with room to spare.
const LINES_MAX: usize = 600;
/// Files that may be longer, each with the reason why.
const LONGER: &[(&str, &str)] = &[];
/// Made by programs.
const GENERATED: &[&str] = &["Cargo.lock", "sdk/python/src/bourse/_descriptors.py"];
/// Where text is what a test expects, to the byte.
const VERBATIM: &[&str] = &["/testdata/", "/snapshots/", "LICENSE-"];
const CODE: &[&str] = &["rs", "py", "js", "ts", "sh"];

pub(super) fn check(files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files.iter().filter(|f| !GENERATED.contains(&f.path.as_str())) {
        problems.extend(lines(file));
        problems.extend(words(file));
        if file.path.ends_with("/src/lib.rs") && !file.text.starts_with("//!") {
            problems.push(format!("{}: a crate begins with its contract: `//!`", file.path));
        }
    }
    for (path, _) in LONGER.iter().filter(|(path, _)| !files.iter().any(|f| f.path == *path && is_long(f))) {
        problems.push(format!("xtask/src/tidy/sources.rs: {path} need not be among LONGER"));
    }
    problems
}

fn is_code(file: &File) -> bool {
    file.path.rsplit_once('.').is_some_and(|(_, ending)| CODE.contains(&ending))
}

fn is_long(file: &File) -> bool {
    file.text.lines().count() > LINES_MAX
}

fn lines(file: &File) -> Vec<String> {
    if VERBATIM.iter().any(|part| file.path.contains(part)) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if is_code(file) && is_long(file) && !LONGER.iter().any(|(path, _)| *path == file.path) {
        problems.push(format!("{}: more than {LINES_MAX} lines", file.path));
    }
    for (number, line) in file.text.lines().enumerate() {
        if line.contains('\t') {
            problems.push(format!("{}:{}: a tab", file.path, number + 1));
        }
        if line.ends_with([' ', '\r']) {
            problems.push(format!("{}:{}: white space at the end", file.path, number + 1));
        }
    }
    if !file.text.is_empty() && (!file.text.ends_with('\n') || file.text.ends_with("\n\n")) {
        problems.push(format!("{}: a file ends with one line end", file.path));
    }
    problems
}

/// Whether a path from the root begins so somewhere in a line, rather than going on so.
fn begins_a_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '.' | '_' | '-' | '}' | '*'))
    })
}

/// What stays out: work left undone, and paths of somebody's machine.
fn words(file: &File) -> Vec<String> {
    // Put together here, so that this file does not contain them.
    let undone = [concat!("to", "do!("), concat!("unimple", "mented!(")];
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/home", "/")];
    let mut problems = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for word in undone.iter().filter(|w| is_code(file) && line.contains(**w)) {
            problems.push(format!("{}:{}: {word}", file.path, number + 1));
        }
        for place in places.iter().filter(|p| begins_a_path(line, p)) {
            problems.push(format!("{}:{}: a path of somebody's machine: {place}", file.path, number + 1));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_is_checked() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let count = |path: &str, text: &str| check(&[file(path, text)]).len();
        assert_eq!(count("a.rs", "fine\n"), 0);
        assert_eq!(count("a.rs", "no end"), 1);
        assert_eq!(count("a.rs", "a \n\tb\n"), 2);
        assert_eq!(count("a.rs", &"x\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(count("a.md", &"x\n".repeat(LINES_MAX + 1)), 0);
        assert_eq!(count("x/src/lib.rs", "fn a() {}\n"), 1);
        assert_eq!(count("a.rs", concat!("to", "do!()\n")), 1);
        assert_eq!(count("a.md", concat!("see /ro", "ot/x\n")), 1);
    }
}
