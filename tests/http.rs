//! The HTTP surface as a client sees it.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use serde_json::json;

use crate::support::{Daemon, Setup, wait_for};

const WEB: (&str, &str) = (
    "web.py",
    "
    from bourse import Response, context, function, call
    @function(http='POST /items/{key}')
    def put(key: str, body: str, loud: bool = False, times: int = 1):
        return {'key': key, 'body': body, 'loud': loud, 'times': times}
    @function(http='GET /files/{*path}')
    def file(path: str):
        return path
    @function(http='POST /raw')
    def raw(body: bytes):
        return body[::-1]
    @function(http='POST /json')
    def take(name: str, tags: list = (), nested: dict = None):
        return [name, list(tags), nested]
    @function(http=['GET /teapot', 'DELETE /teapot'])
    def teapot():
        return Response('short and stout', status=418, headers={'x-handle': 'here', 'cache-control': 'no-store'})
    @function(http='GET /page')
    def page():
        return Response('<p>hello</p>', content_type='text/html; charset=utf-8')
    @function(http='GET /bytes')
    def octets():
        return bytes(range(256))
    @function(http='GET /nothing')
    def nothing():
        return None
    @function(http='GET /trace')
    def trace():
        return [context.traceparent, call('web.inner')]
    @function
    def inner():
        return context.traceparent
    @function
    def fails(how: str):
        raise ValueError(how)
    @function(http='GET /evil')
    def evil():
        return Response('x', headers={'x-bad': 'a\\r\\nset-cookie: b'})
    ",
);

#[test]
fn requests_become_arguments_and_results_answers() {
    let daemon = Daemon::start(&[WEB]);
    // 1. Path, query and raw body, by name and type.
    let put = daemon.post("/items/a%2Fb%20c?loud=true&times=3", "some text").ok();
    assert_eq!(put, json!({"key": "a/b c", "body": "some text", "loud": true, "times": 3}));
    assert_eq!(daemon.get("/files/a/b%20c/d.txt").ok(), "a/b c/d.txt");
    assert_eq!(daemon.post("/raw", [0, 1, 255]).body, [255, 1, 0]);
    let body = br#"{"name": "n", "tags": [1, null, 2.5], "nested": {"z": 1, "a": 2}}"#;
    let taken = daemon.send("POST", "/json", &[("content-type", "application/json")], body);
    assert_eq!(taken.text(), r#"["n",[1,null,2.5],{"a":2,"z":1}]"#);
    assert_eq!(daemon.call("web.take", json!(["positional"])).ok(), json!(["positional", [], null]));
    // 2. Status, headers and bytes are the function's.
    let teapot = daemon.get("/teapot");
    assert_eq!((teapot.status, teapot.text()), (418, "short and stout"));
    assert_eq!((teapot.header("x-handle"), teapot.header("cache-control")), (Some("here"), Some("no-store")));
    assert!(teapot.header("content-type").expect("one").starts_with("text/plain"));
    assert_eq!(daemon.get("/page").header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(daemon.get("/bytes").body, (0..=255).collect::<Vec<u8>>());
    assert_eq!(daemon.get("/nothing").text(), "null");
    let evil = daemon.get("/evil");
    assert!(evil.header("set-cookie").is_none(), "{evil}");
    // 3. Every answer of a call has its id.
    assert_eq!(teapot.header("bourse-call-id").map(str::len), Some(36));
    // 4. HEAD is GET without a body.
    let head = daemon.client().begin("HEAD", "/teapot", &[], b"").and_then(|mut socket| {
        let mut text = String::new();
        socket.read_to_string(&mut text).map(|_| text)
    });
    let head = head.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 418") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn what_is_wrong_is_a_problem_with_a_page() {
    let daemon = Daemon::start(&[WEB]);
    let json = &[("content-type", "application/json")];
    let bad = daemon.send("POST", "/json", json, b"{\"name\": ");
    assert!(bad.problem(400, "bad_request").contains("JSON"), "{bad}");
    let near = daemon.call("web.teapto", json!({})).problem(404, "not_found");
    assert!(near.contains("did you mean") && near.contains("teapot"), "{near}");
    let near = daemon.call("wbe.teapot", json!({})).problem(404, "not_found");
    assert!(near.contains("web"), "{near}");
    daemon.get("/nowhere").problem(404, "not_found");
    let method = daemon.send("PUT", "/teapot", &[], b"");
    method.problem(405, "method_not_allowed");
    let allowed = method.header("allow").expect("what would do");
    assert!(allowed.contains("GET") && allowed.contains("DELETE"), "{allowed}");
    let missing = daemon.call("web.take", json!({"tags": []})).problem(422, "bad_arguments");
    assert!(missing.contains("name"), "{missing}");
    let unknown = daemon.call("web.take", json!({"name": "n", "colour": 1})).problem(422, "bad_arguments");
    assert!(unknown.contains("colour"), "{unknown}");
    let kind = daemon.post("/items/a?times=many", "x").problem(422, "bad_arguments");
    assert!(kind.contains("times"), "{kind}");
    let failed = daemon.call("web.fails", json!({"how": "badly"}));
    assert!(failed.problem(500, "function_error").contains("badly"));
    assert_eq!(
        failed.json()["error"],
        json!({"type": "ValueError", "message": "badly"}),
        "no traceback for strangers"
    );
    // Each names a page that exists.
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    for response in [bad, method, failed] {
        let page = response.json()["type"].as_str().expect("a page").to_owned();
        assert!(pages.join(page.rsplit('/').next().expect("a name")).is_file(), "{page}");
    }
    let daemon = Setup::new(&[WEB]).argument("--dev").up();
    let failed = daemon.call("web.fails", json!({"how": "badly"})).json();
    let traceback = failed["error"]["traceback"].as_str().expect("for developers");
    assert!(traceback.contains("raise ValueError(how)") && !traceback.contains("_worker.py"), "{traceback}");
}

#[test]
fn a_trace_goes_in_and_on() {
    let daemon = Daemon::start(&[WEB]);
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = daemon.send("GET", "/trace", &[("traceparent", given)], b"");
    let seen = traced.ok();
    for at in 0..2 {
        let seen = seen[at].as_str().expect("a trace");
        assert!(seen.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && seen.ends_with("-01"), "{seen}");
    }
    let back = traced.header("traceparent").expect("a trace");
    assert!(back.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{back}");
    // One that is not valid is not believed, and another begun.
    let seen = daemon.send("GET", "/trace", &[("traceparent", "00-zz-zz-01")], b"").ok();
    let fresh = seen[0].as_str().expect("a trace");
    assert_eq!((fresh.len(), &seen[1]), (55, &seen[0]));
}

#[test]
fn health_readiness_and_metrics() {
    let daemon = Daemon::start(&[WEB]);
    assert_eq!(daemon.get("/healthz").status, 200);
    assert_eq!(daemon.get("/readyz").status, 200);
    daemon.call("web.inner", json!({})).ok();
    daemon.call("web.fails", json!({"how": "so"})).problem(500, "function_error");
    let metrics = daemon.get("/metrics");
    let text = metrics.text();
    for line in [
        "bourse_call_wait_seconds_bucket{function=\"web.inner\"",
        "bourse_call_run_seconds_bucket{function=\"web.inner\"",
        "bourse_cold_start_seconds_bucket{module=\"web\"",
        "bourse_http_request_seconds_bucket{",
        "bourse_calls_total{function=\"web.inner\",code=\"ok\"} 1",
        "bourse_calls_total{function=\"web.fails\",code=\"function_error\"} 1",
    ] {
        assert!(text.contains(line), "no {line} in:\n{text}");
    }
    // Clients can't make series.
    for n in 0..20 {
        daemon.call(&format!("stranger{n}.f"), json!({})).problem(404, "not_found");
    }
    assert!(!daemon.get("/metrics").text().contains("stranger"));
    let openapi = daemon.get("/openapi.json").ok();
    assert!(openapi["paths"]["/items/{key}"]["post"].is_object(), "{openapi}");
}

#[test]
fn web_pages_of_others_cannot_drive_it() {
    let daemon = Daemon::start(&[WEB]);
    for headers in [
        &[("host", "evil.example")][..],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
    ] {
        daemon.send("POST", "/v1/call/web.inner", headers, b"").problem(403, "forbidden");
        daemon.send("GET", "/v1/modules", headers, b"").problem(403, "forbidden");
    }
    let own = format!("http://{}", daemon.client().address);
    assert_eq!(daemon.send("GET", "/teapot", &[("origin", &own)], b"").status, 418);
}

#[test]
fn beyond_loopback_a_token_is_needed() {
    let said = Setup::new(&[WEB]).http("0.0.0.0:0").refused();
    assert!(said.contains("nothing protects it") && said.contains("hint: set a token"), "{said}");
    let daemon = Setup::new(&[WEB]).http("0.0.0.0:0").argument("--token").argument("s3cret").up();
    let wrong = daemon.send("GET", "/teapot", &[("authorization", "Bearer wrong")], b"");
    wrong.problem(401, "unauthorized");
    daemon.get("/v1/modules").problem(401, "unauthorized");
    assert!(wrong.header("www-authenticate").is_some());
    assert_eq!(daemon.send("GET", "/teapot", &[("authorization", "Bearer s3cret")], b"").status, 418);
    assert_eq!(daemon.get("/healthz").status, 200);
}

#[test]
fn slow_and_broken_clients_harm_nobody() {
    let daemon = Daemon::start(&[WEB]);
    let open = |text: &[u8]| {
        let mut socket = std::net::TcpStream::connect(daemon.client().address).expect("it is open");
        socket.write_all(text).expect("it is sent");
        socket
    };
    let held = [
        open(b"GET /tea"),
        open(b"POST /raw HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\nxxx"),
        open(b"POST /raw HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        open(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        open(b"\x00\xff\x00\xff\r\n\r\n"),
        open(&[b'A'; 200_000]),
        open(b"GET /teapot HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"),
    ];
    for _ in 0..20 {
        assert_eq!(daemon.get("/teapot").status, 418);
    }
    drop(held);
    // A body that ends too early calls nothing.
    let half = open(b"POST /raw HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nabc");
    drop(half);
    wait_for("all connections are closed but ours", || {
        daemon
            .get("/metrics")
            .text()
            .lines()
            .any(|l| l.starts_with("bourse_http_connections") && l.ends_with(" 1"))
    });
    assert_eq!(daemon.get("/v1/status").ok()["calls"], 0);
}

#[test]
fn the_ready_file_and_the_contact_say_where_it_is() {
    let daemon = Daemon::start(&[WEB]);
    let contact = fs::read_to_string(daemon.data().join("daemon.json")).expect("a file");
    assert!(contact.contains(&daemon.client().address.to_string()), "{contact}");
    daemon.wait_log("ready: ");
}
