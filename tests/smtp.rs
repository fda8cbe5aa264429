//! Mail, with clients that are not ours: Python's smtplib, and bare sockets that say what no client would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::support::{Daemon, PATIENCE, Setup, wait_for};

const SHOP: (&str, &str) = (
    "shop.py",
    "
    from bourse import context, function, state

    @function(mail=['orders@shop.example', 'sales@*'])
    def order(mail, raw, envelope, recipient):
        number = (state('orders/count').get() or 0) + 1
        state('orders/count').set(number)
        state(f'orders/{number}').set({'mail': mail, 'raw': raw, 'envelope': envelope, 'recipient': recipient, 'trigger': [context.trigger.kind, context.trigger.name]})

    @function(mail='*@shop.example')
    def others(letter):
        state('others/last').set(letter['subject'])

    @function
    def orders():
        return [state(f'orders/{n + 1}').get() for n in range(state('orders/count').get() or 0)]

    @function
    def last():
        return state('others/last').get()

    # At home in one of eight scopes.
    @function(mail='count@*', retry={'attempts': 1000, 'pause': '1ms', 'pause_max': '20ms'})
    def count(mail):
        n = int(mail['subject'])
        total = state(f'ledger{n % 8}/count')
        total.set((total.get() or 0) + 1)
        seen = state(f'ledger{n % 8}/of/{n}')
        seen.set((seen.get() or 0) + 1)

    @function
    def counted():
        return sum(state(f'ledger{i}/count').get() or 0 for i in range(8))

    @function
    def doubled(i: int):
        found, page = [], state(f'ledger{i}/of').list(limit=500)
        while page:
            found += [row.key for row in page if row.value != 1]
            page = page.next()
        return found
    ",
);

/// A daemon that takes mail at any free port.
fn mail(setup: Setup) -> Daemon {
    setup.argument("--smtp").argument("127.0.0.1:0").up()
}

/// Where it takes mail.
fn address(daemon: &Daemon) -> SocketAddr {
    let status = daemon.get("/v1/status").ok();
    let url = status["smtp"].as_str().expect("it takes mail").to_owned();
    url.strip_prefix("smtp://").and_then(|address| address.parse().ok()).expect("an address")
}

/// Runs a Python program, with the port first among its arguments. Gives what it printed.
#[track_caller]
fn python(daemon: &Daemon, program: &str, arguments: &[&str]) -> String {
    let output = python_command(daemon.folder().parent().expect("a place"), program)
        .arg(address(daemon).port().to_string())
        .args(arguments)
        .output()
        .expect("Python runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{}", daemon.log());
    said
}

fn python_command(place: &Path, program: &str) -> Command {
    let file = place.join("client.py");
    let lines = program.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).expect("a file is written");
    let mut command = Command::new("python3");
    command.arg(file).stdin(Stdio::null());
    command
}

/// A client that says what it likes.
struct Raw {
    socket: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Raw {
    fn connect(daemon: &Daemon) -> Self {
        let socket = TcpStream::connect(address(daemon)).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let reader = BufReader::new(socket.try_clone().expect("a descriptor"));
        let mut raw = Self { socket, reader };
        assert_eq!(raw.code(), 220);
        raw
    }

    fn say(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("it reads");
    }

    /// The code of the next reply; 0 where there is none any more.
    fn code(&mut self) -> u16 {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).unwrap_or(0) == 0 {
                return 0;
            }
            if line.as_bytes()[3] == b' ' {
                return line[..3].parse().expect("a code");
            }
        }
    }

    /// Until data is awaited.
    fn begin(&mut self, recipient: &str) {
        self.say(format!("EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n").as_bytes());
        assert_eq!([self.code(), self.code(), self.code(), self.code()], [250, 250, 250, 354]);
    }
}

/// A certificate for localhost, and its key.
fn certificate(place: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (place.join("cert.pem"), place.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("a file");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    (cert, key)
}

#[test]
fn a_mail_of_smtplib_over_tls_wakes_each_recipients_function() {
    let setup = Setup::new(&[SHOP]);
    let (cert, key) = certificate(&setup.folder());
    let path = |path: &Path| path.display().to_string();
    let daemon = mail(setup.set("smtp_cert", &path(&cert)).set("smtp_key", &path(&key)));
    python(
        &daemon,
        "
    import smtplib, ssl, sys
    from email.message import EmailMessage

    mail = EmailMessage()
    mail['From'] = 'Ada Büron <ada@example.com>'
    mail['To'] = 'Orders <orders@shop.example>, sales@anywhere.example'
    mail['Cc'] = 'else@shop.example'
    mail['Subject'] = 'Grüße, 2 × Tee'
    mail['Date'] = 'Fri, 01 Jan 2027 10:00:00 +0100'
    mail['Message-ID'] = '<one@example.com>'
    mail.set_content('Zwei Päckchen.\\n.\\n..\\n')
    mail.add_alternative('<p>Zwei Päckchen.</p>', subtype='html')
    mail.add_attachment(bytes(range(256)), maintype='application', subtype='pdf', filename='Übersicht.pdf')
    mail.add_attachment('a;b', subtype='csv', filename='a.csv')

    with smtplib.SMTP('localhost', int(sys.argv[1]), timeout=30) as server:
        for extension in ('pipelining', 'size', '8bitmime', 'smtputf8', 'enhancedstatuscodes', 'starttls'):
            server.ehlo_or_helo_if_needed()
            assert server.has_extn(extension), extension
        server.starttls(context=ssl.create_default_context(cafile=sys.argv[2]))
        assert server.send_message(mail, to_addrs=['Orders+7@Shop.Example', 'sales@anywhere.example', 'else@shop.example']) == {}
        assert not server.has_extn('starttls')
    ",
        &[&path(&cert)],
    );
    let orders = || daemon.call("shop.orders", json!({})).ok();
    wait_for("both have come", || orders().as_array().is_some_and(|orders| orders.len() == 2));
    wait_for("the third has come", || daemon.call("shop.last", json!({})).ok() == "Grüße, 2 × Tee");
    let both = orders();
    let of = |recipient: &str| {
        both.as_array().unwrap().iter().find(|o| o["recipient"] == recipient).unwrap().clone()
    };
    let (order, _) = (of("Orders+7@Shop.Example"), of("sales@anywhere.example"));
    let letter = &order["mail"];
    assert_eq!(order["trigger"], json!(["mail", "Orders+7@Shop.Example"]));
    assert_eq!(letter["from"], "ada@example.com");
    assert_eq!(letter["to"], json!(["orders@shop.example", "sales@anywhere.example"]));
    assert_eq!(letter["cc"], json!(["else@shop.example"]));
    assert_eq!(
        (&letter["subject"], &letter["date"]),
        (&json!("Grüße, 2 × Tee"), &json!("2027-01-01T10:00:00+01:00"))
    );
    assert_eq!(letter["message_id"], "one@example.com");
    assert_eq!(letter["text"], "Zwei Päckchen.\n.\n..\n");
    assert!(letter["html"].as_str().unwrap().starts_with("<p>Zwei Päckchen.</p>"), "{letter}");
    assert_eq!(letter["headers"][0], json!(["From", "Ada Büron <ada@example.com>"]));
    let files = letter["attachments"].as_array().unwrap();
    assert_eq!(
        files.iter().map(|f| [&f["name"], &f["type"]]).collect::<Vec<_>>(),
        [[&json!("Übersicht.pdf"), &json!("application/pdf")], [&json!("a.csv"), &json!("text/csv")]]
    );
    assert!(files[0]["content"].as_str().unwrap().starts_with("AAECAwQFBgc"), "{letter}");
    let envelope = &order["envelope"];
    assert_eq!((&envelope["tls"], &envelope["peer"]), (&json!(true), &json!("127.0.0.1")));
    assert_eq!(envelope["from"], "ada@example.com");
    assert_eq!(envelope["to"].as_array().map(Vec::len), Some(3));
    assert!(order["raw"].as_str().is_some_and(|raw| raw.len() > 500), "{order}");
}

#[test]
fn who_has_no_function_gets_no_mail_and_nobody_is_relayed_for() {
    let daemon = mail(Setup::new(&[SHOP]).set("smtp_bytes_max", "20KiB"));
    let said = python(
        &daemon,
        "
    import smtplib, sys

    def refused(recipient, text='Subject: s\\r\\n\\r\\ntext', sender='a@b.example', **more):
        with smtplib.SMTP('127.0.0.1', int(sys.argv[1]), timeout=30) as server:
            try:
                return server.sendmail(sender, recipient, text, **more)
            except smtplib.SMTPRecipientsRefused as error:
                return list(error.recipients.values())
            except smtplib.SMTPResponseException as error:
                return [(error.smtp_code, error.smtp_error)]

    print(refused('somebody@elsewhere.example'))
    print(refused('orders%elsewhere.example@shop.invalid'))
    print(refused(['orders@shop.example', 'nobody@elsewhere.example']))
    print(refused('orders@shop.example', 'x' * 900 + '\\r\\n' + ('y' * 900 + '\\r\\n') * 30))
    print(refused('orders@shop.example', 'x' * 999))
    print(refused('orders@shop.example', 'nul\\0'))
    print(refused('', ''))
    print(refused('büro@shop.example', mail_options=['SMTPUTF8'], sender='ä@b.example'))
    with smtplib.SMTP('127.0.0.1', int(sys.argv[1]), timeout=30) as server:
        print(server.verify('orders')[0], server.docmd('EXPN', 'all')[0], server.docmd('STARTTLS')[0], server.noop()[0], server.help()[:4])
    ",
        &[],
    );
    let lines: Vec<&str> = said.lines().collect();
    let starts = [
        "[(550, b'5.1.1 no function takes mail for <somebody@elsewhere.example>, and nothing is sent on from here')]",
        "[(550, b'5.1.1",
        "{'nobody@elsewhere.example': (550, b'5.1.1",
        "[(552, b'5.3.4 a mail has at most 20480 bytes here')]",
        "[(500, b'5.6.0 a line of the mail has more than 998 bytes; encode it')]",
        "[(554, b'5.6.0 a NUL byte",
        "[(501, b'5.1.3",
        "{}",
        "252 502 502 250 b'HELO",
    ];
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\nnot {start}");
    }
    assert_eq!(lines.len(), starts.len(), "{said}");
    // One of two recipients was taken, and the one with an umlaut.
    wait_for("one has come", || {
        daemon.call("shop.orders", json!({})).ok().as_array().map(Vec::len) == Some(1)
    });
    assert!(daemon.get("/metrics").text().contains("bourse_smtp_mails_total{outcome=\"accepted\"} 2"));
}

#[test]
fn what_is_smuggled_or_cut_off_is_not_accepted() {
    let daemon = mail(Setup::new(&[SHOP]));
    // 1. A second mail within the first, by each end of line that somebody might take for one.
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\n", "\r\n.\r\r\n", "\r\n\0.\n"] {
        let mut raw = Raw::connect(&daemon);
        raw.begin("orders@shop.example");
        let second =
            "MAIL FROM:<admin@b>\r\nRCPT TO:<orders@shop.example>\r\nDATA\r\nsmuggled\r\n.\r\nQUIT\r\n";
        raw.say(format!("Subject: first\r\n\r\ntext{end}{second}").as_bytes());
        assert_eq!((raw.code(), raw.code()), (550, 0), "{end:?}");
    }
    // 2. Commands that end with less than CR LF, or are HTTP.
    for (bytes, code) in
        [(&b"EHLO me\nMAIL FROM:<a@b>\n"[..], 500), (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nEHLO me\r\n", 521)]
    {
        let mut raw = Raw::connect(&daemon);
        raw.say(bytes);
        assert_eq!((raw.code(), raw.code()), (code, 0));
    }
    // 3. A client that goes away in the middle, and one that dies behind the dot's line but for its end.
    for text in
        ["Subject: cut\r\n\r\nhalf of it", "Subject: cut\r\n\r\nall\r\n.", "Subject: cut\r\n\r\nall\r\n.\r"]
    {
        let mut raw = Raw::connect(&daemon);
        raw.begin("orders@shop.example");
        raw.say(text.as_bytes());
        raw.socket.shutdown(std::net::Shutdown::Write).expect("a socket");
        let mut rest = Vec::new();
        raw.reader.read_to_end(&mut rest).expect("it closes");
        assert_eq!(rest, b"", "{text:?}");
    }
    // 4. All at once, as RFC 2920 allows: only that comes.
    let mut raw = Raw::connect(&daemon);
    raw.say(b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<orders@shop.example>\r\nRCPT TO:<ORDERS@shop.example>\r\nDATA\r\n");
    let codes: Vec<_> = (0..5).map(|_| raw.code()).collect();
    assert_eq!(codes, [250, 250, 250, 250, 354]);
    raw.say(b"Subject: whole\r\n\r\ntext\r\n.\r\nQUIT\r\n");
    assert_eq!((raw.code(), raw.code(), raw.code()), (250, 221, 0));
    wait_for("it has come", || {
        daemon.call("shop.orders", json!({})).ok().as_array().map(Vec::len) == Some(1)
    });
    let order = daemon.call("shop.orders", json!({})).ok()[0].clone();
    assert_eq!((&order["mail"]["subject"], &order["envelope"]["from"]), (&json!("whole"), &Json::Null));
    assert_eq!(daemon.get("/v1/calls").ok()["calls"].as_array().map(Vec::len), Some(1));
}

#[test]
fn equal_mails_are_one_if_they_have_an_id_and_several_if_not() {
    let daemon = mail(Setup::new(&[SHOP]));
    let send = |text: &str| {
        let mut raw = Raw::connect(&daemon);
        raw.begin("orders@shop.example");
        raw.say(format!("{text}\r\n.\r\nQUIT\r\n").as_bytes());
        assert_eq!((raw.code(), raw.code()), (250, 221));
    };
    let calls = || daemon.get("/v1/calls").ok()["calls"].as_array().map(Vec::len);
    (0..3).for_each(|_| send("Message-ID: <1@x>\r\nSubject: disk full\r\n\r\nagain"));
    assert_eq!(calls(), Some(1));
    (0..3).for_each(|_| send("Subject: disk full\r\n\r\nagain"));
    assert_eq!(calls(), Some(4));
    send("Message-ID: <1@x>\r\nSubject: disk full\r\n\r\nanother one");
    assert_eq!(calls(), Some(5));
}

#[test]
fn a_stopped_daemon_says_so_and_one_that_is_not_to_be_open_is_not() {
    let mut daemon = mail(Setup::new(&[SHOP]));
    let ready = std::fs::read_to_string(daemon.folder().parent().unwrap().join("ready")).unwrap();
    let line = format!("smtp://{}", address(&daemon));
    assert_eq!(ready.lines().nth(1), Some(line.as_str()));
    daemon.wait_log(&format!(" and {line}"));
    daemon.wait_log("MAIL orders@shop.example");
    let mut idle = Raw::connect(&daemon);
    let mut sending = Raw::connect(&daemon);
    sending.begin("orders@shop.example");
    daemon.signal(Signal::TERM);
    assert_eq!((idle.code(), idle.code()), (421, 0));
    assert_eq!((sending.code(), sending.code()), (421, 0));
    assert_eq!(daemon.wait_end().code(), Some(0));

    let refused = Setup::new(&[]).argument("--smtp").argument("0.0.0.0:0").refused();
    assert!(refused.contains("smtp_open = true"), "{refused}");
    let refused = mail_with_bad_tls().refused();
    assert!(refused.contains("no-such-file.pem cannot be read"), "{refused}");
    let open = Setup::new(&[]).argument("--smtp").argument("0.0.0.0:0").set("smtp_open", "true").up();
    assert!(address(&open).ip().is_unspecified());
}

fn mail_with_bad_tls() -> Setup {
    let setup = Setup::new(&[]).argument("--smtp").argument("127.0.0.1:0");
    setup.set("smtp_cert", "no-such-file.pem").set("smtp_key", "no-such-file.pem")
}

#[test]
fn two_functions_do_not_take_the_same_mail_and_a_broken_module_sends_none_back() {
    let other = "
        from bourse import function
        @function(mail='Orders@shop.example')
        def mine(mail): ...
    ";
    let daemon = mail(Setup::new(&[SHOP]));
    daemon.write("zother.py", other);
    daemon.wait_log("MAIL orders@shop.example\" already belongs to shop.order");
    let said = |recipient: &str| {
        let mut raw = Raw::connect(&daemon);
        raw.say(format!("EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<{recipient}>\r\n").as_bytes());
        (raw.code(), raw.code(), raw.code()).2
    };
    // It may be the broken one that takes it.
    assert_eq!((said("orders@shop.example"), said("nobody@nowhere.example")), (250, 451));
    daemon.write("zother.py", "def harmless(): ...");
    wait_for("it is mended", || said("nobody@nowhere.example") == 550);
    daemon.write(
        "zother.py",
        "
        from bourse import function
        @function(mail='new@*')
        def mine(order, amount): ...
        ",
    );
    daemon.wait_log("zother.mine cannot be called with a mail: missing: order, amount");
}

/// Sends so many mails by four threads, each until it is accepted.
const LOAD: &str = "
    import smtplib, sys, threading, time
    from email.message import EmailMessage
    port, mails = int(sys.argv[1]), int(sys.argv[2])
    numbers, lock, tries = iter(range(mails)), threading.Lock(), 0

    def run():
        global tries
        while True:
            with lock:
                n = next(numbers, None)
            if n is None:
                return
            mail = EmailMessage()
            mail['From'], mail['To'], mail['Subject'] = 'a@b.example', 'count@here.example', str(n)
            mail['Message-ID'] = f'<{n}@b.example>'
            mail.set_content('x' * 2000)
            while True:
                tries += 1
                try:
                    with smtplib.SMTP('127.0.0.1', port, timeout=30) as server:
                        server.send_message(mail)
                        break
                except smtplib.SMTPRecipientsRefused as error:
                    assert all(code // 100 == 4 for code, _ in error.recipients.values()), error
                except smtplib.SMTPServerDisconnected:
                    pass
                except smtplib.SMTPResponseException as error:
                    assert error.smtp_code // 100 == 4, error
                except OSError:
                    pass
                time.sleep(0.01)

    threads = [threading.Thread(target=run) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(tries)
";

#[test]
fn what_was_answered_with_250_is_run_once_however_often_the_daemon_is_killed() {
    let (mails, kills) = if std::env::var_os("BOURSE_TEST_LONG").is_some() { (4_000, 40) } else { (600, 6) };
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let mut daemon = Setup::new(&[SHOP])
        .argument("--smtp")
        .argument(&format!("127.0.0.1:{port}"))
        .set("running", "4")
        .up();
    let place = daemon.folder().parent().expect("a place").to_owned();
    let mut client = python_command(&place, LOAD)
        .args([port.to_string(), mails.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let mut killed = 0;
    while killed < kills && client.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_millis(150 + 37 * (killed % 7)));
        daemon = daemon.kill().up();
        killed += 1;
    }
    let output = client.wait_with_output().expect("a child");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{mails} mails, {said} tries, {killed} kills");
    assert!(killed > 2, "the daemon was killed {killed} times only");
    wait_for("all have been run", || {
        daemon.call("shop.counted", json!({})).ok().as_u64().is_some_and(|n| n >= mails)
            && daemon.get("/v1/queues").ok().as_array().is_some_and(|lanes| {
                lanes
                    .iter()
                    .all(|l| l["ready"] == 0 && l["retrying"] == 0 && l["running"] == 0 && l["more"] == false)
            })
    });
    assert_eq!(daemon.call("shop.counted", json!({})).ok(), json!(mails));
    for i in 0..8 {
        assert_eq!(daemon.call("shop.doubled", json!({"i": i})).ok(), json!([]), "run twice");
    }
}
