//! Each promise in GUARANTEES.md names tests that exist, or is pending; each error code has its page.

use super::{File, text};

pub(super) fn check(files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    let guarantees = text(files, "GUARANTEES.md", &mut problems);
    let rows: Vec<_> = guarantees.lines().filter_map(row).collect();
    if rows.is_empty() {
        problems.push("GUARANTEES.md has no promise".to_owned());
    }
    for (promise, tests, status) in rows {
        let mut complain = |what: String| problems.push(format!("GUARANTEES.md: {promise:?} {what}"));
        match status {
            "pending" => {}
            "held" if tests.is_empty() => complain("is held by no test".to_owned()),
            "held" => {
                for test in tests.iter().filter(|test| !exists(files, test)) {
                    complain(format!("names a test that does not exist: {test}"));
                }
            }
            _ => complain(format!("has the status {status:?}: held or pending")),
        }
    }
    problems.extend(error_pages(files));
    problems
}

/// The promise, the tests in backquotes, the status; `None` for a line that is no row of a table with three columns.
fn row(line: &str) -> Option<(&str, Vec<&str>, &str)> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let &[promise, tests, status] = cells.as_slice() else { return None };
    if promise == "promise" || promise.starts_with("--") {
        return None;
    }
    Some((promise, tests.split('`').skip(1).step_by(2).collect(), status))
}

/// `path::name`: a test function of that name in that file.
fn exists(files: &[File], test: &str) -> bool {
    let Some((path, name)) = test.rsplit_once("::") else { return false };
    let Some(file) = files.iter().find(|f| f.path == path) else { return false };
    ["fn ", "def ", "async def "].iter().any(|word| {
        let start = format!("{word}{name}(");
        file.text.lines().any(|l| l.trim_start().trim_start_matches("async ").starts_with(&start))
    })
}

fn error_pages(files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    let source = text(files, "crates/wire/src/failure.rs", &mut problems);
    let table = source.lines().skip_while(|l| *l != "codes! {").take_while(|l| *l != "}");
    let codes: Vec<&str> =
        table.filter(|l| !l.trim().starts_with("//")).filter_map(|l| l.split('"').nth(1)).collect();
    if codes.is_empty() {
        problems.push("crates/wire/src/failure.rs: tidy does not find the codes".to_owned());
    }
    for code in &codes {
        let page = text(files, &format!("docs/errors/{code}.md"), &mut problems);
        if !page.is_empty() && !page.contains(code) {
            problems.push(format!("docs/errors/{code}.md does not name its code"));
        }
    }
    for file in files {
        let page = file.path.strip_prefix("docs/errors/").and_then(|p| p.strip_suffix(".md"));
        if let Some(page) = page.filter(|p| *p != "README" && !codes.contains(p)) {
            problems.push(format!("docs/errors/{page}.md: there is no such code"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_found_by_its_name() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files =
            [file("a.rs", "    async fn one() {\n"), file("b.py", "async def two(x):\ndef three():\n")];
        for test in ["a.rs::one", "b.py::two", "b.py::three"] {
            assert!(exists(&files, test), "{test}");
        }
        for test in ["a.rs::on", "a.rs::two", "c.rs::one", "one"] {
            assert!(!exists(&files, test), "{test}");
        }
    }

    #[test]
    fn rows_are_read() {
        let line = "| it holds | `a.rs::one`, `b.rs::two` | held |";
        assert_eq!(row(line), Some(("it holds", vec!["a.rs::one", "b.rs::two"], "held")));
        assert_eq!(row("|---|---|---|"), None);
        assert_eq!(row("| promise | test | status |"), None);
    }
}
