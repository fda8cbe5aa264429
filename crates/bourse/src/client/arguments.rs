//! What stands after a function's name: `name=value…`, one JSON text, or `@file`.

use std::fs;
use std::io::Read as _;

use bourse_wire::arguments::Arguments;
use bourse_wire::value::Value;
use bytes::Bytes;

use super::{Error, json};

/// A request body, and what it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) content_type: String,
}

const JSON: &str = "application/json";

/// The parameter that a file is for.
pub(super) const BODY: &str = "body";

/// Reads what was given, and the file or stdin that it names.
pub(super) fn body(given: &[String], content_type: Option<&str>) -> Result<Body, Error> {
    let usage = |text: String| Err(Error::Usage(text));
    if let [only] = given
        && let Some(file) = only.strip_prefix('@')
    {
        let by_name = if file.ends_with(".json") { JSON } else { "application/octet-stream" };
        return Ok(Body { bytes: read(file)?, content_type: content_type.unwrap_or(by_name).to_owned() });
    }
    if content_type.is_some() {
        return usage("--content-type says what @file is; other arguments are JSON".to_owned());
    }
    let json = |text: String| Ok(Body { bytes: text.into(), content_type: JSON.to_owned() });
    if let [only] = given
        && only.starts_with(['{', '['])
    {
        return match serde_json::from_str::<serde::de::IgnoredAny>(only) {
            Ok(_) => json(only.clone()),
            Err(e) => usage(format!(
                "{only:?} is not JSON: {e}\n  hint: quote it for the shell: '{{\"name\": \"value\"}}'"
            )),
        };
    }
    let mut names: Vec<&str> = Vec::new();
    let mut fields = Vec::new();
    for argument in given {
        if argument.starts_with(['@', '{', '[']) {
            return usage(format!("{argument:?} stands for all arguments, and there are others beside it"));
        }
        let Some((name, value)) = argument.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return usage(format!(
                "{argument:?} has no name\n  hint: write name={argument}, or '[{}]' for arguments by position",
                if json::is_json(argument) { argument.clone() } else { json::quoted(argument) }
            ));
        };
        if names.contains(&name) {
            return usage(format!("{name} is given twice"));
        }
        names.push(name);
        let value = if json::is_json(value) { value.to_owned() } else { json::quoted(value) };
        fields.push(format!("{}:{value}", json::quoted(name)));
    }
    json(format!("{{{}}}", fields.join(",")))
}

/// The file that stands beside `name=value…`, if there is one.
pub(super) fn file_beside(given: &[String]) -> Option<&str> {
    let mut files = given.iter().filter_map(|argument| argument.strip_prefix('@'));
    files.next().filter(|_| files.next().is_none() && given.len() > 1)
}

/// Named arguments and a file, which is the parameter `body`: JSON by its name or type, text if that is what the
/// parameter takes or `content_type` says, otherwise bytes.
pub(super) fn body_beside(
    given: &[String],
    file: &str,
    content_type: Option<&str>,
    takes_text: bool,
) -> Result<Body, Error> {
    let others: Vec<String> = given.iter().filter(|argument| !argument.starts_with('@')).cloned().collect();
    let Body { bytes: named, .. } = body(&others, None)?;
    let not_named = || Error::Usage(format!("beside @{file} arguments are written name=value"));
    let Ok(serde_json::Value::Object(named)) = serde_json::from_slice(&named) else {
        return Err(not_named());
    };
    if named.contains_key(BODY) {
        return Err(Error::Usage(format!("{BODY} is given twice: it is what @{file} holds")));
    }
    let bytes = read(file)?;
    let is_json = content_type.map_or(file.ends_with(".json"), |of| of == JSON || of.ends_with("+json"));
    let is_text = takes_text || content_type.is_some_and(|of| of.starts_with("text/"));
    let value = match (is_json && !takes_text, std::str::from_utf8(&bytes)) {
        (true, _) => serde_json::from_slice(&bytes)
            .map(value)
            .map_err(|e| Error::Usage(format!("{file} is not JSON: {e}")))?,
        (false, Ok(text)) if is_text => Value::Text(text.to_owned()),
        (false, Err(_)) if is_text => return Err(Error::Usage(format!("{file} is not UTF-8 text"))),
        (false, _) => Value::Bytes(bytes),
    };
    let mut all: Vec<_> = named.into_iter().map(|(name, given)| (name, self::value(given))).collect();
    all.push((BODY.to_owned(), value));
    let bytes = Arguments { positional: Vec::new(), named: all }.to_cbor();
    Ok(Body { bytes, content_type: "application/cbor".to_owned() })
}

/// JSON as the daemon reads it.
fn value(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(on) => Value::Bool(on),
        Json::Number(n) => match n.as_i128() {
            Some(n) => Value::Int(n),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(items) => Value::Array(items.into_iter().map(value).collect()),
        Json::Object(fields) => {
            Value::Map(fields.into_iter().map(|(name, of)| (Value::Text(name), value(of))).collect())
        }
    }
}

/// A file, or stdin for `-`.
pub(super) fn read(file: &str) -> Result<Bytes, Error> {
    let failed = |e: std::io::Error| Error::Usage(format!("{file} cannot be read: {e}"));
    if file != "-" {
        return Ok(fs::read(file).map_err(failed)?.into());
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[&str], expected: &str) {
        let given: Vec<String> = given.iter().map(|&g| g.to_owned()).collect();
        let told = match body(&given, None) {
            Ok(body) => String::from_utf8(body.bytes.to_vec()).unwrap(),
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn arguments() {
        check(&[], "{}");
        check(&["a=1", "b=x y", "c=[1, 2]", "d="], r#"{"a":1,"b":"x y","c":[1, 2],"d":""}"#);
        check(&[r#"a="1""#, "b=a=b", "c=true", "d=null"], r#"{"a":"1","b":"a=b","c":true,"d":null}"#);
        check(&["n=123456789012345678901234567890"], r#"{"n":123456789012345678901234567890}"#);
        check(&[r#"{"a": 1}"#], r#"{"a": 1}"#);
        check(&["[1, 2]"], "[1, 2]");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        check(&["5"], "\"5\" has no name");
        check(&["=5"], "\"=5\" has no name");
        check(&["a=1", "a=2"], "a is given twice");
        check(&["a=1", "@file"], "\"@file\" stands for all arguments, and there are others beside it");
        check(&["[1, 2"], "\"[1, 2\" is not JSON: EOF while parsing a list at line 1 column 5");
        check(
            &["@/nowhere/at/all"],
            "/nowhere/at/all cannot be read: No such file or directory (os error 2)",
        );
    }
}
