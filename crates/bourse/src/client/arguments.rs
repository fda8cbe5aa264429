//! What stands after a function's name: `name=value…`, one JSON text, or `@file`.

use std::fs;
use std::io::Read as _;

use bytes::Bytes;

use super::{Error, json};

/// A request body, and what it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) content_type: String,
}

const JSON: &str = "application/json";

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
