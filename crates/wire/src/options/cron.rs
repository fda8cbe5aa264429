//! `cron`: when a function is woken by the clock.
//!
//! Lines are as `man 5 crontab` has them, with an optional sixth field for seconds in front, and `@hourly` and the like.
//! When the clocks of a zone change: a line that names a time of day has exactly one tick a day, at that time, at the
//! first of two, or right after the gap in which it would be; a line with a wildcard or step in its hours has a tick
//! whenever it matches.

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde_json::Value as Json;

use super::unknown;
use crate::nearest::nearest;

/// The most lines of one function.
pub const CRON_LINES_MAX: usize = 64;
/// The longest line, in bytes.
const LINE_BYTES_MAX: usize = 255;
/// Where the search for a first tick begins: any time will do, since lines name no year.
const ANY_TIME: Timestamp = Timestamp::UNIX_EPOCH;

/// One line. See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Cron {
    /// As it is written.
    pub line: String,
    /// The name of its time zone.
    pub zone: String,
    /// What becomes of ticks that nobody was there for.
    pub missed: Missed,
    schedule: croner::Cron,
    time_zone: TimeZone,
}

/// What becomes of ticks while the daemon was down, or that the clock jumped over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// Nothing.
    Skip,
    /// The latest of them is made up for.
    #[default]
    Once,
    /// All are, one after the other.
    All,
}

impl Missed {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }
}

impl Cron {
    /// Reads a line, an object with `line`, `zone` and `missed`, or a list of these.
    pub fn from_json(text: &str) -> Result<Vec<Self>, String> {
        let json: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let lines = match &json {
            Json::Array(lines) => lines.iter().map(Self::one).collect::<Result<Vec<_>, _>>()?,
            one => vec![Self::one(one)?],
        };
        match lines.len() {
            0 => return Err("it has no line".to_owned()),
            1..=CRON_LINES_MAX => {}
            _ => return Err(format!("it has more than {CRON_LINES_MAX} lines")),
        }
        for (at, cron) in lines.iter().enumerate() {
            if lines[..at].iter().any(|earlier| earlier.key() == cron.key()) {
                return Err(format!("it has the line {:?} twice", cron.line));
            }
        }
        Ok(lines)
    }

    fn one(json: &Json) -> Result<Self, String> {
        match json {
            Json::String(line) => Self::new(line, "UTC", Missed::default()),
            Json::Object(object) => {
                let (mut line, mut zone, mut missed) = (None, "UTC", Missed::default());
                for (name, value) in object {
                    match (name.as_str(), value) {
                        ("line", Json::String(text)) => line = Some(text.as_str()),
                        ("zone", Json::String(text)) => zone = text,
                        ("missed", Json::String(text)) => missed = missed_of(text)?,
                        ("line" | "zone" | "missed", _) => {
                            return Err(format!("`{name}` = {value} is not a text"));
                        }
                        _ => return Err(unknown(name, &["line", "zone", "missed"])),
                    }
                }
                Self::new(line.ok_or("it needs a `line`")?, zone, missed)
            }
            other => Err(format!("{other} is neither a line nor an object with `line`, `zone` and `missed`")),
        }
    }

    /// A line in a zone.
    pub fn new(line: &str, zone: &str, missed: Missed) -> Result<Self, String> {
        let line = line.trim();
        if line.len() > LINE_BYTES_MAX || line.contains('\0') {
            return Err(format!("a line has at most {LINE_BYTES_MAX} bytes, and no NUL"));
        }
        let fields = line.split_whitespace().count();
        if !line.starts_with('@') && !(5..=6).contains(&fields) {
            return Err(format!(
                "the line {line:?} has {fields} fields; it needs 5 (minute, hour, day, month, day of the week), or 6 with seconds first"
            ));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let schedule = parser.parse(line).map_err(|e| format!("the line {line:?} is not understood: {e}"))?;
        let time_zone = zone_of(zone)?;
        let zone = time_zone.iana_name().unwrap_or("UTC").to_owned();
        let cron = Self { line: line.to_owned(), zone, missed, schedule, time_zone };
        match cron.schedule.find_next_occurrence(&ANY_TIME.to_zoned(TimeZone::UTC), false) {
            Ok(_) => Ok(cron),
            Err(_) => Err(format!("the line {line:?} has no tick, ever: is there such a day?")),
        }
    }

    /// What tells it from other lines of its function, and stays while it is the same line.
    pub fn key(&self) -> String {
        if self.zone == "UTC" { self.line.clone() } else { format!("{} {}", self.line, self.zone) }
    }

    /// The first tick after a time; both in milliseconds since 1970.
    pub fn next_after(&self, wall_ms: u64) -> Option<u64> {
        let second = i64::try_from(wall_ms / 1000).ok()?;
        let from = Timestamp::from_second(second).ok()?.to_zoned(self.time_zone.clone());
        let next = self.schedule.find_next_occurrence(&from, false).ok()?.timestamp();
        u64::try_from(next.as_millisecond()).ok()
    }

    /// The latest ticks after `after_ms`, up to and including `until_ms`, in order; at most `most`. And whether there were
    /// more.
    pub fn between(&self, after_ms: u64, until_ms: u64, most: usize) -> (Vec<u64>, bool) {
        // Ticks are searched forwards only, so the beginning is guessed: there is one a second at most.
        let mut span_ms = 1000 * (most as u64 + 1);
        loop {
            let from = until_ms.saturating_sub(span_ms).max(after_ms);
            let ticks: Vec<u64> = std::iter::successors(self.next_after(from), |tick| self.next_after(*tick))
                .take_while(|tick| *tick <= until_ms)
                .collect();
            if ticks.len() > most {
                return (ticks[ticks.len() - most..].to_vec(), true);
            }
            if from == after_ms {
                return (ticks, false);
            }
            span_ms = span_ms.saturating_mul(4);
        }
    }
}

fn missed_of(text: &str) -> Result<Missed, String> {
    match text {
        "skip" => Ok(Missed::Skip),
        "once" => Ok(Missed::Once),
        "all" => Ok(Missed::All),
        _ => Err(format!("`missed` = {text:?} is none of \"skip\", \"once\" and \"all\"")),
    }
}

fn zone_of(name: &str) -> Result<TimeZone, String> {
    let zones = TimeZoneDatabase::bundled();
    if let Ok(zone) = zones.get(name) {
        return Ok(zone);
    }
    let known: Vec<String> = zones.available().map(|zone| zone.to_string()).collect();
    let known = || known.iter().map(String::as_str);
    let city = |zone: &&str| zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(name));
    let near = match known().find(city) {
        Some(zone) => vec![zone],
        None => nearest(name, known()),
    };
    Err(match near.as_slice() {
        [] => format!("there is no time zone {name:?}; they are named as in \"Europe/Berlin\""),
        near => format!("there is no time zone {name:?}; did you mean {}?", near.join(" or ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    fn text(ms: u64) -> String {
        Timestamp::from_millisecond(i64::try_from(ms).unwrap()).unwrap().to_string()
    }

    /// The ticks after a time.
    fn ticks(line: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::new(line, zone, Missed::Once).unwrap();
        std::iter::successors(cron.next_after(ms(from)), |t| cron.next_after(*t))
            .take(count)
            .map(text)
            .collect()
    }

    #[test]
    fn shapes() {
        let read = |text: &str| Cron::from_json(text).unwrap();
        let one = &read("\"*/5 * * * *\"")[0];
        assert_eq!((one.line.as_str(), one.zone.as_str(), one.missed), ("*/5 * * * *", "UTC", Missed::Once));
        let more = read(r#"["@daily", {"line": "0 3 * * *", "zone": "europe/berlin", "missed": "all"}]"#);
        assert_eq!((more[1].zone.as_str(), more[1].missed), ("Europe/Berlin", Missed::All));
        assert_eq!((more[0].key(), more[1].key()), ("@daily".into(), "0 3 * * * Europe/Berlin".into()));
        assert_eq!(ticks("@hourly", "UTC", "2026-01-01T00:00:00Z", 1), ["2026-01-01T01:00:00Z"]);
        assert_eq!(ticks("*/2 * * * * *", "UTC", "2026-01-01T00:00:00.9Z", 1), ["2026-01-01T00:00:02Z"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, word) in [
            ("1", "neither a line"),
            ("[]", "has no line"),
            ("\"\"", "0 fields"),
            ("\"* * * *\"", "4 fields"),
            ("\"0 0 1 1 * 2030 1\"", "7 fields"),
            ("\"61 * * * *\"", "not understood"),
            ("\"x * * * *\"", "not understood"),
            ("\"@reboot\"", "not understood"),
            ("\"0 0 30 2 *\"", "no tick, ever"),
            ("\"0 0 31 4,6,9,11 *\"", "no tick, ever"),
            ("[\"@daily\", \"@daily\"]", "twice"),
            (r#"{"zone": "UTC"}"#, "needs a `line`"),
            (r#"{"line": "@daily", "zon": "UTC"}"#, "did you mean `zone`"),
            (r#"{"line": "@daily", "zone": "Europe/Berln"}"#, "did you mean Europe/Berlin"),
            (r#"{"line": "@daily", "zone": "Berlin"}"#, "did you mean Europe/Berlin"),
            (r#"{"line": "@daily", "zone": "Moon/Crater"}"#, "there is no time zone"),
            (r#"{"line": "@daily", "missed": "twice"}"#, "none of"),
            (r#"{"line": "@daily", "missed": 1}"#, "not a text"),
        ] {
            let error = Cron::from_json(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }

    #[test]
    fn a_time_of_day_comes_once_a_day_when_clocks_change() {
        // 2026-03-29 in Berlin: 02:00 becomes 03:00. 2026-10-25: 03:00 becomes 02:00.
        let daily = |from| ticks("30 2 * * *", "Europe/Berlin", from, 3);
        let spring = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(daily("2026-03-27T12:00:00Z"), spring);
        let autumn = ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        assert_eq!(daily("2026-10-23T12:00:00Z"), autumn);
    }

    #[test]
    fn what_comes_every_so_often_does_so_when_clocks_change() {
        let often = |from: &str| ticks("*/30 * * * *", "Europe/Berlin", from, 5);
        for day in ["2026-03-29", "2026-10-25"] {
            let expected: Vec<String> = ["00:30", "01:00", "01:30", "02:00", "02:30"]
                .iter()
                .map(|time| format!("{day}T{time}:00Z"))
                .collect();
            assert_eq!(often(&format!("{day}T00:00:00Z")), expected);
        }
    }

    #[test]
    fn the_latest_of_many_ticks() {
        let each = Cron::new("* * * * * *", "UTC", Missed::All).unwrap();
        let now = ms("2026-01-01T00:00:00Z");
        let (ticks, more) = each.between(now - 365 * 86_400_000, now, 1000);
        assert_eq!((ticks.len(), ticks[999], ticks[0], more), (1000, now, now - 999_000, true));
        let rare = Cron::new("0 0 1 1 *", "UTC", Missed::All).unwrap();
        let (ticks, more) = rare.between(ms("2020-06-01T00:00:00Z"), now, 1000);
        assert_eq!((ticks.len(), more), (6, false));
        assert_eq!(rare.between(now, now + 1, 1000), (Vec::new(), false));
    }
}
