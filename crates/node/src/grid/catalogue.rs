//! What can be called on the grid: the modules of all nodes, with their versions and functions.
//!
//! ```text
//! node -> the one that keeps the store: modules         what it serves, and each change of that
//! the one that keeps the store -> node: modules         what any node serves, and each change of that
//! ```
//!
//! A module that this node does not serve, or not in the version that a call needs, is known from here: calls of it are accepted as
//! others are, and wait until slots elsewhere are bought ([`Module::abroad`]). What a node serves counts at that
//! node, whatever is said of the module elsewhere. Of a module in several versions, the newest says what its functions are.
//!
//! A node that is gone is remembered for [`REMEMBERED`]: its calls wait meanwhile, and are not told that there is no such function. The
//! daemon keeps what others serve, so that a node which starts again knows of it before it has heard of anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bourse_market::{LinkId, NodeId};
use bourse_wire::failure::Code;
use bourse_wire::header;
use bourse_wire::id::FunctionName;
use bourse_wire::peer::v1 as peer;
use bourse_wire::peer::v1::to_peer::Message as Frame;
use bourse_wire::time::{Mono, Now};
use bourse_wire::v1;
use bytes::Bytes;
use semver::{Version, VersionReq};

use super::due::Due;
use crate::message::{Level, Output, RevisionId};
use crate::module::{Module, Revision};
use crate::{Kind, Node};

/// How long it is remembered what a node has served that is gone.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How long modules are waited for that a node which keeps the store, and has begun anew, has not named.
const FADING: Duration = Duration::from_secs(30);
/// Most modules that one node tells.
pub(crate) const MODULES_MAX: usize = 1_000;
/// Most bytes of what one node tells of its modules.
pub(crate) const MODULES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most modules that are known on the grid.
const CATALOGUE_MAX: usize = 10_000;
/// Bytes of descriptions in one message, from which on the next ones go into another.
const MESSAGE_BYTES: usize = 512 * 1024;

/// What a call can be run by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// This node, and maybe others.
    Here,
    /// Others only.
    Abroad,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Catalogue {
    /// What any node serves, by module: its versions, the newest first.
    known: BTreeMap<String, Vec<Known>>,
    /// Where the store is kept: what each node has told.
    told: BTreeMap<NodeId, Told>,
    /// Of these, those that are gone, and were not back when that was noted.
    gone: Due<NodeId>,
    /// Where the store is kept: who is told, and whether all was told over that link.
    listeners: BTreeMap<LinkId, bool>,
    /// What was told of this node's own modules, and over which link.
    announced: Option<Announced>,
    /// The node that keeps the store has begun anew with what it tells: modules that it has not named since, and until when they are
    /// waited for.
    fading: Option<(Mono, BTreeSet<String>)>,
    /// The node that keeps the store has said what there is, once at least.
    heard: bool,
    /// This node may serve something else than it has told.
    stale: bool,
    /// Modules that two nodes serve in the same version, and not alike, of which that was said.
    unlike: BTreeSet<(String, Version)>,
}

/// A version of a module.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    version: Version,
    description: v1::Module,
}

/// What was told of this node's own modules.
struct Announced {
    over: LinkId,
    /// `None`: they are not loaded yet.
    modules: Option<BTreeMap<String, v1::Module>>,
}

/// What one node serves.
#[derive(Default)]
struct Told {
    modules: BTreeMap<String, v1::Module>,
    /// It is gone: so long it is remembered.
    until: Option<Mono>,
}

impl Catalogue {
    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        let fading = self.fading.as_ref().map(|(until, _)| *until);
        self.gone.next().into_iter().chain(fading).min()
    }

    pub(crate) fn changed_here(&mut self) {
        self.stale = true;
    }

    /// The versions of a module in which a function can be run, the newest first.
    fn versions<'a>(&'a self, name: &'a FunctionName) -> impl Iterator<Item = &'a Version> + 'a {
        let versions = self.known.get(name.module()).into_iter().flatten();
        let has = move |known: &&Known| known.description.functions.iter().any(|f| f.name == name.function());
        versions.filter(has).map(|known| &known.version)
    }
}

impl Node {
    /// Who can run a call, if anybody can.
    pub(crate) fn runs(&self, name: &FunctionName, requirement: Option<&VersionReq>) -> Option<Runs> {
        let allowed = |version: &Version| requirement.is_none_or(|requirement| requirement.matches(version));
        let own = self.modules.get(name.module()).filter(|m| !m.removed).and_then(Module::own_revision);
        let fits = |r: &&Revision| r.version.as_ref().is_some_and(allowed);
        if own.filter(fits).is_some_and(|r| r.functions.contains_key(name.function())) {
            return Some(Runs::Here);
        }
        let mut versions = self.grid.catalogue.versions(name);
        versions.any(allowed).then_some(Runs::Abroad)
    }

    /// The versions of a function that other nodes are known to serve, for people.
    pub(crate) fn versions_elsewhere(&self, name: &FunctionName) -> String {
        let versions: Vec<String> = self.grid.catalogue.versions(name).map(Version::to_string).collect();
        versions.join(", ")
    }

    /// Whether it is known what can be called on the grid. Before that, a call of what this node does not serve is refused.
    pub fn knows_modules(&self) -> bool {
        !self.grid.on || self.keeps_store() || self.grid.catalogue.heard
    }

    /// What any node serves, as far as this one knows: each module with its versions, the newest first.
    pub fn catalogue(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = (&Version, &v1::Module)>)> {
        fn version(known: &Known) -> (&Version, &v1::Module) {
            (&known.version, &known.description)
        }
        self.grid.catalogue.known.iter().map(|(name, versions)| (name.as_str(), versions.iter().map(version)))
    }

    /// Says what there is to say of modules, here and elsewhere.
    pub(crate) fn pump_catalogue(&mut self, now: Now) {
        if !self.grid.on {
            return;
        }
        if self.keeps_store() {
            if self.ready && std::mem::take(&mut self.grid.catalogue.stale) {
                self.compile(now);
            }
            return;
        }
        let keeper = self.grid_store().map(|store| store.node.id);
        let link = keeper.and_then(|keeper| self.grid.market.link_of(keeper));
        let Some(link) = link.filter(|link| self.grid.node_of(*link).is_some()) else { return };
        let announced = self.grid.catalogue.announced.as_ref().filter(|announced| announced.over == link);
        let before = match (announced.map(|announced| &announced.modules), self.ready) {
            (Some(Some(_)), true) if !self.grid.catalogue.stale => return,
            (Some(before), true) => before.clone(),
            (None, true) => None,
            (Some(_), false) => return,
            // It wants to know of others already.
            (None, false) => {
                self.grid.catalogue.announced = Some(Announced { over: link, modules: None });
                return self.send_peer(link, Frame::Modules(peer::Modules::default()), Bytes::new());
            }
        };
        self.grid.catalogue.stale = false;
        let own = self.own_modules();
        let is_first = before.is_none();
        let before = before.unwrap_or_default();
        let changed = |(name, module): (&String, &v1::Module)| {
            (before.get(name) != Some(module)).then(|| (name.clone(), vec![module.clone()]))
        };
        let mut entries: Vec<_> = own.iter().filter_map(changed).collect();
        entries
            .extend(before.keys().filter(|name| !own.contains_key(*name)).map(|n| (n.clone(), Vec::new())));
        self.grid.catalogue.announced = Some(Announced { over: link, modules: Some(own) });
        if is_first || !entries.is_empty() {
            self.send_modules(link, is_first, entries);
        }
    }

    /// What this node serves to others.
    fn own_modules(&self) -> BTreeMap<String, v1::Module> {
        let served = |(name, m): (&String, &Module)| {
            let revision = m.for_others().filter(|_| !self.draining)?;
            Some((name.clone(), revision.description.clone()))
        };
        let (mut bytes, mut own) = (0, BTreeMap::new());
        for (name, module) in self.modules.iter().filter_map(served) {
            bytes += header::encoded_len(&module);
            if own.len() >= MODULES_MAX || bytes > MODULES_BYTES_MAX {
                break;
            }
            own.insert(name, module);
        }
        own
    }

    fn send_modules(&mut self, link: LinkId, is_first: bool, entries: Vec<(String, Vec<v1::Module>)>) {
        let mut message = peer::Modules { first: is_first, entries: Vec::new() };
        let mut bytes = 0;
        for (name, versions) in entries {
            bytes += versions.iter().map(header::encoded_len).sum::<usize>();
            message.entries.push(peer::modules::Entry { name, versions });
            if bytes >= MESSAGE_BYTES {
                self.send_peer(link, Frame::Modules(std::mem::take(&mut message)), Bytes::new());
                bytes = 0;
            }
        }
        if message.first || !message.entries.is_empty() {
            self.send_peer(link, Frame::Modules(message), Bytes::new());
        }
    }

    /// Another node tells of modules: its own, or, if it keeps the store, those of all.
    pub(super) fn on_modules(&mut self, now: Now, link: LinkId, node: NodeId, modules: peer::Modules) {
        if self.keeps_store() {
            return self.on_modules_of(link, node, modules);
        }
        if self.grid_store().is_none_or(|store| store.node.id != node) {
            return; // It did once, or thinks that this node does.
        }
        self.grid.catalogue.heard = true;
        let mut known = self.grid.catalogue.known.clone();
        if modules.first {
            // It may have just begun, and not have heard of all.
            self.grid.catalogue.fading = Some((now.mono + FADING, known.keys().cloned().collect()));
        }
        let fading = &mut self.grid.catalogue.fading;
        for peer::modules::Entry { name, versions } in modules.entries {
            let versions = versions_of(&name, versions);
            fading.iter_mut().for_each(|(_, names)| _ = names.remove(&name));
            if versions.is_empty() {
                known.remove(&name);
            } else if known.len() < CATALOGUE_MAX {
                known.insert(name, versions);
            }
        }
        self.know(now, known);
    }

    /// What one node serves, where the store is kept.
    fn on_modules_of(&mut self, link: LinkId, node: NodeId, modules: peer::Modules) {
        self.grid.catalogue.listeners.entry(link).or_insert(false);
        let told = self.grid.catalogue.told.entry(node).or_default();
        if modules.first {
            *told = Told::default();
        }
        for peer::modules::Entry { name, mut versions } in modules.entries {
            match versions.pop() {
                None => _ = told.modules.remove(&name),
                Some(_) if told.modules.len() >= MODULES_MAX => {}
                Some(module) => _ = told.modules.insert(name, module),
            }
        }
        self.grid.catalogue.stale = true;
    }

    /// A link is over. What its node serves is remembered for a while.
    pub(super) fn forget_modules_of(&mut self, now: Now, link: LinkId) {
        self.grid.catalogue.listeners.remove(&link);
        if self.grid.catalogue.announced.as_ref().is_some_and(|announced| announced.over == link) {
            self.grid.catalogue.announced = None;
        }
        let gone =
            self.grid.node_of(link).filter(|node| self.grid.market.link_of(*node).is_none_or(|l| l == link));
        if let Some(node) = gone
            && let Some(told) = self.grid.catalogue.told.get_mut(&node)
        {
            told.until = Some(now.mono + REMEMBERED);
            self.grid.catalogue.gone.note(now.mono + REMEMBERED, node);
        }
    }

    /// What others have served in an earlier life of this node.
    pub(super) fn begin_catalogue(&mut self, now: Now) {
        let kept = self.config.grid.iter().flat_map(|grid| grid.catalogue.clone());
        let mut known: BTreeMap<String, Vec<v1::Module>> = BTreeMap::new();
        kept.for_each(|module| known.entry(module.name.clone()).or_default().push(module));
        let known: BTreeMap<String, Vec<Known>> =
            known.into_iter().map(|(name, versions)| (name.clone(), versions_of(&name, versions))).collect();
        match self.keeps_store() {
            true => self.remember(now, &known),
            false => {
                self.grid.catalogue.fading = Some((now.mono + FADING, known.keys().cloned().collect()));
            }
        }
        self.know(now, known);
    }

    /// Where the store is kept: what is served counts as told until those have told it that serve it.
    fn remember(&mut self, now: Now, known: &BTreeMap<String, Vec<Known>>) {
        for (name, versions) in known {
            for (number, version) in (0..=u8::MAX).zip(versions) {
                // No node has such a key, and one node has one version.
                let mut nobody = NodeId([0; 32]);
                nobody.0[0] = number;
                let told = self.grid.catalogue.told.entry(nobody).or_default();
                told.until = Some(now.mono + REMEMBERED);
                told.modules.insert(name.clone(), version.description.clone());
                self.grid.catalogue.gone.note(now.mono + REMEMBERED, nobody);
            }
        }
    }

    /// Has that kept which others serve.
    fn keep_catalogue(&mut self) {
        let own = self.own_modules();
        let known = self.grid.catalogue.known.values().flatten().map(|known| &known.description);
        let others =
            known.filter(|module| own.get(&module.name).is_none_or(|own| own.version != module.version));
        let others: Vec<v1::Module> = others.cloned().collect();
        self.outputs.push_back(Output::Catalogue(others));
    }

    /// Another node keeps the store from now on.
    pub(super) fn change_catalogue(&mut self, now: Now) {
        let known = std::mem::take(&mut self.grid.catalogue.known);
        self.grid.catalogue.announced = None;
        self.grid.catalogue.listeners.clear();
        self.grid.catalogue.told.clear();
        self.grid.catalogue.fading = None;
        if self.keeps_store() {
            self.remember(now, &known);
        }
        self.grid.catalogue.known = known;
        self.grid.catalogue.stale = true;
    }

    pub(super) fn on_catalogue_due(&mut self, now: Now) {
        while let Some(node) = self.grid.catalogue.gone.take(now.mono) {
            let over = |told: &Told| told.until.is_some_and(|until| until <= now.mono);
            if self.grid.catalogue.told.get(&node).is_some_and(over) {
                self.grid.catalogue.told.remove(&node);
                self.grid.catalogue.stale = true;
            }
        }
        if let Some((_, names)) = self.grid.catalogue.fading.take_if(|(until, _)| *until <= now.mono)
            && !self.keeps_store()
        {
            let mut known = self.grid.catalogue.known.clone();
            known.retain(|name, _| !names.contains(name));
            self.know(now, known);
        }
    }

    /// Puts together what any node serves, and tells what has changed; all of it to those who have come since.
    fn compile(&mut self, now: Now) {
        let mut all: BTreeMap<String, BTreeMap<Version, v1::Module>> = BTreeMap::new();
        let mut unlike = BTreeSet::new();
        let own = self.own_modules();
        let told = self.grid.catalogue.told.values().map(|told| &told.modules);
        for (name, module) in std::iter::once(&own).chain(told).flatten() {
            let Some(version) = version_of(module) else { continue };
            if all.len() >= CATALOGUE_MAX && !all.contains_key(name) {
                continue;
            }
            let versions = all.entry(name.clone()).or_default();
            match versions.get(&version) {
                // This node's own counts, else that of the first node.
                Some(other) if other.functions != module.functions => {
                    _ = unlike.insert((name.clone(), version))
                }
                Some(_) => {}
                None => _ = versions.insert(version, module.clone()),
            }
        }
        let newest_first = |(name, versions): (String, BTreeMap<Version, v1::Module>)| {
            let known = |(version, description)| Known { version, description };
            (name, versions.into_iter().rev().map(known).collect::<Vec<_>>())
        };
        let known: BTreeMap<String, Vec<Known>> = all.into_iter().map(newest_first).collect();
        for (name, version) in unlike.difference(&self.grid.catalogue.unlike.clone()) {
            let text = format!(
                "{name} {version} is not the same on all nodes: its functions differ\n  hint: put the same files on all of them, or give \
                 those that differ another version"
            );
            self.note(Level::Warning, text);
        }
        self.grid.catalogue.unlike = unlike;
        let before = &self.grid.catalogue.known;
        let entry = |name: &String| {
            let versions = known.get(name).into_iter().flatten();
            (name.clone(), versions.map(|known| known.description.clone()).collect::<Vec<_>>())
        };
        let names: BTreeSet<&String> = before.keys().chain(known.keys()).collect();
        let changed: Vec<_> =
            names.into_iter().filter(|name| before.get(*name) != known.get(*name)).map(entry).collect();
        let whole: Vec<_> = known.keys().map(entry).collect();
        for (link, knows) in self.grid.catalogue.listeners.clone() {
            if !knows {
                self.grid.catalogue.listeners.insert(link, true);
                self.send_modules(link, true, whole.clone());
            } else if !changed.is_empty() {
                self.send_modules(link, false, changed.clone());
            }
        }
        self.know(now, known);
    }

    /// What any node serves, from now on.
    fn know(&mut self, now: Now, known: BTreeMap<String, Vec<Known>>) {
        let before = std::mem::replace(&mut self.grid.catalogue.known, known);
        let names: BTreeSet<String> =
            before.keys().chain(self.grid.catalogue.known.keys()).cloned().collect();
        let mut any = false;
        for name in names {
            if before.get(&name) != self.grid.catalogue.known.get(&name) {
                any = true;
                self.know_module(now, &name);
            }
        }
        if any {
            self.publish();
            self.keep_catalogue();
        }
    }

    fn know_module(&mut self, now: Now, name: &str) {
        let newest = self.grid.catalogue.known.get(name).and_then(|versions| versions.first()).cloned();
        let module = self.modules.entry(name.to_owned()).or_insert_with(Module::new);
        if let Some(old) = module.elsewhere.take() {
            module.revisions.remove(&old);
        }
        let described = newest.map(|newest| {
            let id = RevisionId(format!("elsewhere-{}", newest.version));
            let mut revision = Revision::new(Kind::Process);
            revision.describe(newest.description).map(|()| (id, revision))
        });
        match described {
            Some(Ok((id, revision))) => match self.check_own_queues(name, &revision) {
                Ok(()) => {
                    let module = self.modules.get_mut(name).expect("it was just entered");
                    module.revisions.insert(id.clone(), revision);
                    module.elsewhere = Some(id);
                }
                Err(failure) => {
                    self.note(Level::Warning, format!("{name}, of another node: {}", failure.message))
                }
            },
            // Of a later version.
            Some(Err(failure)) => {
                self.note(Level::Warning, format!("{name}, of another node: {}", failure.message))
            }
            None => {}
        }
        let module = self.modules.get_mut(name).expect("it was just entered");
        if !module.listed && module.attached.is_none() {
            module.removed = module.elsewhere.is_none();
        }
        match module.removed {
            true => self.lose_module(now, name),
            false => self.recheck_waiting(now, name),
        }
    }

    /// Nobody serves a module any more, for as long as that is remembered.
    fn lose_module(&mut self, now: Now, name: &str) {
        let failure = Code::NotFound.because(format!("no node serves the module {name} any more"));
        self.leave_waiting(now, name, &failure);
        if let Some(module) = self.modules.get(name)
            && module.is_forgotten()
        {
            self.modules.remove(name);
        }
    }
}

fn version_of(module: &v1::Module) -> Option<Version> {
    Version::parse(if module.version.is_empty() { "0.0.0" } else { &module.version }).ok()
}

/// The versions of a module as another node tells them: those that are none are left out.
fn versions_of(name: &str, modules: Vec<v1::Module>) -> Vec<Known> {
    let is_name =
        format!("{name}.f").parse::<FunctionName>().is_ok_and(|f| f.module() == name && !f.is_host());
    let known = |description: v1::Module| Some(Known { version: version_of(&description)?, description });
    let mut versions: Vec<Known> = modules.into_iter().filter(|_| is_name).filter_map(known).collect();
    versions.sort_by(|a, b| b.version.cmp(&a.version));
    versions
}
