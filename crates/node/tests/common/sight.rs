//! What a test sees of its world.

use bourse_node::{Answer, Event, PeerId, ProcessId, Ticket};
use bourse_wire::v1;
use bourse_wire::v1::to_worker::Message as ToWorker;
use bytes::Bytes;

use super::worker::Worker;
use super::{Process, World, text};

impl World {
    pub fn ok(&self, ticket: Ticket) -> String {
        let answer = self.answers.get(&ticket).unwrap_or_else(|| panic!("call {} is not answered", ticket.0));
        match &answer.result {
            Ok(success) => text(&success.payload),
            Err(failure) => panic!("call {} failed: {failure:?}", ticket.0),
        }
    }

    pub fn failure(&self, ticket: Ticket) -> &v1::Failure {
        let answer = self.answers.get(&ticket).unwrap_or_else(|| panic!("call {} is not answered", ticket.0));
        answer.result.as_ref().expect_err("it should have failed")
    }

    pub fn code(&self, ticket: Ticket) -> &str {
        match self.answers.get(&ticket) {
            None => "unanswered",
            Some(Answer { result: Ok(_), .. }) => "ok",
            Some(Answer { result: Err(failure), .. }) => &failure.code,
        }
    }

    pub fn instances(&self) -> usize {
        self.node.instances(self.now()).count()
    }

    /// Workers that run a function.
    pub fn busy(&self) -> usize {
        self.workers.values().filter(|w| w.running.is_some()).count()
    }

    /// The processes of a module's living instances, oldest first.
    pub fn of(&self, module: &str) -> Vec<ProcessId> {
        let of = |p: &&Process| p.alive && !p.template && p.module.name == module;
        self.processes.iter().filter(|(_, p)| of(p)).map(|(id, _)| *id).collect()
    }

    pub fn worker(&mut self, process: ProcessId) -> &mut Worker {
        let peer = self.processes[&process].peer.expect("it has said hello");
        self.workers.get_mut(&peer).expect("it is connected")
    }

    pub fn peer(&self, process: ProcessId) -> PeerId {
        self.processes[&process].peer.expect("it has said hello")
    }

    pub fn replies(&self, peer: PeerId) -> Vec<(u64, String)> {
        let reply = |(message, payload): &(ToWorker, Bytes)| match message {
            ToWorker::Reply(r) => {
                Some((r.request, r.failure.as_ref().map_or_else(|| text(payload), |f| f.code.clone())))
            }
            _ => None,
        };
        self.mail[&peer].iter().filter_map(reply).collect()
    }

    pub fn refused(&self, peer: PeerId) -> Option<&v1::Failure> {
        self.mail[&peer].iter().find_map(|(message, _)| match message {
            ToWorker::Refused(refused) => refused.failure.as_ref(),
            _ => None,
        })
    }

    pub fn noted(&self, what: &str) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Note { text, .. } if text.contains(what)))
    }
}
