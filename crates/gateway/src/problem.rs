//! Failures as problem details (RFC 9457).
//!
//! `{type, title, status, detail, code, hint?, call_id?, error?: {type, message, traceback?}}`. The traceback
//! is there in development only: it tells a stranger how the inside looks.

use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::v1;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Map, Value as Json, json};

/// Where the page of each code is; the code and `.md` follow.
pub const ERROR_PAGES: &str = "https://github.com/bourse-grid/bourse/blob/main/docs/errors/";

/// The problem as JSON.
pub fn to_json(failure: &v1::Failure, call: Option<CallId>, dev: bool) -> Json {
    let kind = failure.kind();
    let mut problem = Map::new();
    problem.insert("type".into(), format!("{ERROR_PAGES}{}.md", kind.as_str()).into());
    problem.insert("title".into(), kind.title().into());
    problem.insert("status".into(), kind.http_status().into());
    problem.insert("detail".into(), failure.message.as_str().into());
    problem.insert("code".into(), kind.as_str().into());
    if !failure.hint.is_empty() {
        problem.insert("hint".into(), failure.hint.as_str().into());
    }
    if let Some(call) = call {
        problem.insert("call_id".into(), call.to_string().into());
    }
    if kind == Code::FunctionError {
        let mut error = json!({"type": failure.r#type, "message": failure.message});
        if dev && !failure.traceback.is_empty() {
            error["traceback"] = failure.traceback.as_str().into();
        }
        problem.insert("error".into(), error);
    }
    problem.into()
}

/// The problem as an answer.
pub(crate) fn respond(failure: &v1::Failure, call: Option<CallId>, dev: bool) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(to_json(failure, call, dev).to_string()));
    *response.status_mut() =
        StatusCode::from_u16(failure.kind().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if failure.retry_after_ms > 0 {
        headers.insert(header::RETRY_AFTER, failure.retry_after_ms.div_ceil(1000).into());
    }
    if failure.kind() == Code::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"bourse\""));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_function_error_tells_its_type() {
        let mut failure = Code::FunctionError.because("no such key").hint("look again");
        (failure.r#type, failure.traceback) = ("KeyError".into(), "File …".into());
        let problem = to_json(&failure, None, false);
        assert_eq!(problem["error"], json!({"type": "KeyError", "message": "no such key"}));
        assert_eq!((&problem["code"], &problem["status"]), (&json!("function_error"), &json!(500)));
        assert_eq!(to_json(&failure, None, true)["error"]["traceback"], "File …");
        // A code of a later release.
        failure.code = "from_the_future".into();
        assert_eq!(to_json(&failure, None, false)["code"], "function_error");
    }

    #[test]
    fn retry_after_rounds_up() {
        let failure = Code::NoCapacity.because("").retry_after(Duration::from_millis(1001));
        let response = respond(&failure, None, false);
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (503, &"2".parse().unwrap())
        );
    }

    #[test]
    fn every_code_has_its_page() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let index = std::fs::read_to_string(folder.join("README.md")).unwrap();
        for code in Code::ALL {
            let page = std::fs::read_to_string(folder.join(format!("{}.md", code.as_str()))).unwrap();
            for part in [
                format!("# {}", code.as_str()),
                code.title().into(),
                "## What to do".into(),
                format!("\"status\": {}", code.http_status()),
            ] {
                assert!(page.contains(&part), "{code:?}: no {part:?}");
            }
            assert!(index.contains(&format!("({}.md)", code.as_str())), "{code:?} is not in the index");
            let example = page.split("```json\n").nth(1).and_then(|t| t.split("```").next()).unwrap();
            let example: Json = serde_json::from_str(example).unwrap();
            let expected = to_json(&code.because(""), None, false);
            for key in ["type", "title", "status", "code"] {
                assert_eq!(example[key], expected[key], "{code:?}");
            }
        }
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), Code::ALL.len() + 1, "a page without a code");
    }
}
