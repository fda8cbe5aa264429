//! What the daemon does for a function: what concerns WebSocket connections is done at once by the gateway, which has
//! them; everything else goes to the thread that is for it.

use bourse_gateway::sockets::{Message, To};
use bourse_node::{HostFunction, Input, Success};
use bourse_wire::v1;
use bourse_wire::value::Value;

use super::Driver;
use crate::daemon::outside::arguments::Given;
use crate::daemon::outside::{Task, success};

impl Driver {
    pub(super) fn perform(&mut self, task: Task) {
        match task.function {
            HostFunction::Webhook | HostFunction::Mail => self.outside.perform(task),
            HostFunction::Send | HostFunction::Close | HostFunction::Join | HostFunction::Leave => {
                let result = self.perform_at_connections(&task);
                self.handle(Input::Performed { call: task.call, attempt: task.attempt, result });
            }
        }
    }

    fn perform_at_connections(&self, task: &Task) -> Result<Success, v1::Failure> {
        let mut given = Given::read(task.function, &task.payload)?;
        let sockets = self.gateway.sockets();
        let counts = match task.function {
            HostFunction::Send => {
                let to = given.text("to")?;
                let to: To = to.parse().map_err(|why: String| given.wrong(why))?;
                let message = given.value("message").unwrap_or(Value::Null);
                let sent = sockets.send(&to, Message::of(&message))?;
                vec![("sent", sent.sent), ("full", sent.full)]
            }
            HostFunction::Close => {
                let connection = given.text("connection")?;
                let code = given.integer("code")?.unwrap_or(1000);
                let reason = given.text_if_given("reason")?.unwrap_or_default();
                let code = u16::try_from(code).map_err(|_| given.wrong("code is between 1000 and 4999"))?;
                vec![("closed", sockets.close(&connection, code, &reason).map_err(|why| given.wrong(why))?)]
            }
            HostFunction::Join => {
                let (connection, group) = (given.text("connection")?, given.text("group")?);
                vec![("joined", sockets.join(&connection, &group).map_err(|why| given.wrong(why))?)]
            }
            HostFunction::Leave => {
                let (connection, group) = (given.text("connection")?, given.text("group")?);
                vec![("left", sockets.leave(&connection, &group))]
            }
            HostFunction::Webhook | HostFunction::Mail => unreachable!("they go elsewhere"),
        };
        let pair = |(name, count): (&str, usize)| {
            let count = i128::try_from(count).expect("connections can be counted");
            (Value::Text(name.to_owned()), Value::Int(count))
        };
        Ok(success(&Value::Map(counts.into_iter().map(pair).collect())))
    }
}
