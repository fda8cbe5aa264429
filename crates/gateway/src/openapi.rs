//! `/openapi.json`: OpenAPI 3.1 from what the modules say of themselves.

use bourse_wire::v1::parameter::Kind;
use http::Method;
use serde_json::{Map, Value as Json, json};

use crate::pattern::{Pattern, Segment};
use crate::routes::{Routes, Target};
use crate::signature::{Hint, Parameter, Type};

/// The document.
pub(crate) fn document(routes: &Routes) -> Json {
    let mut paths: Map<String, Json> = Map::new();
    let mut sorted: Vec<_> = routes.list().iter().filter(|(pattern, _)| !pattern.is_websocket()).collect();
    sorted.sort_by_key(|(pattern, _)| (pattern.path(), pattern.method.to_string()));
    for (pattern, target) in sorted {
        let item = paths.entry(template(pattern)).or_insert_with(|| json!({}));
        item[pattern.method.as_str().to_ascii_lowercase()] = route(pattern, target);
    }
    for target in routes.functions() {
        paths.insert(format!("/v1/call/{}", target.name), json!({"post": call(target)}));
    }
    paths.extend(durable());
    paths.extend(triggers());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Bourse",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The functions that this daemon serves.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Problem": problem(), "DurableCall": durable_call()},
            "responses": {"Problem": {
                "description": "What went wrong (RFC 9457)",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }},
            "parameters": {
                "Timeout": term("timeout", "How long to wait for the answer: 200ms, 5s, 1m"),
                "Delay": term("delay", "How long until the call may be run; with mode=async"),
                "QueueWait": term("queue_wait", "How long the call may wait for an instance"),
                "ScaleAfter": term("scale_after", "After how long capacity is asked for"),
                "Horizon": {
                    "name": "horizon", "in": "query",
                    "schema": {"enum": ["process", "machine", "network", "anywhere"]},
                    "description": "How far the call may travel from the node that accepts it",
                },
                "Overflow": {
                    "name": "overflow", "in": "query", "schema": {"enum": ["queue", "reject", "remote"]},
                    "description": "What becomes of the call if there is no instance: it waits, is refused, or capacity elsewhere is asked for at once",
                },
                "Mode": {
                    "name": "mode", "in": "query", "schema": {"enum": ["sync", "async"]},
                    "description": "async answers with the call's id once it is stored",
                },
                "IdempotencyKey": {
                    "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255},
                    "description": "A second call of the function with this key, within a day, is the first one",
                },
                "Version": term("version", "A semver requirement on the module's version, such as ^1.2"),
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    })
}

/// OpenAPI has no rest parameters: `{*path}` is written `{path}`.
fn template(pattern: &Pattern) -> String {
    pattern.segments.iter().fold(String::new(), |path, segment| match segment {
        Segment::Literal(text) => path + "/" + text,
        Segment::Parameter(name) | Segment::Rest(name) => path + "/{" + name + "}",
    })
}

fn route(pattern: &Pattern, target: &Target) -> Json {
    let in_path: Vec<&str> = pattern.names().collect();
    let with_body = !matches!(pattern.method, Method::GET | Method::DELETE);
    let mut operation = operation(target, &format!("{} {}", pattern.method, pattern.path()));
    let mut parameters: Vec<Json> = Vec::new();
    for name in &in_path {
        let schema =
            target.signature.position(name).map_or(json!({}), |i| schema(&target.signature.parameters[i]));
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
    }
    let others = || target.signature.parameters.iter().filter(|p| !in_path.contains(&p.name.as_str()));
    if !with_body {
        let in_query = others().filter(|p| !p.is_variadic() && p.name != "body" && !is_the_request(p));
        parameters
            .extend(in_query.map(
                |p| json!({"name": p.name, "in": "query", "required": p.required, "schema": schema(p)}),
            ));
    }
    operation["parameters"] = parameters.into();
    if let Some(body) = others().find(|p| p.name == "body") {
        let content_type = match body.hint.kind {
            Type::Bytes => "application/octet-stream",
            Type::Str => "text/plain",
            _ => "application/json",
        };
        let content = json!({content_type: {"schema": schema(body)}});
        operation["requestBody"] = json!({"required": body.required, "content": content});
    } else if with_body && others().any(|p| !is_the_request(p)) {
        operation["requestBody"] = arguments(others().filter(|p| !is_the_request(p)));
    }
    operation
}

fn call(target: &Target) -> Json {
    let mut operation = operation(target, target.name.as_str());
    operation["responses"]["202"] = json!({
        "description": "Accepted: with mode=async",
        "headers": {"Location": {"schema": {"type": "string"}}},
        "content": {"application/json": {"schema": {
            "type": "object", "properties": {"id": {"type": "string", "format": "uuid"}}, "required": ["id"],
        }}},
    });
    const TERMS: [&str; 9] = [
        "Timeout",
        "QueueWait",
        "ScaleAfter",
        "Horizon",
        "Overflow",
        "Delay",
        "Version",
        "Mode",
        "IdempotencyKey",
    ];
    operation["parameters"] =
        TERMS.map(|name| json!({"$ref": format!("#/components/parameters/{name}")})).to_vec().into();
    operation["requestBody"] = arguments(target.signature.parameters.iter());
    operation
}

fn operation(target: &Target, id: &str) -> Json {
    let returns = Hint::parse(&target.signature.returns);
    let mut operation = json!({
        "operationId": id,
        "tags": [target.name.module()],
        "summary": target.signature.to_string(),
        "responses": {
            "200": {"description": "The result", "content": {"application/json": {"schema": of(returns)}}},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    });
    if !target.doc.is_empty() {
        operation["description"] = target.doc.as_str().into();
    }
    operation
}

/// The paths of durable calls.
fn durable() -> [(String, Json); 6] {
    let id =
        json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string", "format": "uuid"}});
    let one = |what: &str| {
        json!({"description": what, "content": {"application/json": {
            "schema": {"$ref": "#/components/schemas/DurableCall"},
        }}})
    };
    let operation = |name: &str, summary: &str, status: &str, response: Json| {
        json!({
            "operationId": name,
            "tags": ["durable calls"],
            "summary": summary,
            "responses": {status: response, "default": {"$ref": "#/components/responses/Problem"}},
        })
    };
    let list = |name: &str, summary: &str, filters: &[&str]| {
        let schema = json!({"type": "object", "properties": {
            "calls": {"type": "array", "items": {"$ref": "#/components/schemas/DurableCall"}},
            "next": {"type": ["string", "null"], "description": "continues the list, as `before`"},
        }});
        let content =
            json!({"description": "Newest first", "content": {"application/json": {"schema": schema}}});
        let mut get = operation(name, summary, "200", content);
        let filter = |name: &&str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
        get["parameters"] = filters.iter().map(filter).collect();
        json!({"get": get})
    };
    let poll = json!({"name": "poll", "in": "query", "schema": {"type": "string"},
        "description": "Wait for the end, at most so long: 10s"});
    let mut look = operation("lookUpCall", "How a durable call stands", "200", one("How it stands"));
    look["parameters"] = json!([id, poll]);
    let mut result = operation(
        "resultOfCall",
        "What a synchronous call would have been answered",
        "200",
        json!({"description": "The result"}),
    );
    result["parameters"] = json!([id, poll]);
    result["responses"]["202"] = one("It has not ended");
    let with_id = |mut operation: Json| {
        operation["parameters"] = json!([id]);
        operation
    };
    let cancel = operation("cancelCall", "Cancel a durable call", "200", one("It is cancelled"));
    let replay = operation(
        "replayDeadLetter",
        "Try a dead letter again",
        "202",
        one("It waits for its first attempt"),
    );
    let purge = operation("purgeDeadLetter", "Forget a dead letter", "200", one("What it was"));
    let path = |path: &str, item: Json| (path.to_owned(), item);
    [
        path("/v1/calls", list("listCalls", "Durable calls", &["status", "function", "limit", "before"])),
        path("/v1/calls/{id}", json!({"get": look, "delete": with_id(cancel)})),
        path("/v1/calls/{id}/result", json!({"get": result})),
        path("/v1/dead", list("listDeadLetters", "Dead letters", &["function", "limit", "before"])),
        path("/v1/dead/{id}", json!({"delete": with_id(purge)})),
        path("/v1/dead/{id}/replay", json!({"post": with_id(replay)})),
    ]
}

/// The paths of queues, topics and what else wakes functions.
fn triggers() -> [(String, Json); 4] {
    let text = || json!({"type": "string"});
    let in_path = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": text()});
    let operation = |name: &str, summary: &str, status: &str, schema: Json| {
        json!({
            "operationId": name,
            "tags": ["triggers"],
            "summary": summary,
            "parameters": [],
            "responses": {
                status: {"description": "Done", "content": {"application/json": {"schema": schema}}},
                "default": {"$ref": "#/components/responses/Problem"},
            },
        })
    };
    let published = json!({"type": "object", "required": ["calls", "subscribers"], "properties": {
        "calls": {"type": "array", "items": {"type": "string", "format": "uuid"}},
        "subscribers": {"type": "integer"},
    }});
    let publish = |name: &str, summary: &str, more: &[Json]| {
        let mut post = operation(name, summary, "202", published.clone());
        let delay = json!({"name": "delay", "in": "query", "schema": text(),
            "description": "Nothing is run before that: 5s"});
        post["parameters"] = [in_path("name"), delay].into_iter().chain(more.iter().cloned()).collect();
        post["requestBody"] = json!({"required": false, "content": {"application/json": {"schema": {}}}});
        json!({"post": post})
    };
    let key = json!({"$ref": "#/components/parameters/IdempotencyKey"});
    let time = json!({"type": ["string", "null"], "format": "date-time"});
    let trigger = json!({"type": "object", "required": ["kind", "name", "function"], "properties": {
        "kind": {"enum": ["cron", "queue", "topic"]},
        "name": text(), "function": text(), "serving": {"type": "boolean"},
        "zone": text(), "missed": text(), "next": time, "last": time,
    }});
    let list = operation(
        "listTriggers",
        "Cron lines, queues and topics",
        "200",
        json!({"type": "array", "items": trigger}),
    );
    let removed = json!({"type": "object", "properties": {"module": text(), "removed": {"type": "integer"}}});
    let summary = "Let a module that is gone from the folder listen no longer";
    let mut remove = operation("removeTriggers", summary, "200", removed);
    remove["parameters"] = json!([in_path("module")]);
    let path = |path: &str, item: Json| (path.to_owned(), item);
    [
        path("/v1/queues/{name}", publish("publishToQueue", "Publish to the function of a queue", &[key])),
        path("/v1/topics/{name}", publish("publishToTopic", "Publish to all functions that listen", &[])),
        path("/v1/triggers", json!({"get": list})),
        path("/v1/triggers/{module}", json!({"delete": remove})),
    ]
}

fn durable_call() -> Json {
    let text = json!({"type": "string"});
    let time = json!({"type": "string", "format": "date-time"});
    json!({
        "type": "object",
        "required": ["id", "function", "status", "attempts", "accepted_at"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "function": text,
            "status": {"enum": crate::standing::STATUSES},
            "attempts": {"type": "integer"},
            "accepted_at": time,
            "ended_at": time,
            "next_attempt_in_seconds": {"type": "number"},
            "idempotency_key": text,
            "exclusive_key": text,
            "step": {"type": "integer"},
            "parent": {"type": "string", "format": "uuid"},
            "result": {},
            "error": {"type": "object", "properties": {"code": text, "type": text, "message": text, "hint": text}},
        },
    })
}

/// Arguments by name, as a body.
fn arguments<'p>(parameters: impl Iterator<Item = &'p Parameter>) -> Json {
    let (mut properties, mut required, mut others) = (Map::new(), Vec::new(), false);
    for p in parameters {
        match p.kind {
            Kind::VarNamed => others = true,
            Kind::VarPositional => {}
            _ => {
                properties.insert(p.name.clone(), schema(p));
                if p.required {
                    required.push(p.name.as_str());
                }
            }
        }
    }
    let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": others});
    json!({"required": !required.is_empty(), "content": {"application/json": {"schema": schema}}})
}

/// Whether the gateway fills it in.
fn is_the_request(p: &Parameter) -> bool {
    p.hint.kind == Type::Dict && matches!(p.name.as_str(), "headers" | "request")
}

fn schema(p: &Parameter) -> Json {
    let mut schema = of(p.hint);
    if let Ok(default) = serde_json::from_str::<Json>(&p.default_json) {
        schema["default"] = default;
    }
    schema
}

fn of(hint: Hint) -> Json {
    let name = match hint.kind {
        Type::Any => return json!({}),
        Type::Bool => "boolean",
        Type::Int => "integer",
        Type::Float => "number",
        Type::Str | Type::Bytes => "string",
        Type::List => "array",
        Type::Dict => "object",
        Type::None => "null",
    };
    let mut schema = if hint.nullable { json!({"type": [name, "null"]}) } else { json!({"type": name}) };
    if hint.kind == Type::Bytes {
        schema["contentEncoding"] = "base64url".into();
    }
    schema
}

fn problem() -> Json {
    let text = || json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": text(),
            "status": {"type": "integer"},
            "detail": text(),
            "code": text(),
            "hint": text(),
            "call_id": {"type": "string", "format": "uuid"},
            "error": {"type": "object", "properties": {"type": text(), "message": text(), "traceback": text()}},
        },
    })
}

fn term(name: &str, description: &str) -> Json {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": "string"}})
}

#[cfg(test)]
mod tests {
    use bourse_wire::v1;

    use super::*;
    use crate::Deployed;

    fn routes() -> Routes {
        let parameter = |name: &str, hint: &str, default: &str| v1::Parameter {
            name: name.into(),
            r#type: hint.into(),
            required: default.is_empty(),
            default_json: default.into(),
            ..Default::default()
        };
        let write = v1::Function {
            name: "write".into(),
            parameters: vec![parameter("key", "str", ""), parameter("body", "bytes", "")],
            http: vec!["POST /kv/{key}".into()],
            doc: "Stores a value.".into(),
            returns: "dict".into(),
            ..Default::default()
        };
        let read = v1::Function {
            name: "read".into(),
            parameters: vec![
                parameter("key", "str", ""),
                parameter("depth", "int?", "null"),
                parameter("headers", "dict", ""),
            ],
            http: vec!["GET /kv/{key}".into(), "GET /tree/{*key}".into()],
            ..Default::default()
        };
        let module = v1::Module { name: "treedb".into(), functions: vec![write, read], ..Default::default() };
        Routes::new(&[Deployed { module }], &[]).unwrap()
    }

    /// The document as it was when somebody last looked. `BOURSE_REFRESH=1 cargo test` writes it anew.
    #[test]
    fn the_document_is_stable() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/openapi.json");
        let now = serde_json::to_string_pretty(&document(&routes())).unwrap() + "\n";
        if std::env::var_os("BOURSE_REFRESH").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), now);
    }

    #[test]
    fn it_holds_together() {
        let document = document(&routes());
        let mut ids = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for operation in item.as_object().unwrap().values() {
                ids.push(operation["operationId"].as_str().unwrap());
                let good = ["200", "202"].iter().any(|status| operation["responses"][status].is_object());
                assert!(good, "{path}");
                for p in operation["parameters"].as_array().unwrap() {
                    let in_path = p["in"] == "path";
                    assert_eq!(
                        in_path,
                        path.contains(&format!("{{{}}}", p["name"].as_str().unwrap_or("$"))),
                        "{path}"
                    );
                }
            }
        }
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "operation ids are unique");
        let mut refs = Vec::new();
        references(&document, &mut refs);
        assert!(!refs.is_empty());
        for reference in refs {
            assert!(
                document.pointer(reference.trim_start_matches('#')).is_some(),
                "{reference} leads nowhere"
            );
        }
    }

    fn references(json: &Json, found: &mut Vec<String>) {
        match json {
            Json::Object(map) => {
                found.extend(map.get("$ref").and_then(Json::as_str).map(str::to_owned));
                map.values().for_each(|v| references(v, found));
            }
            Json::Array(items) => items.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
}
