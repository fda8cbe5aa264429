//! Whole conversations: `C:` is what the client sends, `S:` what it is answered; `!` what the owner is told to do.

use super::*;

fn settings() -> Arc<Settings> {
    Arc::new(Settings { hostname: "here".to_owned(), bytes_max: 1_000, recipients_max: 3, starttls: true })
}

/// Knows `orders@x` and `ü@x`, and takes every mail, unless told otherwise.
struct Owner {
    session: Session,
    told: String,
    deliveries: Vec<Mail>,
    delivery: Delivery,
}

impl Owner {
    fn new() -> Self {
        let session = Session::new(settings());
        let delivery = Delivery::Done("accepted".to_owned());
        Self { session, told: String::new(), deliveries: Vec::new(), delivery }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.session.feed(bytes);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.session.poll() {
            self.hear();
            match action {
                Action::Recipient(address) => self.session.recipient(match &*address.folded() {
                    "orders@x" | "orders@y" | "orders@z" | "orders@w" | "ü@x" => Verdict::Taken,
                    "later@x" => Verdict::Later("still loading".to_owned()),
                    _ => Verdict::Unknown,
                }),
                Action::Deliver(mail) => {
                    let to: Vec<_> = mail.recipients.iter().map(ToString::to_string).collect();
                    let text = String::from_utf8_lossy(&mail.data).replace("\r\n", "|");
                    self.told += &format!("! {} <- {text}\n", to.join(" "));
                    self.deliveries.push(mail);
                    self.session.delivered(self.delivery.clone());
                }
                Action::StartTls => {
                    self.told += "! tls\n";
                    self.session.secured();
                }
                Action::Close => self.told += "! close\n",
            }
        }
        self.hear();
    }

    fn hear(&mut self) {
        for line in String::from_utf8(self.session.take_output()).expect("ASCII").lines() {
            self.told += &format!("S: {line}\n");
        }
    }
}

/// What follows the lines of a client, however they are cut into pieces.
fn converse(lines: &[&str]) -> String {
    let bytes: Vec<u8> = lines.iter().flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect();
    let mut whole = Owner::new();
    whole.feed(&bytes);
    if !lines.contains(&"STARTTLS") {
        let mut pieces = Owner::new();
        bytes.iter().for_each(|byte| pieces.feed(std::slice::from_ref(byte)));
        assert_eq!(whole.told, pieces.told);
    }
    whole.told
}

#[track_caller]
fn check(lines: &[&str], expected: &str) {
    let told = converse(lines);
    let expected: Vec<_> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(told.trim().lines().collect::<Vec<_>>(), expected, "\n{told}");
}

#[test]
fn a_mail_is_taken() {
    check(
        &["EHLO me", "MAIL FROM:<a@b>", "RCPT TO:<orders@x>", "DATA", "Subject: s", "", "..dot", ".", "QUIT"],
        "S: 220 here ESMTP bourse
         S: 250-here
         S: 250-PIPELINING
         S: 250-SIZE 1000
         S: 250-8BITMIME
         S: 250-ENHANCEDSTATUSCODES
         S: 250-SMTPUTF8
         S: 250-HELP
         S: 250 STARTTLS
         S: 250 2.1.0 and to whom?
         S: 250 2.1.5 there is a function for that
         S: 354 end with a dot on a line of its own
         ! orders@x <- Subject: s||.dot|
         S: 250 2.0.0 accepted
         S: 221 2.0.0 bye
         ! close",
    );
}

#[test]
fn nobody_is_relayed_for() {
    check(
        &[
            "HELO me",
            "MAIL FROM:<>",
            "RCPT TO:<a@elsewhere>",
            "RCPT TO:<orders%x@elsewhere>",
            "RCPT TO:<@x:a@y>",
            "DATA",
            "QUIT",
        ],
        "S: 220 here ESMTP bourse
         S: 250 here
         S: 250 2.1.0 and to whom?
         S: 550 5.1.1 no function takes mail for <a@elsewhere>, and nothing is sent on from here
         S: 550 5.1.1 no function takes mail for <orders%x@elsewhere>, and nothing is sent on from here
         S: 550 5.1.1 no function takes mail for <a@y>, and nothing is sent on from here
         S: 503 5.5.1 there is no recipient
         S: 221 2.0.0 bye
         ! close",
    );
}

#[test]
fn order_matters() {
    check(
        &[
            "MAIL FROM:<a@b>",
            "RCPT TO:<orders@x>",
            "DATA",
            "HELO me",
            "MAIL FROM:<a@b> SIZE=1",
            "MAIL FROM:<a@b>",
            "MAIL FROM:<a@b>",
            "RSET",
            "RCPT TO:<orders@x>",
            "VRFY orders",
        ],
        "S: 220 here ESMTP bourse
         S: 503 5.5.1 say EHLO first
         S: 503 5.5.1 say MAIL first
         S: 503 5.5.1 say MAIL first
         S: 250 here
         S: 555 5.5.4 parameters are for those who say EHLO
         S: 250 2.1.0 and to whom?
         S: 503 5.5.1 there is a sender already; RSET begins anew
         S: 250 2.0.0 forgotten
         S: 503 5.5.1 say MAIL first
         S: 252 2.5.2 RCPT tells who is there",
    );
}

/// The replies to what follows EHLO, without those to it.
fn after_hello(lines: &[&str]) -> Vec<String> {
    let all: Vec<&str> = ["EHLO me"].iter().chain(lines).copied().collect();
    converse(&all).lines().skip(9).map(str::to_owned).collect()
}

#[test]
fn recipients_are_bounded_and_each_counts_once() {
    let rcpt = |name: &str| format!("RCPT TO:<{name}>");
    let lines = ["orders@x", "Orders@X", "orders@y", "later@x", "orders@z", "orders@w"].map(rcpt);
    let mut all = vec!["MAIL FROM:<a@b>"];
    all.extend(lines.iter().map(String::as_str));
    all.extend(["DATA", "x", "."]);
    let told = after_hello(&all);
    let codes: Vec<_> = told.iter().map(|line| &line[3..6.min(line.len())]).collect();
    assert_eq!(codes, ["250", "250", "250", "250", "451", "250", "452", "354", "rde", "250"], "{told:?}");
    assert!(told[8].starts_with("! orders@x orders@y orders@z <- x|"), "{told:?}");
}

#[test]
fn sizes() {
    assert!(
        after_hello(&["MAIL FROM:<a@b> SIZE=1001"])[0].contains("552 5.3.4 a mail has at most 1000 bytes")
    );
    let long = "x".repeat(500);
    let told = after_hello(&["MAIL FROM:<a@b>", "RCPT TO:<orders@x>", "DATA", &long, &long, ".", "NOOP"]);
    assert!(told[3].contains("552 5.3.4") && told[4].contains("250 2.0.0 done"), "{told:?}");
    let longer = "x".repeat(999);
    let told = after_hello(&["MAIL FROM:<a@b>", "RCPT TO:<orders@x>", "DATA", &longer, ".", "NOOP"]);
    assert!(told[3].contains("500 5.6.0 a line") && told[4].contains("250"), "{told:?}");
    let command = "NOOP ".to_owned() + &"x".repeat(2_000);
    assert_eq!(after_hello(&[&command]), ["S: 500 5.5.2 the line is too long for a command", "! close"]);
}

#[test]
fn addresses_that_are_not_ascii_need_smtputf8() {
    let told = after_hello(&["MAIL FROM:<ü@b>", "MAIL FROM:<a@b>", "RCPT TO:<ü@x>"]);
    assert!(told[0].contains("553 5.6.7") && told[2].contains("553 5.6.7"), "{told:?}");
    let told = after_hello(&["MAIL FROM:<ü@b> SMTPUTF8", "RCPT TO:<Ü@x>", "RCPT TO:<ß@x>"]);
    assert!(told[1].contains("250") && told[2].contains("<?@x>"), "replies are ASCII: {told:?}");
}

#[test]
fn a_mail_whose_end_is_not_clear_is_not_taken_and_nothing_behind_it_is_read() {
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\n", "\r\n.\r\r\n", "\0\n"] {
        let mut owner = Owner::new();
        owner.feed(b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<orders@x>\r\nDATA\r\n");
        let smuggled = format!(
            "Subject: one\r\n\r\ntext{end}MAIL FROM:<admin@b>\r\nRCPT TO:<orders@x>\r\nDATA\r\nsmuggled\r\n.\r\n"
        );
        owner.feed(smuggled.as_bytes());
        assert!(owner.told.contains("550 5.5.2 a CR or LF stands alone"), "{end:?}: {}", owner.told);
        assert!(owner.told.ends_with("! close\n"), "{end:?}: {}", owner.told);
        assert_eq!(owner.deliveries, [], "{end:?}");
        owner.feed(b"NOOP\r\n");
        assert!(owner.told.ends_with("! close\n"), "nothing follows: {}", owner.told);
    }
}

#[test]
fn commands_end_with_cr_lf() {
    for line in ["NOOP\n", "NOOP\rNOOP\r\n", "NOOP\r\r\n"] {
        let mut owner = Owner::new();
        owner.feed(line.as_bytes());
        assert!(owner.told.ends_with("neither stands alone\n! close\n"), "{line:?}: {}", owner.told);
    }
}

#[test]
fn what_a_browser_sends_is_not_listened_to() {
    for first in ["POST / HTTP/1.1", "GET / HTTP/1.1", "Host: localhost:7025"] {
        let told = converse(&[first, "EHLO me", "MAIL FROM:<a@b>", "RCPT TO:<orders@x>", "DATA", "x", "."]);
        assert!(told.ends_with("S: 521 5.7.0 this is SMTP, not HTTP\n! close\n"), "{told}");
    }
}

#[test]
fn starttls_forgets_what_was_said_and_takes_nothing_along() {
    let mut owner = Owner::new();
    owner.feed(b"EHLO me\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\n");
    assert!(owner.told.ends_with("S: 220 2.0.0 go ahead\n! tls\n"), "{}", owner.told);
    owner.told.clear();
    owner.feed(b"RCPT TO:<orders@x>\r\nMAIL FROM:<a@b>\r\nEHLO me\r\nSTARTTLS\r\n");
    assert!(owner.told.contains("say MAIL first") && owner.told.contains("say EHLO first"), "{}", owner.told);
    assert!(!owner.told.contains("250 STARTTLS"), "it is not offered twice");
    assert!(owner.told.ends_with("S: 502 5.5.1 STARTTLS is not offered\n"), "{}", owner.told);
    owner.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<orders@x>\r\nDATA\r\nx\r\n.\r\n");
    assert!(owner.deliveries[0].tls);

    let mut injected = Owner::new();
    injected.feed(b"EHLO me\r\nSTARTTLS\r\nMAIL FROM:<evil@b>\r\n");
    assert!(injected.told.ends_with("501 5.5.1 nothing follows STARTTLS before TLS has begun\n! close\n"));
}

#[test]
fn patience_has_an_end() {
    let told = after_hello(&["HALLO"; 20]);
    assert_eq!(told.len(), 12, "{told:?}");
    assert_eq!(told[10..], ["S: 421 4.7.0 too many mistakes", "! close"]);
    let told = after_hello(&["NOOP"; 2_000]);
    assert!(told.len() < 1_003 && told[told.len() - 2].contains("421 4.7.0"), "{}", told.len());
    let mut names = vec!["MAIL FROM:<a@b>"];
    names.extend(["RCPT TO:<nobody@x>"; 200]);
    let told = after_hello(&names);
    assert_eq!(told[101..], ["S: 421 4.7.0 too many recipients were not there", "! close"]);
}

#[test]
fn what_cannot_be_stored_can_be_sent_again() {
    for (delivery, expected) in [
        (Delivery::Later("not now".to_owned()), "451 4.3.0 not now"),
        (Delivery::Busy("full".to_owned()), "452 4.3.1 full"),
        (Delivery::TooLarge("large".to_owned()), "552 5.3.4 large"),
        (Delivery::Refused("no".to_owned()), "554 5.6.0 no"),
        (Delivery::Stopping, "421 4.3.2 the daemon is stopping; come again\n! close"),
    ] {
        let mut owner = Owner::new();
        owner.delivery = delivery;
        owner.feed(b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<orders@x>\r\nDATA\r\nx\r\n.\r\n");
        assert!(owner.told.ends_with(&format!("S: {expected}\n")), "{}", owner.told);
    }
}

#[test]
fn who_is_dismissed_in_the_middle_of_a_mail_has_sent_none() {
    let mut owner = Owner::new();
    owner.feed(b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<orders@x>\r\nDATA\r\nhalf of");
    assert!(owner.session.held() > 0);
    owner.session.dismiss(Dismissal::Idle);
    owner.carry_out();
    assert!(owner.told.ends_with("S: 421 4.4.2 nothing was said for too long\n! close\n"), "{}", owner.told);
    assert_eq!((owner.session.held(), owner.deliveries.len()), (0, 0));
}
