//! A mail as a function gets it: pure.
//!
//! | argument | is |
//! |---|---|
//! | `mail` | what it says: `from`, `to`, `cc`, `subject`, `date`, `message_id`, `text`, `html`, `headers`, `attachments` |
//! | `raw` | its bytes, as they came |
//! | `envelope` | how it came: `from`, `to`, `helo`, `peer`, `tls` |
//! | `recipient` | whom it is for |
//!
//! What can't be read is left out. A mail is not refused for what is in it, unless that is more parts than there may be.

use bourse_wire::value::Value;
use bytes::Bytes;
use mail_parser::decoders::html::html_to_text;
use mail_parser::parsers::MessageStream;
use mail_parser::{Address as Addresses, Header, HeaderName, HeaderValue, Message};

use super::parts::{Entity, Part};
use super::session::Mail;

/// The most headers that are listed; those beyond are in `raw`.
const HEADERS_MAX: usize = 1_000;

/// What a function may want of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Mail,
    Raw,
    Envelope,
    Recipient,
}

impl Role {
    pub(crate) const ALL: [Self; 4] = [Self::Mail, Self::Raw, Self::Envelope, Self::Recipient];

    /// The parameter that gets it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Raw => "raw",
            Self::Envelope => "envelope",
            Self::Recipient => "recipient",
        }
    }

    /// Something of its kind, to see whether a function takes it.
    pub(crate) fn sample(self) -> Bytes {
        match self {
            Self::Mail | Self::Envelope => Value::Map(Vec::new()),
            Self::Raw => Value::Bytes(Bytes::new()),
            Self::Recipient => Value::Text(String::new()),
        }
        .to_cbor()
    }
}

/// The arguments, encoded. Those that nobody wants are empty.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    mail: Bytes,
    raw: Bytes,
    envelope: Bytes,
    /// It has a Message-ID, so that it can be told from others that say the same.
    pub(crate) is_named: bool,
}

impl Content {
    /// `None`: it has too many parts.
    pub(crate) fn new(mail: &Mail, peer: &str, wants: impl Fn(Role) -> bool) -> Option<Self> {
        let made = |role: Role, make: &dyn Fn() -> Option<Value>| match wants(role) {
            true => make().map(|value| value.to_cbor()),
            false => Some(Bytes::new()),
        };
        let entity = Entity::new(&mail.data);
        Some(Self {
            mail: made(Role::Mail, &|| said(&mail.data))?,
            raw: made(Role::Raw, &|| Some(Value::Bytes(mail.data.clone())))?,
            envelope: made(Role::Envelope, &|| Some(envelope(mail, peer)))?,
            is_named: entity.head().and_then(Message::message_id).is_some_and(|id| !id.is_empty()),
        })
    }

    pub(crate) fn of(&self, role: Role, recipient: &str) -> Bytes {
        match role {
            Role::Mail => self.mail.clone(),
            Role::Raw => self.raw.clone(),
            Role::Envelope => self.envelope.clone(),
            Role::Recipient => text(recipient).to_cbor(),
        }
    }
}

fn envelope(mail: &Mail, peer: &str) -> Value {
    let to = mail.recipients.iter().map(|address| text(&address.to_string())).collect();
    map([
        ("from", mail.from.as_ref().map_or(Value::Null, |from| text(&from.to_string()))),
        ("to", Value::Array(to)),
        ("helo", text(&mail.helo)),
        ("peer", text(peer)),
        ("tls", Value::Bool(mail.tls)),
    ])
}

/// What the mail says. `None`: it has too many parts.
fn said(data: &[u8]) -> Option<Value> {
    let mail = Entity::new(data);
    let head = mail.head();
    let all = |given: Option<&Addresses<'_>>| {
        let all = given.into_iter().flat_map(Addresses::iter);
        all.filter_map(|address| address.address().map(text)).collect::<Vec<_>>()
    };
    let lists = |name: HeaderName<'static>| {
        let values = head.into_iter().flat_map(|head| head.headers()).filter(|header| header.name == name);
        Value::Array(values.flat_map(|header| all(header.value().as_address())).collect())
    };
    let from = all(head.and_then(Message::from)).into_iter().next();
    let date = head.and_then(Message::date).filter(|date| date.is_valid());
    let said = [
        ("from", from.unwrap_or(Value::Null)),
        ("to", lists(HeaderName::To)),
        ("cc", lists(HeaderName::Cc)),
        ("subject", text(head.and_then(Message::subject).unwrap_or_default())),
        ("date", date.map_or(Value::Null, |date| text(&date.to_rfc3339()))),
        ("message_id", head.and_then(Message::message_id).map_or(Value::Null, text)),
        ("headers", headers(&mail)),
    ];
    let parts = mail.parts()?;
    let body = |kind: &str| {
        let of_kind = parts.iter().filter(|part| part.is_body() && part.kind == kind);
        let texts: Vec<String> = of_kind.map(|part| part.text().replace("\r\n", "\n")).collect();
        (!texts.is_empty()).then(|| texts.join("\n"))
    };
    let (plain, html) = (body("text/plain"), body("text/html"));
    let plain = plain.or_else(|| html.as_deref().map(html_to_text));
    let value = |body: Option<String>| body.map_or(Value::Null, Value::Text);
    let attachments = parts.iter().filter(|part| !part.is_body()).map(attachment).collect();
    let bodies = [("text", value(plain)), ("html", value(html)), ("attachments", Value::Array(attachments))];
    Some(map(said.into_iter().chain(bodies)))
}

fn attachment(part: &Part<'_>) -> Value {
    let content = Bytes::from(part.content().into_owned());
    map([
        ("name", part.name().map_or(Value::Null, text)),
        ("type", text(&part.kind)),
        ("content", Value::Bytes(content)),
    ])
}

/// All headers in their order, unfolded and decoded.
fn headers(mail: &Entity<'_>) -> Value {
    let pair = |header: &Header<'_>| {
        let place = header.offset_start as usize..header.offset_end as usize;
        let raw = mail.head_bytes().get(place).unwrap_or_default();
        let value = match MessageStream::new(raw).parse_unstructured() {
            HeaderValue::Text(value) => value.trim().to_owned(),
            _ => String::new(),
        };
        Value::Array(vec![text(header.name()), text(&value)])
    };
    let all = mail.head().into_iter().flat_map(|head| head.headers());
    Value::Array(all.take(HEADERS_MAX).map(pair).collect())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn map<'n>(pairs: impl IntoIterator<Item = (&'n str, Value)>) -> Value {
    Value::Map(pairs.into_iter().map(|(name, value)| (text(name), value)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::address::Address;
    use super::*;

    fn read(data: &str) -> Json {
        said(data.replace('\n', "\r\n").as_bytes()).expect("it is not too deep").to_json()
    }

    #[test]
    fn a_mail_is_read() {
        let mail = read(
            "From: =?utf-8?q?Ada_B=C3=BCron?= <ada@x.org>
To: Orders <orders@y>, b@y
Cc: team: c@y, d@y;
Subject: =?iso-8859-1?Q?Gr=FC=DFe?=
Date: Fri, 1 Jan 2027 10:00:00 +0100
Message-ID: <1@x>
X-Long: one
 two
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b1

--b1
Content-Type: multipart/alternative; boundary=b2

--b2
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Gr=C3=BC=C3=9Fe
--b2
Content-Type: text/html

<p>hello</p>
--b2--
--b1
Content-Type: image/png; name=\"a.png\"
Content-Disposition: attachment; filename*=utf-8''%C3%BC.png
Content-Transfer-Encoding: base64

AAEC/w==
--b1--
",
        );
        assert_eq!(mail["from"], "ada@x.org");
        assert_eq!(mail["to"], json!(["orders@y", "b@y"]));
        assert_eq!(mail["cc"], json!(["c@y", "d@y"]));
        assert_eq!(mail["subject"], "Grüße");
        assert_eq!(mail["date"], "2027-01-01T10:00:00+01:00");
        assert_eq!(mail["message_id"], "1@x");
        assert_eq!((&mail["text"], &mail["html"]), (&json!("Grüße"), &json!("<p>hello</p>")));
        assert_eq!(mail["headers"][0], json!(["From", "Ada Büron <ada@x.org>"]));
        assert_eq!(mail["headers"][6], json!(["X-Long", "one two"]));
        assert_eq!(mail["attachments"], json!([{"name": "ü.png", "type": "image/png", "content": "AAEC_w"}]));
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let mail = read("\nonly text\n");
        let nothing = [&mail["from"], &mail["date"], &mail["message_id"], &mail["html"]];
        assert!(nothing.iter().all(|value| value.is_null()), "{mail}");
        assert_eq!((&mail["to"], &mail["subject"]), (&json!([]), &json!("")));
        for data in ["", "Subject: s", "no header at all", "From: \nTo: ,;<\nDate: never\n\n"] {
            read(data);
        }
        assert_eq!(read("no header at all")["text"], "no header at all");
        let html = read("Content-Type: text/html\n\n<p>a</p><p>b</p>\n");
        assert!(
            html["text"].as_str().is_some_and(|text| text.contains('a') && !text.contains("<p>")),
            "{html}"
        );
    }

    #[test]
    fn only_what_is_wanted_is_made() {
        let address = |text: &str| Address::parse(text).unwrap();
        let mail = Mail {
            from: None,
            recipients: vec![address("a@x"), address("b@x")],
            helo: "me".to_owned(),
            tls: true,
            data: Bytes::from_static(b"Message-ID: <1@x>\r\n\r\n"),
        };
        let content = Content::new(&mail, "::1", |role| role == Role::Envelope).unwrap();
        assert!(content.is_named && content.mail.is_empty() && content.raw.is_empty());
        let envelope = Value::from_cbor(&content.of(Role::Envelope, "a@x")).unwrap().to_json();
        let expected = json!({"from": null, "to": ["a@x", "b@x"], "helo": "me", "peer": "::1", "tls": true});
        assert_eq!(envelope, expected);
    }
}
