//! The dependency graph in ARCHITECTURE.md is the real one, and points strictly down.
//!
//! Its block `dependencies` has a line `crate: what it uses` for each crate, in layers that blank lines separate;
//! a crate may use those of lower layers only. Lines `dev crate: …` are for tests. Its block `pure` names, for each
//! pure crate, all foreign crates that it may use.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::{File, block, text};
use crate::metadata::{self, Package};

/// What nothing below a pure crate may be: clocks, sockets, threads, entropy.
const IMPURE: &[&str] =
    &["async-std", "fastrand", "getrandom", "mio", "polling", "rand", "smol", "socket2", "tokio"];

type Uses = BTreeMap<String, BTreeSet<String>>;

pub(super) fn check(files: &[File]) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let architecture = text(files, "ARCHITECTURE.md", &mut problems);
    let packages = metadata::packages()?;
    let own: BTreeMap<&str, &Package> = metadata::own(&packages).map(|p| (short(&p.name), p)).collect();

    let stated = Stated::parse(&block(architecture, "dependencies"));
    for (name, package) in &own {
        let (mut uses, mut dev) = (BTreeSet::new(), BTreeSet::new());
        for (used, kind) in &package.declared {
            if own.contains_key(short(used))
                && packages.values().any(|p| p.source.is_none() && p.name == *used)
            {
                if kind == "dev" { &mut dev } else { &mut uses }.insert(short(used).to_owned());
            }
        }
        compare(name, "", stated.uses.get(*name), &uses, &mut problems);
        compare(name, "dev ", stated.dev.get(*name).or(Some(&BTreeSet::new())), &dev, &mut problems);
    }
    for name in stated.uses.keys().chain(stated.dev.keys()).filter(|n| !own.contains_key(n.as_str())) {
        problems.push(format!("ARCHITECTURE.md: there is no crate {name}"));
    }
    problems.extend(stated.not_down());
    pure(files, &block(architecture, "pure"), &own, &mut problems)?;
    Ok(problems)
}

fn short(name: &str) -> &str {
    name.strip_prefix("bourse-").unwrap_or(name)
}

fn compare(
    name: &str,
    kind: &str,
    stated: Option<&BTreeSet<String>>,
    real: &BTreeSet<String>,
    problems: &mut Vec<String>,
) {
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
    match stated {
        None => {
            problems.push(format!("ARCHITECTURE.md: the crate {name} is missing; it uses: {}", list(real)))
        }
        Some(stated) if stated != real => problems.push(format!(
            "ARCHITECTURE.md says `{kind}{name}: {}`, but it is `{kind}{name}: {}`",
            list(stated),
            list(real)
        )),
        Some(_) => {}
    }
}

#[derive(Default)]
struct Stated {
    uses: Uses,
    dev: Uses,
    /// 0 is the top.
    layer: BTreeMap<String, usize>,
}

impl Stated {
    fn parse(lines: &[&str]) -> Self {
        let mut stated = Self::default();
        let mut layer = 0;
        for line in lines {
            let Some((name, uses)) = line.split_once(':') else {
                layer += 1;
                continue;
            };
            let uses = uses.split_whitespace().map(str::to_owned).collect();
            match name.strip_prefix("dev ") {
                Some(name) => stated.dev.insert(name.trim().to_owned(), uses),
                None => {
                    stated.layer.insert(name.trim().to_owned(), layer);
                    stated.uses.insert(name.trim().to_owned(), uses)
                }
            };
        }
        stated
    }

    fn not_down(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, uses) in &self.uses {
            for used in uses.iter().filter(|used| self.layer.get(*used) <= self.layer.get(name)) {
                problems.push(format!("ARCHITECTURE.md: {name} uses {used}, which is not in a lower layer"));
            }
        }
        problems
    }
}

fn pure(
    files: &[File],
    stated: &[&str],
    own: &BTreeMap<&str, &Package>,
    problems: &mut Vec<String>,
) -> Result<()> {
    if stated.is_empty() {
        problems.push("ARCHITECTURE.md has no block ```pure".to_owned());
    }
    let mut bans: Option<(&str, &str)> = None;
    for (name, allowed) in stated.iter().filter_map(|l| l.split_once(':')) {
        let Some(package) = own.get(name) else {
            problems.push(format!("ARCHITECTURE.md: there is no crate {name}"));
            continue;
        };
        let allowed: BTreeSet<&str> = allowed.split_whitespace().collect();
        let foreign: BTreeSet<&str> = package
            .declared
            .iter()
            .filter(|(used, kind)| kind == "normal" && !own.contains_key(short(used)))
            .map(|(used, _)| used.as_str())
            .collect();
        for more in foreign.difference(&allowed) {
            problems.push(format!(
                "ARCHITECTURE.md does not list {more} among what the pure crate {name} may use"
            ));
        }
        for less in allowed.difference(&foreign) {
            problems.push(format!("ARCHITECTURE.md: the pure crate {name} does not use {less}"));
        }
        for below in metadata::links(&package.name)?.iter().filter(|b| IMPURE.contains(&b.as_str())) {
            let why = format!("cargo tree -p {} -i {below}", package.name);
            problems.push(format!("the pure crate {name} links {below}: `{why}`"));
        }
        let path = format!("crates/{name}/clippy.toml");
        let rules = text(files, &path, problems);
        for banned in
            ["std::time::Instant", "std::time::SystemTime", "std::collections::HashMap", "std::env::var"]
        {
            if !rules.contains(&format!("\"{banned}\"")) {
                problems.push(format!("{path} does not ban {banned}"));
            }
        }
        match bans {
            Some((first, same)) if same != rules => problems.push(format!("{path} differs from {first}'s")),
            _ => bans = Some((name, rules)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_that_does_not_point_down_is_found() {
        let stated = Stated::parse(&["top: left low", "", "left: right", "right:", "", "low: top"]);
        let found = stated.not_down();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("left uses right") && found[1].contains("low uses top"));
    }
}
