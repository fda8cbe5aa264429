//! Modules come, change and go.
//!
//! ```text
//! scanner -> node: Deploy          all modules there are, each with the revision of its content
//! node -> keeper: StartTemplate    load the new revision beside the one that serves
//! keeper -> node: Loaded           it takes over; or it is reported, and the old one goes on
//! node -> scanner: Published       what is served now
//! ```
//!
//! A call ends on the revision on which it began: the instances of an old one finish what they have and leave. Calls
//! that wait go to whatever serves when their turn comes.

use bourse_wire::failure::Code;
use bourse_wire::id::HOST_MODULE;
use bourse_wire::time::Now;
use bourse_wire::v1;

use crate::Node;
use crate::instance::Exit;
use crate::message::{Event, Found, Kind, Level, Output, ProcessId, Report, RevisionId};
use crate::module::{Loading, Module, Pause, Revision};
use crate::timers::Timer;

/// So often a revision is loaded whose template is killed meanwhile, or can't be started.
const LOAD_ATTEMPTS_MAX: u32 = 4;

impl Node {
    /// The folder as it is now.
    pub(crate) fn on_deploy(&mut self, now: Now, found: Vec<Found>) {
        if self.draining {
            return;
        }
        let gone: Vec<String> = self
            .modules
            .iter()
            .filter(|(name, m)| m.listed && !found.iter().any(|f| f.name == **name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.remove_module(now, &name);
        }
        for found in found {
            if found.name == HOST_MODULE {
                self.refuse_name(found);
                continue;
            }
            let module = self.modules.entry(found.name.clone()).or_insert_with(Module::new);
            (module.listed, module.removed) = (true, false);
            let known =
                [&module.current, &module.incoming].into_iter().flatten().any(|r| *r == found.revision);
            let failed = module.revisions.get(&found.revision).is_some_and(|r| r.loading == Loading::Failed);
            if !known && !failed {
                self.load(now, &found.name, found.revision, found.kind);
            } else if known && module.current.as_ref() == Some(&found.revision) {
                self.drop_incoming(now, &found.name);
            }
        }
        self.publish();
        self.check_ready();
    }

    /// A module that is called as the daemon's own is: reported once for each revision, never served.
    fn refuse_name(&mut self, found: Found) {
        if self.refused_name.replace(found.revision.clone()).as_ref() != Some(&found.revision) {
            self.event(Event::RevisionFailed {
                module: found.name,
                revision: found.revision,
                failure: crate::host::name_is_taken(),
                still_serving: false,
            });
        }
    }

    /// Begins to load a revision beside the one that serves.
    fn load(&mut self, now: Now, name: &str, id: RevisionId, kind: Kind) {
        self.drop_incoming(now, name);
        let module = self.modules.get_mut(name).expect("a module is entered before it is loaded");
        // What failed before is forgotten, once its processes have ended.
        module.revisions.retain(|_, r| r.loading != Loading::Failed || !r.instances.is_empty());
        for failed in module.revisions.values_mut().filter(|r| r.loading == Loading::Failed) {
            failed.loading = Loading::Done;
        }
        let mut revision = Revision::new(kind);
        if let Some(old) = module.revisions.remove(&id) {
            // It served before, and instances of it still finish what they have.
            revision.instances = old.instances;
        }
        module.revisions.insert(id.clone(), revision);
        module.incoming = Some(id.clone());
        match kind {
            Kind::Python => self.start_template(now, name, &id),
            Kind::Process => self.start_instance(now, name, &id),
        }
    }

    pub(crate) fn start_template(&mut self, now: Now, name: &str, id: &RevisionId) {
        let process = self.new_process();
        let revision = self
            .modules
            .get_mut(name)
            .and_then(|m| m.revisions.get_mut(id))
            .expect("a revision that is loaded exists");
        revision.template = Some(process);
        revision.loading = Loading::Waits;
        revision.load_attempts += 1;
        self.templates.insert(process, (name.to_owned(), id.clone()));
        self.timers.set(Timer::Template(process), now.mono + self.config.startup);
        self.outputs.push_back(Output::StartTemplate {
            process,
            module: name.to_owned(),
            revision: id.clone(),
        });
    }

    /// A template did not report in time.
    pub(crate) fn on_template_due(&mut self, now: Now, process: ProcessId) {
        if let Some((name, _)) = self.templates.get(&process) {
            let failure = Code::ModuleFailed
                .because(format!("{name} was not loaded after {:?}", self.config.startup))
                .hint("is something slow in its imports? raise `startup` in bourse.toml");
            self.on_loaded(now, process, Report::Failed(failure));
        }
    }

    /// Loads a revision anew whose template did not come to say whether it loads.
    pub(crate) fn load_again(&mut self, now: Now, name: &str) {
        let Some(module) = self.modules.get(name) else { return };
        let wanted = [&module.incoming, &module.current].into_iter().flatten().find(|id| {
            let revision = module.revisions.get(*id);
            revision.is_some_and(|r| {
                r.kind == Kind::Python && r.loading == Loading::Waits && r.template.is_none()
            })
        });
        if let Some(id) = wanted.cloned().filter(|_| !self.draining) {
            self.start_template(now, name, &id);
        }
    }

    /// Forgets a revision that was being loaded.
    fn drop_incoming(&mut self, now: Now, name: &str) {
        let module = self.modules.get_mut(name).expect("only known modules are dropped");
        if let Some(id) = module.incoming.take() {
            self.retire(now, name, &id);
        }
    }

    /// A template has loaded its module, or failed to.
    pub(crate) fn on_loaded(&mut self, now: Now, template: ProcessId, report: Report) {
        self.timers.clear(&Timer::Template(template));
        let Some((name, id)) = self.templates.get(&template).cloned() else { return };
        if let Some(revision) = self.modules.get_mut(&name).and_then(|m| m.revisions.get_mut(&id)) {
            revision.load_attempts = 0;
        }
        match report {
            Report::Ready { module, not_forkable } => {
                if !not_forkable.is_empty() {
                    let text = format!(
                        "{name} cannot be forked ({not_forkable}): its instances are started anew, which takes longer"
                    );
                    self.note(Level::Warning, text);
                }
                let revision = self.modules.get_mut(&name).and_then(|m| m.revisions.get_mut(&id));
                if let Some(revision) = revision {
                    let forks = not_forkable.is_empty();
                    revision.not_forkable = not_forkable;
                    if !forks {
                        self.drop_template(&name, &id);
                    }
                }
                self.described(now, &name, &id, module);
            }
            Report::Failed(failure) => self.load_failed(now, &name, &id, failure),
        }
    }

    /// A revision has said what it offers.
    pub(crate) fn described(&mut self, now: Now, name: &str, id: &RevisionId, mut description: v1::Module) {
        // Its place in the folder names a module, whatever it calls itself.
        name.clone_into(&mut description.name);
        if self.is_early(name, id, &description) {
            return;
        }
        let Some(module) = self.modules.get_mut(name) else { return };
        let Some(revision) = module.revisions.get_mut(id) else { return };
        let described = revision.describe(description);
        let described =
            described.and_then(|()| self.check_own_queues(name, &self.modules[name].revisions[id]));
        let Some(module) = self.modules.get(name) else { return };
        if let Err(failure) = described {
            self.load_failed(now, name, id, failure);
        } else if module.incoming.as_ref() == Some(id) {
            self.switch_over(now, name, id);
        } else {
            self.keep_minimum(now, name);
        }
    }

    fn switch_over(&mut self, now: Now, name: &str, id: &RevisionId) {
        let module = self.modules.get_mut(name).expect("a module that is loaded exists");
        let functions = module.revisions[id].functions.len();
        module.incoming = None;
        module.failure = None;
        module.pause = Pause::default();
        let old = module.current.replace(id.clone());
        self.event(Event::RevisionServes { module: name.to_owned(), revision: id.clone(), functions });
        if let Some(old) = old {
            self.retire(now, name, &old);
        }
        self.recheck_waiting(now, name);
        self.keep_minimum(now, name);
        self.publish();
        self.check_ready();
    }

    pub(crate) fn load_failed(&mut self, now: Now, name: &str, id: &RevisionId, failure: v1::Failure) {
        let Some(module) = self.modules.get_mut(name) else { return };
        if module.current.as_ref() == Some(id) {
            // It did load before: its template died, and the next one does not come up.
            self.drop_template(name, id);
            if let Some(revision) = self.modules.get_mut(name).and_then(|m| m.revisions.get_mut(id)) {
                revision.loading = Loading::Done;
            }
            self.start_failed(now, name, failure);
            return;
        }
        if let Some(revision) = module.revisions.get_mut(id) {
            revision.loading = Loading::Failed;
        }
        if module.incoming.as_ref() == Some(id) {
            module.incoming = None;
        }
        module.failure = Some(failure.clone());
        let still_serving = module.current.is_some();
        self.event(Event::RevisionFailed {
            module: name.to_owned(),
            revision: id.clone(),
            failure: failure.clone(),
            still_serving,
        });
        self.stop_revision(now, name, id);
        if !still_serving {
            self.recheck_waiting(now, name);
        }
        self.check_ready();
    }

    /// Calls that were taken before it was known what the module offers, here and elsewhere.
    pub(crate) fn recheck_waiting(&mut self, now: Now, name: &str) {
        let module = &self.modules[name];
        let waiting: Vec<_> = module.queue.values().chain(module.abroad.values()).copied().collect();
        for id in waiting {
            let call = &self.calls[&id];
            match self.check_function(&call.function, &call.version) {
                Err(failure) => self.abort(now, id, failure),
                Ok(()) => {
                    self.unqueue(id);
                    self.queue(id);
                }
            }
        }
    }

    /// Nobody serves what calls wait for. Durable ones wait in the store until somebody does.
    pub(crate) fn leave_waiting(&mut self, now: Now, name: &str, failure: &v1::Failure) {
        let module = &self.modules[name];
        let waiting: Vec<_> = module.queue.values().chain(module.abroad.values()).copied().collect();
        for id in waiting {
            if self.calls[&id].is_work() {
                self.unqueue(id);
                self.put_back_work(now, id, std::time::Duration::ZERO);
            } else {
                self.abort(now, id, failure.clone());
            }
        }
    }

    /// A revision no longer serves: its instances finish what they have, and it goes with the last of them.
    fn retire(&mut self, now: Now, name: &str, id: &RevisionId) {
        self.stop_revision(now, name, id);
        self.clear_away(name, id);
    }

    fn stop_revision(&mut self, now: Now, name: &str, id: &RevisionId) {
        self.drop_template(name, id);
        let Some(revision) = self.modules.get(name).and_then(|m| m.revisions.get(id)) else { return };
        let instances: Vec<_> = revision.instances.iter().copied().collect();
        for process in instances {
            self.stop_instance(now, process);
        }
    }

    pub(crate) fn drop_template(&mut self, name: &str, id: &RevisionId) {
        let Some(revision) = self.modules.get_mut(name).and_then(|m| m.revisions.get_mut(id)) else { return };
        if let Some(template) = revision.template.take() {
            self.templates.remove(&template);
            self.timers.clear(&Timer::Template(template));
            self.outputs.push_back(Output::Kill { process: template });
        }
    }

    /// Forgets a revision that serves no more and has no instances, and a module without revisions.
    pub(crate) fn clear_away(&mut self, name: &str, id: &RevisionId) {
        let Some(module) = self.modules.get_mut(name) else { return };
        let used = [&module.current, &module.incoming, &module.attached, &module.elsewhere];
        let used = used.into_iter().flatten().any(|r| r == id);
        if let Some(revision) = module.revisions.get(id)
            && !used
            && revision.instances.is_empty()
            && revision.loading != Loading::Failed
        {
            module.revisions.remove(id);
        }
        if module.is_forgotten() {
            self.modules.remove(name);
        }
    }

    fn remove_module(&mut self, now: Now, name: &str) {
        let module = self.modules.get_mut(name).expect("only known modules are removed");
        // While a developer's process serves it, that goes on.
        let others = [module.attached.clone(), module.elsewhere.clone()];
        module.listed = false;
        module.removed = others.iter().all(Option::is_none);
        module.failure = None;
        let serves_still = |id: &&RevisionId| others.iter().flatten().any(|other| other == *id);
        let revisions: Vec<_> = module.revisions.keys().filter(|id| !serves_still(id)).cloned().collect();
        module.current = None;
        module.incoming = None;
        if module.removed {
            let failure =
                Code::NotFound.because(format!("the module {name} was removed while the call waited"));
            self.leave_waiting(now, name, &failure);
        } else {
            self.recheck_waiting(now, name);
        }
        for id in revisions {
            self.retire(now, name, &id);
        }
        self.note(Level::Info, format!("{name} is gone from the folder and no longer served"));
    }

    /// A template has ended: by itself, since one that is told to end is forgotten before.
    pub(crate) fn on_template_exited(&mut self, now: Now, process: ProcessId, exit: Exit) {
        let (name, id) = self.templates.remove(&process).expect("the caller has looked it up");
        self.timers.clear(&Timer::Template(process));
        let Some(revision) = self.modules.get_mut(&name).and_then(|m| m.revisions.get_mut(&id)) else {
            return;
        };
        revision.template = None;
        let transient = matches!(exit, Exit::Signal(_) | Exit::NotStarted(_));
        if revision.loading == Loading::Waits && transient && revision.load_attempts < LOAD_ATTEMPTS_MAX {
            // The system was short of something, or the keeper died: no fault of the module's, as far as is known.
            let text = format!("the template of {name} {exit} while it was loaded; it is tried again");
            self.note(Level::Warning, text);
            self.pause(now, &name, false);
        } else if revision.loading == Loading::Waits {
            let failure = Code::ModuleFailed
                .because(format!("{name} {exit} while it was loaded"))
                .hint(format!("see its output: bourse logs {name}"));
            self.load_failed(now, &name, &id, failure);
        } else {
            self.note(
                Level::Warning,
                format!("the template of {name} {exit}; it is started again when it is needed"),
            );
        }
    }

    /// A developer's process serves a module from now on; the revision that it serves as. Connections of one process
    /// with the same description serve together.
    pub(crate) fn attach(
        &mut self,
        now: Now,
        process: ProcessId,
        (pid, shared): (u32, bool),
        description: v1::Module,
    ) -> Result<RevisionId, v1::Failure> {
        let name = description.name.clone();
        if let Some(id) = self.attached_alike(&name, pid, &description) {
            let module = self.modules.get_mut(&name).expect("it was just looked at");
            module.revisions.get_mut(&id).expect("it was just looked at").instances.insert(process);
            self.grid.offers_stale = true;
            return Ok(id);
        }
        let id = RevisionId(format!("attached-{}", process.0));
        let mut revision = Revision::new(Kind::Process);
        revision.describe(description)?;
        revision.shared = shared;
        self.check_own_queues(&name, &revision)?;
        revision.instances.insert(process);
        let module = self.modules.entry(name.clone()).or_insert_with(|| {
            let mut module = Module::new();
            module.removed = true;
            module
        });
        module.removed = false;
        let functions = revision.functions.len();
        module.revisions.insert(id.clone(), revision);
        let before = module.attached.replace(id.clone());
        if let Some(before) = before {
            // The newest counts: a developer has started another.
            self.stop_revision(now, &name, &before);
        }
        self.event(Event::RevisionServes { module: name.clone(), revision: id.clone(), functions });
        self.recheck_waiting(now, &name);
        self.publish();
        Ok(id)
    }

    /// The attached revision, if it is the same process's and offers the same.
    fn attached_alike(&self, name: &str, pid: u32, description: &v1::Module) -> Option<RevisionId> {
        let module = self.modules.get(name)?;
        let id = module.attached.as_ref()?;
        let revision = &module.revisions[id];
        let mut others = revision.instances.iter().map(|p| &self.instances[p]);
        (revision.description == *description && others.all(|i| i.pid == pid)).then(|| id.clone())
    }

    /// It has left; the module's own revision serves again, if there is one.
    pub(crate) fn detach(&mut self, now: Now, name: &str) {
        let module = self.modules.get_mut(name).expect("a module that was attached exists");
        module.attached = None;
        if module.current.is_none() && module.incoming.is_none() {
            module.removed = module.elsewhere.is_none();
        }
        self.recheck_waiting(now, name);
        self.publish();
    }

    pub(crate) fn publish(&mut self) {
        self.triggers_changed();
        self.grid.offers_stale = true;
        self.grid.catalogue.changed_here();
        let own = |m: &Module| Some((m.own_revision()?.description.clone(), m.own()?.clone()));
        let elsewhere = |m: &Module| Some(m.revisions.get(m.elsewhere.as_ref()?)?.description.clone());
        let modules = self.modules.values().filter_map(own).collect();
        let others = self.modules.values().filter(|m| m.own().is_none());
        let elsewhere = others.filter_map(elsewhere).collect();
        self.outputs.push_back(Output::Published { modules, elsewhere });
    }

    fn check_ready(&mut self) {
        let loading = self.modules.values().any(|m| m.incoming.is_some());
        if !self.ready && !loading {
            self.ready = true;
            self.grid.catalogue.changed_here();
            self.outputs.push_back(Output::Ready);
        }
    }

    /// Whether the first instance of a revision is to say what it offers: that of a module that is any program.
    pub(crate) fn is_load_check(&self, name: &str, id: &RevisionId) -> bool {
        let revision = self.modules.get(name).and_then(|m| m.revisions.get(id));
        revision.is_some_and(|r| r.kind == Kind::Process && r.loading == Loading::Waits)
    }
}
