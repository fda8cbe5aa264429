//! Reading single values.

use std::net::SocketAddr;
use std::time::Duration;

use super::known::{ABOVE_ZERO, Setting, Shape};
use crate::daemon::outside::Reach;

/// Checks a value given as text; the error says what it should look like.
pub(crate) fn check(setting: &Setting, text: &str) -> Result<(), String> {
    let good = match setting.shape {
        Shape::Text | Shape::List => true,
        Shape::Count => text.parse::<usize>().is_ok(),
        Shape::Duration => bourse_wire::time::parse_duration(text).is_some(),
        Shape::Size => size(text).is_some(),
        Shape::Flag => flag(text).is_some(),
        Shape::Address => address(text).is_some() || text == setting.default,
    };
    if !good {
        return Err(format!("{text:?} is not {}", looks(setting.shape)));
    }
    if ABOVE_ZERO.contains(&setting.name) && is_zero(setting.shape, text) {
        return Err(format!("{text} means that nothing could run; it must be above zero"));
    }
    if setting.name == "log"
        && let Some(word) = text.split(',').map(str::trim).find(|word| !is_level_or_filter(word))
    {
        return Err(format!("{word:?} is no level; there are {}", LEVELS.join(", ")));
    }
    if setting.name == "webhook_reach" && !Reach::NAMES.contains(&text) {
        return Err(format!("{text:?} is not one of {}", Reach::NAMES.join(", ")));
    }
    super::grid::check(setting.name, text)
}

fn is_zero(shape: Shape, text: &str) -> bool {
    match shape {
        Shape::Count => text.parse() == Ok(0_usize),
        Shape::Duration => bourse_wire::time::parse_duration(text) == Some(Duration::ZERO),
        Shape::Size => size(text) == Some(0),
        _ => false,
    }
}

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// A single word would be taken for the name of a crate, and nothing else be logged.
fn is_level_or_filter(word: &str) -> bool {
    word.contains(['=', '[', ':']) || LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
}

pub(crate) fn looks(shape: Shape) -> &'static str {
    match shape {
        Shape::Text => "a text",
        Shape::Count => "a whole number",
        Shape::Duration => "a duration such as \"5s\", \"200ms\" or \"1m\"",
        Shape::Size => "a size such as \"16MiB\" or \"64KiB\"",
        Shape::Flag => "true or false",
        Shape::List => "a list of texts",
        Shape::Address => "an address such as 127.0.0.1:7070",
    }
}

/// A TOML value as the text that a flag or variable would have.
pub(crate) fn from_toml(setting: &Setting, value: &toml::Value) -> Result<String, String> {
    let text = match (setting.shape, value) {
        (Shape::List, toml::Value::Array(items)) => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            texts.ok_or_else(|| format!("{value} is not {}", looks(setting.shape)))?.join(",")
        }
        (Shape::Count | Shape::Flag, toml::Value::String(_)) => {
            return Err(format!("{value} is not {}", looks(setting.shape)));
        }
        (_, toml::Value::String(text)) => text.clone(),
        (Shape::Count | Shape::Duration | Shape::Size, toml::Value::Integer(n)) => n.to_string(),
        (Shape::Duration, toml::Value::Float(f)) => f.to_string(),
        (Shape::Flag, toml::Value::Boolean(b)) => b.to_string(),
        _ => return Err(format!("{value} is not {}", looks(setting.shape))),
    };
    check(setting, &text)?;
    Ok(text)
}

pub(crate) fn flag(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

pub(crate) fn duration(text: &str) -> Duration {
    bourse_wire::time::parse_duration(text).expect("a duration is checked when it is given")
}

pub(crate) fn size(text: &str) -> Option<usize> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(scale)
}

/// `:7070` is every address of the machine.
pub(crate) fn address(text: &str) -> Option<SocketAddr> {
    let full = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        },
    };
    full.parse().ok()
}

pub(crate) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("0", Some(0)), ("16MiB", Some(16 << 20)), ("64 KiB", Some(64 << 10)), ("5MB", Some(5_000_000))]
        {
            assert_eq!(size(text), bytes, "{text}");
        }
        for bad in ["", "-1", "1.5MiB", "5 parsecs", "99999999999999999999", "99999999999GiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
