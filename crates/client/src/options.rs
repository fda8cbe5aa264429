//! How a client behaves, and who it is.

use std::time::Duration;

use bourse_transport::Key;

/// How a client behaves. The defaults are right for most: `Options::default()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// What it is called on the grid's list of keys, for people. Empty: as this machine is.
    pub name: String,
    /// How long the grid may take to be reached when the client is made.
    pub patience: Duration,
    /// How long a call may wait for a slot, if neither it nor its function says.
    pub queue_wait: Duration,
    /// How long a call may take, if neither it nor its function says.
    pub timeout: Duration,
    /// How long the calls that are under way may take when the client is closed.
    pub drain: Duration,
    /// The largest arguments and results, in bytes: as the setting `payload` of the grid's nodes says.
    pub payload_bytes_max: usize,
    /// Keys of nodes with which it speaks, beside those on the grid's list. Where nodes know each other by their files `allowed`,
    /// there is no such list, and all nodes that are to be bought from have to be here.
    pub allow: Vec<Key>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: String::new(),
            patience: Duration::from_secs(10),
            queue_wait: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            payload_bytes_max: 16 * 1024 * 1024,
            allow: Vec::new(),
        }
    }
}

impl Options {
    /// The same, with another name on the grid's list of keys.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same, with another time for the grid to be reached.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same, with another time that calls may wait for a slot.
    #[must_use]
    pub fn queue_wait(mut self, queue_wait: Duration) -> Self {
        self.queue_wait = queue_wait;
        self
    }

    /// The same, with another time that calls may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same, with another time that calls have to end when the client is closed.
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// The same, with these keys of nodes beside those on the grid's list.
    #[must_use]
    pub fn allow(mut self, keys: impl IntoIterator<Item = Key>) -> Self {
        self.allow.extend(keys);
        self
    }
}
