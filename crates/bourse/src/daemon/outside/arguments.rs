//! A call's arguments by name, as far as the function has them.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_node::HostFunction;
use bourse_wire::arguments::Arguments;
use bourse_wire::failure::Code;
use bourse_wire::time::parse_duration;
use bourse_wire::v1;
use bourse_wire::value::Value;

/// See the module.
pub(crate) struct Given {
    function: HostFunction,
    values: BTreeMap<String, Value>,
}

impl Given {
    /// From what a function or client sent.
    pub(crate) fn read(function: HostFunction, payload: &[u8]) -> Result<Self, v1::Failure> {
        let bad = |why: String| {
            let names: Vec<_> = function.parameter_names().collect();
            Code::BadArguments
                .because(format!("bourse.{}: {why}", function.name()))
                .hint(format!("it takes {}", names.join(", ")))
        };
        let arguments = Arguments::from_cbor(payload).map_err(|e| bad(e.to_string()))?;
        let mut names = function.parameter_names();
        let mut values = BTreeMap::new();
        for value in arguments.positional {
            let name = names.next().ok_or_else(|| bad("it has fewer parameters".to_owned()))?;
            values.insert(name.to_owned(), value);
        }
        for (name, value) in arguments.named {
            // `from` is a word of Python's own, so that there the parameter ends with a line below.
            let name = if name == "from" { "from_".to_owned() } else { name };
            if !function.parameter_names().any(|known| known == name) {
                return Err(bad(format!("it has no parameter {name:?}")));
            }
            if values.insert(name.clone(), value).is_some() {
                return Err(bad(format!("{name} is given twice")));
            }
        }
        values.retain(|_, value| *value != Value::Null);
        Ok(Self { function, values })
    }

    /// What is wrong with an argument.
    pub(crate) fn wrong(&self, why: impl std::fmt::Display) -> v1::Failure {
        Code::BadArguments.because(format!("bourse.{}: {why}", self.function.name()))
    }

    /// Any value; `None` if it is not given, or null.
    pub(crate) fn value(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name)
    }

    pub(crate) fn text_if_given(&mut self, name: &str) -> Result<Option<String>, v1::Failure> {
        match self.values.remove(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(format!("{name} is not a text"))),
        }
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<String, v1::Failure> {
        self.text_if_given(name)?.ok_or_else(|| self.wrong(format!("{name} is missing")))
    }

    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i128>, v1::Failure> {
        match self.values.remove(name) {
            None => Ok(None),
            Some(Value::Int(n)) => Ok(Some(n)),
            Some(_) => Err(self.wrong(format!("{name} is not a whole number"))),
        }
    }

    /// A text, or a list of texts.
    pub(crate) fn texts(&mut self, name: &str) -> Result<Vec<String>, v1::Failure> {
        let items = match self.values.remove(name) {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(one) => vec![one],
        };
        let texts = items.into_iter().map(|item| match item {
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong(format!("{name} is neither a text nor a list of texts"))),
        });
        texts.collect()
    }

    /// Texts by name.
    pub(crate) fn map(&mut self, name: &str) -> Result<Vec<(String, String)>, v1::Failure> {
        let pairs = match self.values.remove(name) {
            None => Vec::new(),
            Some(Value::Map(pairs)) => pairs,
            Some(_) => return Err(self.wrong(format!("{name} is not a dict"))),
        };
        let pairs = pairs.into_iter().map(|(key, value)| match (key, value) {
            (Value::Text(key), Value::Text(value)) => Ok((key, value)),
            _ => Err(self.wrong(format!("{name} is not a dict of texts"))),
        });
        pairs.collect()
    }

    /// Seconds, or "10s".
    pub(crate) fn duration(&mut self, name: &str) -> Result<Option<Duration>, v1::Failure> {
        let read = match self.values.remove(name) {
            None => return Ok(None),
            Some(Value::Text(text)) => parse_duration(&text),
            Some(Value::Int(n)) => u64::try_from(n).ok().map(Duration::from_secs),
            Some(Value::Float(seconds)) => Duration::try_from_secs_f64(seconds).ok(),
            Some(_) => None,
        };
        read.map(Some).ok_or_else(|| self.wrong(format!("{name} is not a duration, such as \"10s\"")))
    }
}
