//! `bourse.mail`: one mail through the relay of the settings.
//!
//! Its `Message-ID` is made from the call's id: a mail that is sent twice is the same mail twice.

use std::path::PathBuf;
use std::time::Duration;

use bourse_node::HostFunction;
use bourse_wire::failure::Code;
use bourse_wire::v1;
use bourse_wire::value::Value;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use super::arguments::Given;
use super::{Task, hopeless, text, undelivered};
use crate::config::Config;

/// How long one command of the relay's may take.
const COMMAND_MAX: Duration = Duration::from_secs(60);
/// The most recipients of one mail.
const RECIPIENTS_MAX: usize = 100;
/// Headers that have an argument, or are not the caller's.
const OWN: [&str; 10] = [
    "from",
    "to",
    "cc",
    "bcc",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
];

/// Where mails go.
#[derive(Clone)]
pub(crate) struct Settings {
    /// `smtp://host:587`, `smtps://host`; empty: nowhere.
    relay: String,
    from: String,
    user: String,
    password: String,
    password_file: Option<PathBuf>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("relay", &self.relay)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl Settings {
    pub(super) fn from(config: &Config) -> Self {
        let text = |name| config.text(name).to_owned();
        Self {
            relay: text("mail_relay"),
            from: text("mail_from"),
            user: text("mail_user"),
            password: text("mail_password"),
            password_file: config.path("mail_password_file"),
        }
    }

    fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, v1::Failure> {
        let wrong = |why: String| hopeless(Code::Undelivered.because(why).hint(HINT));
        if self.relay.is_empty() {
            return Err(wrong("no relay is configured that takes mails".to_owned()));
        }
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(&self.relay)
            .map_err(|e| wrong(format!("the setting mail_relay is not a relay's URL: {e}")))?;
        let builder = builder.timeout(Some(COMMAND_MAX));
        if self.user.is_empty() {
            return Ok(builder.build());
        }
        let password = match &self.password_file {
            None => self.password.clone(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| undelivered(format!("{} cannot be read: {e}", path.display())))?
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
        };
        Ok(builder.credentials(Credentials::new(self.user.clone(), password)).build())
    }
}

const HINT: &str =
    "set `relay = \"smtp://…\"` and `from` in [mail] of bourse.toml, then `bourse dead replay` it";

/// Sends it; the result is `{message_id}`.
pub(super) async fn perform(task: &Task, settings: &Settings) -> Result<Value, v1::Failure> {
    let mut given = Given::read(HostFunction::Mail, &task.payload)?;
    let (message, id) = compose(&mut given, task, settings)?;
    let transport = settings.transport()?;
    match transport.send(message).await {
        Ok(_) => Ok(Value::Map(vec![(text("message_id"), text(id))])),
        Err(e) if e.is_permanent() => Err(hopeless(undelivered(format!("the relay refuses the mail: {e}")))),
        Err(e) => Err(undelivered(format!("the relay did not take the mail: {e}"))),
    }
}

fn compose(given: &mut Given, task: &Task, settings: &Settings) -> Result<(Message, String), v1::Failure> {
    let from = given.text_if_given("from_")?.unwrap_or_else(|| settings.from.clone());
    if from.is_empty() {
        let failure =
            Code::Undelivered.because("the mail has no sender: neither the call nor the settings have one");
        return Err(hopeless(failure.hint(HINT)));
    }
    let mailbox = |given: &Given, text: &str| -> Result<Mailbox, v1::Failure> {
        text.parse().map_err(|e| given.wrong(format!("{text:.200?} is not an address: {e}")))
    };
    let from = mailbox(given, &from)?;
    let id = format!("<{}@{}>", task.call, from.email.domain());
    let to = given.texts("to")?;
    if to.is_empty() || to.len() > RECIPIENTS_MAX {
        return Err(given.wrong(format!("a mail goes to 1 to {RECIPIENTS_MAX} addresses, not {}", to.len())));
    }
    let mut builder = Message::builder().from(from).message_id(Some(id.clone()));
    for recipient in to {
        builder = builder.to(mailbox(given, &recipient)?);
    }
    builder = builder.subject(one_line(given, "subject")?);
    for (name, value) in given.map("headers")? {
        let wrong = || given.wrong(format!("the header {name:.64?} cannot be set"));
        if OWN.iter().any(|own| own.eq_ignore_ascii_case(&name)) || value.contains(['\r', '\n', '\0']) {
            return Err(wrong());
        }
        let known = HeaderName::new_from_ascii(name.clone()).map_err(|_| wrong())?;
        builder = builder.raw_header(HeaderValue::new(known, value));
    }
    let plain = given.text_if_given("text")?.unwrap_or_default();
    let composed = match given.text_if_given("html")? {
        None => builder.singlepart(SinglePart::plain(plain)),
        Some(html) => builder.multipart(MultiPart::alternative_plain_html(plain, html)),
    };
    let message = composed.map_err(|e| given.wrong(format!("no mail can be made of that: {e}")))?;
    Ok((message, id))
}

fn one_line(given: &mut Given, name: &str) -> Result<String, v1::Failure> {
    let line = given.text(name)?;
    if line.contains(['\r', '\n', '\0']) {
        return Err(given.wrong(format!("{name} is one line")));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use bourse_wire::arguments::Arguments;
    use bourse_wire::id::{Attempt, CallId};

    use super::*;

    fn made(named: &[(&str, &str)]) -> Result<(Message, String), v1::Failure> {
        let named = named.iter().map(|(n, v)| ((*n).to_owned(), text(*v))).collect();
        let task = Task {
            call: CallId::new(1, [0; 10]),
            attempt: Attempt(1),
            function: HostFunction::Mail,
            payload: Arguments { positional: Vec::new(), named }.to_cbor(),
            traceparent: String::new(),
        };
        let settings = Settings {
            relay: String::new(),
            from: "Shop <shop@example.com>".to_owned(),
            user: String::new(),
            password: String::new(),
            password_file: None,
        };
        compose(&mut Given::read(HostFunction::Mail, &task.payload)?, &task, &settings)
    }

    #[test]
    fn its_id_is_the_calls() {
        let (first, id) = made(&[("to", "a@b.example"), ("subject", "Grüße"), ("text", "hello")]).unwrap();
        let (_, again) = made(&[("to", "a@b.example"), ("subject", "Grüße"), ("text", "hello")]).unwrap();
        assert_eq!(id, again);
        let text = String::from_utf8(first.formatted()).unwrap();
        assert!(text.contains(&format!("Message-ID: {id}")) && text.contains("To: a@b.example"), "{text}");
    }

    #[test]
    fn no_header_is_smuggled_in() {
        for bad in [
            vec![("to", "a@b.example"), ("subject", "x\r\nBcc: c@d.example")],
            vec![("to", "a@b.example\r\nBcc: c@d.example"), ("subject", "x")],
            vec![("to", "a@b.example"), ("subject", "x"), ("from", "nobody")],
            vec![("subject", "x")],
        ] {
            assert_eq!(made(&bad).unwrap_err().code, "bad_arguments", "{bad:?}");
        }
    }
}
