//! Which function a request is for.
//!
//! A table is made once per deploy and never changes; the gateway swaps whole tables. Of the patterns that match a
//! path and have its method, the one whose first difference is more specific wins: a literal before a parameter,
//! a parameter before the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use bourse_wire::id::FunctionName;
use bourse_wire::options::{MailPattern, Websocket};
use bourse_wire::v1;
use bytes::Bytes;
use http::Method;

use crate::metrics::Meter;
use crate::pattern::{self, Pattern, Segment};
use crate::signature::Signature;
use crate::smtp::mailboxes::Mailboxes;
use crate::uri;

/// The most routes in one table.
pub const ROUTES_MAX: usize = 10_000;

/// A module that is there to be called.
#[derive(Clone, Debug, Default)]
pub struct Deployed {
    /// As it describes itself.
    pub module: v1::Module,
}

/// Why a table cannot be made. The texts are for the deploy report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteConflict {
    /// A route that cannot be read.
    #[error("{function}: the route {text:?}: {error}")]
    Pattern {
        /// Whose route it is.
        function: String,
        /// As it was written.
        text: String,
        /// What is wrong with it.
        error: pattern::Error,
    },
    /// Two functions with one route.
    #[error("{second}: the route \"{pattern}\" already belongs to {first}")]
    Taken {
        /// The later one's pattern; parameters' names make no difference.
        pattern: String,
        /// Who had it.
        first: String,
        /// Who wants it as well.
        second: String,
    },
    /// A route parameter that the function does not take.
    #[error("{function}: the route \"{pattern}\" binds {parameter:?}, which the function does not take")]
    Parameter {
        /// Whose route it is.
        function: String,
        /// As it was written.
        pattern: String,
        /// The name.
        parameter: String,
    },
    /// A function that takes mail, but not what a mail is.
    #[error("{function} cannot be called with a mail: {reason}")]
    Mail {
        /// Which.
        function: String,
        /// Why not.
        reason: String,
    },
    /// A route from the configuration for a function that is not there.
    #[error("the route {text:?} is for {function}, which is not deployed")]
    Unknown {
        /// The route.
        text: String,
        /// The function.
        function: String,
    },
    /// Two functions of one name, or a name that is none.
    #[error("{0:?} is there twice, or is not a name that can be called")]
    Function(String),
    /// More than [`ROUTES_MAX`].
    #[error("{0} routes, at most {ROUTES_MAX} are allowed")]
    TooMany(usize),
}

/// A route or function that is not in a table, because it cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Whose it is; `None` for a route of the configuration.
    pub module: Option<String>,
    /// What is wrong with it.
    pub why: RouteConflict,
}

/// Routes, and the modules that have them.
pub type Held = BTreeSet<(String, String)>;

/// All functions and routes.
#[derive(Debug, Default)]
pub struct Routes {
    functions: BTreeMap<String, Arc<Target>>,
    root: Node,
    list: Vec<(Pattern, Arc<Target>)>,
    mailboxes: Mailboxes,
    openapi: OnceLock<Bytes>,
    /// Why modules that are there serve nothing.
    failures: BTreeMap<String, v1::Failure>,
}

/// A route that is asked for.
struct Wanted {
    module: Option<String>,
    text: String,
    pattern: Result<Pattern, pattern::Error>,
    target: Arc<Target>,
}

/// What a function does with WebSocket connections. The node has refused what cannot be read.
fn websocket(function: &v1::Function) -> Option<Websocket> {
    Websocket::from_json(function.options.get("websocket")?).ok()
}

/// A function that can be called.
pub(crate) struct Target {
    pub(crate) name: FunctionName,
    pub(crate) signature: Signature,
    pub(crate) doc: String,
    pub(crate) websocket: Option<Websocket>,
    pub(crate) meter: Meter,
}

/// What a path leads to.
pub(crate) enum Found<'r> {
    /// A function, and the decoded path parameters.
    Route(&'r Arc<Target>, Vec<(String, String)>),
    /// Nothing for this method, but for these.
    Otherwise(Vec<&'static str>),
    /// Nothing.
    Nothing,
}

/// A place in the tree of patterns.
#[derive(Debug, Default)]
struct Node {
    literals: BTreeMap<String, Node>,
    parameter: Option<Box<Node>>,
    rest: Vec<Endpoint>,
    here: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    method: Method,
    names: Vec<String>,
    target: Arc<Target>,
}

impl Routes {
    /// From what is deployed, and `extra` routes from the configuration.
    pub fn new(deployed: &[Deployed], extra: &[(String, FunctionName)]) -> Result<Self, RouteConflict> {
        let (routes, left_out) = Self::as_far_as_possible(deployed, extra, &Held::new());
        left_out.into_iter().next().map_or(Ok(routes), |left_out| Err(left_out.why))
    }

    /// As [`Routes::new`], without what cannot be there. Of two that want the same route, the one has it that held it
    /// before, otherwise the first; what is deployed comes before `extra`.
    pub fn as_far_as_possible(
        deployed: &[Deployed],
        extra: &[(String, FunctionName)],
        held: &Held,
    ) -> (Self, Vec<LeftOut>) {
        let mut routes = Self::default();
        let mut left_out = Vec::new();
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut mail: Vec<(&str, MailPattern, Arc<Target>)> = Vec::new();
        for module in deployed.iter().map(|d| &d.module) {
            let mut leave_out = |why| left_out.push(LeftOut { module: Some(module.name.clone()), why });
            for function in &module.functions {
                let text = format!("{}.{}", module.name, function.name);
                let Ok(name) = text.parse::<FunctionName>() else {
                    leave_out(RouteConflict::Function(text));
                    continue;
                };
                if routes.functions.contains_key(&text) {
                    leave_out(RouteConflict::Function(text));
                    continue;
                }
                let target = Arc::new(Target {
                    signature: Signature::new(text.clone(), function),
                    meter: Meter::of_function(&text),
                    doc: function.doc.clone(),
                    websocket: websocket(function),
                    name,
                });
                let mut want = |text: &str, pattern| {
                    wanted.push(Wanted {
                        module: Some(module.name.clone()),
                        text: text.to_owned(),
                        pattern,
                        target: Arc::clone(&target),
                    });
                };
                function.http.iter().for_each(|route| want(route, Pattern::parse(route)));
                if let Some(websocket) = &target.websocket {
                    want(&websocket.path, Pattern::of_websocket(&websocket.path));
                }
                match Mailboxes::wanted(function) {
                    Ok(patterns) => {
                        mail.extend(patterns.into_iter().map(|p| (&*module.name, p, Arc::clone(&target))))
                    }
                    Err(reason) => leave_out(RouteConflict::Mail { function: text.clone(), reason }),
                }
                routes.functions.insert(text, target);
            }
        }
        if !held.is_empty() {
            wanted.sort_by_key(|wanted| {
                let pattern = wanted.pattern.as_ref().map(ToString::to_string);
                let module = wanted.target.name.module().to_owned();
                !pattern.is_ok_and(|pattern| held.contains(&(pattern, module)))
            });
        }
        for (text, function) in extra {
            let (text, function) = (text.clone(), function.to_string());
            match routes.functions.get(&function) {
                Some(target) => wanted.push(Wanted {
                    module: None,
                    pattern: Pattern::parse(&text),
                    text,
                    target: Arc::clone(target),
                }),
                None => {
                    left_out.push(LeftOut { module: None, why: RouteConflict::Unknown { text, function } })
                }
            }
        }
        if wanted.len() > ROUTES_MAX {
            left_out.push(LeftOut { module: None, why: RouteConflict::TooMany(wanted.len()) });
            wanted.truncate(ROUTES_MAX);
        }
        for Wanted { module, text, pattern, target } in wanted {
            if let Err(why) = routes.add(&text, pattern, target) {
                left_out.push(LeftOut { module, why });
            }
        }
        mail.sort_by_key(|(module, pattern, _)| {
            !held.contains(&(Mailboxes::text(pattern), (*module).to_owned()))
        });
        for (module, pattern, target) in mail {
            if let Err(why) = routes.mailboxes.add(pattern, &target) {
                left_out.push(LeftOut { module: Some(module.to_owned()), why });
            }
        }
        (routes, left_out)
    }

    /// Which module has which route.
    pub fn held(&self) -> Held {
        let http = self.list.iter().map(|(pattern, target)| (pattern.to_string(), target));
        let mail = self.mailboxes.iter().map(|(pattern, target)| (Mailboxes::text(pattern), target));
        http.chain(mail).map(|(text, target)| (text, target.name.module().to_owned())).collect()
    }

    fn add(
        &mut self,
        text: &str,
        pattern: Result<Pattern, pattern::Error>,
        target: Arc<Target>,
    ) -> Result<(), RouteConflict> {
        let function = || target.name.to_string();
        let pattern = pattern.map_err(|error| RouteConflict::Pattern {
            function: function(),
            text: text.to_owned(),
            error,
        })?;
        let taken = |name: &&str| target.signature.position(name).is_none();
        // What a function does not take of a connection's path is among the facts of its trigger.
        if !target.signature.takes(v1::parameter::Kind::VarNamed)
            && !pattern.is_websocket()
            && let Some(parameter) = pattern.names().find(taken)
        {
            let (function, pattern) = (function(), pattern.to_string());
            return Err(RouteConflict::Parameter { function, parameter: parameter.to_owned(), pattern });
        }
        let mut node = &mut self.root;
        let mut rest = false;
        for segment in &pattern.segments {
            match segment {
                Segment::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                Segment::Parameter(_) => node = node.parameter.get_or_insert_default(),
                Segment::Rest(_) => rest = true,
            }
        }
        let endpoints = if rest { &mut node.rest } else { &mut node.here };
        if let Some(first) = endpoints.iter().find(|e| e.method == pattern.method) {
            let (first, second) = (first.target.name.to_string(), function());
            return Err(RouteConflict::Taken { pattern: pattern.to_string(), first, second });
        }
        let names = pattern.names().map(str::to_owned).collect();
        endpoints.push(Endpoint { method: pattern.method.clone(), names, target: Arc::clone(&target) });
        self.list.push((pattern, target));
        Ok(())
    }

    /// Why the module of a function that is not here serves nothing, if it is one that could.
    pub(crate) fn failure(&self, function: &str) -> Option<&v1::Failure> {
        self.failures.get(function.split_once('.')?.0)
    }

    /// Adds modules that are there and serve nothing, with the reason: who calls them is told.
    pub fn with_failures(self, failures: BTreeMap<String, v1::Failure>) -> Self {
        Self { failures, ..self }
    }

    /// A function by its full name.
    pub(crate) fn function(&self, name: &str) -> Option<&Arc<Target>> {
        self.functions.get(name)
    }

    /// Who takes which mail.
    pub(crate) fn mailboxes(&self) -> &Mailboxes {
        &self.mailboxes
    }

    /// Whether a module that is there serves nothing: what it would take, nobody knows.
    pub(crate) fn is_incomplete(&self) -> bool {
        !self.failures.is_empty()
    }

    /// All functions, by name.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.functions.values()
    }

    /// All routes, in the order in which they were declared.
    pub(crate) fn list(&self) -> &[(Pattern, Arc<Target>)] {
        &self.list
    }

    /// The OpenAPI document, made when it is first asked for.
    pub(crate) fn openapi(&self, make: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.openapi.get_or_init(|| make(self)).clone()
    }

    /// Finds the function for a path as it came, still encoded. HEAD counts as GET.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<Found<'_>, uri::Error> {
        let inner = path.strip_prefix('/').unwrap_or(path);
        // No pattern is longer, so what follows can only belong to a rest.
        let segments =
            inner.splitn(pattern::SEGMENTS_MAX + 1, '/').map(uri::decode).collect::<Result<Vec<_>, _>>()?;
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let mut search = Search { method, segments: &segments, captured: Vec::new(), allowed: Vec::new() };
        let Some((endpoint, rest)) = search.visit(&self.root, 0) else {
            let mut allowed = search.allowed;
            allowed.sort_unstable();
            allowed.dedup();
            return Ok(if allowed.is_empty() { Found::Nothing } else { Found::Otherwise(allowed) });
        };
        let mut values: Vec<String> =
            search.captured.iter().map(|&i| segments[i].clone().into_owned()).collect();
        if let Some(from) = rest {
            let rest = segments[from..].join("/");
            // Whoever joins it to a folder must not end up outside.
            if rest.starts_with('/')
                || rest.contains('\0')
                || rest.split('/').any(|s| matches!(s, "." | ".."))
            {
                return Err(uri::Error::Climbs);
            }
            values.push(rest);
        }
        Ok(Found::Route(&endpoint.target, endpoint.names.iter().cloned().zip(values).collect()))
    }

    /// "Did you mean", for a function that is not there.
    pub(crate) fn near_function(&self, name: &str) -> Option<String> {
        let known: Vec<&str> = self.functions.keys().map(String::as_str).collect();
        bourse_wire::nearest::did_you_mean(name, &known)
    }

    /// "Did you mean", for a path that leads nowhere: a route, or a function's own path.
    pub(crate) fn near_route(&self, path: &str) -> Option<String> {
        let calls = self.functions.keys().map(|name| format!("/v1/call/{name}"));
        let known: Vec<String> = self.list.iter().map(|(pattern, _)| pattern.path()).chain(calls).collect();
        bourse_wire::nearest::did_you_mean(path, &known.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

struct Search<'s> {
    method: &'s Method,
    segments: &'s [std::borrow::Cow<'s, str>],
    captured: Vec<usize>,
    allowed: Vec<&'static str>,
}

impl Search<'_> {
    /// The endpoint, and where its rest begins. Each node is visited at most once: a node has one depth.
    fn visit<'r>(&mut self, node: &'r Node, at: usize) -> Option<(&'r Endpoint, Option<usize>)> {
        let Some(segment) = self.segments.get(at) else {
            return self.pick(&node.here).map(|endpoint| (endpoint, None));
        };
        if let Some(found) = node.literals.get(segment.as_ref()).and_then(|next| self.visit(next, at + 1)) {
            return Some(found);
        }
        if segment.is_empty() && at + 1 == self.segments.len() {
            return None;
        }
        if let Some(next) = &node.parameter
            && !segment.is_empty()
        {
            self.captured.push(at);
            if let Some(found) = self.visit(next, at + 1) {
                return Some(found);
            }
            self.captured.pop();
        }
        self.pick(&node.rest).map(|endpoint| (endpoint, Some(at)))
    }

    fn pick<'r>(&mut self, endpoints: &'r [Endpoint]) -> Option<&'r Endpoint> {
        let found = endpoints.iter().find(|e| e.method == *self.method);
        if found.is_none() {
            let methods = pattern::METHODS;
            let names = ["GET", "POST", "PUT", "PATCH", "DELETE"];
            let known = |e: &Endpoint| methods.iter().position(|m| *m == e.method).map(|i| names[i]);
            self.allowed.extend(endpoints.iter().filter_map(known));
            if endpoints.iter().any(|e| e.method == Method::GET) {
                self.allowed.push("HEAD");
            }
        }
        found
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.signature)
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
