//! What `cargo metadata` says.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One package of the graph.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Empty if it states none.
    pub(crate) license: String,
    /// `None`: a folder of this repository.
    pub(crate) source: Option<String>,
    /// What it declares: name and kind, `normal`, `build` or `dev`.
    pub(crate) declared: BTreeSet<(String, String)>,
}

/// All packages that a build on any platform uses, by id.
pub(crate) fn packages() -> Result<BTreeMap<String, Package>> {
    let output = crate::cargo().args(["metadata", "--format-version", "1", "--locked"]).output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let all: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let mut packages = BTreeMap::new();
    for package in list(&all["packages"]) {
        let declared = list(&package["dependencies"])
            .map(|d| (text(&d["name"]), d["kind"].as_str().unwrap_or("normal").to_owned()))
            .collect();
        let id = text(&package["id"]);
        let package = Package {
            name: text(&package["name"]),
            version: text(&package["version"]),
            license: text(&package["license"]),
            source: package["source"].as_str().map(str::to_owned),
            declared,
        };
        packages.insert(id, package);
    }
    Ok(packages)
}

/// The packages of this repository.
pub(crate) fn own(packages: &BTreeMap<String, Package>) -> impl Iterator<Item = &Package> {
    packages.values().filter(|p| p.source.is_none())
}

/// The names of all that a package links when it is built by itself: what other packages of the workspace ask of the
/// same dependencies does not count.
pub(crate) fn links(package: &str) -> Result<BTreeSet<String>> {
    let tree = [
        "tree",
        "--locked",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--package",
        package,
    ];
    let output = crate::cargo().args(tree).output()?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout).context("cargo tree")?;
    Ok(text.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
