//! Messages that the gateway publishes, and modules that are to listen no longer.

use std::collections::BTreeMap;

use bourse_node::{Input, Message, Origin, Ticket};
use tokio::sync::oneshot;

use super::Driver;

type Reply = oneshot::Sender<bourse_gateway::Answer>;

impl Driver {
    pub(super) fn on_publish(
        &mut self,
        message: bourse_gateway::Message,
        ticket: bourse_gateway::Ticket,
        reply: Reply,
    ) {
        let origin = self.wants_reply(ticket, reply);
        let message = Message {
            to: message.to,
            payload: message.payload,
            delay: message.delay,
            traceparent: message.traceparent,
            context: BTreeMap::new(),
            idempotency_key: message.idempotency_key,
        };
        self.handle(Input::Publish { origin, message });
    }

    pub(super) fn on_forget(&mut self, module: String, ticket: bourse_gateway::Ticket, reply: Reply) {
        let origin = self.wants_reply(ticket, reply);
        self.handle(Input::Forget { origin, module });
    }

    fn wants_reply(&mut self, ticket: bourse_gateway::Ticket, reply: Reply) -> Origin {
        let ticket = Ticket(ticket.0);
        self.state.replies.insert(ticket, reply);
        Origin::Gateway(ticket)
    }
}
