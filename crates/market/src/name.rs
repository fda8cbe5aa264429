//! Names of what is traded, and of those who trade.

use std::fmt;

use bourse_wire::id::Incarnation;
use semver::Version;

/// A node: the public key that it proves to hold whenever it connects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

/// A node and where it can be called on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    /// Which node.
    pub id: NodeId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// "host:port". Empty: nobody can connect to it, it has to connect itself.
    pub address: String,
    /// What fails together with it: a rack, a zone; its machine, if nobody says.
    pub domain: String,
}

/// What is sold: the right to run one call of this, now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lot {
    /// The module.
    pub module: String,
    /// The version that runs.
    pub version: Version,
}

/// How far a call may travel, or how far away a seller is: the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Horizon {
    /// Within the calling process.
    Process,
    /// Within the machine.
    Machine,
    /// Within the network.
    Network,
    /// Wherever it runs.
    Anywhere,
}

impl NodeId {
    /// For people: enough of it to tell nodes apart in a log.
    pub fn short(self) -> String {
        self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl fmt::Display for Lot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.module, self.version)
    }
}
