//! JSON text to deterministic CBOR and back, in one pass, without a tree in between.
//!
//! It means the same as [`bourse_wire::value`]'s conversions, which the tests hold it to, with three rules of its
//! own: a JSON object with the same key twice is refused (parsers disagree on which one counts), nesting is
//! bounded by [`NESTING_MAX`] less the two levels that arguments are wrapped in, and CBOR map keys that become
//! the same text are all written.

use std::fmt;

use bourse_wire::value::{NESTING_MAX, Value};
use bytes::Bytes;
use minicbor::data::Type;
use minicbor::{Decoder, decode};
use serde::de::{self, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// How deep a JSON text may be nested.
pub(crate) const JSON_NESTING_MAX: usize = NESTING_MAX - 2;

/// A JSON text, as far as binding looks into it. The parts are encoded CBOR items.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Document {
    /// Fields in the order in which they were written.
    Object(Vec<(String, Bytes)>),
    /// Elements.
    Array(Vec<Bytes>),
    /// Neither.
    Scalar(Bytes),
}

/// Reads a JSON text.
pub(crate) fn document(text: &[u8]) -> serde_json::Result<Document> {
    let mut out = Vec::with_capacity(text.len());
    let mut de = serde_json::Deserializer::from_slice(text);
    let parts = Parts { out: &mut out }.deserialize(&mut de)?;
    de.end()?;
    let all = Bytes::from(out);
    // Each part ends where the next one begins.
    Ok(match parts {
        Outline::Object(fields) => Document::Object(
            fields.into_iter().map(|(name, start, end)| (name, all.slice(start..end))).collect(),
        ),
        Outline::Array(ends) => {
            let mut start = 0;
            Document::Array(
                ends.into_iter().map(|end| all.slice(std::mem::replace(&mut start, end)..end)).collect(),
            )
        }
        Outline::Scalar => Document::Scalar(all),
    })
}

/// Reads a JSON text as one CBOR item.
pub(crate) fn item(text: &[u8]) -> serde_json::Result<Bytes> {
    let mut out = Vec::with_capacity(text.len());
    let mut de = serde_json::Deserializer::from_slice(text);
    Item { out: &mut out, depth: 0 }.deserialize(&mut de)?;
    de.end()?;
    Ok(out.into())
}

/// Writes the head of a CBOR item: its major type and a number.
pub(crate) fn head(out: &mut Vec<u8>, major: u8, n: u64) {
    let major = major << 5;
    let bytes = n.to_be_bytes();
    match n {
        0..=23 => out.push(major | bytes[7]),
        24..=0xff => out.extend_from_slice(&[major | 24, bytes[7]]),
        0x100..=0xffff => out.extend_from_slice(&[major | 25, bytes[6], bytes[7]]),
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Writes a CBOR text string.
pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    head(out, 3, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

enum Outline {
    Object(Vec<(String, usize, usize)>),
    Array(Vec<usize>),
    Scalar,
}

/// The outermost level of a text.
struct Parts<'o> {
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Parts<'_> {
    type Value = Outline;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Outline, D::Error> {
        de.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($value:ty, $done:expr) => {
        fn visit_unit<E: de::Error>(self) -> Result<$value, E> {
            self.out.push(0xf6);
            Ok($done)
        }
        fn visit_bool<E: de::Error>(self, b: bool) -> Result<$value, E> {
            self.out.push(0xf4 + u8::from(b));
            Ok($done)
        }
        fn visit_u64<E: de::Error>(self, n: u64) -> Result<$value, E> {
            head(self.out, 0, n);
            Ok($done)
        }
        fn visit_i64<E: de::Error>(self, n: i64) -> Result<$value, E> {
            if n < 0 {
                head(self.out, 1, !n as u64)
            } else {
                head(self.out, 0, n as u64)
            }
            Ok($done)
        }
        fn visit_f64<E: de::Error>(self, f: f64) -> Result<$value, E> {
            self.out.extend_from_slice(&Value::Float(f).to_cbor());
            Ok($done)
        }
        fn visit_str<E: de::Error>(self, s: &str) -> Result<$value, E> {
            text(self.out, s);
            Ok($done)
        }
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON value")
        }
    };
}

impl<'de> Visitor<'de> for Parts<'_> {
    type Value = Outline;

    scalars!(Outline, Outline::Scalar);

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Outline, A::Error> {
        let mut ends = Vec::new();
        while seq.next_element_seed(Item { out: &mut *self.out, depth: 1 })?.is_some() {
            ends.push(self.out.len());
        }
        Ok(Outline::Array(ends))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
        let mut fields: Vec<(String, usize, usize)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let start = self.out.len();
            map.next_value_seed(Item { out: &mut *self.out, depth: 1 })?;
            fields.push((name, start, self.out.len()));
        }
        let mut names: Vec<&str> = fields.iter().map(|f| f.0.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(A::Error::custom(twice(pair[0]))),
            None => Ok(Outline::Object(fields)),
        }
    }
}

/// Any value, appended to `out` as CBOR.
struct Item<'o> {
    out: &'o mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        if self.depth > JSON_NESTING_MAX {
            return Err(D::Error::custom(format_args!("nested deeper than {JSON_NESTING_MAX} levels")));
        }
        de.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ();

    scalars!((), ());

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let start = self.out.len();
        self.out.push(0);
        let mut count = 0;
        while seq.next_element_seed(Item { out: &mut *self.out, depth: self.depth + 1 })?.is_some() {
            count += 1;
        }
        put_head(self.out, start, 4, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let start = self.out.len();
        self.out.push(0);
        let mut pairs: Vec<(usize, usize, usize)> = Vec::new();
        loop {
            let key = self.out.len();
            if map.next_key_seed(Key { out: &mut *self.out })?.is_none() {
                break;
            }
            let value = self.out.len();
            map.next_value_seed(Item { out: &mut *self.out, depth: self.depth + 1 })?;
            pairs.push((key, value, self.out.len()));
        }
        let key = |&(key, value, _): &(usize, usize, usize)| &self.out[key..value];
        if !pairs.is_sorted_by(|a, b| key(a) < key(b)) {
            pairs.sort_by(|a, b| key(a).cmp(key(b)));
            if let Some(pair) = pairs.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
                let name = Value::from_cbor(key(&pair[0])).map(|name| name.to_string()).unwrap_or_default();
                return Err(A::Error::custom(twice(name.trim_matches('"'))));
            }
            let sorted: Vec<u8> =
                pairs.iter().flat_map(|&(key, _, end)| &self.out[key..end]).copied().collect();
            self.out.truncate(start + 1);
            self.out.extend_from_slice(&sorted);
        }
        put_head(self.out, start, 5, pairs.len() as u64);
        Ok(())
    }
}

struct Key<'o> {
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        de.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, s: &str) -> Result<(), E> {
        text(self.out, s);
        Ok(())
    }
}

fn twice(name: &str) -> String {
    format!("the key {:?} occurs twice", name.chars().take(64).collect::<String>())
}

/// Puts an item's head into the one byte that was left for it.
fn put_head(out: &mut Vec<u8>, at: usize, major: u8, n: u64) {
    let mut bytes = Vec::new();
    if n < 24 {
        out[at] = major << 5 | n as u8;
    } else {
        head(&mut bytes, major, n);
        out.splice(at..=at, bytes);
    }
}

/// Writes one CBOR item as JSON text.
pub(crate) fn from_cbor(bytes: &[u8]) -> Result<Vec<u8>, decode::Error> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 4 + 8);
    let mut d = Decoder::new(bytes);
    write(&mut d, &mut out, 0)?;
    match bytes.len() - d.position() {
        0 => Ok(out),
        rest => Err(decode::Error::message(format_args!("{rest} bytes follow the item"))),
    }
}

fn write(d: &mut Decoder<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), decode::Error> {
    if depth > NESTING_MAX {
        return Err(decode::Error::message(format_args!("nested deeper than {NESTING_MAX} levels")));
    }
    match d.datatype()? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => put(out, &d.u64()?),
        Type::String => put(out, d.str()?),
        Type::Bool => put(out, &d.bool()?),
        Type::Array | Type::ArrayIndef => {
            let mut left = d.array()?;
            out.push(b'[');
            let mut first = true;
            while more(d, &mut left)? {
                comma(out, &mut first);
                write(d, out, depth + 1)?;
            }
            out.push(b']');
            Ok(())
        }
        Type::Map | Type::MapIndef => {
            let mut left = d.map()?;
            out.push(b'{');
            let mut first = true;
            while more(d, &mut left)? {
                comma(out, &mut first);
                key(d, out)?;
                out.push(b':');
                write(d, out, depth + 1)?;
            }
            out.push(b'}');
            Ok(())
        }
        Type::Tag => match d.probe().tag()?.as_u64() {
            2 | 3 | 4 | 30 | 37 | 52 | 54 | 260 => put(out, &skipped(d)?.to_json()),
            _ => {
                d.tag()?;
                write(d, out, depth + 1)
            }
        },
        // The rest is rare or small: by way of a tree.
        _ => put(out, &skipped(d)?.to_json()),
    }
}

fn key(d: &mut Decoder<'_>, out: &mut Vec<u8>) -> Result<(), decode::Error> {
    if d.datatype()? == Type::String {
        return put(out, d.str()?);
    }
    match skipped(d)?.to_json() {
        serde_json::Value::String(text) => put(out, &text),
        other => put(out, &other.to_string()),
    }
}

/// The next item as a tree.
fn skipped(d: &mut Decoder<'_>) -> Result<Value, decode::Error> {
    let start = d.position();
    d.skip()?;
    Value::from_cbor(&d.input()[start..d.position()]).map_err(decode::Error::message)
}

fn put<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), decode::Error> {
    serde_json::to_writer(out, value).map_err(decode::Error::message)
}

fn comma(out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
}

/// Whether an array or map goes on: counts `left` down, or looks for the break of an indefinite one.
fn more(d: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, decode::Error> {
    match left {
        Some(0) => Ok(false),
        Some(n) => {
            *n -= 1;
            Ok(true)
        }
        None if d.datatype()? == Type::Break => {
            d.set_position(d.position() + 1);
            Ok(false)
        }
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By way of trees.
    fn slowly(text: &str) -> Bytes {
        Value::from(serde_json::from_str::<serde_json::Value>(text).unwrap()).to_cbor()
    }

    #[test]
    fn text_becomes_cbor() {
        for text in
            ["null", "[true,-1,2.5,1e300,18446744073709551615]", r#"{"b":1,"a":{"zz":[],"y":"ü"}}"#, "\"\""]
        {
            assert_eq!(item(text.as_bytes()).unwrap(), slowly(text), "{text}");
        }
        let long = format!("[{}]", vec!["{\"k\":[1]}"; 300].join(","));
        assert_eq!(item(long.as_bytes()).unwrap(), slowly(&long));
        let Document::Object(fields) = document(br#"{"n": 3, "m": [1]}"#).unwrap() else { panic!() };
        assert_eq!(
            fields,
            [("n".into(), Bytes::from_static(&[3])), ("m".into(), Bytes::from_static(&[0x81, 1]))]
        );
        assert_eq!(document(b"[]").unwrap(), Document::Array(vec![]));
        assert_eq!(document(b" 7 ").unwrap(), Document::Scalar(Bytes::from_static(&[7])));
    }

    #[test]
    fn hostile_text_gets_an_error() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        for bad in [
            "",
            "{",
            "NaN",
            "[1,]",
            "{\"a\":1,\"a\":2}",
            "{\"x\":{\"a\":1,\"b\":0,\"a\":2}}",
            "1 2",
            "\"\u{0}\"",
            "'a'",
            "01",
        ] {
            assert!(document(bad.as_bytes()).is_err(), "{bad}");
            assert!(bad.starts_with("{\"a") || item(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(document(b"\"\xff\"").is_err());
        assert!(document(deep(JSON_NESTING_MAX).as_bytes()).is_ok());
        assert!(document(deep(JSON_NESTING_MAX + 2).as_bytes()).is_err());
        assert!(document(deep(1_000_000).as_bytes()).is_err());
        assert!(from_cbor(&[0x81; 1000]).is_err());
        assert!(from_cbor(&[0xa1; 1000]).is_err());
        assert!(from_cbor(&[0x00, 0x00]).is_err());
        assert!(from_cbor(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255, 0]).is_err());
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 64, 30, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..30).prop_map(Into::into),
                prop::collection::hash_map(".{0,30}", inner, 0..30)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_means_what_the_trees_mean(json in any_json()) {
            let text = json.to_string();
            let cbor = item(text.as_bytes()).unwrap();
            prop_assert_eq!(&cbor, &slowly(&text));
            let back = Value::from_cbor(&cbor).unwrap().to_json().to_string();
            prop_assert_eq!(String::from_utf8(from_cbor(&cbor).unwrap()).unwrap(), back);
        }

        #[test]
        fn any_bytes_are_read_as_the_trees_read_them(bytes in any::<Vec<u8>>()) {
            let _ = document(&bytes);
            prop_assert_eq!(from_cbor(&bytes).is_ok(), Value::from_cbor(&bytes).is_ok());
        }
    }
}
