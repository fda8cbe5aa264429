//! JSON as text: shown without being parsed into numbers that would lose digits. And problem details.

use serde::Deserialize;

use super::http::Answer;

/// RFC 9457 problem details, as far as they are shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    title: String,
    detail: String,
    code: String,
    hint: Option<String>,
    call_id: Option<String>,
    error: Option<Raised>,
}

/// What a function raised.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raised {
    r#type: String,
    traceback: Option<String>,
}

/// The problem that an answer is; `None` if it is an answer of the function's own.
pub(super) fn problem(answer: &Answer) -> Option<Problem> {
    if answer.content_type != "application/problem+json" {
        return None;
    }
    serde_json::from_slice(&answer.body).ok()
}

impl Problem {
    /// `title: detail`, and below it the traceback, hint and call id.
    pub(super) fn text(&self) -> String {
        let raised = self.error.as_ref();
        let mut text = self.title.clone();
        for part in [raised.map_or("", |e| e.r#type.as_str()), self.detail.as_str()] {
            if !part.is_empty() {
                text.push_str(": ");
                text.push_str(part);
            }
        }
        if let Some(traceback) = raised.and_then(|e| e.traceback.as_deref()) {
            for line in traceback.trim_end().lines() {
                text.push_str("\n  | ");
                text.push_str(line);
            }
        }
        let hint = match (self.hint.as_deref(), self.code.as_str()) {
            (None | Some(""), "unauthorized") => Some("give the daemon's token with --token or BOURSE_TOKEN"),
            (hint, _) => hint,
        };
        for (name, value) in [("hint", hint), ("call", self.call_id.as_deref())] {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                text.push_str(&format!("\n  {name}: {value}"));
            }
        }
        text
    }
}

/// Whether a text is one JSON value.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A well-formed JSON text over several lines. What stands in it stays as it is, to the last digit.
pub(super) fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0;
    let mut rest = text.trim().chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = rest.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = rest.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_keeps_every_digit() {
        for (given, expected) in [
            ("1e400", "1e400"),
            ("[]", "[]"),
            ("{ }", "{}"),
            (r#"{"a":[1,2.50],"b":{}}"#, "{\n  \"a\": [\n    1,\n    2.50\n  ],\n  \"b\": {}\n}"),
            (
                r#"["a,{\"]", 123456789012345678901234567890]"#,
                "[\n  \"a,{\\\"]\",\n  123456789012345678901234567890\n]",
            ),
        ] {
            assert_eq!(pretty(given), expected);
        }
    }

    #[test]
    fn a_problem_is_told_in_full() {
        let body = r#"{"title":"Function error","detail":"'x'","code":"function_error","hint":"look","call_id":"c1",
            "error":{"type":"KeyError","traceback":"File a\n  line\n"}}"#;
        let answer = Answer {
            status: 500,
            content_type: "application/problem+json".into(),
            call: None,
            body: body.into(),
        };
        let text = problem(&answer).unwrap().text();
        assert_eq!(text, "Function error: KeyError: 'x'\n  | File a\n  |   line\n  hint: look\n  call: c1");
        assert!(problem(&Answer { content_type: "application/json".into(), ..answer }).is_none());
    }
}
