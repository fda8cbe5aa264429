//! Licences, bans and sources of dependencies, by the rules in deny.toml.
//!
//! The meaning is cargo-deny's, for the few keys that our deny.toml has; a key that is not known here is refused,
//! so that the file never states a rule that nobody checks. Security advisories are not looked at: their database
//! is a repository that a build should not have to reach.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use spdx::{Expression, Licensee, ParseMode};
use toml::{Table, Value};

use crate::metadata::{self, Package};

const KNOWN: &[(&str, &[&str])] = &[
    ("licenses", &["version", "allow"]),
    ("bans", &["multiple-versions", "wildcards", "deny"]),
    ("sources", &["unknown-registry", "unknown-git", "allow-registry"]),
];

/// What is wrong. Duplicate versions are only told.
pub(crate) fn check() -> Result<Vec<String>> {
    let text = std::fs::read_to_string(crate::root().join("deny.toml")).context("deny.toml")?;
    let rules: Table = text.parse().context("deny.toml")?;
    only_known(&rules)?;
    let packages = metadata::packages()?;
    let mut problems = licences(&rules, &packages)?;
    problems.extend(bans(&rules, &packages));
    problems.extend(sources(&rules, &packages));
    Ok(problems)
}

fn only_known(rules: &Table) -> Result<()> {
    for (section, keys) in rules {
        let Some((_, known)) = KNOWN.iter().find(|(name, _)| name == section) else {
            bail!("deny.toml: this check does not know [{section}]");
        };
        for key in keys.as_table().into_iter().flat_map(Table::keys) {
            if !known.contains(&key.as_str()) {
                bail!("deny.toml: this check does not know {key} in [{section}]");
            }
        }
    }
    for (section, key, value) in [
        ("bans", "multiple-versions", "warn"),
        ("bans", "wildcards", "allow"),
        ("sources", "unknown-registry", "deny"),
        ("sources", "unknown-git", "deny"),
    ] {
        if rules.get(section).and_then(|s| s.get(key)).and_then(Value::as_str) != Some(value) {
            bail!("deny.toml: this check can do nothing but {key} = {value:?} in [{section}]");
        }
    }
    Ok(())
}

fn licences(rules: &Table, packages: &BTreeMap<String, Package>) -> Result<Vec<String>> {
    let mut allowed = Vec::new();
    for licence in strings(rules, "licenses", "allow") {
        allowed.push(Licensee::parse(licence).with_context(|| format!("deny.toml: licence {licence:?}"))?);
    }
    let mut problems = Vec::new();
    for Package { name, version, license, .. } in packages.values() {
        match Expression::parse_mode(license, ParseMode::LAX) {
            Err(_) if license.is_empty() => problems.push(format!("{name} {version} states no licence")),
            Err(error) => problems.push(format!("{name} {version}: licence {license:?}: {}", error.reason)),
            Ok(terms) if terms.evaluate(|one| allowed.iter().any(|a| a.satisfies(one))) => {}
            Ok(_) => problems.push(format!("{name} {version}: its licence {license} is not allowed")),
        }
    }
    Ok(problems)
}

fn bans(rules: &Table, packages: &BTreeMap<String, Package>) -> Vec<String> {
    let banned: BTreeSet<&str> =
        array(rules, "bans", "deny").filter_map(|b| b.get("crate")?.as_str()).collect();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages.values() {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    for (name, several) in versions.iter().filter(|(_, v)| v.len() > 1) {
        println!("warning: {} versions of {name}: {}", several.len(), several.join(", "));
    }
    let found = versions.keys().filter(|name| banned.contains(*name));
    found.map(|name| format!("{name} is banned; `cargo tree -i {name}` says who brings it")).collect()
}

fn sources(rules: &Table, packages: &BTreeMap<String, Package>) -> Vec<String> {
    let allowed: Vec<&str> = strings(rules, "sources", "allow-registry").collect();
    let foreign = packages.values().filter_map(|p| {
        let source = p.source.as_deref()?;
        let known = source.strip_prefix("registry+").is_some_and(|r| allowed.contains(&r));
        (!known).then(|| format!("{} {} comes from {source}", p.name, p.version))
    });
    foreign.collect()
}

fn array<'a>(rules: &'a Table, section: &str, key: &str) -> impl Iterator<Item = &'a Value> {
    rules.get(section).and_then(|s| s.get(key)).and_then(Value::as_array).into_iter().flatten()
}

fn strings<'a>(rules: &'a Table, section: &str, key: &str) -> impl Iterator<Item = &'a str> {
    array(rules, section, key).filter_map(Value::as_str)
}
