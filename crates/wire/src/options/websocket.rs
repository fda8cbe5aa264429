//! `websocket`: connections to a path call the function.

use serde_json::Value as Json;

use super::unknown;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Websocket {
    /// "/chat/{room}", as in an HTTP route.
    pub path: String,
    /// Each message is a durable call, and none is answered to the connection.
    pub durable: bool,
}

impl Websocket {
    /// Reads `"/chat/{room}"`, or `{"path": "/chat/{room}", "durable": true}`.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let mut read = Self { path: String::new(), durable: false };
        match json {
            Json::String(path) => read.path = path,
            Json::Object(object) => {
                for (name, value) in object {
                    match (name.as_str(), value) {
                        ("path", Json::String(path)) => read.path = path,
                        ("durable", Json::Bool(durable)) => read.durable = durable,
                        ("path", value) => return Err(format!("`path` = {value} is not a text")),
                        ("durable", value) => {
                            return Err(format!("`durable` = {value} is not true or false"));
                        }
                        (name, _) => return Err(unknown(name, &["path", "durable"])),
                    }
                }
            }
            other => return Err(format!("{other} is neither a path nor an object with one")),
        }
        match read.path.starts_with('/') {
            true => Ok(read),
            false => Err(format!("the path {:?} does not start with /", read.path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_read() {
        let read = |text: &str| Websocket::from_json(text).map(|w| (w.path, w.durable));
        assert_eq!(read(r#""/chat/{room}""#), Ok(("/chat/{room}".to_owned(), false)));
        assert_eq!(read(r#"{"path": "/a", "durable": true}"#), Ok(("/a".to_owned(), true)));
        for bad in ["", "3", r#""chat""#, "{}", r#"{"path": 1}"#, r#"{"path": "/a", "durabel": true}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
