//! Raw sockets against the gateway, with a daemon that answers by itself: no client library smooths anything.

mod world;

use std::time::Duration;

use bourse_gateway::{Auth, Config, Limits};
use world::{World, status_of};

const HOST: &str = "Host: localhost\r\n";

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\n{HOST}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{HOST}\r\n")
}

#[tokio::test]
async fn calls_and_answers() {
    let world = World::new(Config::default());
    let answer = world.ask(&post("/v1/call/demo.echo", r#"{"body": {"n": [1, 2.5, null]}}"#)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("bourse-call-id: 00000000-") && answer.contains("traceparent: 00-"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n{\"n\":[1,2.5,null]}"), "{answer}");
    let cases = [
        (post("/kv/a%2Fb", "{\"x\":1}"), 200, r#"{"key":"a/b","body":{"x":1}}"#),
        (post("/v1/call/demo.echo", "[7]"), 200, "7"),
        (post("/v1/call/demo.fail", "{}"), 500, r#""error":{"type":"KeyError","message":"no such key"}"#),
        (post("/v1/call/demo.busy", "{}"), 503, r#""code":"no_capacity""#),
        (post("/v1/call/demo.drop", "{}"), 500, r#""code":"internal""#),
        (post("/v1/call/demo.page", "{}"), 201, "<p>"),
        (post("/v1/call/demo.smuggle", "{}"), 500, "transfer-encoding is the gateway's to set"),
        (post("/v1/call/demo.ecko", "{}"), 404, "did you mean demo.echo?"),
        (post("/kv", "{}"), 404, "nothing is at /kv"),
        (post("/kv/%zz", "{}"), 400, "two hexadecimal digits"),
        (get("/kv/a"), 405, "only POST"),
        (get("/v1/call/demo.echo"), 405, "only POST"),
        (post("/v1/call/demo.echo", "{}"), 422, "missing: body"),
        (post("/v1/call/demo.echo", "{"), 400, "not JSON"),
        (post("/v1/call/demo.echo?mode=later", "[1]"), 400, "there is no mode later"),
        (
            post("/v1/call/demo.terms?timeout=5s&queue_wait=20ms&version=%5E1.2", "{}"),
            200,
            r#""5s 20ms ^1.2""#,
        ),
        (
            post("/v1/queues/orders?delay=5s", "{\"n\":1}"),
            202,
            r#"["Queue(QueueName(\"orders\")) Some(5s) ",{"n":1}]"#,
        ),
        (post("/v1/topics/order.paid", "[1]"), 202, r#"Topic(TopicName(\"order.paid\"))"#),
        (post("/v1/queues/a%20b", "1"), 400, "a space or control character"),
        (post("/v1/queues/a?later=1", "1"), 400, "known ones: delay"),
        (post("/v1/queues/a?delay=soon", "1"), 400, "not a duration"),
        (post("/v1/topics/a.*", "1"), 400, "wildcard"),
        (post("/v1/topics/a", "{"), 400, "not JSON"),
        (get("/v1/queues/a"), 405, "only POST"),
        (get("/v1/triggers"), 200, r#""Triggers""#),
        (get("/v1/triggers/m"), 405, "only DELETE"),
        (get("/v1/members"), 200, r#""Members""#),
        (get("/v1/members/k"), 405, "only DELETE"),
        (post("/v1/members", ""), 400, "?key=KEY"),
        (post("/v1/members?key=k&name=a%20b", ""), 200, "a b"),
        (get("/v1/tickets"), 405, "only POST"),
        (post("/v1/tickets?for=10m", ""), 200, "lifetime: 600s"),
        (post("/v1/tickets?for=0s", ""), 400, "such as 10m"),
        (post("/v1/tickets?fro=1h", ""), 400, "known ones: for, name"),
        (get("/healthz"), 200, "ok"),
        (get("/readyz"), 200, "ready"),
        (get("/v1/modules"), 200, r#""Modules""#),
        (get("/openapi.json"), 200, r#""/v1/call/demo.echo""#),
        (get("/metrics"), 404, "switched off"),
    ];
    for (request, status, part) in cases {
        let answer = world.ask(&request).await;
        assert!(status_of(&answer) == status && answer.contains(part), "{request}\n{answer}");
        let problem = answer.contains("content-type: application/problem+json");
        assert_eq!(problem, status >= 400, "{answer}");
    }
    assert!(world.ask(&post("/v1/call/demo.busy", "{}")).await.contains("retry-after: 2\r\n"));
    let options = world.ask(&format!("OPTIONS /kv/a HTTP/1.1\r\n{HOST}\r\n")).await;
    assert!(status_of(&options) == 204 && options.contains("allow: POST, OPTIONS\r\n"), "{options}");
    let head = world.ask(&format!("HEAD /healthz HTTP/1.1\r\n{HOST}\r\n")).await;
    assert!(head.contains("content-length: 3") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn cbor_and_traces_pass_through() {
    let world = World::new(Config::default());
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let head = format!(
        "POST /v1/call/demo.echo HTTP/1.1\r\n{HOST}traceparent: {trace}\r\nAccept: application/cbor\r\n\
         Content-Type: application/cbor\r\nContent-Length: 9\r\n\r\n"
    );
    let mut socket = world.connect().await;
    socket.send(&[head.as_bytes(), b"\x82\x80\xa1\x64body\x07"].concat()).await;
    let answer = socket.answer().await;
    assert!(
        answer.contains(&format!("traceparent: {trace}"))
            && answer.contains("content-type: application/cbor")
    );
    assert!(answer.ends_with("\r\n\r\n\x07"), "{answer}");
}

#[tokio::test]
async fn large_bodies_go_and_come() {
    let world = World::new(Config::default());
    let text = "x".repeat(3_000_000);
    let answer = world.ask(&post("/v1/call/demo.echo", &format!("[\"{text}\"]"))).await;
    assert!(answer.ends_with(&format!("\"{text}\"")), "{} bytes", answer.len());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::new(Config::default());
    let mut socket = world.connect().await;
    let many: String = (0..50).map(|n| post("/v1/call/demo.echo", &format!("[{n}]"))).collect();
    socket.send(many.as_bytes()).await;
    for n in 0..50 {
        assert!(socket.answer().await.ends_with(&format!("\r\n\r\n{n}")));
    }
}

#[tokio::test]
async fn a_request_byte_by_byte_and_in_chunks() {
    let world = World::new(Config::default());
    let mut socket = world.connect().await;
    for byte in post("/v1/call/demo.echo", "[1]").bytes() {
        socket.send(&[byte]).await;
    }
    assert!(socket.answer().await.ends_with("\r\n\r\n1"));
    let head = format!("POST /v1/call/demo.echo HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
    socket.send(head.as_bytes()).await;
    socket.send(b"1\r\n[\r\n2\r\n2]\r\n0\r\n\r\n").await;
    assert!(socket.answer().await.ends_with("\r\n\r\n2"));
}

#[tokio::test]
async fn strangers_harm_nobody() {
    let world = World::new(Config::default());
    let garbage: Vec<Vec<u8>> = vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0; 100_000],
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec(),
        b"POST /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nab".to_vec(),
        b"POST /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"POST /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n".to_vec(),
        b"POST /kv/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc".to_vec(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(300_000)).into_bytes(),
        format!("GET / HTTP/1.1\r\n{HOST}X: {}\r\n\r\n", "a".repeat(300_000)).into_bytes(),
        format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000)).into_bytes(),
        b"GET /%ff%fe?%ff=%zz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
    ];
    for bytes in garbage {
        let mut socket = world.connect().await;
        socket.try_send(&bytes).await;
        socket.half_close().await;
        let answer = socket.rest().await;
        assert!(answer.is_empty() || (400..=505).contains(&status_of(&answer)), "{answer}");
    }
    // Content beyond its length is the next request, and not one.
    let mut socket = world.connect().await;
    socket.send((post("/v1/call/demo.echo", "[1]") + "surplus\r\n\r\n").as_bytes()).await;
    assert_eq!(status_of(&socket.answer().await), 200);
    assert!(status_of(&socket.rest().await) == 400);
    // Connections that are reset in the middle.
    for _ in 0..20 {
        let mut socket = world.connect().await;
        socket.send(&post("/v1/call/demo.hang", "{}").as_bytes()[..60]).await;
        socket.reset();
    }
    assert_eq!(status_of(&world.ask(&get("/healthz")).await), 200);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let limits = Limits { body_bytes_max: 1000, bodies_bytes_max: 1500, ..Limits::default() };
    let world = World::new(Config { limits, ..Config::default() });
    // Refused by its length, without a body ever being sent.
    let head = format!("POST /v1/call/demo.echo HTTP/1.1\r\n{HOST}Content-Length: 1001\r\n\r\n");
    let answer = world.ask(&head).await;
    assert!(status_of(&answer) == 413 && answer.contains("connection: close"), "{answer}");
    // Refused while it streams.
    let head = format!("POST /v1/call/demo.echo HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("1f4\r\n{}\r\n", " ".repeat(500));
    assert_eq!(status_of(&world.ask(&(head.clone() + &chunk.repeat(3))).await), 413);
    // Two that are under way together may take too much.
    let (mut first, mut second) = (world.connect().await, world.connect().await);
    let slow =
        format!("POST /v1/call/demo.echo HTTP/1.1\r\n{HOST}Content-Length: 1000\r\n\r\n{}", " ".repeat(500));
    first.send(slow.as_bytes()).await;
    first.send(" ".repeat(490).as_bytes()).await;
    world.settle().await;
    second.send(slow.as_bytes()).await;
    second.send(" ".repeat(100).as_bytes()).await;
    assert_eq!(status_of(&second.answer().await), 503);
    first.send(b"[1]       ").await;
    assert_eq!(status_of(&first.answer().await), 200);
}

#[tokio::test]
async fn a_client_that_leaves_cancels() {
    let mut world = World::new(Config::default());
    let mut socket = world.connect().await;
    socket.send(post("/v1/call/demo.hang", "{}").as_bytes()).await;
    let ticket = world.hung().await;
    drop(socket);
    assert_eq!(world.cancelled().await, ticket);
}

#[tokio::test]
async fn who_may_ask() {
    let world = World::new(Config { hosts: vec!["grid.example".into()], ..Config::default() });
    let ask = |headers: &str| {
        world.ask_owned(format!("POST /v1/call/demo.echo HTTP/1.1\r\n{headers}Content-Length: 3\r\n\r\n[1]"))
    };
    for (headers, status) in [
        ("Host: localhost\r\n", 200),
        ("Host: grid.example:80\r\n", 200),
        ("Host: evil.example\r\n", 403),
        ("", 400),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
        ("Host: localhost\r\nOrigin: http://evil.example\r\n", 403),
        ("Host: localhost:1\r\nOrigin: http://localhost:1\r\n", 200),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403),
    ] {
        assert_eq!(status_of(&ask(headers).await), status, "{headers}");
    }
    let world = World::new(Config { auth: Auth::Token("secret".into()), ..Config::default() });
    let answer = world.ask(&post("/v1/call/demo.echo", "[1]")).await;
    assert!(status_of(&answer) == 401 && answer.contains("www-authenticate: Bearer"), "{answer}");
    assert_eq!(status_of(&world.ask(&get("/readyz")).await), 200);
    assert_eq!(status_of(&world.ask(&get("/v1/status")).await), 401);
    let with = format!("GET /v1/status HTTP/1.1\r\n{HOST}Authorization: Bearer secret\r\n\r\n");
    assert_eq!(status_of(&world.ask(&with).await), 200);
    assert!(World::refuses_open_address());
}

#[tokio::test]
async fn pages_of_allowed_origins_may_ask_and_read() {
    let config = Config { auth: Auth::Token("secret".into()), ..Config::default() };
    let world = World::new(Config { origins: vec!["https://shop.example".into()], ..config });
    let from = |origin: &str, rest: &str| format!("{HOST}Origin: {origin}\r\n{rest}\r\n");
    let wants = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n";
    // 1. The browser asks first, without the token.
    let path = "/v1/call/demo.echo";
    let preflight = |origin| format!("OPTIONS {path} HTTP/1.1\r\n{}", from(origin, wants));
    let answer = world.ask(&preflight("https://shop.example")).await;
    assert_eq!(status_of(&answer), 204, "{answer}");
    for part in [
        "access-control-allow-origin: https://shop.example\r\n",
        "access-control-allow-methods: GET,",
        "access-control-allow-headers: authorization\r\n",
        "vary: origin\r\n",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    // 2. Then it sends the request, and lets the page read the answer, also a refusal.
    for (token, status) in [("secret", 200), ("guess", 401)] {
        let rest = format!("Authorization: Bearer {token}\r\nContent-Length: 3\r\n");
        let request = format!("POST {path} HTTP/1.1\r\n{}[1]", from("https://shop.example", &rest));
        let answer = world.ask(&request).await;
        assert_eq!(status_of(&answer), status, "{answer}");
        assert!(answer.contains("access-control-allow-origin: https://shop.example\r\n"), "{answer}");
        assert!(answer.contains("access-control-expose-headers: bourse-call-id"), "{answer}");
    }
    // 3. Others are told nothing.
    let answer = world.ask(&preflight("https://evil.example")).await;
    assert!(status_of(&answer) == 403 && !answer.contains("access-control"), "{answer}");
    assert!(!world.ask(&post(path, "[1]")).await.contains("access-control"));
}

#[tokio::test]
async fn what_is_not_known_while_it_starts_may_come() {
    let world = World::starting(Config::default());
    for path in ["/nothing", "/v1/call/m.nothing"] {
        let answer = world.ask(&post(path, "{}")).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"starting\""), "{answer}");
        assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    }
    world.gateway.set_ready(true);
    world.gateway.set_ready(false); // it is being stopped
    let answer = world.ask(&post("/v1/call/m.nothing", "{}")).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn routes_are_swapped_while_it_serves() {
    let world = World::new(Config::default());
    let mut socket = world.connect().await;
    socket.send(post("/kv/a", "1").as_bytes()).await;
    assert_eq!(status_of(&socket.answer().await), 200);
    world.gateway.set_routes(bourse_gateway::Routes::default());
    world.gateway.set_ready(false);
    socket.send(post("/kv/a", "1").as_bytes()).await;
    assert_eq!(status_of(&socket.answer().await), 404);
    socket.send(get("/readyz").as_bytes()).await;
    assert_eq!(status_of(&socket.answer().await), 503);
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_in_flight() {
    let mut world = World::new(Config::default());
    let (mut idle, mut fresh, mut busy) =
        (world.connect().await, world.connect().await, world.connect().await);
    idle.send(get("/healthz").as_bytes()).await;
    idle.answer().await;
    fresh.send(b"").await;
    busy.send(post("/v1/call/demo.hang", "{}").as_bytes()).await;
    world.hung().await;
    world.shut_down();
    assert_eq!(idle.rest().await, "");
    assert_eq!(fresh.rest().await, "");
    assert!(tokio::net::TcpStream::connect(world.address).await.is_err(), "nobody accepts any more");
    world.release();
    let answer = busy.rest().await;
    assert!(status_of(&answer) == 200 && answer.contains("connection: close"), "{answer}");
    world.ended().await;
}

#[tokio::test]
async fn a_drain_is_bounded() {
    let limits = Limits { drain_max: Duration::from_millis(1), ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    let mut busy = world.connect().await;
    busy.send(post("/v1/call/demo.hang", "{}").as_bytes()).await;
    let ticket = world.hung().await;
    world.shut_down();
    world.ended().await;
    assert_eq!(world.cancelled().await, ticket);
    assert_eq!(busy.rest().await, "");
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let short = Duration::from_millis(20);
    let long = Duration::from_secs(60);
    let base = Limits {
        header_read_max: long,
        body_idle_max: long,
        keep_alive_max: long,
        write_stall_max: long,
        ..Limits::default()
    };
    let head = format!("POST /v1/call/demo.echo HTTP/1.1\r\n{HOST}Content-Length: 9\r\n\r\n[");
    let cases = [
        (Limits { header_read_max: short, ..base.clone() }, "GET / HT".to_owned()),
        (Limits { body_idle_max: short, ..base.clone() }, head),
        (Limits { keep_alive_max: short, ..base.clone() }, String::new()),
    ];
    for (limits, bytes) in cases {
        let world = World::new(Config { limits, ..Config::default() });
        let mut socket = world.connect().await;
        socket.send(bytes.as_bytes()).await;
        assert_eq!(socket.rest().await, "", "{bytes}");
    }
    // One that takes nothing of a large answer: the daemon is free of it, the client finds it cut off.
    let world = World::new(Config { limits: Limits { write_stall_max: short, ..base }, ..Config::default() });
    let mut socket = world.connect().await;
    let size = 15_000_000;
    socket.send(post("/v1/call/demo.echo", &format!("[\"{}\"]", "x".repeat(size))).as_bytes()).await;
    world.all_closed().await;
    assert!(socket.rest().await.len() < size);
}

#[tokio::test]
async fn connections_past_the_bound_wait_their_turn() {
    let world = World::new(Config {
        limits: Limits { connections_max: 1, ..Limits::default() },
        ..Config::default()
    });
    let mut first = world.connect().await;
    first.send(get("/healthz").as_bytes()).await;
    first.answer().await;
    let mut second = world.connect().await;
    second.send(get("/healthz").as_bytes()).await;
    drop(first);
    assert_eq!(status_of(&second.answer().await), 200);
}

#[tokio::test]
async fn durable_calls() {
    let world = World::new(Config::default());
    let get = async |line: &str| world.ask(&format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    let id = |n: u64| bourse_wire::id::CallId::new(n, [7; 10]);

    // 1. Accepted, with a place to look.
    let post = "POST /v1/call/demo.echo?mode=async HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n{\"body\": 12}";
    let accepted = world.ask(post).await;
    assert!(
        accepted.starts_with("HTTP/1.1 202") && accepted.contains("location: /v1/calls/00000000-"),
        "{accepted}"
    );
    assert!(accepted.contains("{\"id\":\"00000000-"), "{accepted}");

    // 2. How it stands, and how it would have been answered.
    let done = get(&format!("GET /v1/calls/{}", id(1))).await;
    assert!(done.contains("\"status\":\"done\"") && done.contains("\"result\":\"x\""), "{done}");
    let result = get(&format!("GET /v1/calls/{}/result", id(1))).await;
    assert!(result.starts_with("HTTP/1.1 201") && result.ends_with("\"x\""), "{result}");
    let waiting = get(&format!("GET /v1/calls/{}/result", id(2))).await;
    assert!(waiting.starts_with("HTTP/1.1 202") && waiting.contains("\"waiting\""), "{waiting}");
    let dead = get(&format!("GET /v1/calls/{}/result", id(3))).await;
    assert!(dead.starts_with("HTTP/1.1 500") && dead.contains("boom"), "{dead}");

    // 3. A poll ends when its time is over.
    let polled = get(&format!("GET /v1/calls/{}?poll=10ms", id(2))).await;
    assert!(polled.starts_with("HTTP/1.1 200") && polled.contains("\"waiting\""), "{polled}");

    // Or as events; that of a call that has ended is the last one.
    let mut socket = world.connect().await;
    socket
        .send(
            format!(
                "GET /v1/calls/{} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
                id(2)
            )
            .as_bytes(),
        )
        .await;
    let begun = socket.until("\n\n\r\n").await;
    assert!(begun.contains("text/event-stream") && begun.contains("event: status\ndata: {"), "{begun}");
    drop(socket);
    let done = format!(
        "GET /v1/calls/{} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n",
        id(1)
    );
    let mut socket = world.connect().await;
    socket.send(done.as_bytes()).await;
    let ended = socket.until("0\r\n\r\n").await;
    assert!(ended.contains("event: ended\ndata: {") && !ended.contains("event: status"), "{ended}");

    // 4. What can be done, and what can't any more.
    for (line, status) in [
        (format!("DELETE /v1/calls/{}", id(2)), 200),
        (format!("DELETE /v1/calls/{}", id(1)), 409),
        (format!("DELETE /v1/calls/{}", id(9)), 404),
        (format!("POST /v1/calls/{}/replay", id(3)), 202),
        (format!("POST /v1/dead/{}/replay", id(1)), 409),
        (format!("DELETE /v1/dead/{}", id(3)), 200),
        (format!("DELETE /v1/dead/{}", id(1)), 409),
        (format!("PUT /v1/calls/{}", id(1)), 405),
        ("GET /v1/calls/x".to_owned(), 400),
        (format!("GET /v1/calls/{}/nonsense", id(1)), 404),
        ("GET /v1/calls?status=lost".to_owned(), 400),
        ("GET /v1/calls?limit=0".to_owned(), 400),
        ("GET /v1/calls?before=x".to_owned(), 400),
        ("GET /v1/dead?status=done".to_owned(), 400),
        (format!("GET /v1/calls/{}?poll=soon", id(1)), 400),
        ("GET /v1/callsign".to_owned(), 404),
        ("POST /v1/calls".to_owned(), 405),
    ] {
        let answer = get(&line).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
    }

    // 5. Lists are the daemon's to make.
    let list = get("GET /v1/calls?status=done&function=demo&limit=3").await;
    assert!(
        list.contains("status: Some(\\\"done\\\"), function: Some(\\\"demo\\\"), before: None, rows_max: 3"),
        "{list}"
    );
    let list = get("GET /v1/dead").await;
    assert!(list.contains("status: Some(\\\"dead\\\")"), "{list}");
}
