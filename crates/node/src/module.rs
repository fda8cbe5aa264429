//! A module: its revisions, its queue, and how its instances have fared.

use std::collections::{BTreeMap, BTreeSet};

use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::time::Mono;
use bourse_wire::v1;

use crate::call::Place;
use crate::function::{Function, unknown_option};
use crate::message::{Kind, ProcessId, RevisionId};

pub(crate) struct Module {
    /// The revision that serves.
    pub current: Option<RevisionId>,
    /// The one that is being loaded, to take over.
    pub incoming: Option<RevisionId>,
    /// A developer's process that serves instead, while it is connected.
    pub attached: Option<RevisionId>,
    /// What other nodes serve, in their newest version. It has no instances here.
    pub elsewhere: Option<RevisionId>,
    pub revisions: BTreeMap<RevisionId, Revision>,
    pub queue: BTreeMap<Place, CallId>,
    /// Calls that wait, and can't be run here: this node does not serve what they need.
    pub abroad: BTreeMap<Place, CallId>,
    /// Calls of other nodes that wait for an instance.
    pub guests: BTreeMap<Place, CallId>,
    /// Durable calls among those in the queue.
    pub work_queued: usize,
    /// Calls that wait for their exclusive keys.
    pub locked: usize,
    /// Instances that wait for nested calls.
    pub blocked: usize,
    /// Why the last revision does not load, or the last instance did not start.
    pub failure: Option<v1::Failure>,
    pub pause: Pause,
    /// The scanner has found it in the folder.
    pub listed: bool,
    /// Nobody serves it any more.
    pub removed: bool,
}

/// The back-off of a module whose instances crash or do not start.
#[derive(Default)]
pub(crate) struct Pause {
    pub failures: u32,
    pub until: Option<Mono>,
    /// Instances do not even start: refuse calls instead of letting them wait.
    pub open: bool,
}

pub(crate) struct Revision {
    pub kind: Kind,
    pub loading: Loading,
    pub template: Option<ProcessId>,
    /// How often it has been tried without its template saying anything.
    pub load_attempts: u32,
    /// Empty: the template can fork.
    pub not_forkable: String,
    pub description: v1::Module,
    pub version: Option<semver::Version>,
    pub functions: BTreeMap<String, Function>,
    pub instances: BTreeSet<ProcessId>,
    /// Of an attached process: other nodes may have it too.
    pub shared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loading {
    /// Its template, or first instance, has not reported.
    Waits,
    /// It loads.
    Done,
    /// It does not.
    Failed,
}

impl Module {
    pub(crate) fn new() -> Self {
        Self {
            current: None,
            incoming: None,
            attached: None,
            elsewhere: None,
            revisions: BTreeMap::new(),
            queue: BTreeMap::new(),
            abroad: BTreeMap::new(),
            guests: BTreeMap::new(),
            work_queued: 0,
            locked: 0,
            blocked: 0,
            failure: None,
            pause: Pause::default(),
            listed: false,
            removed: false,
        }
    }

    /// The revision that takes calls now.
    pub(crate) fn serving(&self) -> Option<&RevisionId> {
        self.own().or(self.elsewhere.as_ref())
    }

    /// The revision that takes calls now and runs here.
    pub(crate) fn own(&self) -> Option<&RevisionId> {
        self.attached.as_ref().or(self.current.as_ref())
    }

    pub(crate) fn own_revision(&self) -> Option<&Revision> {
        self.revisions.get(self.own()?)
    }

    /// What other nodes may have run here: what lies in the folder, or an attached process that shares what it serves. What a
    /// developer attaches is this machine's own.
    pub(crate) fn for_others(&self) -> Option<&Revision> {
        let served = match &self.attached {
            Some(attached) => self.revisions.get(attached).filter(|revision| revision.shared),
            None => self.revisions.get(self.current.as_ref()?),
        };
        served.filter(|revision| revision.loading == Loading::Done && !self.removed)
    }

    /// Calls that wait for an instance, here or elsewhere.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.abroad.len()
    }

    pub(crate) fn serving_revision(&self) -> Option<&Revision> {
        self.revisions.get(self.serving()?)
    }

    pub(crate) fn function(&self, name: &str) -> Option<&Function> {
        let of = |id: &Option<RevisionId>| self.revisions.get(id.as_ref()?)?.functions.get(name);
        self.own_revision().and_then(|r| r.functions.get(name)).or_else(|| of(&self.elsewhere))
    }

    pub(crate) fn function_mut(&mut self, name: &str) -> Option<&mut Function> {
        let has = |id: &&RevisionId| self.revisions.get(*id).is_some_and(|r| r.functions.contains_key(name));
        let id = [&self.attached, &self.current, &self.elsewhere].into_iter().flatten().find(has)?.clone();
        self.revisions.get_mut(&id)?.functions.get_mut(name)
    }

    /// Nothing is left of it.
    pub(crate) fn is_forgotten(&self) -> bool {
        let idle = self.serving().is_none() && self.incoming.is_none();
        self.removed
            && idle
            && self.revisions.values().all(|r| r.instances.is_empty())
            && self.waiting() == 0
            && self.guests.is_empty()
            && self.locked == 0
    }

    /// Something is being loaded, so that it is too early to say what it offers.
    pub(crate) fn is_loading(&self) -> bool {
        self.own().is_none() && self.incoming.is_some()
    }
}

impl Revision {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            loading: Loading::Waits,
            template: None,
            load_attempts: 0,
            not_forkable: String::new(),
            description: v1::Module::default(),
            version: None,
            functions: BTreeMap::new(),
            instances: BTreeSet::new(),
            shared: false,
        }
    }

    /// Takes a module's own description, or says why it can't be served.
    pub(crate) fn describe(&mut self, module: v1::Module) -> Result<(), v1::Failure> {
        if module.functions.is_empty() {
            return Err(Code::ModuleFailed
                .because("it has no functions")
                .hint("define a function whose name does not start with an underscore, or decorate one with @function"));
        }
        let version = if module.version.is_empty() { "0.0.0" } else { &module.version };
        self.version = Some(semver::Version::parse(version).map_err(|e| {
            Code::ModuleFailed
                .because(format!("its version {version:?} is not a semantic version: {e}"))
                .hint("write it as MAJOR.MINOR.PATCH, for example __version__ = \"1.2.0\"")
        })?);
        if let Some(option) = module.options.keys().next() {
            return Err(unknown_option(option, "the module"));
        }
        let mut functions = BTreeMap::new();
        for f in &module.functions {
            let function = Function::new(f)?;
            if functions.insert(f.name.clone(), function).is_some() {
                return Err(Code::ModuleFailed.because(format!("it has two functions named {}", f.name)));
            }
        }
        self.functions = functions;
        self.description = module;
        self.loading = Loading::Done;
        Ok(())
    }
}
