//! Durable calls: made, and asked about.

use bourse_node::durable::work::Seen;
use bourse_node::{Ask, Input, Mode, Ticket};
use bourse_wire::id::CallId;
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
}
