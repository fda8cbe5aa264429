//! Values: deterministic CBOR (RFC 8949 §4.2.1) inside, JSON at the edge.
//!
//! The way from JSON to CBOR loses nothing. From CBOR to JSON, byte strings become unpadded base64url text (RFC
//! 8949 §6.1), NaN and the infinities become null, map keys become text, and tags are dropped, except where text says
//! it better: big numbers, decimal fractions, fractions, UUIDs and IP addresses.

use std::fmt;

use bytes::Bytes;
use minicbor::data::Type;
use minicbor::encode::write::Write as _;
use minicbor::{Decoder, Encoder};
use serde_json::{Map, Number, Value as Json};

/// How deep arrays, maps and tags may be nested.
pub const NESTING_MAX: usize = 128;

/// A CBOR data item.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`; `undefined` reads as this, too.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer between −2^64 and 2^64 − 1.
    Int(i128),
    /// A floating-point number.
    Float(f64),
    /// A byte string.
    Bytes(Bytes),
    /// A text string.
    Text(String),
    /// An array.
    Array(Vec<Self>),
    /// A map; encoded in the bytewise order of its encoded keys.
    Map(Vec<(Self, Self)>),
    /// A tagged item (such as a big number or a date).
    Tag(u64, Box<Self>),
}

/// Bytes that are not one well-formed CBOR item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not CBOR, or cut off.
    #[error("not well-formed CBOR: {0}")]
    Malformed(String),
    /// Nested deeper than [`NESTING_MAX`].
    #[error("CBOR nested deeper than {NESTING_MAX} levels")]
    TooDeep,
    /// Something follows the item.
    #[error("{0} bytes follow the CBOR item")]
    Trailing(usize),
}

impl From<minicbor::decode::Error> for Error {
    fn from(e: minicbor::decode::Error) -> Self {
        Self::Malformed(e.to_string())
    }
}

impl Value {
    /// Decodes one item.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, Error> {
        let mut decoder = Decoder::new(bytes);
        let value = decode(&mut decoder, 0)?;
        match bytes.len() - decoder.position() {
            0 => Ok(value),
            rest => Err(Error::Trailing(rest)),
        }
    }

    /// Encodes it deterministically.
    pub fn to_cbor(&self) -> Bytes {
        let mut out = Vec::new();
        encode(self, &mut out);
        out.into()
    }

    /// As JSON.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(b) => Json::Bool(*b),
            Self::Int(i) => match (i64::try_from(*i), u64::try_from(*i)) {
                (Ok(i), _) => Json::Number(i.into()),
                (_, Ok(u)) => Json::Number(u.into()),
                _ => Number::from_f64(*i as f64).map_or(Json::Null, Json::Number),
            },
            Self::Float(f) => Number::from_f64(*f).map_or(Json::Null, Json::Number),
            Self::Bytes(b) => Json::String(base64url(b)),
            Self::Text(t) => Json::String(t.clone()),
            Self::Array(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Self::Map(pairs) => {
                Json::Object(pairs.iter().map(|(k, v)| (k.to_text(), v.to_json())).collect::<Map<_, _>>())
            }
            Self::Tag(tag, inner) => match tagged(*tag, inner) {
                Some(text) => Json::String(text),
                None => inner.to_json(),
            },
        }
    }

    /// A map key as text.
    fn to_text(&self) -> String {
        match self {
            Self::Text(t) => t.clone(),
            other => match other.to_json() {
                Json::String(s) => s,
                json => json.to_string(),
            },
        }
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(i), _) => Self::Int(i.into()),
                (_, Some(u)) => Self::Int(u.into()),
                _ => Self::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(s) => Self::Text(s),
            Json::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Json::Object(map) => Self::Map(map.into_iter().map(|(k, v)| (Self::Text(k), v.into())).collect()),
        }
    }
}

macro_rules! from {
    ($($of:ty: $value:ident => $made:expr;)*) => {
        $(impl From<$of> for Value {
            fn from($value: $of) -> Self {
                $made
            }
        })*
    };
}

from! {
    (): _nothing => Self::Null;
    bool: yes => Self::Bool(yes);
    i32: number => Self::Int(number.into());
    i64: number => Self::Int(number.into());
    u32: number => Self::Int(number.into());
    u64: number => Self::Int(number.into());
    f64: number => Self::Float(number);
    &str: text => Self::Text(text.to_owned());
    String: text => Self::Text(text);
    Bytes: bytes => Self::Bytes(bytes);
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::Array(items.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(item: Option<T>) -> Self {
        item.map_or(Self::Null, Into::into)
    }
}

impl fmt::Display for Value {
    /// As JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_json().fmt(f)
    }
}

fn decode(d: &mut Decoder<'_>, depth: usize) -> Result<Value, Error> {
    if depth > NESTING_MAX {
        return Err(Error::TooDeep);
    }
    Ok(match d.datatype()? {
        Type::Null => d.null().map(|()| Value::Null)?,
        Type::Undefined => d.undefined().map(|()| Value::Null)?,
        Type::Bool => Value::Bool(d.bool()?),
        Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int => Value::Int(d.int()?.into()),
        Type::F16 => Value::Float(d.f16()?.into()),
        Type::F32 => Value::Float(d.f32()?.into()),
        Type::F64 => Value::Float(d.f64()?),
        Type::Bytes => Value::Bytes(Bytes::copy_from_slice(d.bytes()?)),
        Type::String => Value::Text(d.str()?.to_owned()),
        Type::BytesIndef => {
            let mut all = Vec::new();
            for chunk in d.bytes_iter()? {
                all.extend_from_slice(chunk?);
            }
            Value::Bytes(all.into())
        }
        Type::StringIndef => {
            let mut all = String::new();
            for chunk in d.str_iter()? {
                all.push_str(chunk?);
            }
            Value::Text(all)
        }
        Type::Array | Type::ArrayIndef => {
            let mut left = d.array()?;
            let mut items = Vec::new();
            while more(d, &mut left)? {
                items.push(decode(d, depth + 1)?);
            }
            Value::Array(items)
        }
        Type::Map | Type::MapIndef => {
            let mut left = d.map()?;
            let mut pairs = Vec::new();
            while more(d, &mut left)? {
                pairs.push((decode(d, depth + 1)?, decode(d, depth + 1)?));
            }
            Value::Map(pairs)
        }
        Type::Tag => {
            let tag = d.tag()?.as_u64();
            Value::Tag(tag, Box::new(decode(d, depth + 1)?))
        }
        Type::Simple | Type::Break | Type::Unknown(_) => {
            return Err(Error::Malformed(format!("an item of unknown type at byte {}", d.position())));
        }
    })
}

/// Whether an array or map goes on: counts `left` down, or looks for the break of an indefinite one.
fn more(d: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, Error> {
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

fn encode(value: &Value, out: &mut Vec<u8>) {
    const INFALLIBLE: &str = "writing to a Vec does not fail";
    let mut e = Encoder::new(&mut *out);
    match value {
        Value::Null => drop(e.null().expect(INFALLIBLE)),
        Value::Bool(b) => drop(e.bool(*b).expect(INFALLIBLE)),
        Value::Int(i) => match minicbor::data::Int::try_from(*i) {
            Ok(int) => drop(e.int(int).expect(INFALLIBLE)),
            Err(_) => encode_float(*i as f64, out),
        },
        Value::Float(f) => encode_float(*f, out),
        Value::Bytes(b) => drop(e.bytes(b).expect(INFALLIBLE)),
        Value::Text(t) => drop(e.str(t).expect(INFALLIBLE)),
        Value::Array(items) => {
            e.array(items.len() as u64).expect(INFALLIBLE);
            for item in items {
                encode(item, out);
            }
        }
        Value::Map(pairs) => {
            e.map(pairs.len() as u64).expect(INFALLIBLE);
            let mut sorted: Vec<(Bytes, &Value)> = pairs.iter().map(|(k, v)| (k.to_cbor(), v)).collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            for (key, value) in sorted {
                out.write_all(&key).expect(INFALLIBLE);
                encode(value, out);
            }
        }
        Value::Tag(tag, inner) => {
            e.tag(minicbor::data::Tag::new(*tag)).expect(INFALLIBLE);
            encode(inner, out);
        }
    }
}

/// The shortest of 16, 32 and 64 bits that keeps the value (RFC 8949 §4.2.1); NaN as 0x7e00.
fn encode_float(f: f64, out: &mut Vec<u8>) {
    let single = f as f32;
    if f.is_nan() {
        out.extend_from_slice(&[0xf9, 0x7e, 0x00]);
    } else if f64::from(single) != f {
        out.push(0xfb);
        out.extend_from_slice(&f.to_be_bytes());
    } else if let Some(half) = half_bits(single) {
        out.push(0xf9);
        out.extend_from_slice(&half.to_be_bytes());
    } else {
        out.push(0xfa);
        out.extend_from_slice(&single.to_be_bytes());
    }
}

/// The 16-bit form of a number that has one without loss.
fn half_bits(f: f32) -> Option<u16> {
    let bits = f.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = ((bits >> 23) & 0xff) as i32 - 127;
    let mantissa = bits & 0x007f_ffff;
    match exponent {
        -127 if mantissa == 0 => Some(sign),
        128 if mantissa == 0 => Some(sign | 0x7c00),
        -14..=15 if mantissa.trailing_zeros() >= 13 => {
            Some(sign | (((exponent + 15) as u16) << 10) | (mantissa >> 13) as u16)
        }
        -24..=-15 => {
            let full = mantissa | 0x0080_0000;
            let shift = (-1 - exponent) as u32;
            (full.trailing_zeros() >= shift).then(|| sign | (full >> shift) as u16)
        }
        _ => None,
    }
}

/// Tagged items whose content alone would tell nobody what they are, as text: big numbers (tags 2 and 3), decimal
/// fractions (4), fractions (30), UUIDs (37) and IP addresses (52, 54 and 260).
fn tagged(tag: u64, inner: &Value) -> Option<String> {
    match (tag, inner) {
        (2, Value::Bytes(magnitude)) => decimal(magnitude, 0),
        (3, Value::Bytes(magnitude)) => decimal(magnitude, 1).map(|digits| format!("-{digits}")),
        (4, Value::Array(parts)) => match &parts[..] {
            [Value::Int(exponent), mantissa] => scaled(*exponent, &whole(mantissa)?),
            _ => None,
        },
        (30, Value::Array(parts)) => match &parts[..] {
            [above, below] => Some(format!("{}/{}", whole(above)?, whole(below)?)),
            _ => None,
        },
        (37, Value::Bytes(bytes)) => uuid::Uuid::from_slice(bytes).ok().map(|uuid| uuid.to_string()),
        (52 | 54 | 260, Value::Bytes(bytes)) => match bytes.len() {
            4 => <[u8; 4]>::try_from(&bytes[..]).ok().map(|ip| std::net::Ipv4Addr::from(ip).to_string()),
            16 => <[u8; 16]>::try_from(&bytes[..]).ok().map(|ip| std::net::Ipv6Addr::from(ip).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// A whole number, big ones included, in decimal.
fn whole(value: &Value) -> Option<String> {
    match value {
        Value::Int(i) => Some(i.to_string()),
        Value::Tag(tag @ (2 | 3), inner) => tagged(*tag, inner),
        _ => None,
    }
}

/// Big-endian bytes, and a little more, in decimal; `None` if they are so many that it would take long.
fn decimal(magnitude: &[u8], more: u32) -> Option<String> {
    const BYTES_MAX: usize = 1024;
    const LIMB: u64 = 1_000_000_000;
    if magnitude.len() > BYTES_MAX {
        return None;
    }
    // The lowest nine digits first.
    let mut limbs: Vec<u32> = vec![0];
    let mut carry_in = |factor: u64, summand: u64| {
        let mut carry = summand;
        for limb in &mut limbs {
            let value = u64::from(*limb) * factor + carry;
            *limb = (value % LIMB) as u32;
            carry = value / LIMB;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    };
    for &byte in magnitude {
        carry_in(256, byte.into());
    }
    carry_in(1, more.into());
    let mut digits: String = limbs.iter().rev().map(|limb| format!("{limb:09}")).collect();
    let zeros = digits.len() - digits.trim_start_matches('0').len().max(1);
    digits.drain(..zeros);
    Some(digits)
}

/// `whole` times ten to the power of `exponent`: written out if that is short, else with an exponent.
fn scaled(exponent: i128, whole: &str) -> Option<String> {
    const ZEROS_MAX: i128 = 64;
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    Some(match exponent {
        0 => whole.to_owned(),
        1..=ZEROS_MAX if digits == "0" => whole.to_owned(),
        1..=ZEROS_MAX => format!("{whole}{}", "0".repeat(usize::try_from(exponent).ok()?)),
        _ if (-ZEROS_MAX..0).contains(&exponent) => {
            let places = usize::try_from(-exponent).ok()?;
            let padded = format!("{digits:0>width$}", width = places + 1);
            let (before, after) = padded.split_at(padded.len() - places);
            format!("{sign}{before}.{after}")
        }
        _ => format!("{whole}E{exponent:+}"),
    })
}

/// Unpadded base64url (RFC 4648 §5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, &b| bits << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            text.push(ALPHABET[(bits >> (18 - 6 * i)) as usize & 63] as char);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn encodes_as_rfc_8949_appendix_a() {
        let cases: &[(Value, &str)] = &[
            (Value::Int(0), "00"),
            (Value::Int(1_000_000), "1a000f4240"),
            (Value::Int(u64::MAX.into()), "1bffffffffffffffff"),
            (Value::Int(-(1i128 << 64)), "3bffffffffffffffff"),
            (Value::Float(0.0), "f90000"),
            (Value::Float(-0.0), "f98000"),
            (Value::Float(1.5), "f93e00"),
            (Value::Float(65504.0), "f97bff"),
            (Value::Float(100_000.0), "fa47c35000"),
            (Value::Float(1.1), "fb3ff199999999999a"),
            (Value::Float(5.960_464_477_539_063e-8), "f90001"),
            (Value::Float(0.000_061_035_156_25), "f90400"),
            (Value::Float(f64::INFINITY), "f97c00"),
            (Value::Float(f64::NAN), "f97e00"),
            (Value::Text("\u{fc}".into()), "62c3bc"),
            (Value::Bytes(Bytes::from_static(&[1, 2, 3, 4])), "4401020304"),
            (Value::Tag(1, Box::new(Value::Int(1_363_896_240))), "c11a514b67b0"),
            (
                Value::Map(vec![
                    (Value::Text("b".into()), Value::Int(1)),
                    (Value::Text("a".into()), Value::Null),
                ]),
                "a26161f6616201",
            ),
        ];
        for (value, golden) in cases {
            assert_eq!(hex(&value.to_cbor()), *golden, "{value:?}");
        }
    }

    #[test]
    fn indefinite_items_are_read() {
        let bytes = [0x9f, 0x01, 0x5f, 0x41, 0xaa, 0x41, 0xbb, 0xff, 0xff];
        let expected = Value::Array(vec![Value::Int(1), Value::Bytes(Bytes::from_static(&[0xaa, 0xbb]))]);
        assert_eq!(Value::from_cbor(&bytes), Ok(expected));
    }

    #[test]
    fn hostile_bytes_get_errors() {
        assert_eq!(Value::from_cbor(&[0x81; 1000]), Err(Error::TooDeep));
        assert_eq!(Value::from_cbor(&[0x00, 0x00]), Err(Error::Trailing(1)));
        // An array that claims 2^64 - 1 items must not allocate for them.
        assert!(matches!(Value::from_cbor(&hex_bytes("9bffffffffffffffff00")), Err(Error::Malformed(_))));
        assert!(matches!(Value::from_cbor(&[]), Err(Error::Malformed(_))));
    }

    fn hex_bytes(s: &str) -> Vec<u8> {
        (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn bytes_become_base64url() {
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("\u{3ff}?", "z78_")] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn tagged_items_become_text_that_people_read() {
        let int = |i: i128| Value::Int(i);
        let bytes = |b: &[u8]| Value::Bytes(Bytes::copy_from_slice(b));
        let pair = |a, b| Value::Array(vec![a, b]);
        for (tag, inner, json) in [
            (2, bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 0]), "\"18446744073709551616\""),
            (2, bytes(&[]), "\"0\""),
            (3, bytes(&[0xff]), "\"-256\""),
            (4, pair(int(-2), int(1250)), "\"12.50\""),
            (4, pair(int(-3), int(-1)), "\"-0.001\""),
            (4, pair(int(3), int(15)), "\"15000\""),
            (4, pair(int(-2000), int(15)), "\"15E-2000\""),
            (4, pair(int(i128::from(i64::MIN)), int(0)), "\"0E-9223372036854775808\""),
            (4, pair(int(-1), Value::Tag(2, Box::new(bytes(&[1, 0])))), "\"25.6\""),
            (30, pair(int(1), int(3)), "\"1/3\""),
            (37, bytes(&[1; 16]), "\"01010101-0101-0101-0101-010101010101\""),
            (37, bytes(&[1]), "\"AQ\""),
            (52, bytes(&[127, 0, 0, 1]), "\"127.0.0.1\""),
            (258, Value::Array(vec![int(7)]), "[7]"),
            (0, Value::Text("2026-01-02T03:04:05Z".into()), "\"2026-01-02T03:04:05Z\""),
        ] {
            assert_eq!(Value::Tag(tag, Box::new(inner)).to_string(), json, "tag {tag}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|i| Value::Int(i.into())),
            any::<f64>().prop_filter("NaN is not equal to itself", |f| !f.is_nan()).prop_map(Value::Float),
            any::<Vec<u8>>().prop_map(|b| Value::Bytes(b.into())),
            any::<String>().prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
                prop::collection::btree_map(any::<String>(), inner, 0..8).prop_map(|m| {
                    let mut pairs: Vec<_> = m.into_iter().map(|(k, v)| (Value::Text(k), v)).collect();
                    pairs.sort_by_key(|(k, _)| k.to_cbor());
                    Value::Map(pairs)
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(value in any_value()) {
            prop_assert_eq!(Value::from_cbor(&value.to_cbor()), Ok(value));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in any::<Vec<u8>>()) {
            let _ = Value::from_cbor(&bytes);
        }
    }
}
