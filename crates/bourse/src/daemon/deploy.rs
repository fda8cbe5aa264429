//! From a folder, or a bundle, to modules that can be started: scans it, makes the environment its requirements ask for, and names
//! each module's revision. On a thread of its own, since all of it can take long.
//!
//! ```text
//! watch  -> deployer: Look            something in the folder has changed
//! driver -> deployer: Imported        what a module's template has read beside the module itself
//! driver -> deployer: Failed          a revision does not load: any file may mend it
//! deployer -> driver: Plan            all modules that there are, ready to be started
//! deployer -> driver: Progress, Problem
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use bourse_node::{Digest, RevisionId};
use bourse_worker::environment::{Environment, Progress, Python, Spec};
use bourse_worker::process::Launch;
use bourse_worker::revision::revision;
use bourse_worker::scan::{self, Found, Scan};
use bourse_worker::{process, python, sdk};
use tokio::sync::mpsc::UnboundedSender;

use super::logs;

/// What the deployer is told.
pub(crate) enum ToDeployer {
    /// Look at the folder.
    Look,
    /// A revision was loaded and has read these files, relative to the served folder.
    Imported { module: String, revision: RevisionId, files: Vec<PathBuf> },
    /// A revision does not load. What it would need may be any file that comes, goes or changes.
    Failed { module: String, revision: RevisionId },
}

/// What it tells the driver.
pub(crate) enum FromDeployer {
    Plan(Vec<Planned>),
    Progress(String),
    Problem { about: String, text: String, hint: String },
}

/// A module that can be started.
#[derive(Clone)]
pub(crate) struct Planned {
    /// The folder that it was found in.
    pub root: PathBuf,
    pub found: Found,
    pub revision: RevisionId,
    /// What it needs of Python: nothing for a `command` module; or why it can't be had.
    pub python: Result<Option<PythonHome>, NoPython>,
}

/// Where modules come from. What the folder has counts more than what a bundle has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The served folder.
    Folder,
    /// A bundle that was deployed: its name and its contents.
    Bundle(String, Digest),
}

/// Where a Python module runs.
#[derive(Clone)]
pub(crate) struct PythonHome {
    pub environment: Environment,
    pub sdk: PathBuf,
}

/// Why there is no Python environment, and what to do about it.
#[derive(Clone)]
pub(crate) struct NoPython {
    pub text: String,
    pub hint: String,
}

/// Where things are.
#[derive(Clone)]
pub(crate) struct Places {
    pub root: PathBuf,
    pub data: PathBuf,
    pub environments: PathBuf,
    pub python: Option<PathBuf>,
    pub endpoint: String,
    /// Python modules are attached by a developer's process; only those of other programs are started.
    pub attached: bool,
}

/// Which Python was found last, in the data folder.
const PYTHON_FILE: &str = "python";
/// How long after a plan it is made sure that the Python it was made with is still the one to use.
const CHECK_AFTER: Duration = Duration::from_secs(2);

/// How long after it could not be made an environment is tried again, at first and at most.
const RETRY_MIN: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// The requirements of a served folder.
const REQUIREMENTS_FILE: &str = "requirements.txt";

/// Starts the deployer. It ends when the sender is dropped.
pub(crate) fn start(
    source: Source,
    places: Places,
    to_driver: UnboundedSender<(Source, FromDeployer)>,
) -> std::io::Result<mpsc::Sender<ToDeployer>> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("bourse-deploy".into()).spawn(move || {
        let mut deployer = Deployer {
            source,
            to_driver,
            imported: BTreeMap::new(),
            failed: BTreeSet::new(),
            names: BTreeMap::new(),
            read: BTreeMap::new(),
            last: BTreeMap::new(),
            reported: Vec::new(),
            environment: String::new(),
            python: Python::recall(&places.data.join(PYTHON_FILE), places.python.as_deref()),
            held: false,
            retry: None,
            places,
        };
        let mut unchecked = deployer.python.is_some();
        loop {
            let patience = match deployer.retry {
                Some(pause) => pause,
                None if unchecked => CHECK_AFTER,
                None => Duration::MAX,
            };
            let message = match receiver.recv_timeout(patience) {
                Ok(message) => message,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if deployer.retry.is_some() => {
                    deployer.look();
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if std::mem::take(&mut unchecked) && deployer.check_python() {
                        deployer.look();
                    }
                    continue;
                }
            };
            let mut look = deployer.hear(message);
            while let Ok(more) = receiver.try_recv() {
                look |= deployer.hear(more);
            }
            if look {
                // Whatever has changed may mend it.
                deployer.retry = None;
                deployer.look();
                unchecked = true;
            }
        }
    })?;
    Ok(sender)
}

/// Inode, length and time of each file; `None` if it is not there.
type Stamps = BTreeMap<PathBuf, Option<(u64, u64, i64, i64)>>;

struct Deployer {
    source: Source,
    places: Places,
    to_driver: UnboundedSender<(Source, FromDeployer)>,
    /// By module, the files that its last loaded revision has read beside its own.
    imported: BTreeMap<String, Vec<PathBuf>>,
    /// Modules whose last revision does not load.
    failed: BTreeSet<String>,
    /// Content that has got a revision's name already: with the imported files, a revision that was loaded hashes to
    /// something else than it did before, and is the same.
    names: BTreeMap<String, RevisionId>,
    /// By module, the revision that was planned last, and the stamps of the files before they were read for that.
    read: BTreeMap<String, (RevisionId, Stamps)>,
    /// The last plan of each module, for when it is there and cannot be read.
    last: BTreeMap<String, Planned>,
    /// What was said about the last look, so that it is not said again.
    reported: Vec<(String, String)>,
    /// The key of the environment that Python modules run in.
    environment: String,
    /// The one that was found last. Plans are made with it at once, and it is looked for again a while later.
    python: Option<Python>,
    held: bool,
    /// How long after the last look, which made no environment, the next one comes.
    retry: Option<Duration>,
}

impl Deployer {
    /// Whether to look at the folder.
    fn hear(&mut self, message: ToDeployer) -> bool {
        match message {
            ToDeployer::Look => true,
            ToDeployer::Imported { module, revision, files } => {
                self.imported.insert(module.clone(), files);
                self.failed.remove(&module);
                !self.name_content(&module, revision)
            }
            ToDeployer::Failed { module, revision } => {
                self.failed.insert(module.clone());
                !self.name_content(&module, revision)
            }
        }
    }

    /// What a module's files hash to now, with what was learned of them, is this revision; unless something was saved
    /// since they were read for it. Then they have to be looked at again, and it is false.
    fn name_content(&mut self, module: &str, revision: RevisionId) -> bool {
        if let Ok(Scan::Done { found, .. }) = scan::scan(&self.places.root)
            && let Some(found) = found.iter().find(|f| f.name == module)
            && let Ok(content) = self.content(found)
        {
            // After the content was read: both before and after it, nothing had changed.
            if self.read.get(module) != Some(&(revision.clone(), self.stamps(found))) {
                return false;
            }
            self.names.insert(content, revision);
        }
        true
    }

    fn look(&mut self) {
        let mut problems = Vec::new();
        let (found, broken) = match scan::scan(&self.places.root) {
            Ok(Scan::Held { .. }) => {
                if !std::mem::replace(&mut self.held, true) {
                    self.tell(FromDeployer::Progress(format!(
                        "{} holds the folder: changes wait until it is gone",
                        scan::DEPLOY_LOCK
                    )));
                }
                return;
            }
            Ok(Scan::Done { found, broken, warnings }) => {
                problems.extend(
                    warnings.into_iter().map(|w| (w.path.display().to_string(), w.reason, String::new())),
                );
                (found, broken)
            }
            Err(error) => {
                self.report(vec![(
                    self.places.root.display().to_string(),
                    error.to_string(),
                    "what runs goes on".into(),
                )]);
                return;
            }
        };
        self.held = false;
        // They are there, if in no state to be served: what ran goes on.
        let mut kept: Vec<String> = broken.iter().map(|b| b.name.clone()).collect();
        problems.extend(broken.into_iter().map(|b| (b.name, b.reason, String::new())));
        let python =
            if !self.places.attached && found.iter().any(|f| !matches!(f.kind, scan::Kind::Process(_))) {
                self.python_home().map(Some).map_err(|(text, hint)| NoPython { text, hint })
            } else {
                Ok(None)
            };
        self.environment = match &python {
            Ok(home) => home.as_ref().map(|p| p.environment.key.clone()).unwrap_or_default(),
            Err(why) => format!("none: {}", why.text),
        };
        self.retry = python.is_err().then(|| self.retry.map_or(RETRY_MIN, |last| (last * 2).min(RETRY_MAX)));
        if let Err(NoPython { text, hint }) = &python {
            problems.push(("the Python environment".to_owned(), text.clone(), hint.clone()));
            // It may be the interpreter that is gone.
            self.python = None;
        }
        let mut planned = Vec::new();
        for found in found {
            let of_python = !matches!(found.kind, scan::Kind::Process(_));
            if of_python
                && python.is_err()
                && let Some(last) = self.last.get(&found.name).filter(|last| last.python.is_ok())
            {
                // What runs goes on as it is.
                planned.push(last.clone());
                continue;
            }
            let stamps = self.stamps(&found);
            match self.content(&found) {
                Ok(content) => {
                    let revision = self.names.entry(content.clone()).or_insert(RevisionId(content)).clone();
                    let python = if of_python { python.clone() } else { Ok(None) };
                    // One that is planned again is not read again.
                    if self.read.get(&found.name).is_none_or(|(before, _)| *before != revision) {
                        self.read.insert(found.name.clone(), (revision.clone(), stamps));
                    }
                    planned.push(Planned { root: self.places.root.clone(), python, found, revision });
                }
                Err(error) => {
                    kept.push(found.name.clone());
                    problems.push((found.name, error.to_string(), String::new()));
                }
            }
        }
        planned.extend(kept.iter().filter_map(|name| self.last.get(name).cloned()));
        self.last = planned.iter().map(|p| (p.found.name.clone(), p.clone())).collect();
        self.report(problems);
        self.tell(FromDeployer::Plan(planned));
    }

    /// What tells whether any file that may belong to a module was saved.
    fn stamps(&self, found: &Found) -> Stamps {
        let root = &self.places.root;
        let files = scan::python_files(root).into_iter().chain(found.files.iter().cloned());
        let stamp = |path: PathBuf| {
            let file = root.join(&path).metadata().ok();
            (path, file.map(|f| (f.ino(), f.len(), f.mtime(), f.mtime_nsec())))
        };
        files.map(stamp).collect()
    }

    /// The name of a module's content, as far as it is known what belongs to it.
    fn content(&self, found: &Found) -> std::io::Result<String> {
        let mut files = found.files.clone();
        let mut environment = match found.kind {
            scan::Kind::Process(_) => String::new(),
            scan::Kind::PythonFile | scan::Kind::PythonPackage => self.environment.clone(),
        };
        files.extend(self.imported.get(&found.name).into_iter().flatten().cloned());
        if self.failed.contains(&found.name) {
            files.extend(scan::python_files(&self.places.root));
            // Not to be taken for what failed, when other files than its own have come or gone.
            environment.push_str(" after a failure");
        }
        Ok(revision(&self.places.root, &files, &found.settings, &environment)?.to_string())
    }

    /// Whether another Python is found now than the one that the last plan was made with.
    fn check_python(&mut self) -> bool {
        let Some(known) = &self.python else { return false };
        if Python::find(self.places.python.as_deref()).is_ok_and(|found| found == *known) {
            return false;
        }
        self.python = None;
        true
    }

    /// The Python to make environments with.
    fn python(&mut self) -> Result<Python, (String, String)> {
        if let Some(known) = &self.python {
            return Ok(known.clone());
        }
        let configured = self.places.python.as_deref();
        let found = Python::find(configured).map_err(|e| (e.to_string(), e.hint()))?;
        // The next start is slower without it, and that is all.
        let _ = found.remember(&self.places.data.join(PYTHON_FILE), configured);
        self.python = Some(found.clone());
        Ok(found)
    }

    fn python_home(&mut self) -> Result<PythonHome, (String, String)> {
        let python = self.python()?;
        let places = &self.places;
        let requirements = Some(places.root.join(REQUIREMENTS_FILE)).filter(|p| p.is_file());
        let spec = Spec {
            python: &python,
            cache: &places.environments,
            requirements: requirements.as_deref(),
            variables: &[],
        };
        let environment = Environment::ensure(spec, |progress| {
            let text = match progress {
                Progress::Waiting => {
                    "another daemon makes the same Python environment: waiting for it".to_owned()
                }
                Progress::Creating => format!(
                    "making a Python environment with {} (once per set of requirements)",
                    python.version
                ),
                Progress::Installing(what) => what,
            };
            self.tell(FromDeployer::Progress(text));
        })
        .map_err(|e| (e.to_string(), e.hint()))?;
        let sdk = sdk::install(&places.environments).map_err(|e| {
            (format!("the SDK cannot be written to {}: {e}", places.environments.display()), String::new())
        })?;
        Ok(PythonHome { environment, sdk })
    }

    /// Tells of problems, each once as long as it lasts.
    fn report(&mut self, problems: Vec<(String, String, String)>) {
        let mut now = Vec::new();
        for (about, text, hint) in problems {
            let known = (about.clone(), text.clone());
            if !self.reported.contains(&known) {
                self.tell(FromDeployer::Problem { about, text, hint });
            }
            now.push(known);
        }
        self.reported = now;
    }

    fn tell(&self, message: FromDeployer) {
        // The driver is gone only when the daemon ends.
        let _ = self.to_driver.send((self.source.clone(), message));
    }
}

impl Planned {
    /// How to start its template.
    pub(crate) fn template(&self, places: &Places) -> Result<Launch, String> {
        self.python(places, |p| p.template())
    }

    /// How to start an instance anew.
    pub(crate) fn instance(&self, places: &Places) -> Result<Launch, String> {
        match &self.found.kind {
            scan::Kind::Process(command) => {
                let env = &self.found.settings.env;
                process::command(&self.found.name, &self.found.path, command, env, &places.endpoint)
                    .map_err(|e| e.to_string())
            }
            scan::Kind::PythonFile | scan::Kind::PythonPackage => self.python(places, |p| p.worker()),
        }
    }

    fn python(
        &self,
        places: &Places,
        launch: impl FnOnce(&python::Program<'_>) -> Result<Launch, process::NotUtf8>,
    ) -> Result<Launch, String> {
        let home = self.python.as_ref().map_err(|why| why.text.clone())?;
        let home = home.as_ref().ok_or("there is no Python environment for it")?;
        let program = python::Program {
            environment: &home.environment,
            sdk: &home.sdk,
            root: &self.root,
            name: &self.found.name,
            module: &self.found.path,
            endpoint: &places.endpoint,
            env: &self.found.settings.env,
        };
        launch(&program).map_err(|e| e.to_string())
    }

    /// The file that its instances' output goes to.
    pub(crate) fn log(&self, places: &Places) -> String {
        let path = logs::of_module(&places.data, &self.found.name);
        if let Err(error) = logs::rotate(&path) {
            tracing::warn!(
                "{} has become large, and cannot be moved out of the way: {error}",
                path.display()
            );
        }
        path.display().to_string()
    }
}
