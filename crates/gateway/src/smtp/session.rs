//! One conversation, as a machine: bytes in, replies and actions out. It does no I/O and knows no clock.
//!
//! ```text
//! client -> session: bytes (feed)            session -> client: replies (take_output)
//! session -> owner:  Recipient(address)      owner -> session:  recipient(Verdict), before anything else
//! session -> owner:  Deliver(mail)           owner -> session:  delivered(Delivery), when the mail is in the store
//! session -> owner:  StartTls                owner -> session:  secured()
//! session -> owner:  Close                   nothing follows
//! owner   -> session: dismiss(why)           timed out, stopping: 421, Close
//! ```
//!
//! The owner feeds, polls until there is nothing more, sends the output, and then only waits or reads. A client may send
//! commands ahead of the replies (RFC 2920); they are answered in order.
//!
//! It is strict where leniency lets two servers read one conversation in two ways: lines end with CR LF and nothing else, and
//! nothing follows STARTTLS (CVE-2011-0411). It never relays: who is no recipient here is refused.

use std::sync::Arc;

use bytes::Bytes;

use super::address::Address;
use super::command::{self, Command};
use super::data::{Data, Flaw, Progress};
use super::reply::{Reply, shown, write_lines};

/// Commands that make no sense, before the connection is closed. A mail that is taken makes up for them.
const MISTAKES_MAX: usize = 10;

/// Recipients that are refused, before the connection is closed: who tries names is not to have them for nothing.
const REFUSED_MAX: usize = 100;

/// Commands between two mails.
const COMMANDS_MAX: usize = 1_000;

/// What does not change during a conversation.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the server calls itself.
    pub hostname: String,
    /// The largest mail, in bytes.
    pub bytes_max: usize,
    /// The most recipients of one mail. RFC 5321 §4.5.3.1.8 wants 100 at least.
    pub recipients_max: usize,
    /// STARTTLS is offered.
    pub starttls: bool,
}

/// What the owner has to do.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Say whether there is such a recipient.
    Recipient(Address),
    /// Store it, for all of its recipients.
    Deliver(Mail),
    /// Send the output, and begin with TLS.
    StartTls,
    /// Send the output, and close the connection.
    Close,
}

/// A mail as it came, with its envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    /// `None`: a notification, to which nobody answers.
    pub from: Option<Address>,
    /// At least one, each once.
    pub recipients: Vec<Address>,
    /// What the client has called itself.
    pub helo: String,
    /// It came over TLS.
    pub tls: bool,
    /// Headers and body, with dots as they were before they were doubled.
    pub data: Bytes,
}

/// Whether mail for somebody is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Taken,
    /// Nobody has that address.
    Unknown,
    /// Nobody knows yet; why.
    Later(String),
}

/// What has become of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is in the store for all recipients; what to say of it.
    Done(String),
    /// Not for all of them, and it may be sent again; why.
    Later(String),
    /// The same, because there is too much to do.
    Busy(String),
    /// The same, because the daemon stops.
    Stopping,
    /// It is larger than what a function can be called with.
    TooLarge(String),
    /// It cannot be, now or later; why.
    Refused(String),
}

/// Why a conversation ends before the client wants it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// It said nothing for too long.
    Idle,
    /// The daemon stops.
    Stopping,
    /// There is no room for what it sends.
    Full,
}

/// What the session waits for.
#[derive(Debug)]
enum Stage {
    Command,
    Data(Data),
    /// An answer of the owner's.
    Verdict(Address),
    Delivery,
    Tls,
    /// Over; told or not.
    Closing,
    Closed,
}

/// A mail whose data is not there yet.
#[derive(Debug)]
struct Envelope {
    from: Option<Address>,
    utf8: bool,
    recipients: Vec<Address>,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    stage: Stage,
    input: Vec<u8>,
    /// What of `input` has been dealt with.
    read: usize,
    output: Vec<u8>,
    /// The client's name, and whether it said EHLO.
    hello: Option<(String, bool)>,
    envelope: Option<Envelope>,
    tls: bool,
    mistakes: usize,
    refused: usize,
    commands: usize,
}

impl Session {
    /// A connection that has just been accepted; the greeting is in the output.
    pub fn new(settings: Arc<Settings>) -> Self {
        let greeting = Reply::new(220, "", format!("{} ESMTP bourse", settings.hostname));
        let mut session = Self {
            settings,
            stage: Stage::Command,
            input: Vec::new(),
            read: 0,
            output: Vec::new(),
            hello: None,
            envelope: None,
            tls: false,
            mistakes: 0,
            refused: 0,
            commands: 0,
        };
        session.say(&greeting);
        session
    }

    /// Takes what came. To be called when `poll` has nothing to do, so that what is kept is bounded by what is fed.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.drain(..self.read);
        self.read = 0;
        self.input.extend_from_slice(bytes);
    }

    /// Goes on as far as it can. `None`: it waits, for bytes or for an answer.
    pub fn poll(&mut self) -> Option<Action> {
        loop {
            match &mut self.stage {
                Stage::Verdict(_) | Stage::Delivery | Stage::Tls | Stage::Closed => return None,
                Stage::Closing => {
                    self.stage = Stage::Closed;
                    return Some(Action::Close);
                }
                Stage::Data(data) => {
                    let (used, progress) = data.feed(&self.input[self.read..]);
                    self.read += used;
                    match progress {
                        Progress::More => return None,
                        Progress::Whole => {
                            if let Some(action) = self.on_whole() {
                                return Some(action);
                            }
                        }
                        Progress::Broken(flaw) => self.close(&told(flaw, &self.settings)),
                    }
                }
                Stage::Command => {
                    let rest = &self.input[self.read..];
                    let bytes = rest.iter().position(|b| *b == b'\n').map(|end| end + 1);
                    if bytes.unwrap_or(rest.len()) > command::LONG_LINE_BYTES_MAX {
                        self.close(&Reply::new(500, "5.5.2", "the line is too long for a command"));
                        continue;
                    }
                    let line = rest[..bytes?].to_vec();
                    self.read += line.len();
                    if let Some(action) = self.on_line(&line) {
                        return Some(action);
                    }
                }
            }
        }
    }

    /// Whether there is a recipient of that name: the answer to [`Action::Recipient`].
    pub fn recipient(&mut self, verdict: Verdict) {
        let Stage::Verdict(address) = std::mem::replace(&mut self.stage, Stage::Command) else {
            unreachable!("an answer follows its question");
        };
        let name = shown(&address.to_string());
        match (verdict, &mut self.envelope) {
            (Verdict::Taken, Some(envelope)) => {
                // The same one twice is one recipient.
                if !envelope.recipients.iter().any(|known| known.folded() == address.folded()) {
                    envelope.recipients.push(address);
                }
                self.say(&Reply::new(250, "2.1.5", "there is a function for that"));
            }
            (Verdict::Later(why), _) => self.say(&Reply::new(451, "4.3.0", why)),
            (Verdict::Unknown, _) | (Verdict::Taken, None) => {
                self.refused += 1;
                let text = format!("no function takes mail for <{name}>, and nothing is sent on from here");
                self.say(&Reply::new(550, "5.1.1", text));
                if self.refused >= REFUSED_MAX {
                    self.close(&Reply::new(421, "4.7.0", "too many recipients were not there"));
                }
            }
        }
    }

    /// What has become of the mail: the answer to [`Action::Deliver`].
    pub fn delivered(&mut self, delivery: Delivery) {
        assert!(matches!(self.stage, Stage::Delivery), "an answer follows its question");
        self.stage = Stage::Command;
        match delivery {
            Delivery::Done(text) => {
                (self.commands, self.refused, self.mistakes) = (0, 0, 0);
                self.say(&Reply::new(250, "2.0.0", text));
            }
            Delivery::Later(why) => self.say(&Reply::new(451, "4.3.0", why)),
            Delivery::Busy(why) => self.say(&Reply::new(452, "4.3.1", why)),
            Delivery::TooLarge(why) => self.say(&Reply::new(552, "5.3.4", why)),
            Delivery::Refused(why) => self.say(&Reply::new(554, "5.6.0", why)),
            Delivery::Stopping => self.dismiss(Dismissal::Stopping),
        }
    }

    /// TLS has begun: what was said before is forgotten (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        assert!(matches!(self.stage, Stage::Tls), "TLS begins when the session says so");
        *self = Self { stage: Stage::Command, tls: true, ..Self::new(Arc::clone(&self.settings)) };
        self.output.clear();
    }

    /// Ends the conversation, unless it has ended. A mail that is on its way is not taken.
    pub fn dismiss(&mut self, why: Dismissal) {
        let reply = match why {
            Dismissal::Idle => Reply::new(421, "4.4.2", "nothing was said for too long"),
            Dismissal::Stopping => Reply::new(421, "4.3.2", "the daemon is stopping; come again"),
            Dismissal::Full => Reply::new(421, "4.3.1", "too many large mails are coming in; come again"),
        };
        if !matches!(self.stage, Stage::Closing | Stage::Closed) {
            self.close(&reply);
        }
    }

    /// What is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// A mail is coming in.
    pub fn is_in_data(&self) -> bool {
        matches!(self.stage, Stage::Data(_))
    }

    /// How many bytes of a mail it has in memory.
    pub fn held(&self) -> usize {
        match &self.stage {
            Stage::Data(data) => data.held(),
            _ => 0,
        }
    }

    /// A line, with its end.
    fn on_line(&mut self, line: &[u8]) -> Option<Action> {
        let Some(line) = line.strip_suffix(b"\r\n").filter(|line| !line.contains(&b'\r')) else {
            self.close(&Reply::new(500, "5.5.2", "lines end with CR LF, and neither stands alone"));
            return None;
        };
        self.commands += 1;
        if self.commands > COMMANDS_MAX {
            self.close(&Reply::new(421, "4.7.0", "too many commands without a mail"));
            return None;
        }
        let Some(command) = command::parse(line) else {
            self.close(&Reply::new(521, "5.7.0", "this is SMTP, not HTTP"));
            return None;
        };
        match command.and_then(|command| self.on_command(command)) {
            Ok(action) => action,
            Err(reply) => {
                self.say(&reply);
                self.mistakes += usize::from(reply.is_refusal());
                if self.mistakes >= MISTAKES_MAX {
                    self.close(&Reply::new(421, "4.7.0", "too many mistakes"));
                }
                None
            }
        }
    }

    fn on_command(&mut self, command: Command) -> Result<Option<Action>, Reply> {
        match command {
            Command::Hello { name, extended } => self.on_hello(name, extended),
            Command::Mail { from, size, utf8 } => self.on_mail(from, size, utf8)?,
            Command::Rcpt { to } => return self.on_recipient(to).map(Some),
            Command::Data => self.on_data()?,
            Command::StartTls => return self.on_starttls(),
            Command::Rset => {
                self.envelope = None;
                self.say(&Reply::new(250, "2.0.0", "forgotten"));
            }
            Command::Noop => self.say(&Reply::new(250, "2.0.0", "done")),
            Command::Vrfy => self.say(&Reply::new(252, "2.5.2", "RCPT tells who is there")),
            Command::Help => {
                let lines =
                    ["HELO EHLO MAIL RCPT DATA RSET NOOP VRFY STARTTLS QUIT", "Mail wakes functions here"];
                write_lines(214, &lines.map(str::to_owned), &mut self.output);
            }
            Command::Quit => self.close(&Reply::new(221, "2.0.0", "bye")),
        }
        Ok(None)
    }

    fn on_hello(&mut self, name: String, extended: bool) {
        self.envelope = None;
        self.hello = Some((name, extended));
        let hostname = self.settings.hostname.clone();
        if !extended {
            return self.say(&Reply::new(250, "", hostname));
        }
        let mut lines = vec![hostname, "PIPELINING".to_owned(), format!("SIZE {}", self.settings.bytes_max)];
        lines.extend(["8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "HELP"].map(str::to_owned));
        if self.settings.starttls && !self.tls {
            lines.push("STARTTLS".to_owned());
        }
        write_lines(250, &lines, &mut self.output);
    }

    fn on_mail(&mut self, from: Option<Address>, size: Option<u64>, utf8: bool) -> Result<(), Reply> {
        let out_of_order = |text: &'static str| Err(Reply::new(503, "5.5.1", text));
        let Some((_, extended)) = self.hello else { return out_of_order("say EHLO first") };
        if self.envelope.is_some() {
            return out_of_order("there is a sender already; RSET begins anew");
        }
        if !extended && (size.is_some() || utf8) {
            return Err(Reply::new(555, "5.5.4", "parameters are for those who say EHLO"));
        }
        if size.is_some_and(|size| size > self.settings.bytes_max as u64) {
            return Err(told(Flaw::TooLarge, &self.settings));
        }
        if !utf8 && from.as_ref().is_some_and(Address::is_international) {
            return Err(not_international());
        }
        self.envelope = Some(Envelope { from, utf8, recipients: Vec::new() });
        self.say(&Reply::new(250, "2.1.0", "and to whom?"));
        Ok(())
    }

    fn on_recipient(&mut self, to: Address) -> Result<Action, Reply> {
        let Some(envelope) = &self.envelope else {
            return Err(Reply::new(503, "5.5.1", "say MAIL first"));
        };
        if !envelope.utf8 && to.is_international() {
            return Err(not_international());
        }
        if envelope.recipients.len() >= self.settings.recipients_max {
            let text = format!("a mail has at most {} recipients here", self.settings.recipients_max);
            return Err(Reply::new(452, "4.5.3", text));
        }
        self.stage = Stage::Verdict(to.clone());
        Ok(Action::Recipient(to))
    }

    fn on_data(&mut self) -> Result<(), Reply> {
        match &self.envelope {
            None => Err(Reply::new(503, "5.5.1", "say MAIL first")),
            Some(envelope) if envelope.recipients.is_empty() => {
                Err(Reply::new(503, "5.5.1", "there is no recipient"))
            }
            Some(_) => {
                self.stage = Stage::Data(Data::new(self.settings.bytes_max));
                self.say(&Reply::new(354, "", "end with a dot on a line of its own"));
                Ok(())
            }
        }
    }

    /// All of a mail's data is there.
    fn on_whole(&mut self) -> Option<Action> {
        let Stage::Data(data) = std::mem::replace(&mut self.stage, Stage::Command) else {
            unreachable!("data ends where it is read");
        };
        let (Some(envelope), Some((helo, _))) = (self.envelope.take(), self.hello.clone()) else {
            unreachable!("DATA follows MAIL, and that EHLO");
        };
        match data.finish() {
            Ok(data) => {
                self.stage = Stage::Delivery;
                let Envelope { from, recipients, .. } = envelope;
                Some(Action::Deliver(Mail { from, recipients, helo, tls: self.tls, data }))
            }
            Err(flaw) => {
                self.say(&told(flaw, &self.settings));
                None
            }
        }
    }

    fn on_starttls(&mut self) -> Result<Option<Action>, Reply> {
        if !self.settings.starttls || self.tls {
            return Err(Reply::new(502, "5.5.1", "STARTTLS is not offered"));
        }
        if self.read < self.input.len() {
            // What was sent in the clear would be taken for what was said under TLS.
            self.close(&Reply::new(501, "5.5.1", "nothing follows STARTTLS before TLS has begun"));
            return Ok(None);
        }
        self.say(&Reply::new(220, "2.0.0", "go ahead"));
        self.stage = Stage::Tls;
        Ok(Some(Action::StartTls))
    }

    fn say(&mut self, reply: &Reply) {
        reply.write(&mut self.output);
    }

    /// Says the last word. What the client has sent beyond is not looked at.
    fn close(&mut self, reply: &Reply) {
        self.say(reply);
        self.envelope = None;
        self.input.clear();
        self.read = 0;
        self.stage = Stage::Closing;
    }
}

fn not_international() -> Reply {
    Reply::new(553, "5.6.7", "an address that is not ASCII needs SMTPUTF8 in MAIL")
}

fn told(flaw: Flaw, settings: &Settings) -> Reply {
    match flaw {
        Flaw::Ambiguous => Reply::new(
            550,
            "5.5.2",
            "a CR or LF stands alone, so that the end is not clear; the mail is not taken",
        ),
        Flaw::Endless => Reply::new(552, "5.3.4", "the mail does not end"),
        Flaw::TooLarge => {
            Reply::new(552, "5.3.4", format!("a mail has at most {} bytes here", settings.bytes_max))
        }
        Flaw::LongLine => {
            let most = super::data::LINE_BYTES_MAX;
            Reply::new(500, "5.6.0", format!("a line of the mail has more than {most} bytes; encode it"))
        }
        Flaw::Nul => Reply::new(554, "5.6.0", "a NUL byte in the mail; encode it"),
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
