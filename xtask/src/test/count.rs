//! How many passed, failed and were skipped; and what test runners print about that.

use std::fmt;
use std::ops::AddAssign;

use anyhow::{Context, Result};

/// What a step comes to.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    /// Why tests were skipped.
    pub(super) reasons: Vec<String>,
}

impl Count {
    pub(super) fn success() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    pub(super) fn failure() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    /// Takes in a line that a runner has printed: nextest's or pytest's summary, libtest's result, a skipped test.
    pub(super) fn read(&mut self, whole: &str) {
        let line = whole.trim();
        if let Some((_, summary)) = line.strip_prefix("Summary [").and_then(|l| l.split_once(" run: ")) {
            self.take(summary);
        } else if let Some(result) = whole.strip_prefix("test result: ") {
            // Indented it is a single test's, in nextest's output.

            self.take(&result.replace(';', ","));
        } else if let Some((summary, _)) = line.rsplit_once(" in ").filter(|(_, took)| is_time(took))
            && summary.starts_with(|c: char| c.is_ascii_digit())
        {
            self.take(summary);
        } else if let Some(reason) = skip_of_rust(line) {
            // Its test has passed, as far as the runner knows.
            self.passed = self.passed.wrapping_sub(1);
            self.skipped += 1;
            self.reasons.push(reason.to_owned());
        } else if let Some(reason) = line.strip_prefix("SKIPPED [").and_then(|l| l.split(':').nth(2)) {
            self.reasons.push(reason.trim().to_owned());
        }
    }

    /// `340 passed (1 slow), 2 failed, 1 skipped`
    fn take(&mut self, summary: &str) {
        for part in summary.split(", ") {
            let mut words = part.rsplit(". ").next().unwrap_or(part).split_whitespace();
            let (Some(Ok(n)), Some(what)) = (words.next().map(str::parse::<usize>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed = self.passed.wrapping_add(n),
                "failed" | "timed" | "exec" | "error" | "errors" => self.failed += n,
                "skipped" | "ignored" => self.skipped += n,
                _ => {}
            }
        }
    }

    /// Where it is `strict`, only the reasons in `xtask/skips.txt` are good ones.
    pub(super) fn judge_skips(mut self, strict: bool) -> Result<Self> {
        let path = crate::root().join("xtask/skips.txt");
        let text = std::fs::read_to_string(&path).context("xtask/skips.txt")?;
        let allowed: Vec<&str> = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
        for reason in self.reasons.iter().filter(|r| strict && !allowed.iter().any(|a| r.starts_with(a))) {
            println!("skipped, which is not allowed here: {reason}");
            self.skipped = self.skipped.saturating_sub(1);
            self.failed += 1;
        }
        Ok(self)
    }
}

/// `12.10s`, or `80.47s (0:01:20)`
fn is_time(text: &str) -> bool {
    let seconds = text.split(' ').next().and_then(|t| t.strip_suffix('s'));
    seconds.is_some_and(|s| s.parse::<f64>().is_ok())
}

/// A Rust test says `skipped: reason`; on one core that stands behind `test name ... `.
fn skip_of_rust(line: &str) -> Option<&str> {
    line.rsplit_once("... ").map_or(line, |(_, said)| said).strip_prefix("skipped: ")
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.reasons.extend(other.reasons);
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> String {
        let mut count = Count::default();
        lines.iter().for_each(|l| count.read(l));
        count.to_string()
    }

    #[test]
    fn summaries_of_runners() {
        let nextest =
            "     Summary [   1.337s] 10 tests run: 7 passed (1 slow), 2 failed, 1 timed out, 4 skipped";
        assert_eq!(read(&[nextest]), "7 passed, 3 failed, 4 skipped");
        let libtest = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(read(&[libtest, libtest]), "6 passed, 2 failed, 4 skipped");
        assert_eq!(
            read(&["1 failed, 86 passed, 2 skipped, 1 error in 12.10s"]),
            "86 passed, 2 failed, 2 skipped"
        );
        assert_eq!(read(&["    test result: ok. 1 passed; 0 failed"]), "0 passed, 0 failed, 0 skipped");
        assert_eq!(read(&["4 failed, 5 passed in 80.47s (0:01:20)"]), "5 passed, 4 failed, 0 skipped");
        assert_eq!(read(&["12 things in 3 boxes", "in 2s"]), "0 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn skips_are_told_from_successes() {
        let summary = "Summary [ 1s] 3 tests run: 3 passed, 0 skipped";
        assert_eq!(read(&["    skipped: no mount", summary]), "2 passed, 0 failed, 1 skipped");
        assert_eq!(read(&["test a ... skipped: x", summary]), "2 passed, 0 failed, 1 skipped");
        let mut pytest = Count::default();
        pytest.read("SKIPPED [1] tests/test_a.py:12: no fork here: x");
        assert_eq!(pytest.reasons, ["no fork here"]);
    }

    #[test]
    fn a_reason_that_is_no_good_is_a_failure_in_ci() {
        let count = || Count { skipped: 1, reasons: vec!["no pyzmq".to_owned()], ..Count::default() };
        assert_eq!(count().judge_skips(true).unwrap().failed, 1);
        assert_eq!(count().judge_skips(false).unwrap().failed, 0);
    }
}
