//! `bourse deploy`, `deployments`, `rollback`, `promote` and `undeploy`.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bourse_worker::bundle;
use http::Method;
use serde_json::Value;

use super::http::{Ask, Daemon, block_on, encoded};
use super::table::{BAD, DIM, GOOD, ODD, Table};
use super::{Error, FAILED, OK, Reach};
use crate::daemon::deployments::is_name;

/// Puts a module, or a folder of modules, on the nodes that are to serve it, and waits until they do.
#[derive(clap::Args)]
#[command(after_help = "\
PATH is a file, a package, the folder of a program with a bourse.toml, or a
folder with any of these and a requirements.txt of their own. Each node goes on
with what it serves until the new one is loaded; what does not load changes
nothing there, and is told.

Examples:
  bourse deploy functions/shop.py
  bourse deploy shop --count 3 --label eu
  bourse deploy shop --canary 1     # then: bourse promote shop, or rollback")]
pub(crate) struct Deploy {
    /// The file or folder
    path: PathBuf,
    /// What it is called [default: the file's or the folder's name]
    #[arg(long)]
    name: Option<String>,
    /// On so many nodes [default: on all]
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// On nodes that have this label; repeatable, and then on those that have all
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// At first on so many of them, beside what serves on the others
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u32).range(1..))]
    canary: Option<u32>,
    /// Do not wait for the nodes
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for them, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "2m")]
    wait: String,
    /// Write JSON: the deployment as it is at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Shows what is deployed, and how far each node is with it.
#[derive(clap::Args)]
pub(crate) struct List {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Which deployment is meant.
#[derive(clap::Args)]
pub(crate) struct One {
    /// Its name
    name: String,
    /// Do not wait for the nodes
    #[arg(long)]
    no_wait: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Between two looks at how far the nodes are.
const LOOK: Duration = Duration::from_millis(100);
/// How long nodes may take to be told at all.
const TOLD: Duration = Duration::from_secs(2);
/// How long is waited for what has no limit of its own.
const WAIT: Duration = Duration::from_secs(120);

pub(crate) fn deploy(deploy: &Deploy) -> anyhow::Result<u8> {
    let refused = |text: String| anyhow::Error::from(Error::Refused(text));
    let path = deploy.path.canonicalize().map_err(|e| {
        refused(format!(
            "{} cannot be read: {e}\n  hint: name a file such as shop.py, or a folder",
            deploy.path.display()
        ))
    })?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = deploy.name.clone().unwrap_or(stem);
    if !is_name(&name) {
        return Err(Error::Usage(format!(
            "{name:?} can't be the name of a deployment\n  hint: give another with --name: letters, digits, - and _"
        ))
        .into());
    }
    let wait = bourse_wire::time::parse_duration(&deploy.wait)
        .ok_or_else(|| Error::Usage(format!("--wait {} is no time, such as 30s or 5m", deploy.wait)))?;
    let bundle = bundle::pack(&path, bundle::BYTES_MAX).map_err(|e| refused(e.to_string()))?;
    let digest: String = bundle::digest(&bundle).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut query = format!("labels={}", encoded(&deploy.labels.join(",")));
    for (key, value) in [("count", deploy.count), ("canary", deploy.canary)] {
        query.extend(value.map(|value| format!("&{key}={value}")));
    }
    let daemon = Daemon::new(deploy.reach.find()?)?;
    let bytes = bundle.len();
    let ask = Ask {
        method: Method::POST,
        path: format!("/v1/deployments/{}?{query}", encoded(&name)),
        content_type: Some("application/octet-stream".to_owned()),
        body: bundle,
        ..Ask::default()
    };
    block_on(daemon.ask_json(ask))??;
    if !deploy.json {
        writeln!(io::stdout(), "{name}: {bytes} bytes, {}", &digest[..12])?;
    }
    let wait = if deploy.no_wait { None } else { Some(wait) };
    follow(&daemon, &name, Some(&digest), wait, deploy.json)
}

pub(crate) fn list(list: &List) -> anyhow::Result<u8> {
    let daemon = Daemon::new(list.reach.find()?)?;
    let found = block_on(daemon.json("/v1/deployments"))??;
    if list.json {
        writeln!(io::stdout(), "{found:#}")?;
        return Ok(OK);
    }
    let all = found.as_array().cloned().unwrap_or_default();
    if all.is_empty() {
        anstream::eprintln!("nothing is deployed: `bourse deploy PATH` puts modules on the nodes");
        return Ok(OK);
    }
    let mut table = Table::new(["DEPLOYMENT", "BUNDLE", "NODE", "STAGE"]);
    for deployment in all {
        let name = text(&deployment["name"]);
        let nodes = deployment["nodes"].as_array().cloned().unwrap_or_default();
        if nodes.is_empty() {
            table.row_in(ODD, [name, short(&deployment["digest"]), "-".into(), "no node fits".into()]);
            continue;
        }
        for node in nodes {
            let is_canary = node["digest"] == deployment["canary"]["digest"];
            let bundle = format!("{}{}", short(&node["digest"]), if is_canary { " (canary)" } else { "" });
            let (style, stage) = stage(&node);
            table.row_in(style, [name.clone(), bundle, short_key(&node["node"]), stage]);
        }
    }
    table.write(&mut anstream::stdout().lock())?;
    Ok(OK)
}

pub(crate) fn rollback(one: &One) -> anyhow::Result<u8> {
    change(one, Method::POST, "/rollback")
}

pub(crate) fn promote(one: &One) -> anyhow::Result<u8> {
    change(one, Method::POST, "/promote")
}

pub(crate) fn undeploy(one: &One) -> anyhow::Result<u8> {
    change(one, Method::DELETE, "")
}

fn change(one: &One, method: Method, what: &str) -> anyhow::Result<u8> {
    let daemon = Daemon::new(one.reach.find()?)?;
    let is_removed = method == Method::DELETE;
    let path = format!("/v1/deployments/{}{what}", encoded(&one.name));
    block_on(daemon.ask_json(Ask { method, path, ..Ask::default() }))??;
    if is_removed {
        if !one.json {
            writeln!(io::stdout(), "{}: taken off all nodes", one.name)?;
        }
        return Ok(OK);
    }
    follow(&daemon, &one.name, None, (!one.no_wait).then_some(WAIT), one.json)
}

/// Shows how far the nodes come, until all that are to serve a deployment do, or can't.
fn follow(
    daemon: &Daemon,
    name: &str,
    digest: Option<&str>,
    wait: Option<Duration>,
    json: bool,
) -> anyhow::Result<u8> {
    let begun = Instant::now();
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let found = block_on(daemon.json("/v1/deployments"))??;
        let deployment = found.as_array().into_iter().flatten().find(|d| d["name"] == name).cloned();
        let deployment = deployment.unwrap_or_default();
        let nodes: Vec<Value> = deployment["nodes"].as_array().cloned().unwrap_or_default();
        // Nodes that go on with what they serve have nothing to do with a canary.
        let is_meant = |node: &&Value| digest.is_none_or(|digest| node["digest"] == digest);
        let meant: Vec<&Value> = nodes.iter().filter(is_meant).collect();
        for node in &meant {
            let (key, (style, stage)) = (short_key(&node["node"]), stage(node));
            if said.insert(key.clone(), stage.clone()) != Some(stage.clone()) && !json {
                writeln!(anstream::stdout(), "  {key}  {style}{stage}{style:#}")?;
            }
        }
        let is_over =
            |node: &&Value| node["stage"] == "serving" || node["stage"] == "failed" || node["gone"] == true;
        let over = meant.iter().all(is_over);
        let late = begun.elapsed() > TOLD;
        let failed = meant.iter().filter(|node| node["stage"] == "failed").count();
        let done = (!meant.is_empty() && over) || (meant.is_empty() && late) || wait.is_none();
        if done || wait.is_some_and(|wait| begun.elapsed() > wait) {
            if json {
                writeln!(io::stdout(), "{deployment:#}")?;
            }
            return match () {
                () if wait.is_none() => Ok(OK),
                () if meant.is_empty() => Err(Error::Refused(format!(
                    "no node can be given {name}\n  hint: no node has all of its labels, or those that have take no deployments; it is served as soon as one does"
                ))
                .into()),
                () if failed > 0 => {
                    anstream::eprintln!(
                        "{failed} of {} nodes could not load it: what they served before goes on\n  hint: mend it and deploy again, or: bourse rollback {name}",
                        meant.len()
                    );
                    Ok(FAILED)
                }
                () if !over => Err(Error::Refused(
                    "not all nodes serve it so far\n  hint: bourse deployments shows how far they are; --wait gives them longer"
                        .to_owned(),
                )
                .into()),
                () => Ok(OK),
            };
        }
        std::thread::sleep(LOOK);
    }
}

fn stage(node: &Value) -> (anstyle::Style, String) {
    let gone = if node["gone"] == true { ", not connected" } else { "" };
    let stage = text(&node["stage"]);
    let style = match stage.as_str() {
        "serving" => GOOD,
        "failed" => BAD,
        _ => DIM,
    };
    let why = node["failure"]["message"].as_str().or(node["failure"]["detail"].as_str());
    let why = why.map(|why| format!(": {}", why.lines().next().unwrap_or_default())).unwrap_or_default();
    (style, format!("{stage}{why}{gone}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn short(digest: &Value) -> String {
    text(digest).chars().take(12).collect()
}

fn short_key(key: &Value) -> String {
    text(key).chars().take(8).collect()
}
