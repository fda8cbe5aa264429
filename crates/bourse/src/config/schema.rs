//! The JSON schema of `bourse.toml`, for editors.

use serde_json::{Map, Value, json};

use super::known::{SETTINGS, Scope, Setting, Shape};

/// The schema, from the list of settings.
pub(crate) fn schema() -> Value {
    let of = |fits: &dyn Fn(&Setting) -> bool| -> Map<String, Value> {
        SETTINGS.iter().filter(|s| fits(s)).map(|s| (s.name.to_owned(), property(s))).collect()
    };
    let mut module = of(&|s| s.scope == Scope::Module);
    module.insert(
        "command".to_owned(),
        json!({
            "type": "array", "items": {"type": "string"}, "minItems": 1,
            "description": "the command line of a module that is not Python, relative to the module's folder"
        }),
    );
    module.insert(
        "env".to_owned(),
        json!({
            "type": "object", "additionalProperties": {"type": "string"},
            "description": "added to the environment of the module's instances"
        }),
    );
    let module = json!({"type": "object", "additionalProperties": false, "properties": module});
    let thing = |thing: &str| -> Map<String, Value> {
        let its = SETTINGS.iter().filter_map(|s| s.of_thing().map(|of| (of, s)));
        its.filter(|((of, _), _)| *of == thing).map(|((_, name), s)| (name.to_owned(), property(s))).collect()
    };
    let mut webhook = thing("webhook");
    webhook.insert(
        "secrets".to_owned(),
        json!({
            "type": "object", "additionalProperties": {"type": "string"},
            "description": "secrets of single hosts: \"hooks.example.com\" = \"whsec_…\""
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bourse.toml",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "daemon": {
                "type": "object",
                "description": "settings of the daemon, and defaults for all modules",
                "additionalProperties": false,
                "properties": of(&|_| true)
            },
            "modules": {"type": "object", "description": "settings of single modules, by name", "additionalProperties": module},
            "module": module,
            "webhook": {
                "type": "object", "additionalProperties": false, "properties": webhook,
                "description": "how webhooks are sent"
            },
            "mail": {
                "type": "object", "additionalProperties": false, "properties": thing("mail"),
                "description": "how mails are sent"
            },
            "routes": {
                "type": "object",
                "description": "HTTP routes: \"METHOD /pattern\" = \"module.function\"",
                "additionalProperties": {"type": "string"}
            }
        }
    })
}

fn property(setting: &Setting) -> Value {
    let kinds = match setting.shape {
        Shape::Text | Shape::Address => json!("string"),
        Shape::Count => json!("integer"),
        Shape::Duration => json!(["string", "number"]),
        Shape::Size => json!(["string", "integer"]),
        Shape::Flag => json!("boolean"),
        Shape::List => json!("array"),
    };
    let mut property = json!({"type": kinds, "description": setting.about});
    if setting.shape == Shape::List {
        property["items"] = json!({"type": "string"});
    }
    if !setting.default.is_empty() {
        property["default"] = match setting.shape {
            Shape::Count => setting.default.parse::<u64>().map_or(Value::Null, Value::from),
            Shape::Flag => json!(setting.default == "true"),
            _ => json!(setting.default),
        };
    }
    property
}
