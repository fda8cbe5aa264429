//! Mail in, calls out: a server for SMTP (RFC 5321) whose recipients are functions.
//!
//! ```text
//! client  -> gateway: EHLO, MAIL, RCPT, DATA           gateway -> client: replies
//! gateway -> daemon:  Event::Call, one per recipient   daemon -> gateway: Answer, once it is in the store
//! ```
//!
//! A mail is answered with 250 when it is in the store, as a durable call for each of its recipients. It never sends a mail on:
//! whom no function takes mail for is refused. It asks nobody for a password, since it does nothing for those who have one.
//!
//! | module | holds |
//! |---|---|
//! | `session`, `command`, `data`, `reply`, `address` | the protocol, as a machine without I/O |
//! | `serve`, [`tls`] | sockets, time limits |
//! | `mailboxes` | which function takes mail for whom |
//! | `content`, `parts` | what a function gets |
//! | `deliver` | calls, and what is said of them |
//!
//! The machine is our own. The crate `mailin` asks for the fate of a mail in a callback, which can't wait for a store without
//! holding up everybody; it leaves it to its user where lines end, which is what smuggling is about; and it has no bounds, no
//! SIZE and no SMTPUTF8.

mod address;
mod command;
mod content;
mod data;
mod deliver;
pub(crate) mod mailboxes;
mod parts;
mod reply;
mod serve;
mod session;
pub mod tls;

pub use address::Address;
pub use serve::{CONNECTIONS, Config, Limits, Listener, MAILS};
pub use session::{Action, Delivery, Dismissal, Mail, Session, Settings, Verdict};

/// A mail as a function gets it that takes all there is: what reading it makes of any bytes can be tried with this.
pub fn mail_arguments(mail: &Mail) -> Option<usize> {
    let content = content::Content::new(mail, "127.0.0.1", |_| true)?;
    Some(content::Role::ALL.into_iter().map(|role| content.of(role, "a@x").len()).sum())
}
