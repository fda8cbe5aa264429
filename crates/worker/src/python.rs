//! Command lines and environments of Python templates and workers.
//!
//! Both run in the served folder. On top of [`crate::process`]'s environment they have the virtual environment's
//! (`VIRTUAL_ENV`, and its programs first on `PATH`), the SDK on `PYTHONPATH`, and `PYTHONUNBUFFERED`, so that logs are
//! whole when an instance dies. Packages and the SDK keep their bytecode beside them; of what is served none is kept.

use std::collections::BTreeMap;
use std::path::Path;

use crate::environment::Environment;
use crate::process::{self, Launch, NotUtf8, text};

/// What a Python process is started with.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Where Python and the packages are.
    pub environment: &'a Environment,
    /// From [`crate::sdk::install`].
    pub sdk: &'a Path,
    /// The served folder.
    pub root: &'a Path,
    /// The module's name.
    pub name: &'a str,
    /// The module's file or folder.
    pub module: &'a Path,
    /// Where instances connect to.
    pub endpoint: &'a str,
    /// What `[module.env]` adds.
    pub env: &'a BTreeMap<String, String>,
}

impl Program<'_> {
    /// The fork server of the module. To be spawned with `template` set.
    pub fn template(&self) -> Result<Launch, NotUtf8> {
        self.launch("bourse._template")
    }

    /// An instance that is started anew, of a module that can't be forked.
    pub fn worker(&self) -> Result<Launch, NotUtf8> {
        self.launch("bourse._worker")
    }

    fn launch(&self, entry: &str) -> Result<Launch, NotUtf8> {
        let mut argv = vec![text(&self.environment.python)?, "-s".into(), "-X".into(), "utf8".into()];
        // Or else `-m` would put the served folder before the standard library while Python starts.
        if self.environment.version.at_least(3, 11) {
            argv.push("-P".into());
        }
        argv.extend(["-m".into(), entry.into(), text(self.module)?]);
        argv.extend(["--root".into(), text(self.root)?, "--endpoint".into(), self.endpoint.into()]);

        let mut env = process::environment(std::env::vars_os(), self.env);
        let programs = text(&self.environment.folder.join("bin"))?;
        let path = match env.get("PATH") {
            Some(path) => format!("{programs}:{path}"),
            None => format!("{programs}:/usr/local/bin:/usr/bin:/bin"),
        };
        let python_path = match self.env.get("PYTHONPATH") {
            Some(path) => format!("{}:{path}", text(self.sdk)?),
            None => text(self.sdk)?,
        };
        env.extend([
            ("PATH".into(), path),
            ("VIRTUAL_ENV".into(), text(&self.environment.folder)?),
            ("PYTHONPATH".into(), python_path),
            ("PYTHONUNBUFFERED".into(), "1".into()),
            ("BOURSE_MODULE".into(), self.name.into()),
            ("BOURSE_ENDPOINT".into(), self.endpoint.into()),
        ]);
        Ok(Launch { argv, env, cwd: text(self.root)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Version;

    #[test]
    fn a_template_is_started_like_this() {
        let environment = Environment {
            key: "k".into(),
            folder: "/cache/k".into(),
            python: "/cache/k/bin/python".into(),
            version: Version::new(3, 9, 2),
        };
        let program = Program {
            environment: &environment,
            sdk: Path::new("/cache/sdk-1"),
            root: Path::new("/srv"),
            name: "shop",
            module: Path::new("/srv/shop.py"),
            endpoint: "ipc:///run/x",
            env: &BTreeMap::from([("PATH".to_owned(), "/opt/bin".to_owned())]),
        };
        let launch = program.template().unwrap();
        assert_eq!(
            launch.argv.join(" "),
            "/cache/k/bin/python -s -X utf8 -m bourse._template /srv/shop.py --root /srv --endpoint ipc:///run/x"
        );
        assert_eq!(launch.env["PATH"], "/cache/k/bin:/opt/bin");
        assert_eq!(launch.env["PYTHONPATH"], "/cache/sdk-1");
        assert_eq!(launch.cwd, "/srv");
        let newer = Environment { version: Version::new(3, 11, 0), ..environment.clone() };
        let worker = Program { environment: &newer, ..program }.worker().unwrap();
        assert!(worker.argv.join(" ").contains("-P -m bourse._worker /srv/shop.py"));
    }
}
