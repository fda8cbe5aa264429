//! Finding out which value of a setting counts, and where it comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bourse_node as node;

use super::known::{self, SETTINGS, Scope, Setting, When};
use super::things::read_things;
use super::value;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Flag,
    Variable(String),
    File(PathBuf),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Variable(name) => write!(f, "environment, {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What the command line says: a setting's name and its value.
pub(crate) type Given = BTreeMap<String, String>;

/// A setting that can't be used. Each names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{place}: there is no setting {name:?}{}", near.as_ref().map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default())]
    Unknown { place: String, name: String, near: Option<String> },
    #[error("{place}: {name} = {reason}")]
    Bad { place: String, name: String, reason: String },
    #[error("{place}: {name} is a setting of the daemon and belongs into [daemon]")]
    NotOfModule { place: String, name: String },
    #[error("{path} cannot be read: {reason}")]
    File { path: PathBuf, reason: String },
    #[error(
        "http = {address:?} can be reached from other machines, and nothing protects it\n  hint: set a token that callers must show (--token, BOURSE_TOKEN or `token` in bourse.toml), or listen on 127.0.0.1"
    )]
    Exposed { address: String },
    #[error(
        "smtp = {address:?} can be reached from other machines, and nothing tells who may send mail\n  hint: if functions are to be woken by whoever sends mail, say smtp_open = true; else listen on 127.0.0.1"
    )]
    OpenMail { address: String },
    #[error(
        "smtp_cert and smtp_key belong together, and one of them is not set\n  hint: leave out both to take mail without TLS"
    )]
    HalfTls,
    #[error(
        "{place}: [module] belongs into the bourse.toml of a module's own folder\n  hint: in that of the served folder, write [modules.NAME]"
    )]
    ModuleOfFolder { place: String },
    #[error("{0}")]
    Modules(String),
}

/// All settings of a daemon.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The served folder, absolute.
    pub folder: PathBuf,
    values: BTreeMap<&'static str, (String, Source)>,
    /// What the file says, whether it counts or not.
    file: BTreeMap<&'static str, String>,
    /// By module, what differs.
    modules: BTreeMap<String, BTreeMap<&'static str, String>>,
    /// `[routes]`: "METHOD /pattern" to "module.function".
    pub routes: BTreeMap<String, String>,
    /// `[webhook.secrets]`: host to secret.
    pub webhook_secrets: BTreeMap<String, String>,
    /// What it was made from beside the file, to look again.
    given: (Given, Vec<(String, String)>),
}

/// The tables of `bourse.toml` in the served folder.
const TABLES: &[&str] = &["daemon", "modules", "routes", "webhook", "mail"];

impl Config {
    /// From everything that has a say. `variables` is the process's environment.
    pub(crate) fn resolve(
        folder: &Path,
        flags: &Given,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let variables: Vec<_> = variables.filter(|(name, _)| name.starts_with("BOURSE_")).collect();
        let given = (flags.clone(), variables.clone());
        let mut values: BTreeMap<&'static str, (String, Source)> =
            SETTINGS.iter().map(|s| (s.name, (s.default.to_owned(), Source::Default))).collect();
        let path = folder.join(bourse_worker::scan::SETTINGS_FILE);
        let file = read(&path)?;
        let place = path.display().to_string();
        for table in ["daemon", "routes", "webhook", "mail"] {
            if let Some(value) = file.get(table).filter(|v| !v.is_table()) {
                let reason = format!("{value} is not a table; write [{table}], and below it NAME = VALUE");
                return Err(Error::Bad { place, name: table.to_owned(), reason });
            }
        }
        let mut said = BTreeMap::new();
        if let Some(toml::Value::Table(table)) = file.get("daemon") {
            for (name, given) in table {
                let setting = lookup(&format!("{place}, [daemon]"), name, |_| true)?;
                let text = value::from_toml(setting, given).map_err(|reason| Error::Bad {
                    place: place.clone(),
                    name: name.clone(),
                    reason,
                })?;
                said.insert(setting.name, text.clone());
                values.insert(setting.name, (text, Source::File(path.clone())));
            }
        }
        let webhook_secrets = read_things(&file, &place, |setting, text| {
            said.insert(setting.name, text.clone());
            values.insert(setting.name, (text, Source::File(path.clone())));
        })?;
        for (name, text) in variables {
            let Some(setting) = SETTINGS.iter().find(|s| s.variable() == name) else {
                if known::is_other_variable(&name) {
                    continue;
                }
                let all: Vec<String> = known::variables().collect();
                let near = nearest(&name, all.iter().map(String::as_str));
                return Err(Error::Unknown { place: "the environment".to_owned(), name, near });
            };
            checked("the environment", setting, &name, &text)?;
            values.insert(setting.name, (text, Source::Variable(name)));
        }
        for (name, text) in flags {
            let setting = lookup("the command line", name, |_| true)?;
            checked("the command line", setting, name, text)?;
            values.insert(setting.name, (text.clone(), Source::Flag));
        }
        let mut config = Self {
            folder: folder.to_owned(),
            values,
            file: said,
            modules: BTreeMap::new(),
            routes: BTreeMap::new(),
            webhook_secrets,
            given,
        };
        config.read_routes(&file, &place)?;
        config.check_instances(&BTreeMap::new()).map_err(|reason| Error::Bad {
            place: config.values["instances_min"].1.to_string(),
            name: "instances_min".to_owned(),
            reason,
        })?;
        config.check_exposure()?;
        Ok(config)
    }

    /// Checks what is looked at again whenever the folder changes, and reported then: at the start it is an error.
    pub(crate) fn check_folder(&self) -> Result<(), Error> {
        let path = self.folder.join(bourse_worker::scan::SETTINGS_FILE);
        bourse_worker::settings::of_served_folder(&path).map_err(|e| Error::Modules(e.to_string()))?;
        self.check_modules(&read(&path)?, &path)?;
        for route in self.routes.keys() {
            let bad = |reason: String| Error::Bad {
                place: format!("{}, [routes]", path.display()),
                name: route.clone(),
                reason,
            };
            bourse_gateway::pattern::Pattern::parse(route).map_err(|e| bad(e.to_string()))?;
        }
        Ok(())
    }

    /// As the file is now; flags and variables are what they were. Settings of modules are not taken over.
    pub(crate) fn again(&self) -> Result<Self, Error> {
        Self::resolve(&self.folder, &self.given.0, self.given.1.iter().cloned())
    }

    /// What differs in `again` and cannot change while the daemon runs.
    pub(crate) fn waiting_for_restart<'a>(
        &'a self,
        again: &'a Self,
    ) -> impl Iterator<Item = &'static str> + 'a {
        SETTINGS
            .iter()
            .filter(|s| s.at == When::Start && self.values[s.name].0 != again.values[s.name].0)
            .map(|s| s.name)
    }

    /// What differs in `again` and counts from now on, with its value.
    pub(crate) fn changed<'a>(
        &'a self,
        again: &'a Self,
    ) -> impl Iterator<Item = (&'static str, &'a str)> + 'a {
        SETTINGS
            .iter()
            .map(|s| (s, again.values[s.name].0.as_str()))
            .filter(|(s, value)| s.at == When::Now && self.values[s.name].0 != *value)
            .map(|(s, value)| (s.name, value))
    }

    /// What the file says otherwise in `again`, to no effect: the command line or the environment say it too.
    pub(crate) fn outdone<'a>(
        &'a self,
        again: &'a Self,
    ) -> impl Iterator<Item = (&'static str, &'a Source)> + 'a {
        again
            .values
            .iter()
            .filter(|(_, (_, source))| matches!(source, Source::Flag | Source::Variable(_)))
            .filter(|(name, _)| {
                again.file.contains_key(*name) && self.file.get(*name) != again.file.get(*name)
            })
            .map(|(name, (_, source))| (*name, source))
    }

    /// Takes over what can change while the daemon runs.
    pub(crate) fn take_over(&mut self, again: Self) {
        for setting in SETTINGS.iter().filter(|s| s.at == When::Now) {
            let value = again.values[setting.name].clone();
            self.values.insert(setting.name, value);
        }
        self.routes = again.routes;
        self.webhook_secrets = again.webhook_secrets;
        self.file = again.file;
    }

    /// Not more instances may be kept than there may be.
    fn check_instances(&self, own: &BTreeMap<&'static str, String>) -> Result<(), String> {
        let count = |name: &'static str| {
            own.get(name).map_or_else(|| self.text(name), String::as_str).parse::<usize>().ok()
        };
        match (count("instances_min"), count("instances_max")) {
            (Some(min), Some(max)) if min > max => {
                Err(format!("{min} instances cannot be kept where instances_max = {max}"))
            }
            _ => Ok(()),
        }
    }

    /// Settings of modules that stand in the served folder's own file.
    fn check_modules(&self, file: &toml::Table, path: &Path) -> Result<(), Error> {
        let Some(modules) = file.get("modules") else { return Ok(()) };
        let bad = |name: &str, value: &toml::Value| Error::Bad {
            place: path.display().to_string(),
            name: name.to_owned(),
            reason: format!("{value} is not a table; write [modules.NAME], and below it NAME = VALUE"),
        };
        let mut scratch = self.clone();
        for (module, options) in modules.as_table().ok_or_else(|| bad("modules", modules))? {
            let mut options =
                options.as_table().ok_or_else(|| bad(&format!("modules.{module}"), options))?.clone();
            options.retain(|name, _| !["command", "env"].contains(&name));
            scratch.set_module(module, path, &options)?;
        }
        Ok(())
    }

    fn read_routes(&mut self, file: &toml::Table, place: &str) -> Result<(), Error> {
        let Some(toml::Value::Table(routes)) = file.get("routes") else { return Ok(()) };
        for (route, function) in routes {
            let name = function.as_str().filter(|f| f.parse::<bourse_wire::id::FunctionName>().is_ok());
            let Some(function) = name else {
                return Err(Error::Bad {
                    place: format!("{place}, [routes]"),
                    name: route.clone(),
                    reason: format!("{function} is not the name of a function, \"module.function\""),
                });
            };
            self.routes.insert(route.clone(), function.to_owned());
        }
        Ok(())
    }

    fn check_exposure(&self) -> Result<(), Error> {
        let http = self.http();
        if !http.ip().is_loopback() && self.text("token").is_empty() {
            return Err(Error::Exposed { address: http.to_string() });
        }
        self.check_mail()
    }

    /// Takes the settings of one module, from wherever its scan found them.
    pub(crate) fn set_module(
        &mut self,
        module: &str,
        place: &Path,
        options: &toml::Table,
    ) -> Result<(), Error> {
        let place = format!("{}, settings of module {module}", place.display());
        let mut own = BTreeMap::new();
        for (name, given) in options {
            let setting = lookup(&place, name, |s| s.scope == Scope::Module)?;
            if setting.scope == Scope::Daemon {
                return Err(Error::NotOfModule { place, name: name.clone() });
            }
            let text = value::from_toml(setting, given).map_err(|reason| Error::Bad {
                place: place.clone(),
                name: name.clone(),
                reason,
            })?;
            own.insert(setting.name, text);
        }
        self.check_instances(&own).map_err(|reason| Error::Bad {
            place,
            name: "instances_min".to_owned(),
            reason,
        })?;
        self.modules.insert(module.to_owned(), own);
        Ok(())
    }

    /// All settings, with their values and sources, in the order of the list.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static Setting, &str, &Source)> {
        SETTINGS.iter().map(|s| {
            let (text, source) = &self.values[s.name];
            (s, text.as_str(), source)
        })
    }

    /// By module, the settings of its own.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (&str, &BTreeMap<&'static str, String>)> {
        self.modules.iter().filter(|(_, own)| !own.is_empty()).map(|(name, own)| (name.as_str(), own))
    }

    pub(crate) fn text(&self, name: &'static str) -> &str {
        &self.values[name].0
    }

    /// Who has set it.
    pub(crate) fn source(&self, name: &'static str) -> &Source {
        &self.values[name].1
    }

    pub(crate) fn flag(&self, name: &'static str) -> bool {
        value::flag(self.text(name)).expect("a flag is checked when it is given")
    }

    pub(crate) fn list(&self, name: &'static str) -> Vec<String> {
        value::list(self.text(name))
    }

    pub(crate) fn http(&self) -> SocketAddr {
        value::address(self.text("http")).expect("an address is checked when it is given")
    }

    pub(crate) fn worker_tcp(&self) -> Option<SocketAddr> {
        value::address(self.text("worker_tcp"))
    }

    /// The data folder, absolute.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data").unwrap_or_else(|| self.folder.join(".bourse"))
    }

    /// A setting that is a path, absolute: what `bourse.toml` says is relative to its folder, anything else to the
    /// current one.
    pub(crate) fn path(&self, name: &'static str) -> Option<PathBuf> {
        let (text, source) = &self.values[name];
        match source {
            _ if text.is_empty() => None,
            Source::File(_) => Some(self.folder.join(text)),
            _ => Some(std::path::absolute(text).unwrap_or_else(|_| PathBuf::from(text))),
        }
    }

    fn duration(&self, name: &'static str) -> Duration {
        value::duration(self.text(name))
    }

    pub(crate) fn count(&self, name: &'static str) -> Option<usize> {
        self.text(name).parse().ok()
    }

    /// Largest payload, in bytes.
    pub(crate) fn payload(&self) -> usize {
        value::size(self.text("payload")).expect("a size is checked when it is given")
    }

    /// What the node needs to know.
    pub(crate) fn node(&self, cores: usize, token: bytes::Bytes, name: String) -> node::Config {
        let mut config = node::Config::new(cores);
        config.name = name;
        config.token = token;
        config.running_max = self.count("running").unwrap_or(config.running_max);
        config.instances_max = self.count("instances").unwrap_or(config.instances_max);
        config.payload_bytes_max = self.payload();
        config.depth_max =
            self.count("depth").and_then(|d| u32::try_from(d).ok()).unwrap_or(config.depth_max);
        config.ahead_max = self.count("ahead").unwrap_or(config.ahead_max);
        config.ping = self.duration("ping");
        config.startup = self.duration("startup");
        config.drain = self.duration("drain");
        config.calls_kept = self.duration("calls_kept");
        config.interrupt_grace = self.duration("interrupt_grace");
        // A name is checked when it is given.
        config.on_shortage = self.text("on_shortage").parse().ok();
        config.shortage_after = self.duration("shortage_after");
        config.module = self.module(&BTreeMap::new());
        config.modules = self.modules.iter().map(|(name, own)| (name.clone(), self.module(own))).collect();
        config
    }

    fn module(&self, own: &BTreeMap<&'static str, String>) -> node::ModuleConfig {
        let text = |name: &'static str| own.get(name).map_or_else(|| self.text(name), String::as_str);
        let count = |name| text(name).parse().ok();
        let defaults = node::ModuleConfig::default();
        node::ModuleConfig {
            instances_min: count("instances_min").unwrap_or(defaults.instances_min),
            instances_max: count("instances_max"),
            timeout: value::duration(text("timeout")),
            queue_wait: value::duration(text("queue_wait")),
            scale_after: value::duration(text("scale_after")),
            queue_max: count("queue").unwrap_or(defaults.queue_max),
            blocked_max: count("blocked").unwrap_or(defaults.blocked_max),
            idle: value::duration(text("idle")),
        }
    }
}

fn read(path: &Path) -> Result<toml::Table, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(toml::Table::new()),
        Err(e) => return Err(Error::File { path: path.to_owned(), reason: e.to_string() }),
    };
    let file: toml::Table = text.parse().map_err(|e: toml::de::Error| Error::File {
        path: path.to_owned(),
        reason: e.to_string().trim_end().to_owned(),
    })?;
    for name in file.keys() {
        if name == "module" {
            return Err(Error::ModuleOfFolder { place: path.display().to_string() });
        }
        if !TABLES.contains(&name.as_str()) {
            // The most likely slip: a setting that stands outside its table.
            let near = if known::find(name).is_some() {
                Some(format!("[daemon] {name}"))
            } else {
                nearest(name, TABLES.iter().copied())
            };
            return Err(Error::Unknown { place: path.display().to_string(), name: name.clone(), near });
        }
    }
    Ok(file)
}

fn lookup(place: &str, name: &str, fits: impl Fn(&Setting) -> bool) -> Result<&'static Setting, Error> {
    known::find(name).ok_or_else(|| Error::Unknown {
        place: place.to_owned(),
        name: name.to_owned(),
        near: nearest(name, SETTINGS.iter().filter(|s| fits(s)).map(|s| s.name)),
    })
}

fn checked(place: &str, setting: &Setting, name: &str, text: &str) -> Result<(), Error> {
    value::check(setting, text).map_err(|reason| Error::Bad {
        place: place.to_owned(),
        name: name.to_owned(),
        reason,
    })
}

pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    bourse_wire::nearest::nearest(name, names).first().map(|near| (*near).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: &str, flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bourse.toml"), file).unwrap();
        let flags = flags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let variables = variables.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        Config::resolve(folder.path(), &flags, variables)
    }

    #[test]
    fn flags_win_over_variables_over_the_file_over_defaults() {
        let file = "[daemon]\nhttp = \"127.0.0.1:1\"\ntimeout = \"1s\"\npayload = \"1MiB\"";
        let config = resolve(
            file,
            &[("http", "127.0.0.1:3")],
            &[("BOURSE_HTTP", "127.0.0.1:2"), ("BOURSE_TIMEOUT", "2s")],
        )
        .unwrap();
        let source = |name| {
            config.all().find(|(s, _, _)| s.name == name).map(|(_, v, s)| (v.to_owned(), s.clone())).unwrap()
        };
        assert_eq!(source("http"), ("127.0.0.1:3".into(), Source::Flag));
        assert_eq!(source("timeout"), ("2s".into(), Source::Variable("BOURSE_TIMEOUT".into())));
        assert!(matches!(source("payload"), (v, Source::File(_)) if v == "1MiB"));
        assert_eq!(source("idle"), ("5m".into(), Source::Default));
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_nearest() {
        let message = |file: &str| resolve(file, &[], &[]).unwrap_err().to_string();
        assert!(message("[daemon]\nqueue_wiat = 1").contains("did you mean \"queue_wait\"?"));
        assert!(message("[deamon]\n").contains("did you mean \"daemon\"?"));
        assert!(message("http = \"x\"").contains("[daemon] http"));
        assert!(message("[daemon]\ntimeout = \"soon\"").contains("a duration such as"));
        assert!(message("[daemon").contains("cannot be read"));
    }

    #[test]
    fn unknown_variables_are_refused_with_the_nearest() {
        let message = |name| resolve("", &[], &[(name, "1")]).unwrap_err().to_string();
        assert!(message("BOURSE_HTPP").contains("\"BOURSE_HTPP\" (did you mean \"BOURSE_HTTP\"?)"));
        assert!(message("BOURSE_IDEL").contains("did you mean \"BOURSE_IDLE\"?"));
        for other in [
            "BOURSE_URL",
            "BOURSE_MODULE",
            "BOURSE_TEST_LONG",
            "BOURSE_SEEDS",
            "BOURSE_SERVICE_HOST",
            "BOURSE_PORT",
            "BOURSE_PORT_7070_TCP",
            "PATH",
        ] {
            resolve("", &[], &[(other, "1")]).unwrap_or_else(|e| panic!("{other}: {e}"));
        }
    }

    #[test]
    fn what_would_let_nothing_run_is_refused() {
        let message = |setting| resolve("", &[setting], &[]).unwrap_err().to_string();
        for setting in [
            ("running", "0"),
            ("ping", "0ms"),
            ("timeout", "0"),
            ("payload", "0MiB"),
            ("queue", "0"),
            ("instances_max", "0"),
        ] {
            assert!(message(setting).contains("must be above zero"), "{setting:?}");
        }
        assert!(message(("log", "loud")).contains("\"loud\" is no level; there are off, error, warn"));
        for filter in ["WARN", "info,hyper=debug", "bourse::daemon"] {
            resolve("", &[("log", filter)], &[]).unwrap_or_else(|e| panic!("{filter}: {e}"));
        }
        let more = resolve("", &[("instances_min", "3"), ("instances_max", "2")], &[]).unwrap_err();
        assert!(more.to_string().contains("instances_min = 3 instances cannot be kept"), "{more}");
        let mut config = resolve("", &[("instances_max", "2")], &[]).unwrap();
        let mut set = |text: &str| config.set_module("shop", Path::new("x"), &text.parse().unwrap());
        assert!(matches!(set("instances_min = 3"), Err(Error::Bad { .. })));
        assert!(matches!(set("queue = 0"), Err(Error::Bad { .. })));
        assert!(set("instances_min = 3\ninstances_max = 3").is_ok());
    }

    #[test]
    fn the_table_of_a_module_is_refused_in_the_served_folder() {
        let message = resolve("[module]\ntimeout = 3", &[], &[]).unwrap_err().to_string();
        assert!(message.contains("write [modules.NAME]"), "{message}");
    }

    #[test]
    fn paths_are_relative_to_where_they_are_given() {
        let config =
            resolve("[daemon]\ndata = \"here\"\nenvironments = \"/abs\"", &[("store", "a/b")], &[]).unwrap();
        assert_eq!(config.data(), config.folder.join("here"));
        assert_eq!(config.path("environments"), Some("/abs".into()));
        assert_eq!(config.path("store"), Some(std::env::current_dir().unwrap().join("a/b")));
        assert!(resolve("daemon = 3", &[], &[]).unwrap_err().to_string().contains("is not a table"));
    }

    #[test]
    fn beyond_loopback_needs_a_token() {
        assert!(matches!(resolve("", &[("http", "0.0.0.0:80")], &[]), Err(Error::Exposed { .. })));
        assert!(resolve("", &[("http", "0.0.0.0:80"), ("token", "secret")], &[]).is_ok());
        assert!(matches!(resolve("", &[("http", "nowhere")], &[]), Err(Error::Bad { .. })));
    }

    #[test]
    fn a_module_has_settings_of_its_own() {
        let mut config = resolve("[daemon]\nidle = \"1m\"", &[], &[]).unwrap();
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        config.set_module("shop", Path::new("bourse.toml"), &table("instances_max = 3")).unwrap();
        let node = config.node(2, bytes::Bytes::new(), "n".into());
        assert_eq!(node.of("shop").instances_max, Some(3));
        assert_eq!(node.of("shop").idle, Duration::from_secs(60));
        assert_eq!(node.of("other").instances_max, None);
        let refused = config.set_module("shop", Path::new("bourse.toml"), &table("http = \"x\""));
        assert!(matches!(refused, Err(Error::NotOfModule { .. })));
    }
}
