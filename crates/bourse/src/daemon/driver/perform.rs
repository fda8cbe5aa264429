//! What the daemon does for a function: what concerns WebSocket connections is done at once by the gateway, which has
//! them; everything else goes to the thread that is for it.

use std::collections::BTreeMap;

use bourse_gateway::sockets::{Message, To};
use bourse_node::{HostFunction, Input};
use bourse_wire::v1;
use bourse_wire::value::Value;

use super::Driver;
use crate::daemon::outside::arguments::Given;
use crate::daemon::outside::{Task, success};

/// How many connections something has come to, by what has become of them.
pub(super) type Counts = BTreeMap<String, u64>;

impl Driver {
    pub(super) fn perform(&mut self, task: Task) {
        match task.function {
            HostFunction::Webhook | HostFunction::Mail => self.outside.perform(task),
            HostFunction::Send | HostFunction::Close | HostFunction::Join | HostFunction::Leave => {
                match self.perform_here(task.function, &task.payload) {
                    Ok(counts) => self.perform_everywhere(task, counts),
                    Err(failure) => self.performed(&task, Err(failure)),
                }
            }
        }
    }

    /// What was to be done is done, or not.
    pub(super) fn performed(&mut self, task: &Task, result: Result<Counts, v1::Failure>) {
        let pair = |(name, count): (String, u64)| (Value::Text(name), Value::Int(i128::from(count)));
        let result = result.map(|counts| success(&Value::Map(counts.into_iter().map(pair).collect())));
        self.handle(Input::Performed { call: task.call, attempt: task.attempt, result });
    }

    /// Does it with the connections that this node has.
    pub(super) fn perform_here(&self, function: HostFunction, payload: &[u8]) -> Result<Counts, v1::Failure> {
        let mut given = Given::read(function, payload)?;
        let sockets = self.gateway.sockets();
        let counts = match function {
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
        let pair = |(name, count): (&str, usize)| (name.to_owned(), count as u64);
        Ok(counts.into_iter().map(pair).collect())
    }
}
