//! `bourse config`: which settings count, and why. From the files and the environment; no daemon is asked.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bourse_worker::scan::{self, SETTINGS_FILE, Scan};
use serde_json::{Map, Value, json};

use super::table::Table;
use super::{Error, OK};
use crate::config::known;
use crate::config::{self, Config, Given, Scope, Source, schema};

/// Shows every setting, its value, and where that comes from.
#[derive(clap::Args)]
#[command(after_help = "\
A setting is taken from the command line of `bourse up`, else from the
environment (BOURSE_…), else from bourse.toml in the served folder, else it is
the default. A daemon that was started with flags, or in another environment,
has other settings than those shown here.

Examples:
  bourse config show
  bourse config show examples/treedb --about
  BOURSE_IDLE=1m bourse config show --json | jq '.settings.idle'")]
pub(crate) struct Show {
    /// The served folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Say what each setting is for
    #[arg(long)]
    about: bool,
    /// Print {folder, settings: {NAME: {value, source, default, about}}, modules, routes} as JSON
    #[arg(long)]
    json: bool,
}

/// Shown in the place of a secret.
const HIDDEN: &str = "(hidden)";

pub(crate) fn show(show: &Show) -> anyhow::Result<u8> {
    let folder = show.folder.canonicalize().map_err(|e| {
        Error::Refused(format!(
            "{} cannot be entered: {e}\n  hint: name the folder that is served",
            show.folder.display()
        ))
    })?;
    let mut config = Config::resolve(&folder, &Given::new(), config::variables())?;
    if let Scan::Done { found, .. } = scan::scan(&folder)? {
        for module in found {
            config.set_module(&module.name, &folder.join(SETTINGS_FILE), &module.settings.options)?;
        }
    }
    let mut out = anstream::stdout().lock();
    if show.json {
        writeln!(out, "{:#}", as_json(&folder, &config))?;
        return Ok(OK);
    }
    let mut table = Table::new(["SETTING", "VALUE", "SOURCE"]);
    let mut rows: Vec<[String; 3]> = config
        .all()
        .map(|(setting, value, source)| {
            [setting.name.to_owned(), shown(&config, setting.name, value), source.to_string()]
        })
        .collect();
    if show.about {
        for (row, (setting, ..)) in rows.iter_mut().zip(config.all()) {
            row[2] = format!("{}; {}", row[2], setting.about);
        }
    }
    rows.into_iter().for_each(|row| table.row(row));
    for (module, own) in config.modules() {
        for (name, value) in own {
            table.row([format!("modules.{module}.{name}"), value.clone(), "bourse.toml".to_owned()]);
        }
    }
    for (route, function) in &config.routes {
        table.row([format!("routes.{route:?}"), function.clone(), "bourse.toml".to_owned()]);
    }
    table.write(&mut out)?;
    Ok(OK)
}

/// Prints the JSON schema of bourse.toml.
pub(crate) fn print_schema() -> io::Result<u8> {
    writeln!(io::stdout(), "{:#}", schema())?;
    Ok(OK)
}

fn as_json(folder: &Path, config: &Config) -> Value {
    let settings: Map<String, Value> = config
        .all()
        .map(|(setting, value, source)| {
            let (kind, place) = match source {
                Source::Flag => ("flag", Value::Null),
                Source::Variable(name) => ("environment", json!(name)),
                Source::File(path) => ("file", json!(path)),
                Source::Default => ("default", Value::Null),
            };
            let value = if value.is_empty() { Value::Null } else { json!(hidden(setting.name, value)) };
            let of_module = setting.scope == Scope::Module;
            let about = json!({
                "value": value, "source": kind, "place": place, "default": setting.default,
                "variable": setting.variable(), "of_module": of_module, "about": setting.about,
            });
            (setting.name.to_owned(), about)
        })
        .collect();
    let modules: Map<String, Value> =
        config.modules().map(|(module, own)| (module.to_owned(), json!(own))).collect();
    json!({"folder": folder, "data": config.data(), "settings": settings, "modules": modules, "routes": config.routes})
}

fn shown(config: &Config, name: &str, value: &str) -> String {
    match (name, value) {
        ("data", _) => config.data().display().to_string(),
        (_, "") => "-".to_owned(),
        (name, value) => hidden(name, value).to_owned(),
    }
}

fn hidden<'a>(name: &str, value: &'a str) -> &'a str {
    if known::SECRETS.contains(&name) && !value.is_empty() { HIDDEN } else { value }
}
