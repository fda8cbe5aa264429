//! Each case reads: a signature, a request, and the arguments or the complaint.

use bourse_wire::value::Value;

use super::*;

/// `n: int, k: str? = null, *, flag: bool = false, *args, **kw`
fn signature(text: &str) -> Signature {
    let mut parameters = Vec::new();
    let mut named = false;
    let positional = text.contains('/');
    for part in text.split(", ").filter(|p| !p.is_empty()) {
        let mut kind = if named { Kind::Named } else { Kind::Any };
        let part = match part {
            "*" => {
                named = true;
                continue;
            }
            "/" => {
                parameters.iter_mut().for_each(|p: &mut v1::Parameter| p.set_kind(Kind::Positional));
                continue;
            }
            part if part.starts_with("**") => {
                kind = Kind::VarNamed;
                &part[2..]
            }
            part if part.starts_with('*') => {
                kind = Kind::VarPositional;
                named = true;
                &part[1..]
            }
            part => part,
        };
        let (left, default) = part.split_once(" = ").unwrap_or((part, ""));
        let (name, hint) = left.split_once(": ").unwrap_or((left, "any"));
        let variadic = matches!(kind, Kind::VarNamed | Kind::VarPositional);
        parameters.push(v1::Parameter {
            name: name.into(),
            r#type: hint.into(),
            required: default.is_empty() && !variadic,
            default_json: default.into(),
            kind: kind as i32,
        });
    }
    assert_eq!(positional, parameters.iter().any(|p| p.kind() == Kind::Positional));
    Signature::new("m.f".into(), &v1::Function { name: "f".into(), parameters, ..Default::default() })
}

/// `call {"n":1}`, `call text/plain: abc`, `route key=a b=c | n=1&n=2 | {"x":1}`
fn input(text: &str) -> Input {
    let pairs = |text: &str, between: char| {
        let each = text.split(between).filter_map(|p| p.trim().split_once('='));
        each.map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Vec<_>>()
    };
    let content = |text: &str| match text.split_once(": ").or_else(|| Some((text.strip_suffix(':')?, ""))) {
        Some((name, body)) if name.contains('/') => {
            (Content::Other(name.into()), Bytes::from(body.to_owned()))
        }
        _ if text.is_empty() => (Content::Empty, Bytes::new()),
        _ => (Content::Json, Bytes::from(text.to_owned())),
    };
    if let Some(body) = text.strip_prefix("call") {
        let (content, body) = content(body.trim());
        return Input { content, body, ..Default::default() };
    }
    let parts: Vec<&str> = text.strip_prefix("route").unwrap().splitn(3, '|').map(str::trim).collect();
    let (content, body) = content(parts.get(2).unwrap_or(&""));
    Input {
        route: true,
        path: pairs(parts[0], ' '),
        query: pairs(parts.get(1).unwrap_or(&""), '&'),
        content,
        body,
        ..Default::default()
    }
}

fn check(parameters: &str, request: &str, expected: &str) {
    let outcome = match bind(&signature(parameters), input(request)) {
        Ok(bytes) => {
            let arguments = Arguments::from_cbor(&bytes).unwrap();
            assert_eq!(arguments.to_cbor(), bytes, "deterministic");
            let Value::Array(parts) = Value::from_cbor(&bytes).unwrap() else { panic!() };
            format!("{} {}", parts[0], parts[1])
        }
        Err(failure) => format!("{}: {}", failure.code, failure.message),
    };
    assert_eq!(outcome, expected, "f({parameters}) {request}");
}

#[test]
fn calls_by_name_and_position() {
    check("", "call", "[] {}");
    check("", "call {}", "[] {}");
    check("n: int", r#"call {"n":1}"#, r#"[] {"n":1}"#);
    check("n: int", "call [1]", r#"[] {"n":1}"#);
    check("longer, b, a", r#"call {"a":1,"longer":2,"b":3}"#, r#"[] {"a":1,"b":3,"longer":2}"#);
    check("n: int, k: str = \"x\"", "call [1]", r#"[] {"n":1}"#);
    check("n, /", r#"call {"n":1}"#, "[1] {}");
    check("a = 1, b = 2, /", r#"call {"b":5}"#, "[1,5] {}");
    check("a, *args", "call [1,2,3]", "[1,2,3] {}");
    check("a, *args", "call [1]", r#"[] {"a":1}"#);
    check("a, **kw", r#"call {"a":1,"z":2,"y":3}"#, r#"[] {"a":1,"y":3,"z":2}"#);
    check("body", "call 7", r#"[] {"body":7}"#);
    check("body", r#"call {"body":{"a":1}}"#, r#"[] {"body":{"a":1}}"#);
}

#[test]
fn what_does_not_fit_is_named() {
    check("a, b: int", "call", "bad_arguments: missing: a, b");
    check("a", r#"call {"b":1,"c":2}"#, "bad_arguments: missing: a; unexpected: b, c");
    check("n: int", r#"call {"n":"abc"}"#, "bad_arguments: n must be int, not str");
    check("n: int", r#"call {"n":1.5}"#, "bad_arguments: n must be int, not float");
    check("n: int", r#"call {"n":null}"#, "bad_arguments: n must be int, not none");
    check(
        "a: bool, b: list",
        r#"call {"a":1,"b":{}}"#,
        "bad_arguments: a must be bool, not int; b must be list, not dict",
    );
    check("a", "call [1,2]", "bad_arguments: 2 arguments by position, at most 1 are taken");
    check("a, *, b", "call [1,2]", "bad_arguments: missing: b; 2 arguments by position, at most 1 are taken");
    check("args, *args", r#"call {"other":1}"#, "bad_arguments: missing: args; unexpected: other");
    check("a", "call 7", "bad_arguments: missing: a; the body must be a JSON object or array");
    let many: Vec<String> = (0..100).map(|i| format!("\"x{i}\":0")).collect();
    check(
        "",
        &format!("call {{{}}}", many.join(",")),
        "bad_arguments: unexpected: x0, x1, x2, x3, x4, x5, x6, x7 and more",
    );
}

#[test]
fn types_admit_what_they_should() {
    check("n: float", r#"call {"n":1}"#, r#"[] {"n":1}"#);
    check("n: int?", r#"call {"n":null}"#, r#"[] {"n":null}"#);
    check("n: int = null", r#"call {"n":null}"#, r#"[] {"n":null}"#);
    check("n: none", r#"call {"n":null}"#, r#"[] {"n":null}"#);
    check("b: bytes", r#"call {"b":"_-8"}"#, r#"[] {"b":"_-8"}"#);
    check("b: bytes", r#"call {"b":"/+8="}"#, r#"[] {"b":"_-8"}"#);
    check("b: bytes", r#"call {"b":"!"}"#, "bad_arguments: b must be bytes, not text that is not base64");
    check("n: later_type", r#"call {"n":1}"#, r#"[] {"n":1}"#);
}

#[test]
fn routes_take_text() {
    check("key", "route key=a", r#"[] {"key":"a"}"#);
    check("n: int", "route n=-12", r#"[] {"n":-12}"#);
    check("n: int", "route n=x", "bad_arguments: n must be int, not \"x\"");
    check("n: int", "route n=18446744073709551615", r#"[] {"n":18446744073709551615}"#);
    check("x: float?", "route x=2.5", r#"[] {"x":2.5}"#);
    check("x: float", "route x=nan", "bad_arguments: x must be float, not \"nan\"");
    check("a: bool, b: bool", "route a=1 b=false", r#"[] {"a":true,"b":false}"#);
    check("a: bool", "route a=yes", "bad_arguments: a must be bool, not \"yes\"");
    check("d: dict", "route d=x", "bad_arguments: d must be dict, not \"x\"");
    check("key, q: list", "route key=a | q=1&q=2", r#"[] {"q":["1","2"],"key":"a"}"#);
    check("q: list", "route | q=1", r#"[] {"q":["1"]}"#);
    check("q", "route | q=1&q=2", "bad_arguments: given twice: q");
    check("key", "route key=a | key=b", "bad_arguments: given twice: key");
    check("key", "route key=a | utm=b", "bad_arguments: unexpected: utm");
    check("key, **kw", "route key=a | utm=b", r#"[] {"key":"a","utm":"b"}"#);
}

#[test]
fn routes_take_bodies() {
    check("key, body", r#"route key=a | | {"x":1}"#, r#"[] {"key":"a","body":{"x":1}}"#);
    check("key, x: int", r#"route key=a | | {"x":1}"#, r#"[] {"x":1,"key":"a"}"#);
    check("key, x", r#"route key=a | x=2 | {"x":1}"#, "bad_arguments: given twice: x");
    check("body, x", r#"route body=a | | {"x":1}"#, r#"[] {"x":1,"body":"a"}"#);
    check("body: dict", "route | | [1]", "bad_arguments: body must be dict, not list");
    check("x", "route | | [1]", "bad_arguments: missing: x; the body must be a JSON object, not an array");
    check("body: bytes", r#"route | | {"x":1}"#, r#"[] {"body":"eyJ4IjoxfQ"}"#);
    check("body: str", r#"route | | {"x":1}"#, r#"[] {"body":"{\"x\":1}"}"#);
    check("body", "route | | text/plain: abc", r#"[] {"body":"YWJj"}"#);
    check("body: str", "route | | text/plain: abc", r#"[] {"body":"abc"}"#);
    check(
        "body: int",
        "route | | text/plain: 7",
        "bad_arguments: the body must be int as application/json, not text/plain",
    );
    check(
        "x",
        "call text/plain: 7",
        "bad_arguments: a body of text/plain has no place: m.f has no parameter `body`",
    );
    check("body: str", "call text/plain: 7", r#"[] {"body":"7"}"#);
    // An empty text is a text; where it has no place it is nothing.
    check("body: str", "route | | text/plain:", r#"[] {"body":""}"#);
    check("n: int = 1", "route | | text/plain:", "[] {}");
    let failure = bind(&signature("n"), input("call application/x-www-form-urlencoded: n=1")).unwrap_err();
    assert!(failure.hint.contains("curl -d sends a form"), "{}", failure.hint);
}

#[test]
fn cbor_passes_unchanged() {
    let body = Bytes::from_static(&[0x82, 0x81, 0x01, 0xbf, 0xff]);
    let input = Input { content: Content::Cbor, body: body.clone(), ..Default::default() };
    assert_eq!(bind(&signature("n"), input).unwrap(), body);
    for bad in [&b"\x01"[..], b"\xff", b"\x82\x01\x02"] {
        let input = Input { content: Content::Cbor, body: Bytes::copy_from_slice(bad), ..Default::default() };
        assert_eq!(bind(&signature("n"), input).unwrap_err().code, "bad_request");
    }
}

#[test]
fn functions_can_ask_for_the_request() {
    let map = Bytes::from_static(&[0xa0]);
    let input = Input { route: true, headers: Some(map.clone()), request: Some(map), ..Default::default() };
    let sig = signature("headers: dict, request: dict");
    assert!(sig.wants("headers") && sig.wants("request") && !signature("headers").wants("headers"));
    assert!(bind(&sig, input).is_ok());
}

#[test]
fn a_bad_json_body_is_a_bad_request() {
    check(
        "n",
        "call {\"n\":1,",
        "bad_request: the body is not JSON: EOF while parsing a value at line 1 column 7",
    );
    check(
        "n",
        r#"call {"n":1,"n":2}"#,
        "bad_request: the body is not JSON: the key \"n\" occurs twice at line 1 column 13",
    );
}

#[test]
fn the_signature_is_in_the_hint() {
    let failure =
        bind(&signature("n: int, k: str? = null, *args, flag = 1, **kw"), input("call")).unwrap_err();
    assert_eq!(failure.hint, "the function is m.f(n: int, k: str? = null, *args, flag = 1, **kw)");
    let failure = bind(&signature("a, /, b, *, c"), input("call")).unwrap_err();
    assert_eq!(failure.hint, "the function is m.f(a, /, b, *, c)");
}

proptest::proptest! {
    #[test]
    fn any_body_binds_or_fails(body in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..200), kind in 0..3) {
        let content = [Content::Json, Content::Cbor, Content::Other(String::new())][kind as usize].clone();
        for route in [true, false] {
            let input = Input { route, content: content.clone(), body: body.clone().into(), ..Default::default() };
            let _ = bind(&signature("a: int, body = 1, *args, **kw"), input);
        }
    }
}
