//! Values between JSON, CBOR and Python.

use serde_json::json;

use crate::support::{Daemon, JSON};

const KINDS: (&str, &str) = (
    "kinds.py",
    "
    import dataclasses, datetime, decimal, enum, fractions, ipaddress, pathlib, uuid
    from bourse import function, call
    UTC = datetime.timezone.utc
    @dataclasses.dataclass
    class Point:
        x: int
        y: float
    class Colour(enum.Enum):
        RED = 'red'
    ALL = {
        'datetime': datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        'micro': datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        'date': datetime.date(2026, 1, 2),
        'time': datetime.time(3, 4, 5),
        'decimal': decimal.Decimal('12.50'),
        'negative': decimal.Decimal('-0.001'),
        'scaled': decimal.Decimal('15E+3'),
        'fraction': fractions.Fraction(1, 3),
        'uuid': uuid.UUID('01234567-89ab-cdef-0123-456789abcdef'),
        'set': {7},
        'frozen': frozenset({7}),
        'tuple': (1, 2),
        'big': 2 ** 70,
        'bignegative': -(2 ** 70),
        'bytes': b'hello',
        'nan': float('nan'),
        'infinite': float('inf'),
        'point': Point(1, 2.0),
        'colour': Colour.RED,
        'path': pathlib.PurePosixPath('/a/b'),
        'ip': ipaddress.ip_address('127.0.0.1'),
        'ip6': ipaddress.ip_address('::1'),
        'keys': {1: 'one', True: 'yes'},
    }
    @function
    def give(name: str):
        return ALL[name]
    @function
    def keep(value):
        return value
    @function
    def same(name: str):
        return call('kinds.keep', ALL[name]) == ALL[name]
    @function
    def kind(value):
        return type(value).__name__
    @function
    def naive():
        return datetime.datetime(2026, 1, 2)
    ",
);

#[test]
fn what_python_gives_makes_sense_as_json() {
    let daemon = Daemon::start(&[KINDS]);
    for (name, expected) in [
        ("datetime", r#""2026-01-02T03:04:05Z""#),
        ("micro", r#""2026-01-02T03:04:05.000678Z""#),
        ("date", r#""2026-01-02""#),
        ("time", r#""03:04:05""#),
        ("decimal", r#""12.50""#),
        ("negative", r#""-0.001""#),
        ("scaled", r#""15000""#),
        ("fraction", r#""1/3""#),
        ("uuid", r#""01234567-89ab-cdef-0123-456789abcdef""#),
        ("set", "[7]"),
        ("frozen", "[7]"),
        ("tuple", "[1,2]"),
        ("big", r#""1180591620717411303424""#),
        ("bignegative", r#""-1180591620717411303424""#),
        ("nan", "null"),
        ("infinite", "null"),
        ("point", r#"{"x":1,"y":2.0}"#),
        ("colour", r#""red""#),
        ("path", r#""/a/b""#),
        ("ip", r#""127.0.0.1""#),
        ("ip6", r#""::1""#),
    ] {
        let given = daemon.call("kinds.give", json!({"name": name}));
        assert_eq!((given.status, given.text()), (200, expected), "{name}");
    }
    let naive = daemon.call("kinds.naive", json!({})).problem(500, "function_error");
    assert!(naive.contains("datetime without a zone"), "{naive}");
}

#[test]
fn between_functions_values_stay_what_they_were() {
    let daemon = Daemon::start(&[KINDS]);
    for name in [
        "datetime",
        "micro",
        "date",
        "decimal",
        "fraction",
        "uuid",
        "set",
        "big",
        "bignegative",
        "bytes",
        "ip",
    ] {
        assert_eq!(daemon.call("kinds.same", json!({"name": name})).ok(), true, "{name}");
    }
}

#[test]
fn json_loses_nothing_on_the_way() {
    let daemon = Daemon::start(&[KINDS]);
    for text in [
        "0",
        "-1",
        "18446744073709551615",
        "-9223372036854775808",
        "1.5",
        "1e300",
        "0.1",
        "true",
        "null",
        r#""tëxt \u0000 \ud83d\ude00""#,
        "[[],{},[[1]]]",
        r#"{"a":{"b":[null]}}"#,
    ] {
        let body = format!("[{text}]");
        let kept = daemon.send("POST", "/v1/call/kinds.keep", JSON, body.as_bytes());
        let expected: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(kept.ok(), expected, "{text}");
    }
    for (text, kind) in
        [("1", "int"), ("1.0", "float"), ("true", "bool"), ("null", "NoneType"), ("[]", "list")]
    {
        let body = format!("[{text}]");
        let kept = daemon.send("POST", "/v1/call/kinds.kind", JSON, body.as_bytes());
        assert_eq!(kept.ok(), kind, "{text}");
    }
    // Deeper than anyone means.
    let deep = format!("[{}{}]", "[".repeat(200), "]".repeat(200));
    daemon.send("POST", "/v1/call/kinds.keep", JSON, deep.as_bytes()).problem(400, "bad_request");
}
