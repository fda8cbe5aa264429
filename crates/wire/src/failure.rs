//! The typed errors that a caller can see. Each code has a page, `docs/errors/{code}.md`, with its causes and
//! remedies; `tidy` checks that it does.

use crate::v1;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $text:literal $status:literal $title:literal;)*) => {
        /// What went wrong, as programs read it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As it stands on the wire and in problem details.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that tells it best.
            pub fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// A short name for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// From its text; `None` if this release does not know it.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// The request body is not the JSON that was announced, or the request is malformed.
    BadRequest "bad_request" 400 "Bad request";
    /// No token, or a wrong one.
    Unauthorized "unauthorized" 401 "Unauthorized";
    /// The Host or Origin header is not one that this daemon answers to.
    Forbidden "forbidden" 403 "Forbidden";
    /// No function or route of that name.
    NotFound "not_found" 404 "Not found";
    /// The route exists, for other methods.
    MethodNotAllowed "method_not_allowed" 405 "Method not allowed";
    /// State changed under the call in each of its attempts.
    Conflict "conflict" 409 "Conflict";
    /// A body, argument, result or state value is larger than its bound.
    TooLarge "too_large" 413 "Too large";
    /// The arguments do not fit the function.
    BadArguments "bad_arguments" 422 "Bad arguments";
    /// A state key or write that is not allowed.
    BadState "bad_state" 422 "State refused";
    /// The caller cancelled, or went away.
    Cancelled "cancelled" 499 "Cancelled";
    /// The function raised an exception.
    FunctionError "function_error" 500 "Function error";
    /// A call that would be nested deeper than `depth_max`.
    DepthExceeded "depth_exceeded" 508 "Calls nested too deep";
    /// More instances would wait for nested calls than `blocked_max`.
    BlockedExceeded "blocked_exceeded" 503 "Too many instances wait for nested calls";
    /// A bug in Bourse.
    Internal "internal" 500 "Internal error";
    /// The instance died while it ran the call.
    InstanceCrashed "instance_crashed" 502 "Instance crashed";
    /// The module does not load, or its instances do not start.
    ModuleFailed "module_failed" 502 "Module failed to start";
    /// The call waited for an instance for longer than its `queue_wait`.
    NoCapacity "no_capacity" 503 "No capacity";
    /// The module's queue is full.
    QueueFull "queue_full" 503 "Queue full";
    /// The daemon has just started, and does not know yet what it will serve.
    Starting "starting" 503 "Starting";
    /// The daemon is stopping.
    ShuttingDown "shutting_down" 503 "Shutting down";
    /// A webhook or mail was not taken by its target.
    Undelivered "undelivered" 502 "Not delivered";
    /// The store does not take writes or reads.
    StoreUnavailable "store_unavailable" 503 "Store unavailable";
    /// The call took longer than its timeout.
    Timeout "timeout" 504 "Timed out";
    /// A message that breaks the worker protocol.
    Protocol "protocol" 400 "Protocol violation";
    /// No protocol version in common.
    ProtocolVersion "protocol_version" 505 "Protocol version not supported";
}

impl Code {
    /// A failure with this code.
    pub fn because(self, message: impl Into<String>) -> v1::Failure {
        v1::Failure { code: self.as_str().to_owned(), message: message.into(), ..Default::default() }
    }
}

impl v1::Failure {
    /// The same, with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same, with when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: std::time::Duration) -> Self {
        self.retry_after_ms = crate::time::millis(after);
        self
    }

    /// Its code; what this release does not know counts as the function's own error.
    pub fn kind(&self) -> Code {
        Code::parse(&self.code).unwrap_or(Code::FunctionError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back() {
        for &code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
            assert!((400..=599).contains(&code.http_status()));
        }
        assert_eq!(Code::parse("nonsense"), None);
    }
}
