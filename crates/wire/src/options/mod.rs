//! Options of functions that have a shape of their own, as their modules describe them: JSON.

mod batch;
mod cron;
mod key;
mod listen;
mod mail;
mod pace;
mod retry;
mod unique;
mod websocket;

use std::time::Duration;

use serde_json::Value as Json;

pub use batch::Batch;
pub use cron::{CRON_LINES_MAX, Cron, Missed};
pub use key::{BadKey, KEY_BYTES_MAX, KeyTemplate};
pub use listen::{Channel, LISTENED_MAX, NAME_BYTES_MAX, QueueName, TopicName, TopicPattern};
pub use mail::{MAIL_PATTERN_BYTES_MAX, MAIL_PATTERNS_MAX, MailPattern};
pub use pace::{Debounce, Throttle};
pub use retry::Retry;
pub use unique::{Unique, Window};
pub use websocket::Websocket;

use crate::nearest::nearest;
use crate::time::parse_duration;

fn duration(key: &str, json: &Json) -> Result<Duration, String> {
    let text = json.as_str().map_or_else(|| json.to_string(), str::to_owned);
    parse_duration(&text)
        .ok_or_else(|| format!("`{key}` = {json} is not a duration, such as \"5s\" or \"200ms\""))
}

/// What to say of a key that an option's object does not have.
fn unknown(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()).as_slice() {
        [] => format!("it has no `{key}`; there are {}", known.join(", ")),
        [near, ..] => format!("it has no `{key}`; did you mean `{near}`?"),
    }
}
