//! Keys that are made of a call's arguments: `"{account}"`, `"{account}/{year}"`, `"all"`.

use crate::arguments::Arguments;
use crate::v1;
use crate::v1::parameter::Kind;
use crate::value::Value;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// A text in which `{name}` stands for the value of an argument; `{{` and `}}` for braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A parameter: by position (unless it goes by name only), by name, and by default.
    Argument {
        name: String,
        position: Option<usize>,
        default: Option<String>,
    },
}

/// Why a call's arguments make no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// It is not given, and has no default that goes into a key.
    #[error("its key {template:?} needs the argument `{name}`, which is missing")]
    Missing {
        /// The template.
        template: String,
        /// The argument.
        name: String,
    },
    /// Only texts, whole numbers, booleans and bytes go into a key.
    #[error(
        "its key {template:?} is made of `{name}`, which is {what}: only texts, whole numbers, booleans and bytes can be"
    )]
    Kind {
        /// The template.
        template: String,
        /// The argument.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// Longer than [`KEY_BYTES_MAX`].
    #[error("its key {template:?} would have {bytes} bytes, at most {KEY_BYTES_MAX} are allowed")]
    TooLong {
        /// The template.
        template: String,
        /// How long it would be.
        bytes: usize,
    },
    /// It would have a NUL character in it, or be empty.
    #[error("its key {template:?} is empty, or has a NUL character in it")]
    Text {
        /// The template.
        template: String,
    },
}

impl KeyTemplate {
    /// Reads a template for a function with these parameters. The error says what is wrong with it.
    pub fn new(text: &str, parameters: &[v1::Parameter]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = rest.split_once('}').filter(|_| brace == "{") else {
                return Err("a brace without its other half; write {{ or }} for a brace itself".to_owned());
            };
            rest = after;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(argument(name, parameters)?);
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        match parts.is_empty() {
            true => Err("it is empty".to_owned()),
            false => Ok(Self { text: text.to_owned(), parts }),
        }
    }

    /// The same, of JSON.
    pub fn from_json(json: &str, parameters: &[v1::Parameter]) -> Result<Self, String> {
        let text: String = serde_json::from_str(json).map_err(|_| "it is not a text".to_owned())?;
        Self::new(&text, parameters)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key of a call with these arguments.
    pub fn of(&self, arguments: &Arguments) -> Result<String, BadKey> {
        let mut key = String::new();
        let template = || self.text.clone();
        for part in &self.parts {
            match part {
                Part::Text(text) => key.push_str(text),
                Part::Argument { name, position, default } => {
                    let by_name = || arguments.named.iter().find(|(n, _)| n == name).map(|(_, value)| value);
                    let given = position.and_then(|at| arguments.positional.get(at)).or_else(by_name);
                    let missing = || BadKey::Missing { template: template(), name: name.clone() };
                    match given {
                        None => key.push_str(default.as_ref().ok_or_else(missing)?),
                        Some(value) => add(&mut key, value).map_err(|what| BadKey::Kind {
                            template: template(),
                            name: name.clone(),
                            what,
                        })?,
                    }
                }
            }
        }
        match () {
            () if key.len() > KEY_BYTES_MAX => {
                Err(BadKey::TooLong { template: template(), bytes: key.len() })
            }
            () if key.is_empty() || key.contains('\0') => Err(BadKey::Text { template: template() }),
            () => Ok(key),
        }
    }
}

fn argument(name: &str, parameters: &[v1::Parameter]) -> Result<Part, String> {
    let plain = |p: &&v1::Parameter| !matches!(p.kind(), Kind::VarPositional | Kind::VarNamed);
    let Some(parameter) = parameters.iter().filter(plain).find(|p| p.name == name) else {
        let names: Vec<_> = parameters.iter().filter(plain).map(|p| p.name.as_str()).collect();
        let near = crate::nearest::nearest(name, names.iter().copied());
        return Err(match (near.first(), names.is_empty()) {
            (Some(near), _) => format!("{{{name}}} names no argument; did you mean {{{near}}}?"),
            (None, false) => format!("{{{name}}} names no argument; there are {}", names.join(", ")),
            (None, true) => format!("{{{name}}} names no argument: the function takes none"),
        });
    };
    let by_position = |p: &&v1::Parameter| matches!(p.kind(), Kind::Any | Kind::Positional);
    let position = parameters.iter().filter(by_position).position(|p| p.name == name);
    let default = (!parameter.default_json.is_empty())
        .then(|| serde_json::from_str::<serde_json::Value>(&parameter.default_json).ok())
        .flatten()
        .and_then(|json| match json {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Bool(_) => Some(json.to_string()),
            serde_json::Value::Number(number) if number.is_i64() || number.is_u64() => {
                Some(number.to_string())
            }
            _ => None,
        });
    Ok(Part::Argument { name: name.to_owned(), position, default })
}

/// Adds a value's text, or says what it is instead.
fn add(key: &mut String, value: &Value) -> Result<(), &'static str> {
    match value {
        Value::Text(text) => key.push_str(text),
        Value::Int(number) => key.push_str(&number.to_string()),
        Value::Bool(yes) => key.push_str(if *yes { "true" } else { "false" }),
        Value::Bytes(bytes) => bytes.iter().for_each(|byte| key.push_str(&format!("{byte:02x}"))),
        Value::Null => return Err("null"),
        Value::Array(_) => return Err("a list"),
        Value::Map(_) => return Err("an object"),
        Value::Float(_) => return Err("a number with a fraction"),
        _ => return Err("a value of another kind"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(name: &str, kind: Kind, default_json: &str) -> v1::Parameter {
        let default_json = default_json.to_owned();
        v1::Parameter { name: name.to_owned(), kind: kind.into(), default_json, ..Default::default() }
    }

    fn parameters() -> Vec<v1::Parameter> {
        vec![
            parameter("account", Kind::Any, ""),
            parameter("year", Kind::Any, "2026"),
            parameter("rest", Kind::VarPositional, ""),
            parameter("by", Kind::Named, "\"me\""),
        ]
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn keys_are_made_of_arguments_however_they_were_passed() {
        let template = KeyTemplate::new("{account}/{year}-{by}{{}}", &parameters()).unwrap();
        let of = |positional: Vec<Value>, named: Vec<(&str, Value)>| {
            let named = named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            template.of(&Arguments { positional, named })
        };
        assert_eq!(of(vec![text("a"), Value::Int(7)], vec![]).unwrap(), "a/7-me{}");
        assert_eq!(of(vec![text("a")], vec![("by", text("you"))]).unwrap(), "a/2026-you{}");
        assert_eq!(
            of(vec![], vec![("account", Value::Bytes(vec![1, 255].into()))]).unwrap(),
            "01ff/2026-me{}"
        );
        assert_eq!(
            of(vec![], vec![]).unwrap_err().to_string(),
            "its key \"{account}/{year}-{by}{{}}\" needs the argument `account`, which is missing"
        );
        assert!(of(vec![Value::Null], vec![]).unwrap_err().to_string().contains("which is null"));
        assert!(of(vec![text(&"a".repeat(600))], vec![]).unwrap_err().to_string().contains("at most 512"));
        assert!(of(vec![text("a\0")], vec![]).unwrap_err().to_string().contains("NUL"));
    }

    #[test]
    fn what_is_wrong_with_a_template_is_said() {
        let wrong = |text: &str| KeyTemplate::new(text, &parameters()).unwrap_err();
        assert_eq!(wrong("{acount}"), "{acount} names no argument; did you mean {account}?");
        assert_eq!(wrong("{zebra}"), "{zebra} names no argument; there are account, year, by");
        assert!(wrong("{rest}").contains("names no argument"), "*args have no name");
        assert!(wrong("{account").contains("other half") && wrong("a}").contains("other half"));
        assert_eq!(wrong(""), "it is empty");
        assert_eq!(
            KeyTemplate::new("{a}", &[]).unwrap_err(),
            "{a} names no argument: the function takes none"
        );
    }
}
