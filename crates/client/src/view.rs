//! What a client sees of the grid: nodes, modules and what it trades.

use std::time::Duration;

use bourse_node::Node as Machine;
use bourse_transport::Key;
use bourse_wire::time::Now;
use semver::Version;

/// A node that a client knows: an authority, or one that it has to do with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// Its key.
    pub key: Key,
    /// "host:port" where it is reached; empty: nobody connects with it.
    pub address: String,
    /// What fails together with it.
    pub domain: String,
    /// It is one of those that know who offers and wants what.
    pub authority: bool,
    /// It keeps the grid's store.
    pub store: bool,
    /// It is this client.
    pub this: bool,
    /// How long ago it was heard last; `None`: there is no link with it.
    pub heard: Option<Duration>,
}

/// A version of a module that some node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// What it offers.
    pub functions: Vec<Function>,
}

/// A function of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Function {
    /// Its name, without the module's.
    pub name: String,
    /// What it is for, for people; may be empty.
    pub doc: String,
    /// What it takes.
    pub parameters: Vec<Parameter>,
    /// The type of what it gives, for people; may be empty.
    pub returns: String,
}

/// What a function takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type, for people; may be empty.
    pub of_type: String,
    /// It can't be left out.
    pub required: bool,
}

/// What a client has bought, and what it is short of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Market {
    /// By seller and module.
    pub bought: Vec<Bought>,
    /// Calls that wait for a slot.
    pub short: Vec<Short>,
}

/// Slots of another node that this client may use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bought {
    /// Whose.
    pub node: Key,
    /// Of this module.
    pub module: String,
    /// In this version.
    pub version: Version,
    /// How many are held, and not used at the moment.
    pub tokens: u32,
    /// How many are used.
    pub running: u32,
}

/// Calls that have no slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Short {
    /// Of this module.
    pub module: String,
    /// In a version that fits this.
    pub requirement: String,
    /// About how many.
    pub calls: u32,
}

/// The nodes, by key.
pub(crate) fn nodes(machine: &Machine, now: Now) -> Vec<Node> {
    let own = machine.grid_key();
    let keeper = machine.grid_store().map(|store| store.node.id);
    let known = machine.market().nodes(now.mono);
    let node = |known: bourse_node::market::market::NodeView| Node {
        key: Key(known.contact.id.0),
        store: keeper == Some(known.contact.id),
        this: own == Some(known.contact.id.0),
        address: known.contact.address,
        domain: known.contact.domain,
        authority: known.authority,
        heard: known.heard,
    };
    known.into_iter().map(node).collect()
}

/// The modules, by name, the newest version of each first.
pub(crate) fn modules(machine: &Machine) -> Vec<Module> {
    let parameter = |p: &bourse_wire::v1::Parameter| Parameter {
        name: p.name.clone(),
        of_type: p.r#type.clone(),
        required: p.required,
    };
    let function = |f: &bourse_wire::v1::Function| Function {
        name: f.name.clone(),
        doc: f.doc.clone(),
        parameters: f.parameters.iter().map(parameter).collect(),
        returns: f.returns.clone(),
    };
    let mut all = Vec::new();
    for (name, versions) in machine.catalogue() {
        all.extend(versions.map(|(version, module)| Module {
            name: name.to_owned(),
            version: version.clone(),
            functions: module.functions.iter().map(function).collect(),
        }));
    }
    all
}

/// The same, as they describe themselves.
pub(crate) fn described(machine: &Machine) -> Vec<bourse_wire::v1::Module> {
    machine.catalogue().flat_map(|(_, versions)| versions.map(|(_, module)| module.clone())).collect()
}

/// What is traded.
pub(crate) fn market(machine: &Machine) -> Market {
    let market = machine.market();
    let bought = |channel: bourse_node::market::market::ChannelView| Bought {
        node: Key(channel.node.0),
        module: channel.lot.module,
        version: channel.lot.version,
        tokens: channel.tokens,
        running: channel.running,
    };
    let short = |(module, requirement, calls)| Short { module, requirement, calls };
    Market {
        bought: market.bought().into_iter().map(bought).collect(),
        short: market.short().into_iter().map(short).collect(),
    }
}
