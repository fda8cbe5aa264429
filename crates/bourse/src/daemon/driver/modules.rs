//! Modules, as folders and bundles have them: told to the node, and what their templates say of them.

use std::path::PathBuf;

use bourse_gateway::{Deployed, LeftOut, Routes};
use bourse_node::{Found, Input, Kind, ProcessId, Report};
use bourse_wire::failure::Code;
use bourse_worker::scan;

use super::{Deploying, Driver};
use crate::daemon::deploy::{FromDeployer, Source, ToDeployer};
use crate::daemon::events;

impl Driver {
    /// A folder or a bundle was looked at.
    pub(super) fn on_deployer(&mut self, source: Source, message: FromDeployer) {
        match message {
            FromDeployer::Progress(text) => tracing::info!("{text}"),
            FromDeployer::Problem { about, text, hint } => events::problem(&about, &text, &hint),
            FromDeployer::Plan(planned) => {
                let Some(deploying) = self.sources.get_mut(&source) else { return };
                deploying.planned = Some(planned.clone());
                if let Source::Bundle(name, digest) = &source {
                    self.on_bundle_planned(name, *digest, &planned);
                }
                self.deploy_all();
            }
        }
    }

    /// Tells the node of all modules that there are.
    pub(super) fn deploy_all(&mut self) {
        // What is not known so far is not gone: at first, all that was served before is waited for.
        let is_unknown = |source: &Source| self.sources.get(source).is_none_or(|s| s.planned.is_none());
        if is_unknown(&Source::Folder) || (!self.state.looked && self.sources.keys().any(is_unknown)) {
            return;
        }
        self.state.looked = true;
        let planned = self.planned();
        self.read_settings(&planned);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let token = std::fs::read(&self.contact.token_file).unwrap_or_default();
        let token = String::from_utf8_lossy(&token).trim().to_owned().into();
        let config = Box::new(self.config.node(cores, token, self.contact.http.clone()));
        self.handle(Input::Configure { config });
        let modules: Vec<Found> = planned
            .iter()
            .filter(|p| !self.places.attached || matches!(p.found.kind, scan::Kind::Process(_)))
            .map(|p| Found {
                name: p.found.name.clone(),
                revision: p.revision.clone(),
                kind: if matches!(p.found.kind, scan::Kind::Process(_)) {
                    Kind::Process
                } else {
                    Kind::Python
                },
            })
            .collect();
        for plan in planned {
            self.state.plans.insert((plan.found.name.clone(), plan.revision.clone()), plan);
        }
        self.handle(Input::Deploy { modules });
        self.tell_stock();
    }

    /// What a template says of its module, unless its routes can't be served beside the others'.
    pub(super) fn check_ready(
        &mut self,
        template: ProcessId,
        ready: bourse_wire::keeper::v1::TemplateReady,
    ) -> Report {
        let Some((name, revision)) = self.state.templates.get(&template).cloned() else {
            return Report::Failed(Code::Internal.because("a template that nobody has started"));
        };
        let mut module = ready.module.unwrap_or_default();
        module.name.clone_from(&name);
        let files = ready.files.into_iter().map(PathBuf::from).collect();
        self.tell_deployer(&name, ToDeployer::Imported { module: name.clone(), revision, files });
        if module.functions.is_empty() {
            return Report::Failed(Code::ModuleFailed.because(events::NO_FUNCTIONS));
        }
        let others = self.state.published.iter().filter(|m| m.name != name);
        let all: Vec<Deployed> = others.chain([&module]).map(|m| Deployed { module: m.clone() }).collect();
        let (_, left_out) = Routes::as_far_as_possible(&all, &[], &self.state.held);
        // What is wrong with the others was no reason not to serve them.
        match left_out.into_iter().find(|left_out| left_out.module.as_ref().is_none_or(|m| *m == name)) {
            None => Report::Ready { module, not_forkable: ready.not_forkable },
            Some(LeftOut { why: conflict, .. }) => {
                self.tell_failed(template);
                Report::Failed(
                    Code::ModuleFailed.because(conflict.to_string()).hint("give one of them another route"),
                )
            }
        }
    }

    /// The deployer should know: another file may mend it.
    pub(super) fn tell_failed(&self, template: ProcessId) {
        if let Some((module, revision)) = self.state.templates.get(&template).cloned() {
            self.tell_deployer(&module.clone(), ToDeployer::Failed { module, revision });
        }
    }

    /// Tells whoever has found a module.
    fn tell_deployer(&self, module: &str, message: ToDeployer) {
        let has = |d: &&Deploying| d.planned.iter().flatten().any(|plan| plan.found.name == module);
        if let Some(deploying) = self.sources.values().find(has) {
            // It ends with the driver.
            deploying.deployer.send(message).ok();
        }
    }
}
