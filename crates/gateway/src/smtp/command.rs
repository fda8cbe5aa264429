//! Commands, as they come: one line each (RFC 5321 §4.1).

use super::address::Address;
use super::reply::{Reply, shown};

/// The longest line of a command, in bytes with its end (RFC 5321 §4.5.3.1.4).
pub(crate) const LINE_BYTES_MAX: usize = 512;

/// The same for MAIL and RCPT, which extensions make longer (RFC 1870, 6152, 6531).
pub(crate) const LONG_LINE_BYTES_MAX: usize = 1024;

/// The longest name that a client may say it has.
const NAME_BYTES_MAX: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// With the client's name; `extended` for EHLO.
    Hello {
        name: String,
        extended: bool,
    },
    /// `from` is `None` for `<>`.
    Mail {
        from: Option<Address>,
        size: Option<u64>,
        utf8: bool,
    },
    Rcpt {
        to: Address,
    },
    Data,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
    StartTls,
}

/// Reads a line without its end. What is wrong is said in a reply; `None`: whoever speaks does not speak SMTP.
pub(crate) fn parse(line: &[u8]) -> Option<Result<Command, Reply>> {
    let Ok(line) = std::str::from_utf8(line) else {
        return Some(Err(Reply::new(
            500,
            "5.5.2",
            "a command is ASCII, or UTF-8 in addresses after SMTPUTF8",
        )));
    };
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let verb = verb.to_ascii_uppercase();
    if is_of_http(&verb) {
        return None;
    }
    Some(read(&verb, rest, line.len() + 2))
}

/// A page in a browser can make it send a request whose body is a conversation in SMTP. So one that begins as HTTP does
/// is not listened to any further.
fn is_of_http(verb: &str) -> bool {
    const METHODS: [&str; 9] =
        ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"];
    METHODS.contains(&verb) || (verb.ends_with(':') && verb.len() > 1)
}

fn read(verb: &str, rest: &str, bytes: usize) -> Result<Command, Reply> {
    let alone = |command: Command| match rest.trim() {
        "" => Ok(command),
        _ => Err(Reply::new(501, "5.5.4", format!("{verb} stands alone"))),
    };
    if rest.chars().any(char::is_control) {
        return Err(Reply::new(501, "5.5.2", "a control character in a command"));
    }
    if bytes > LINE_BYTES_MAX && !["MAIL", "RCPT"].contains(&verb) {
        return Err(Reply::new(500, "5.5.2", format!("a command has at most {LINE_BYTES_MAX} bytes")));
    }
    if !rest.is_ascii() && !["MAIL", "RCPT"].contains(&verb) {
        return Err(Reply::new(500, "5.5.2", "a command is ASCII, but for addresses after SMTPUTF8"));
    }
    match verb {
        "HELO" | "EHLO" => {
            let name = rest.trim();
            if name.is_empty() || name.contains(' ') || name.len() > NAME_BYTES_MAX {
                return Err(Reply::new(501, "5.5.4", format!("write it as {verb} your.host.name")));
            }
            Ok(Command::Hello { name: name.to_owned(), extended: verb == "EHLO" })
        }
        "MAIL" => mail(rest),
        "RCPT" => {
            let (path, parameters) = path(rest, "TO:")?;
            if let Some(parameter) = parameters.split_ascii_whitespace().next() {
                return Err(Reply::new(
                    555,
                    "5.5.4",
                    format!("RCPT takes no parameter {}", shown(parameter)),
                ));
            }
            Ok(Command::Rcpt { to: address(path)? })
        }
        "DATA" => alone(Command::Data),
        "RSET" => alone(Command::Rset),
        "QUIT" => alone(Command::Quit),
        "STARTTLS" => alone(Command::StartTls),
        "NOOP" => Ok(Command::Noop),
        "HELP" => Ok(Command::Help),
        "VRFY" if rest.trim().is_empty() => Err(Reply::new(501, "5.5.4", "write it as VRFY user@domain")),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" | "TURN" | "SEND" | "SOML" | "SAML" | "AUTH" | "BDAT" | "ETRN" => {
            Err(Reply::new(502, "5.5.1", format!("{verb} is not offered")))
        }
        "" => Err(Reply::new(500, "5.5.2", "an empty line is no command")),
        _ => Err(Reply::new(500, "5.5.2", format!("there is no command {}", shown(verb)))),
    }
}

fn mail(rest: &str) -> Result<Command, Reply> {
    let (path, parameters) = path(rest, "FROM:")?;
    let from = if path.is_empty() { None } else { Some(address(path)?) };
    let (mut size, mut utf8, mut body) = (None, false, false);
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let wrong = || Reply::new(501, "5.5.4", format!("{} is not as it should be", shown(parameter)));
        match name.to_ascii_uppercase().as_str() {
            "SIZE" if size.is_none() && value.len() <= 20 && value.bytes().all(|b| b.is_ascii_digit()) => {
                // More digits than there are in a u64 are too many bytes as well.
                size = Some(if value.is_empty() {
                    return Err(wrong());
                } else {
                    value.parse().unwrap_or(u64::MAX)
                });
            }
            "BODY" if !body && ["7BIT", "8BITMIME"].contains(&value.to_ascii_uppercase().as_str()) => {
                body = true
            }
            "SMTPUTF8" if !utf8 && value.is_empty() => utf8 = true,
            "SIZE" | "BODY" | "SMTPUTF8" => return Err(wrong()),
            _ => return Err(Reply::new(555, "5.5.4", format!("MAIL takes no parameter {}", shown(name)))),
        }
    }
    Ok(Command::Mail { from, size, utf8 })
}

/// What stands between the angle brackets, and what follows.
fn path<'l>(rest: &'l str, word: &str) -> Result<(&'l str, &'l str), Reply> {
    let wrong = || Reply::new(501, "5.5.4", format!("write it as {word}<user@domain>"));
    let begins = rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let path = begins.then(|| rest[word.len()..].trim_start()).ok_or_else(wrong)?;
    let inner = path.strip_prefix('<').ok_or_else(wrong)?;
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => {
                let after = &inner[at + 1..];
                return match after.is_empty() || after.starts_with(' ') {
                    true => Ok((&inner[..at], after)),
                    false => Err(wrong()),
                };
            }
            _ => {}
        }
    }
    Err(wrong())
}

fn address(path: &str) -> Result<Address, Reply> {
    Address::parse(path).map_err(|error| Reply::new(501, "5.1.3", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> String {
        match parse(line.as_bytes()) {
            None => "not SMTP".to_owned(),
            Some(Ok(command)) => format!("{command:?}"),
            Some(Err(reply)) => {
                let mut out = Vec::new();
                reply.write(&mut out);
                String::from_utf8(out).unwrap().trim_end().to_owned()
            }
        }
    }

    #[test]
    fn commands() {
        let mail = |rest: &str| told(&format!("MAIL FROM:{rest}"));
        assert!(mail("<a@x>").contains("local: \"a\""));
        assert!(mail("<>").contains("from: None"));
        assert!(mail(" <a@x> SIZE=17 body=8BITMIME SMTPUTF8").contains("size: Some(17), utf8: true"));
        assert!(mail("<\"a>b\"@x>").contains("a>b"));
        for (line, start) in [
            ("ehlo x", "Hello"),
            ("EHLO", "501 5.5.4"),
            ("EHLO a b", "501 5.5.4"),
            ("EHLO ü", "500 5.5.2"),
            ("MAIL", "501 5.5.4"),
            ("MAIL FROM:a@x", "501 5.5.4"),
            ("MAIL FROM:<a@x", "501 5.5.4"),
            ("MAIL FROM:<a@x>SIZE=1", "501 5.5.4"),
            ("MAIL FROM:<a@x> SIZE=", "501 5.5.4"),
            ("MAIL FROM:<a@x> SIZE=1 SIZE=1", "501 5.5.4"),
            ("MAIL FROM:<a@x> BODY=BINARYMIME", "501 5.5.4"),
            ("MAIL FROM:<a@x> AUTH=<>", "555 5.5.4"),
            ("MAIL FROM:<a@@x>", "501 5.1.3"),
            ("RCPT TO:<>", "501 5.1.3"),
            ("RCPT TO:<a@x> NOTIFY=NEVER", "555 5.5.4"),
            ("RCPT TO:<ü@x>", "Rcpt"),
            ("DATA", "Data"),
            ("DATA now", "501 5.5.4"),
            ("NOOP what ever", "Noop"),
            ("VRFY", "501 5.5.4"),
            ("VRFY a", "Vrfy"),
            ("EXPN a", "502 5.5.1"),
            ("AUTH PLAIN AA==", "502 5.5.1"),
            ("", "500 5.5.2"),
            ("HALLO", "500 5.5.2 there is no command HALLO"),
            ("NOOP a\0b", "501 5.5.2"),
            ("POST / HTTP/1.1", "not SMTP"),
            ("Host: localhost", "not SMTP"),
        ] {
            assert!(told(line).starts_with(start), "{line:?}: {}", told(line));
        }
        assert!(told(&format!("NOOP {}", "x".repeat(600))).starts_with("500"));
        assert!(parse(b"NOOP \xff").unwrap().is_err());
    }
}
