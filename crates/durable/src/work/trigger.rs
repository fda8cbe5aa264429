//! Records of what wakes functions: how far each cron line has come, and what each module listens to.
//!
//! They change by [`crate::Durable::trigger`], together with the calls that follow, and are found after a start, once:
//! [`crate::Durable::found_triggers`]. What they mean is the node's.

use std::fmt;

use bourse_wire::record::v1 as record;
use bytes::Bytes;
use prost::Message as _;

use super::key;
use crate::batch::PartitionId;

/// Which record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TriggerKey {
    /// How far a cron line has come.
    Cron {
        /// The module.
        module: String,
        /// The function, without its module.
        function: String,
        /// The line, and what else tells it from others of the function.
        line: String,
    },
    /// What a module listens to.
    Listens {
        /// The module.
        module: String,
    },
}

/// A change of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum TriggerWrite {
    /// A cron line has come so far.
    Cron(TriggerKey, record::Cron),
    /// A module listens to this.
    Listens(TriggerKey, record::Triggers),
    /// The record goes.
    Delete(TriggerKey),
}

/// What an earlier life has left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundTriggers {
    /// Cron lines.
    pub crons: Vec<(TriggerKey, record::Cron)>,
    /// What modules listen to.
    pub listens: Vec<(TriggerKey, record::Triggers)>,
}

/// How far looking for them has come.
#[derive(Debug, Default)]
pub(crate) struct Search {
    pub(crate) left: Vec<PartitionId>,
    pub(crate) open: usize,
    pub(crate) found: FoundTriggers,
    pub(crate) done: bool,
}

impl TriggerKey {
    /// The partition that it is at home in: the first byte of its key's hash.
    pub fn home(&self) -> u8 {
        blake3::hash(&self.bytes()).as_bytes()[0]
    }

    pub(crate) fn bytes(&self) -> Bytes {
        match self {
            Self::Cron { module, function, line } => key::cron(module, function, line),
            Self::Listens { module } => key::listens(module),
        }
    }

    /// The module.
    pub fn module(&self) -> &str {
        match self {
            Self::Cron { module, .. } | Self::Listens { module } => module,
        }
    }
}

impl fmt::Display for TriggerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron { module, function, line } => write!(f, "{line} of {module}.{function}"),
            Self::Listens { module } => write!(f, "what {module} listens to"),
        }
    }
}

impl TriggerWrite {
    /// The change that makes a record what it is stored as; `None` if that does not decode.
    pub fn of(key: TriggerKey, value: Option<Bytes>) -> Option<Self> {
        match (&key, value) {
            (_, None) => Some(Self::Delete(key)),
            (TriggerKey::Cron { .. }, Some(value)) => {
                record::Cron::decode(value).ok().map(|record| Self::Cron(key, record))
            }
            (TriggerKey::Listens { .. }, Some(value)) => {
                record::Triggers::decode(value).ok().map(|record| Self::Listens(key, record))
            }
        }
    }

    /// Which record it changes.
    pub fn key(&self) -> &TriggerKey {
        match self {
            Self::Cron(key, _) | Self::Listens(key, _) | Self::Delete(key) => key,
        }
    }

    pub(crate) fn value(&self) -> Option<Bytes> {
        match self {
            Self::Cron(_, record) => Some(bourse_wire::header::encode(record)),
            Self::Listens(_, record) => Some(bourse_wire::header::encode(record)),
            Self::Delete(_) => None,
        }
    }
}

impl FoundTriggers {
    pub(crate) fn add(&mut self, key: &[u8], value: Bytes) {
        // What does not decode stays where it is, for a release that knows it.
        match key::parse_trigger(key).and_then(|key| TriggerWrite::of(key, Some(value))) {
            Some(TriggerWrite::Cron(key, record)) => self.crons.push((key, record)),
            Some(TriggerWrite::Listens(key, record)) => self.listens.push((key, record)),
            Some(TriggerWrite::Delete(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        // Golden: a change of these loses sight of everything that is stored.
        let text = |text: &str| text.to_owned();
        let cron = TriggerKey::Cron { module: text("shop"), function: text("f"), line: text("@daily") };
        let listens = TriggerKey::Listens { module: text("shop") };
        assert_eq!(&cron.bytes()[..], b"kshop\0f\0@daily");
        assert_eq!(&listens.bytes()[..], b"bshop");
        assert_eq!((cron.home(), listens.home()), (189, 129));
        assert_eq!(key::parse_trigger(&cron.bytes()), Some(cron));
        assert_eq!(key::parse_trigger(&listens.bytes()), Some(listens));
        for other in [&b"kshop"[..], b"kshop\0f", b"c", b""] {
            assert_eq!(key::parse_trigger(other), None);
        }
    }
}
