//! Fits a request to a function's signature: pure, and all that is wrong with it is said at once.
//!
//! | where it stands | what it means |
//! |---|---|
//! | path | parameters by name, read as their types say |
//! | query (routes) | the same; a name may repeat where its type is `list` |
//! | JSON body of `/v1/call/…` | object: arguments by name; array: by position; else: the parameter `body` |
//! | JSON body of a route | the parameter `body` as a whole, where the function has one that the path does not bind; otherwise an object's fields by name |
//! | any other body | the parameter `body`: text for `str`, bytes for `bytes` and `any` |
//! | CBOR body of `/v1/call/…` | arguments as they stand; the worker checks them |
//!
//! On routes a `body` of type `bytes` or `str` gets the body as it is, whatever its content type. A `headers:
//! dict` or `request: dict` that nothing else binds gets the request's headers, or `{method, path, query, headers}`.
//! Variadic parameters (`*args`, `**kwargs`) take what is left over.
//!
//! The same arguments give the same bytes however they were passed: what can go by name goes by name.

use std::cmp::Ordering;

use bourse_wire::arguments::Arguments;
use bourse_wire::failure::Code;
use bourse_wire::v1::{self, parameter::Kind};
use bytes::Bytes;

use crate::json::{self, Document};
use crate::signature::{Hint, Parameter, Signature, Type};

/// The most problems that one answer names, of each sort.
const PROBLEMS_MAX: usize = 8;

/// The parameter that a body binds to.
const BODY: &str = "body";

/// What a request brings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    /// Whether it came by a route of the function's own, or by `/v1/call/…`.
    pub(crate) route: bool,
    /// Decoded path parameters.
    pub(crate) path: Vec<(String, String)>,
    /// Decoded query parameters, without those that are about the call.
    pub(crate) query: Vec<(String, String)>,
    /// What the body is.
    pub(crate) content: Content,
    /// Its bytes.
    pub(crate) body: Bytes,
    /// CBOR of the headers, where the function asks for them.
    pub(crate) headers: Option<Bytes>,
    /// CBOR of `{method, path, query, headers}`, where the function asks for it.
    pub(crate) request: Option<Bytes>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Content {
    #[default]
    Empty,
    Json,
    Cbor,
    /// By its name; empty where the request does not say.
    Other(String),
}

/// The encoded arguments, or what is wrong with the request.
pub(crate) fn bind(signature: &Signature, input: Input) -> Result<Bytes, v1::Failure> {
    if input.content == Content::Cbor && !input.route {
        return match Arguments::from_cbor(&input.body) {
            Ok(_) => Ok(input.body),
            Err(e) => Err(Code::BadRequest
                .because(format!("the body is not CBOR arguments: {e}"))
                .hint("send an array of two items, [positional arguments, {name: argument}], or JSON")),
        };
    }
    let mut binding = Binding::new(signature);
    for (name, text) in &input.path {
        binding.text(name, text);
    }
    let mut query = input.query;
    // Stable, so that the texts of one name keep their order.
    query.sort_by(|a, b| a.0.cmp(&b.0));
    for same in query.chunk_by(|a, b| a.0 == b.0) {
        binding.texts(&same[0].0, same);
    }
    if input.content != Content::Empty {
        binding.body(input.route, &input.content, &input.body)?;
    }
    for (name, value) in [("headers", input.headers), ("request", input.request)] {
        if let (Some(value), Some(i)) = (value, signature.position(name))
            && binding.slots[i].is_none()
        {
            binding.slots[i] = Some(value);
        }
    }
    binding.finish()
}

/// The encoded arguments, of values that are encoded already, by the names of the parameters that get them.
pub(crate) fn named(signature: &Signature, values: Vec<(&str, Bytes)>) -> Result<Bytes, v1::Failure> {
    let mut binding = Binding::new(signature);
    values.into_iter().for_each(|(name, value)| binding.named(name, value));
    binding.finish()
}

/// The encoded arguments of an event: of what there is, what the function takes.
pub(crate) fn event(
    signature: &Signature,
    named: Vec<(&str, Bytes)>,
    path: &[(String, String)],
) -> Result<Bytes, v1::Failure> {
    let mut binding = Binding::new(signature);
    let variadic = signature.takes(Kind::VarNamed);
    for (name, text) in path {
        if variadic || signature.position(name).is_some() {
            binding.text(name, text);
        }
    }
    for (name, value) in named {
        match signature.position(name) {
            Some(i) if binding.slots[i].is_none() => binding.slots[i] = Some(value),
            None if variadic && !path.iter().any(|(known, _)| known == name) => binding.other(name, value),
            _ => {}
        }
    }
    binding.finish()
}

impl Signature {
    /// Whether a parameter wants what [`Input`] calls its `headers` or `request`.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.parameters.iter().any(|p| p.name == name && p.hint.kind == Type::Dict && !p.is_variadic())
    }
}

struct Binding<'s> {
    signature: &'s Signature,
    /// By parameter.
    slots: Vec<Option<Bytes>>,
    /// For `*args`.
    more: Vec<Bytes>,
    /// For `**kwargs`.
    others: Vec<(String, Bytes)>,
    missing: Vec<String>,
    unexpected: Vec<String>,
    repeated: Vec<String>,
    /// Whole sentences.
    wrong: Vec<String>,
}

impl<'s> Binding<'s> {
    fn new(signature: &'s Signature) -> Self {
        Self {
            signature,
            slots: vec![None; signature.parameters.len()],
            more: Vec::new(),
            others: Vec::new(),
            missing: Vec::new(),
            unexpected: Vec::new(),
            repeated: Vec::new(),
            wrong: Vec::new(),
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        let Some(i) = self.signature.position(name) else {
            let any = Hint { kind: Type::Any, nullable: false };
            return self.other(name, any.read(text).unwrap_or_default());
        };
        let parameter = &self.signature.parameters[i];
        match parameter.hint.read(text) {
            Some(value) => self.put(i, value),
            None => self.mistyped(parameter, &format!("{:?}", shortened(text))),
        }
    }

    /// The texts that came under one name.
    fn texts(&mut self, name: &str, same: &[(String, String)]) {
        match (same, self.signature.position(name)) {
            ([(_, text)], _) => self.text(name, text),
            (_, Some(i)) if self.signature.parameters[i].hint.kind == Type::List => {
                let mut list = Vec::new();
                json::head(&mut list, 4, same.len() as u64);
                same.iter().for_each(|(_, text)| json::text(&mut list, text));
                self.put(i, list.into());
            }
            (_, i) => {
                note(&mut self.repeated, name);
                i.into_iter().for_each(|i| self.spoil(i));
            }
        }
    }

    fn body(&mut self, route: bool, content: &Content, body: &Bytes) -> Result<(), v1::Failure> {
        let free = self.signature.position(BODY).filter(|&i| self.slots[i].is_none());
        let whole = free.map(|i| self.signature.parameters[i].hint.kind);
        let as_it_is = route && matches!(whole, Some(Type::Bytes | Type::Str));
        match (content, free) {
            (Content::Json, Some(i)) if route && !as_it_is => {
                let item = json::item(body).map_err(not_json)?;
                self.value(i, item);
            }
            (Content::Json, _) if !as_it_is => match json::document(body).map_err(not_json)? {
                Document::Object(fields) => {
                    fields.into_iter().for_each(|(name, value)| self.named(&name, value))
                }
                Document::Array(items) if !route => self.positional(items),
                Document::Array(_) => {
                    self.wrong.push("the body must be a JSON object, not an array".to_owned())
                }
                Document::Scalar(item) if let Some(i) = free => self.value(i, item),
                Document::Scalar(_) => self.wrong.push("the body must be a JSON object or array".to_owned()),
            },
            (_, Some(i)) => self.raw(i, content, body),
            (_, None) if body.is_empty() => {}
            (_, None) => return Err(self.no_place(content)),
        }
        Ok(())
    }

    /// A body that is not looked into.
    fn raw(&mut self, i: usize, content: &Content, body: &Bytes) {
        let mut value = Vec::with_capacity(body.len() + 9);
        match (self.signature.parameters[i].hint.kind, std::str::from_utf8(body)) {
            (Type::Str, Ok(text)) => json::text(&mut value, text),
            (Type::Str, Err(_)) => self.wrong.push("the body is not UTF-8 text".to_owned()),
            (Type::Bytes | Type::Any, _) => {
                json::head(&mut value, 2, body.len() as u64);
                value.extend_from_slice(body);
            }
            (wanted, _) => {
                self.wrong
                    .push(format!("the body must be {} as application/json, not {content}", wanted.name()));
            }
        }
        self.put(i, value.into());
    }

    fn no_place(&self, content: &Content) -> v1::Failure {
        let form = matches!(content, Content::Other(name) if name == "application/x-www-form-urlencoded");
        let curl = if form { "; curl -d sends a form unless told so" } else { "" };
        Code::BadArguments
            .because(format!(
                "a body of {content} has no place: {} has no parameter `body`",
                self.signature.function
            ))
            .hint(format!(
                "send JSON with the header \"content-type: application/json\"{curl}. The function is {}",
                self.signature
            ))
    }

    fn positional(&mut self, items: Vec<Bytes>) {
        let given = items.len();
        let mut items = items.into_iter();
        let mut places = 0;
        for (i, parameter) in self.signature.parameters.iter().enumerate() {
            if !matches!(parameter.kind, Kind::Any | Kind::Positional) {
                continue;
            }
            places += 1;
            if let Some(item) = items.next() {
                self.value(i, item);
            }
        }
        if self.signature.takes(Kind::VarPositional) {
            self.more.extend(items);
        } else if items.next().is_some() {
            self.wrong.push(format!("{given} arguments by position, at most {places} are taken"));
        }
    }

    fn named(&mut self, name: &str, value: Bytes) {
        match self.signature.position(name) {
            Some(i) => self.value(i, value),
            None => self.other(name, value),
        }
    }

    fn other(&mut self, name: &str, value: Bytes) {
        if !self.signature.takes(Kind::VarNamed) {
            note(&mut self.unexpected, name);
        } else {
            self.others.push((name.to_owned(), value));
        }
    }

    fn value(&mut self, i: usize, item: Bytes) {
        let parameter = &self.signature.parameters[i];
        match parameter.admit(item) {
            Ok(item) => self.put(i, item),
            Err(given) => self.mistyped(parameter, given),
        }
    }

    fn put(&mut self, i: usize, item: Bytes) {
        if self.slots[i].is_some() {
            note(&mut self.repeated, &self.signature.parameters[i].name);
        } else {
            self.slots[i] = Some(item);
        }
    }

    fn mistyped(&mut self, parameter: &Parameter, given: &str) {
        self.wrong.push(format!("{} must be {}, not {given}", parameter.name, parameter.hint));
        if let Some(i) = self.signature.position(&parameter.name) {
            self.spoil(i);
        }
    }

    /// It was given, though wrongly: it is not to be called missing as well.
    fn spoil(&mut self, i: usize) {
        self.slots[i].get_or_insert_default();
    }

    fn finish(mut self) -> Result<Bytes, v1::Failure> {
        for (i, parameter) in self.signature.parameters.iter().enumerate() {
            if parameter.required && !parameter.is_variadic() && self.slots[i].is_none() {
                self.missing.push(parameter.name.clone());
            }
        }
        self.others.sort_by(|a, b| canonical(&a.0, &b.0));
        for pair in self.others.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            note(&mut self.repeated, &pair[0].0);
        }
        let positional = self.by_position();
        let mut problems: Vec<String> = Vec::new();
        for (what, names) in
            [("missing", &self.missing), ("unexpected", &self.unexpected), ("given twice", &self.repeated)]
        {
            if !names.is_empty() {
                problems.push(format!("{what}: {}", listed(names)));
            }
        }
        problems.extend(self.wrong.iter().take(PROBLEMS_MAX).cloned());
        if problems.is_empty() {
            return Ok(self.encode(positional));
        }
        Err(Code::BadArguments
            .because(problems.join("; "))
            .hint(format!("the function is {}", self.signature)))
    }

    /// What has to go by position: positional-only parameters, and all before `*args` where those have something.
    fn by_position(&mut self) -> Vec<Bytes> {
        let wanted = |kind| kind == Kind::Positional || kind == Kind::Any && !self.more.is_empty();
        let places: Vec<usize> =
            (0..self.slots.len()).filter(|&i| wanted(self.signature.parameters[i].kind)).collect();
        let used = places.iter().rposition(|&i| self.slots[i].is_some()).map_or(0, |last| last + 1);
        let mut items = Vec::with_capacity(used + self.more.len());
        for &i in &places[..used] {
            let parameter = &self.signature.parameters[i];
            match self.slots[i].take().or_else(|| parameter.default()) {
                Some(item) => items.push(item),
                None if parameter.required => {}
                None => note(&mut self.missing, &parameter.name),
            }
        }
        items.append(&mut self.more);
        items
    }

    fn encode(self, positional: Vec<Bytes>) -> Bytes {
        let names = self.signature.parameters.iter().map(|p| p.name.as_str());
        let mut named: Vec<(&str, &Bytes)> =
            names.zip(&self.slots).filter_map(|(name, slot)| Some((name, slot.as_ref()?))).collect();
        named.extend(self.others.iter().map(|(name, value)| (name.as_str(), value)));
        named.sort_unstable_by(|a, b| canonical(a.0, b.0));
        let bytes = positional.iter().map(Bytes::len).sum::<usize>()
            + named.iter().map(|(name, value)| name.len() + 9 + value.len()).sum::<usize>();
        let mut out = Vec::with_capacity(bytes + 19);
        json::head(&mut out, 4, 2);
        json::head(&mut out, 4, positional.len() as u64);
        positional.iter().for_each(|item| out.extend_from_slice(item));
        json::head(&mut out, 5, named.len() as u64);
        for (name, value) in named {
            json::text(&mut out, name);
            out.extend_from_slice(value);
        }
        out.into()
    }
}

/// The bytewise order of texts when they are encoded: shorter ones first (RFC 8949 §4.2.1).
fn canonical(a: &str, b: &str) -> Ordering {
    (a.len(), a).cmp(&(b.len(), b))
}

fn not_json(e: serde_json::Error) -> v1::Failure {
    Code::BadRequest
        .because(format!("the body is not JSON: {e}"))
        .hint("the request says that its body is application/json; check it with `jq . body.json`")
}

/// Keeps a name for the answer, shortened; no more than will be named, and one for the "and more".
fn note(names: &mut Vec<String>, name: &str) {
    if names.len() <= PROBLEMS_MAX && !names.iter().any(|known| known == name) {
        names.push(shortened(name));
    }
}

fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(PROBLEMS_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > PROBLEMS_MAX { shown + " and more" } else { shown }
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json => f.write_str("application/json"),
            Self::Cbor => f.write_str("application/cbor"),
            Self::Empty => f.write_str("nothing"),
            Self::Other(name) if name.is_empty() => f.write_str("no content type"),
            Self::Other(name) => f.write_str(&shortened(name)),
        }
    }
}

#[cfg(test)]
#[path = "bind_tests.rs"]
mod tests;
