//! What functions send out: webhooks and mails, to targets that are not ours.

use serde_json::{Value as Json, json};

use crate::support::{Daemon, Script, Setup, until, wait_for};

/// Answers by path, and tells what it got and whether the signature is right: `/flaky` twice with 503, `/gone` with 410.
const TARGET: &str = "
    import base64, hashlib, hmac, http.server, json, sys
    key = base64.b64decode('MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')
    seen = {}
    class Target(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers['content-length']))
            of, at = self.headers['webhook-id'], self.headers['webhook-timestamp']
            signed = base64.b64encode(hmac.digest(key, f'{of}.{at}.'.encode() + body, 'sha256')).decode()
            seen[of] = seen.get(of, 0) + 1
            print(json.dumps({
                'path': self.path, 'id': of, 'body': body.decode(), 'type': self.headers['content-type'],
                'mine': self.headers['x-mine'], 'right': f'v1,{signed}' in self.headers['webhook-signature'].split(),
            }))
            flaky = self.path == '/flaky' and seen[of] < 3
            self.send_response(503 if flaky else 410 if self.path == '/gone' else 200)
            if flaky:
                self.send_header('retry-after', '0')
            self.end_headers()
            self.wfile.write(b'thanks')
        def log_message(self, *_):
            pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Target)
    print(json.dumps(server.server_port))
    server.serve_forever()
";

const SHOP: (&str, &str) = (
    "shop.py",
    "
    from bourse import call, function, start, state

    @function
    def order(url: str, item: str, fails: bool = False):
        state('orders/last').set(item)
        made = start('bourse.webhook', url, {'item': item}, headers={'X-Mine': 'yes'})
        if fails:
            raise ValueError('no')
        return made

    @function
    def last():
        return state('orders/last').get()

    @function
    def now(url: str):
        return call('bourse.webhook', url, body='plain')

    @function
    def mail(to: str):
        return start('bourse.mail', to, 'Your order', 'It is on its way', html='<p>It is on its way</p>')
    ",
);

const SETTINGS: (&str, &str) =
    ("bourse.toml", "[webhook]\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n");

fn target() -> (Script, String) {
    let target = Script::start(TARGET, &["0"]);
    let url = format!("http://127.0.0.1:{}", target.says());
    (target, url)
}

/// How a durable call stands, once it has ended.
fn ended(daemon: &Daemon, id: &Json) -> Json {
    let path = format!("/v1/calls/{}?poll=20s", id.as_str().expect("an id"));
    until("the call ends", || {
        let seen = daemon.get(&path).ok();
        matches!(seen["status"].as_str(), Some("done" | "dead" | "cancelled")).then_some(seen)
    })
}

#[test]
fn a_webhook_goes_out_with_the_commit_signed_and_under_the_calls_id() {
    let (target, url) = target();
    let daemon = Daemon::start(&[SHOP, SETTINGS]);
    daemon
        .call("shop.order", json!({"url": url, "item": "coffee", "fails": true}))
        .problem(500, "function_error");
    let id = daemon.call("shop.order", json!({"url": url, "item": "tea"})).ok();
    let seen = ended(&daemon, &id);
    assert_eq!(
        (&seen["status"], &seen["result"]),
        (&json!("done"), &json!({"status": 200, "body": "thanks"}))
    );
    let got = target.says();
    let expected = json!({
        "path": "/", "id": id, "body": r#"{"item":"tea"}"#, "type": "application/json", "mine": "yes", "right": true,
    });
    assert_eq!(got, expected);
    // One that is waited for goes out at once.
    assert_eq!(daemon.call("shop.now", json!({"url": url})).ok()["status"], 200);
    assert_eq!(target.says()["type"], "text/plain; charset=utf-8");
    assert_eq!(target.said(), Vec::<Json>::new(), "the call that failed has sent nothing");
}

#[test]
fn a_webhook_is_tried_again_under_one_id_and_a_refusal_is_a_dead_letter() {
    let (target, url) = target();
    let daemon = Daemon::start(&[SHOP, SETTINGS]);
    let id = daemon.call("shop.order", json!({"url": format!("{url}/flaky"), "item": "tea"})).ok();
    let seen = ended(&daemon, &id);
    assert_eq!((&seen["status"], &seen["attempts"]), (&json!("done"), &json!(3)));
    assert!((0..3).all(|_| target.says()["id"] == id));

    let id = daemon.call("shop.order", json!({"url": format!("{url}/gone"), "item": "tea"})).ok();
    let seen = ended(&daemon, &id);
    assert_eq!((&seen["status"], &seen["attempts"]), (&json!("dead"), &json!(1)));
    assert_eq!(seen["error"]["code"], "undelivered");
}

#[test]
fn a_webhook_survives_kill_9_between_commit_and_delivery() {
    // 1. Nobody listens at the target.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let daemon = Daemon::start(&[SHOP, SETTINGS]);
    let id = daemon.call("shop.order", json!({"url": url, "item": "tea"})).ok();
    // 2. The daemon is killed, once the function's changes are there; the target comes.
    assert_eq!(daemon.call("shop.last", json!({})).ok(), "tea");
    let setup = daemon.kill();
    setup.wait_gone();
    let target = Script::start(TARGET, &[&port.to_string()]);
    target.says();
    // 3. It is sent by the next life, at least once, as what it was.
    let daemon = setup.up();
    let got = target.says();
    assert_eq!((&got["id"], &got["right"]), (&id, &json!(true)));
    assert_eq!(ended(&daemon, &id)["status"], "done");
    assert!(target.said().iter().all(|again| again["id"] == id));
}

#[test]
fn webhooks_do_not_go_where_clouds_keep_credentials_and_no_module_takes_the_name() {
    let daemon = Daemon::start(&[SHOP, ("bourse.py", "def send(): return 1")]);
    for url in ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://0.0.0.0/"] {
        daemon.call("shop.now", json!({"url": url})).problem(500, "function_error");
        daemon.call("bourse.webhook", json!({"url": url})).problem(403, "forbidden");
    }
    daemon.call("bourse.webhook", json!({"url": "ftp://x/"})).problem(422, "bad_arguments");
    daemon.wait_log("the module bourse is the daemon's own");
}

/// Takes mails; the first time each with 451.
const RELAY: &str = "
    import json, sys, time
    from aiosmtpd.controller import Controller
    from email import message_from_bytes
    seen = set()
    class Relay:
        async def handle_DATA(self, server, session, envelope):
            mail = message_from_bytes(envelope.content)
            again = mail['message-id'] in seen
            seen.add(mail['message-id'])
            print(json.dumps({
                'id': mail['message-id'], 'subject': mail['subject'], 'from': envelope.mail_from,
                'to': envelope.rcpt_tos, 'parts': [p.get_content_type() for p in mail.walk()],
            }))
            return '250 OK' if again else '451 later'
        async def handle_RCPT(self, server, session, envelope, address, options):
            if address.startswith('nobody'):
                return '550 no such user'
            envelope.rcpt_tos.append(address)
            return '250 OK'
    controller = Controller(Relay(), hostname='127.0.0.1', port=int(sys.argv[1]))
    controller.start()
    print(json.dumps(controller.server.sockets[0].getsockname()[1]))
    time.sleep(1000)
";

#[test]
fn mails_go_through_the_relay_once_it_takes_them() {
    // Port 0 is not for a controller, which connects to itself.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let relay = Script::start(RELAY, &[&port.to_string()]);
    relay.says();
    let setup = Setup::new(&[SHOP]);
    setup.write(
        "bourse.toml",
        &format!("[mail]\nrelay = \"smtp://127.0.0.1:{port}\"\nfrom = \"Shop <shop@example.com>\"\n"),
    );
    let daemon = setup.up();
    let id = daemon.call("shop.mail", json!({"to": "a@b.example"})).ok();
    let seen = ended(&daemon, &id);
    assert_eq!((&seen["status"], &seen["attempts"]), (&json!("done"), &json!(2)));
    let (first, second) = (relay.says(), relay.says());
    assert_eq!(first, second, "it is the same mail twice");
    let expected = json!({
        "id": format!("<{}@example.com>", id.as_str().unwrap()), "subject": "Your order", "from": "shop@example.com",
        "to": ["a@b.example"], "parts": ["multipart/alternative", "text/plain", "text/html"],
    });
    assert_eq!(first, expected);
    let id = daemon.call("shop.mail", json!({"to": "nobody@b.example"})).ok();
    assert_eq!(ended(&daemon, &id)["status"], "dead");
}

#[test]
fn a_mail_without_a_relay_waits_as_a_dead_letter_for_one() {
    let daemon = Daemon::start(&[SHOP]);
    let id = daemon.call("shop.mail", json!({"to": "a@b.example"})).ok();
    let seen = ended(&daemon, &id);
    assert_eq!((&seen["status"], &seen["error"]["code"]), (&json!("dead"), &json!("undelivered")));
    assert!(seen["error"]["hint"].as_str().unwrap_or_default().contains("[mail]"), "{seen}");
    wait_for("its log says so", || daemon.log().contains("undelivered"));
}
