//! What can go wrong, as a program tells it apart and as people read it: what happened, and what to do about it.

use std::fmt;
use std::time::Duration;

use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::v1;

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was given as a ticket is none.
    #[error("this is no ticket: {0}\n  hint: copy all of what `bourse ticket` has printed")]
    Ticket(String),
    /// The folder with the keys can't be used, or what is in it.
    #[error("{0}")]
    Folder(String),
    /// No node of the ticket has let this client in.
    #[error("{0}")]
    NotLetIn(String),
    /// No node of the grid can be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The grid does not speak with this client's key: it was never let in, or has been revoked.
    #[error("{0}")]
    NotAdmitted(String),
    /// What was asked for makes no sense, such as a function's name that is none.
    #[error("{0}")]
    Bad(String),
    /// It was asked of the grid, and failed there.
    #[error(transparent)]
    Failed(#[from] Box<Failure>),
    /// The client is closed, or was while this was under way.
    #[error("this client is closed")]
    Closed,
}

impl Error {
    /// The code of a call that has failed; `None` if it never came to that.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Failed(failure) => Some(failure.code),
            _ => None,
        }
    }

    /// When it is worth trying again, if the grid has said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Failed(failure) => failure.retry_after,
            _ => None,
        }
    }

    pub(crate) fn failed(call: Option<CallId>, failure: v1::Failure) -> Self {
        Self::Failed(Box::new(Failure::new(call, failure)))
    }

    pub(crate) fn folder(error: &anyhow::Error) -> Self {
        Self::Folder(format!("{error:#}"))
    }
}

/// Why a call has failed. Every code has a page in `docs/errors`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Failure {
    /// What went wrong, for programs.
    pub code: Code,
    /// The same, for people.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// The type of the error in the function, such as `ValueError`; empty if it is none of the function's.
    pub error_type: String,
    /// Where in the function it came from; may be empty.
    pub traceback: String,
    /// When it is worth trying again, if that is known.
    pub retry_after: Option<Duration>,
    /// The call; `None` if it was never accepted.
    pub call: Option<CallId>,
}

impl Failure {
    fn new(call: Option<CallId>, failure: v1::Failure) -> Self {
        let code = failure.kind();
        let retry_after = (failure.retry_after_ms > 0).then(|| Duration::from_millis(failure.retry_after_ms));
        let v1::Failure { message, hint, r#type: error_type, traceback, .. } = failure;
        Self { code, message, hint, error_type, traceback, retry_after, call }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code.as_str())?;
        if !self.error_type.is_empty() {
            write!(f, "{}: ", self.error_type)?;
        }
        f.write_str(&self.message)?;
        match self.hint.is_empty() {
            true => Ok(()),
            false => write!(f, "\n  hint: {}", self.hint),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_happened_and_what_to_do() {
        let told =
            Code::NoCapacity.because("nobody has room").hint("wait").retry_after(Duration::from_secs(2));
        let error = Error::failed(None, told);
        assert_eq!(error.to_string(), "no_capacity: nobody has room\n  hint: wait");
        assert_eq!(error.code(), Some(Code::NoCapacity));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        let told = v1::Failure { r#type: "ValueError".into(), ..Code::FunctionError.because("no such cake") };
        assert_eq!(Error::failed(None, told).to_string(), "function_error: ValueError: no such cake");
        assert_eq!(Error::Closed.code(), None);
    }
}
