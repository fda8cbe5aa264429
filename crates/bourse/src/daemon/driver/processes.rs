//! Templates and instances: what the node wants started, as the keeper's orders.

use bourse_node::{Exit, Input, ProcessId, Report, RevisionId};
use bourse_wire::failure::Code;
use bourse_wire::keeper::v1::{Fork, to_keeper};

use super::Driver;
use crate::daemon::deploy::NoPython;
use crate::daemon::events;

impl Driver {
    pub(super) fn start_template(&mut self, process: ProcessId, module: String, revision: RevisionId) {
        let key = (module, revision);
        let plan = self.state.plans.get(&key);
        if let Some(NoPython { text, hint }) = plan.and_then(|plan| plan.python.as_ref().err()) {
            let failure =
                Code::ModuleFailed.because(format!("{}{text}", events::NO_PYTHON)).hint(hint.clone());
            self.handle(Input::Loaded { template: process, report: Report::Failed(failure) });
            return;
        }
        let launch = plan.ok_or_else(|| "it is no longer there".to_owned());
        match launch.and_then(|plan| Ok((plan.template(&self.places)?, plan.log(&self.places)))) {
            Ok((launch, log)) => {
                let spawn = launch.spawn(process.0);
                self.state.processes.insert(process);
                self.state.templates.insert(process, key);
                self.state.loading.insert(process);
                self.keeper.send(to_keeper::Message::Spawn(bourse_wire::keeper::v1::Spawn {
                    template: true,
                    log,
                    ..spawn
                }));
            }
            Err(why) => self.handle(Input::Exited { process, exit: Exit::NotStarted(why) }),
        }
    }

    pub(super) fn start_instance(
        &mut self,
        process: ProcessId,
        key: &(String, RevisionId),
        template: Option<ProcessId>,
        secret: bytes::Bytes,
    ) {
        let Some(plan) = self.state.plans.get(key) else {
            self.handle(Input::Exited {
                process,
                exit: Exit::NotStarted("its module is no longer there".to_owned()),
            });
            return;
        };
        let log = plan.log(&self.places);
        let message = match template {
            Some(template) => {
                to_keeper::Message::Fork(Fork { process: process.0, template: template.0, secret, log })
            }
            None => match plan.instance(&self.places) {
                Ok(launch) => to_keeper::Message::Spawn(bourse_wire::keeper::v1::Spawn {
                    secret,
                    log,
                    ..launch.spawn(process.0)
                }),
                Err(why) => {
                    self.handle(Input::Exited { process, exit: Exit::NotStarted(why) });
                    return;
                }
            },
        };
        self.state.processes.insert(process);
        self.keeper.send(message);
    }
}
