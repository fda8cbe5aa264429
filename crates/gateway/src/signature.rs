//! What a function takes: its parameters, and what fits each of them.

use std::fmt;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bourse_wire::v1::{self, parameter::Kind};
use bourse_wire::value::Value;
use bytes::Bytes;

use crate::json;

/// A function's parameters, prepared for binding.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    /// `module.function`.
    pub(crate) function: String,
    /// In order.
    pub(crate) parameters: Vec<Parameter>,
    /// Type of the result; may be empty.
    pub(crate) returns: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) hint: Hint,
    pub(crate) required: bool,
    pub(crate) kind: Kind,
    /// The default, as JSON text; empty where there is none that JSON can say.
    pub(crate) default_json: String,
}

/// A type, as far as a request can be checked against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) kind: Type,
    /// None is allowed as well.
    pub(crate) nullable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Any,
    Bool,
    Int,
    Float,
    Str,
    Bytes,
    List,
    Dict,
    None,
}

impl Signature {
    pub(crate) fn new(function: String, described: &v1::Function) -> Self {
        let parameters = described.parameters.iter().map(Parameter::new).collect();
        Self { function, parameters, returns: described.returns.clone() }
    }

    /// Where a parameter that can be named stands.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.parameters.iter().position(|p| p.name == name && !p.is_variadic())
    }

    pub(crate) fn takes(&self, kind: Kind) -> bool {
        self.parameters.iter().any(|p| p.kind == kind)
    }
}

impl Parameter {
    fn new(p: &v1::Parameter) -> Self {
        Self {
            name: p.name.clone(),
            hint: Hint::parse(&p.r#type),
            required: p.required,
            kind: p.kind(),
            default_json: p.default_json.clone(),
        }
    }

    pub(crate) fn is_variadic(&self) -> bool {
        matches!(self.kind, Kind::VarPositional | Kind::VarNamed)
    }

    /// Its default as CBOR, where the description has one.
    pub(crate) fn default(&self) -> Option<Bytes> {
        json::item(self.default_json.as_bytes()).ok()
    }

    /// Takes a CBOR item as it is, or as what the type makes of it; `Err` says what it is instead.
    pub(crate) fn admit(&self, item: Bytes) -> Result<Bytes, &'static str> {
        let given = Hint::of(&item);
        let fits = match self.hint.kind {
            Type::Any => true,
            Type::Float => matches!(given, Type::Float | Type::Int),
            Type::Bytes if given == Type::Str => return decode_text(&item).ok_or("text that is not base64"),
            wanted => wanted == given,
        };
        let none = given == Type::None && (self.hint.nullable || self.default_json == "null");
        if fits || none { Ok(item) } else { Err(given.name()) }
    }
}

/// JSON has no byte strings: they come as base64 or base64url text, padded or not.
fn decode_text(item: &[u8]) -> Option<Bytes> {
    match Value::from_cbor(item) {
        Ok(Value::Text(text)) => decode_base64(&text),
        _ => None,
    }
}

fn decode_base64(text: &str) -> Option<Bytes> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const URL: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
    let bytes = URL.decode(text).or_else(|_| STANDARD.decode(text)).ok()?;
    Some(Value::Bytes(bytes.into()).to_cbor())
}

impl Hint {
    /// From a description's text; what this release does not know fits anything.
    pub(crate) fn parse(text: &str) -> Self {
        let (name, nullable) = text.strip_suffix('?').map_or((text, false), |name| (name, true));
        let kind = Type::ALL.into_iter().find(|t| t.name() == name).unwrap_or(Type::Any);
        Self { kind, nullable }
    }

    /// What an encoded item is, by its first byte.
    fn of(item: &[u8]) -> Type {
        match item.first().map(|b| (b >> 5, b & 31)) {
            Some((0 | 1, _)) => Type::Int,
            Some((2, _)) => Type::Bytes,
            Some((3, _)) => Type::Str,
            Some((4, _)) => Type::List,
            Some((5, _)) => Type::Dict,
            Some((7, 20 | 21)) => Type::Bool,
            Some((7, 22)) => Type::None,
            Some((7, 25..=27)) => Type::Float,
            _ => Type::Any,
        }
    }

    /// What text from a path or query means.
    pub(crate) fn read(self, text: &str) -> Option<Bytes> {
        let value = match self.kind {
            Type::Any | Type::Str => Value::Text(text.to_owned()),
            Type::Int => Value::Int(
                text.parse::<i64>().map(i128::from).or_else(|_| text.parse::<u64>().map(i128::from)).ok()?,
            ),
            Type::Float => Value::Float(text.parse().ok().filter(|f: &f64| f.is_finite())?),
            Type::Bool => match text {
                "true" | "1" => Value::Bool(true),
                "false" | "0" => Value::Bool(false),
                _ => return None,
            },
            Type::Bytes => return decode_base64(text),
            Type::List => Value::Array(vec![Value::Text(text.to_owned())]),
            Type::Dict | Type::None => return None,
        };
        Some(value.to_cbor())
    }
}

impl Type {
    const ALL: [Self; 9] = [
        Self::Any,
        Self::Bool,
        Self::Int,
        Self::Float,
        Self::Str,
        Self::Bytes,
        Self::List,
        Self::Dict,
        Self::None,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Str => "str",
            Self::Bytes => "bytes",
            Self::List => "list",
            Self::Dict => "dict",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.name(), if self.nullable { "?" } else { "" })
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::VarPositional => return write!(f, "*{}", self.name),
            Kind::VarNamed => return write!(f, "**{}", self.name),
            _ => f.write_str(&self.name)?,
        }
        if self.hint != (Hint { kind: Type::Any, nullable: false }) {
            write!(f, ": {}", self.hint)?;
        }
        match (self.required, self.default_json.as_str()) {
            (true, _) => Ok(()),
            (false, "") => f.write_str(" = …"),
            (false, default) => write!(f, " = {default}"),
        }
    }
}

impl fmt::Display for Signature {
    /// As Python writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function)?;
        let mut before = None;
        for (i, p) in self.parameters.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if before == Some(Kind::Positional) && p.kind != Kind::Positional {
                f.write_str("/, ")?;
            }
            if p.kind == Kind::Named && !matches!(before, Some(Kind::Named | Kind::VarPositional)) {
                f.write_str("*, ")?;
            }
            write!(f, "{p}")?;
            before = Some(p.kind);
        }
        if before == Some(Kind::Positional) {
            f.write_str(", /")?;
        }
        match self.returns.as_str() {
            "" | "any" => f.write_str(")"),
            returns => write!(f, ") -> {returns}"),
        }
    }
}
