//! Durable calls: made, asked about, and left behind by a node that dies.

use bourse_node::durable::work::Seen;
use bourse_node::{Ask, Input, Mode, Node, Ticket};
use bourse_wire::id::{CallId, Incarnation};
use bourse_wire::record::v1::ended::Status;

use super::{World, text};

impl World {
    /// A durable call.
    pub fn start(&mut self, function: &str, argument: &str) -> Ticket {
        self.call_with(function, argument, |c| c.mode = Mode::Async)
    }

    /// Asks about a durable call.
    pub fn ask(&mut self, call: CallId, ask: Ask) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.trace.line(self.now, &format!("gateway -> node  {ask:?} {call}"));
        self.input(Input::Ask { ticket, call, ask });
        ticket
    }

    /// How a durable call stands: `live`, `running`, `done …`, `dead …`, `cancelled …`, or `nothing`.
    pub fn look(&mut self, call: CallId) -> String {
        let ticket = self.ask(call, Ask::Look);
        self.run(50);
        self.told(ticket)
    }

    /// What was told.
    pub fn told(&self, ticket: Ticket) -> String {
        match self.told.get(&ticket) {
            None => "untold".to_owned(),
            Some(Err(failure)) => failure.code.clone(),
            Some(Ok(seen)) => match &**seen {
                Seen::Nothing => "nothing".to_owned(),
                Seen::Live { running: true, .. } => "running".to_owned(),
                Seen::Live { record, .. } => format!("live {}", record.attempts),
                Seen::Ended(ended) => match ended.status() {
                    Status::Done => format!("done {}", text(&ended.result)),
                    Status::Dead => format!("dead {}", ended.attempts),
                    _ => "cancelled".to_owned(),
                },
            },
        }
    }

    /// The id of a call that was accepted, or answered.
    pub fn id(&self, ticket: Ticket) -> CallId {
        let answer = self.answers.get(&ticket).unwrap_or_else(|| panic!("call {} is not answered", ticket.0));
        answer.call.unwrap_or_else(|| panic!("call {} has no id: {answer:?}", ticket.0))
    }

    /// The node dies, and all that it has started; another one starts with what the store has.
    pub fn restart(&mut self) -> &mut Self {
        self.trace.line(self.now, "the node dies, and starts again");
        self.lives += 1;
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&self.lives.to_le_bytes());
        self.node = Node::new(self.config.clone(), Incarnation(self.lives), seed);
        self.next.clear();
        self.processes.clear();
        self.workers.clear();
        self.closed.extend(self.mail.keys());
        // Who was not answered never will be.
        self.asked.retain(|ticket| self.answers.contains_key(ticket));
        (self.ready, self.drained) = (false, false);
        self.input(Input::Recover);
        self.scan()
    }
}
