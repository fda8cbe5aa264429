//! Settings about other nodes.

use std::net::{SocketAddr, SocketAddrV4};

use bourse_peers::join::{Join, key};
use bourse_transport::Key;
use bourse_wire::beacon;
use bourse_wire::id::FunctionName;

use super::resolve::Config;
use super::value;

/// Where other nodes are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Discover {
    /// Among the daemons that the same user runs on this machine.
    Machine,
    /// By multicast on the networks that this machine is on.
    Multicast,
    /// Behind a name.
    Dns {
        /// The name.
        name: String,
        /// Where the nodes listen; `None`: the name's SRV records say so.
        port: Option<u16>,
    },
}

impl Config {
    /// Where other nodes connect, if they may. Whoever is looked for on this machine alone needs not say where.
    pub(crate) fn listen(&self) -> Option<SocketAddr> {
        let found_here =
            || self.discover().contains(&Discover::Machine).then_some(([127, 0, 0, 1], 0).into());
        value::address(self.text("listen")).or_else(found_here)
    }

    /// Where other nodes are looked for.
    pub(crate) fn discover(&self) -> Vec<Discover> {
        let all = self.list("discover");
        all.iter().map(|text| discover(text).expect("a source is checked when it is given")).collect()
    }

    /// The group and port at which nodes say that they are there.
    pub(crate) fn multicast(&self) -> SocketAddrV4 {
        multicast(self.text("multicast")).expect("a group is checked when it is given")
    }

    /// The DNS server that is asked; `None`: as the system says.
    pub(crate) fn resolver(&self) -> Option<SocketAddr> {
        value::address(self.text("resolver"))
    }

    /// The name of the grid; empty if it has none.
    pub(crate) fn grid(&self) -> &str {
        self.text("grid")
    }

    /// The nodes that this one connects to first.
    pub(crate) fn join(&self) -> Vec<Join> {
        let all = self.list("join");
        all.iter()
            .map(|text| text.parse().expect("what is to be joined is checked when it is given"))
            .collect()
    }

    /// The keys that the settings allow.
    pub(crate) fn allow(&self) -> Vec<Key> {
        let all = self.list("allow");
        all.iter().map(|text| key(text).expect("a key is checked when it is given")).collect()
    }
}

/// Checks the settings about other nodes.
pub(super) fn check(name: &str, text: &str) -> Result<(), String> {
    let items = value::list(text);
    match name {
        "join" => items.iter().try_for_each(|item| item.parse::<Join>().map(drop)),
        "allow" => items.iter().try_for_each(|item| key(item).map(drop)),
        "discover" => items.iter().try_for_each(|item| discover(item).map(drop)),
        "grid" => grid(text),
        "on_shortage" if !text.is_empty() => text
            .parse::<FunctionName>()
            .map(drop)
            .map_err(|_| format!("{text:?} is not a function's name: write module.function")),
        "multicast" => multicast(text).map(drop),
        _ => Ok(()),
    }
}

fn discover(text: &str) -> Result<Discover, String> {
    match text {
        "machine" => Ok(Discover::Machine),
        "multicast" => Ok(Discover::Multicast),
        _ => match text.strip_prefix("dns:") {
            Some(rest) => dns(rest).ok_or_else(|| {
                format!(
                    "{text:?} is not dns:NAME, of a name with SRV records such as _bourse._tcp.example.org, or dns:NAME:PORT, of one with addresses"
                )
            }),
            None => Err(format!(
                "{text:?} is no place where nodes are looked for; there are machine, multicast, dns:NAME and dns:NAME:PORT"
            )),
        },
    }
}

fn dns(text: &str) -> Option<Discover> {
    let (name, port) = match text.split_once(':') {
        None => (text, None),
        Some((name, port)) => (name, Some(port.parse().ok().filter(|port: &u16| *port > 0)?)),
    };
    let is_label = |label: &str| {
        let is_of_label = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(is_of_label)
    };
    let is_name = name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label);
    is_name.then(|| Discover::Dns { name: name.to_owned(), port })
}

fn grid(text: &str) -> Result<(), String> {
    match beacon::is_grid(text) {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is no name of a grid: it has at most {} letters, digits, and - _ .",
            beacon::GRID_BYTES_MAX
        )),
    }
}

/// A group, and the port that is listened on.
fn multicast(text: &str) -> Result<SocketAddrV4, String> {
    let group =
        text.parse().ok().filter(|group: &SocketAddrV4| group.ip().is_multicast() && group.port() > 0);
    group.ok_or_else(|| format!("{text:?} is no multicast group and port, such as 239.192.70.71:7071"))
}

#[cfg(test)]
mod tests {
    use super::super::resolve::Error;
    use super::*;

    fn resolve(flags: &[(&str, &str)]) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        let flags = flags.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Config::resolve(folder.path(), &flags, std::iter::empty())
    }

    #[test]
    fn nodes_are_a_key_and_an_address() {
        let [one, two] = [Key([1; 32]), Key([0xab; 32])];
        let list = format!("{}@localhost:7071, {}@[::1]:7", one.to_hex(), two.to_hex().to_uppercase());
        let config = resolve(&[("join", &list), ("allow", &one.to_hex()), ("listen", ":0")]).unwrap();
        assert_eq!(
            config.join(),
            [
                Join { key: one, address: "localhost:7071".to_owned() },
                Join { key: two, address: "[::1]:7".to_owned() }
            ]
        );
        assert_eq!(config.allow(), [one]);
        assert_eq!(config.listen(), Some(([0, 0, 0, 0], 0).into()));
        let config = resolve(&[]).unwrap();
        assert_eq!((config.listen(), config.join(), config.allow()), (None, vec![], vec![]));
    }

    #[test]
    fn who_is_looked_for_on_the_machine_can_be_found_there() {
        let config = resolve(&[("discover", "machine"), ("grid", "shop-2.test")]).unwrap();
        assert_eq!((config.discover(), config.grid()), (vec![Discover::Machine], "shop-2.test"));
        assert_eq!(config.listen(), Some(([127, 0, 0, 1], 0).into()));
        let config = resolve(&[("discover", "machine"), ("listen", "10.0.0.7:7071")]).unwrap();
        assert_eq!(config.listen(), Some(([10, 0, 0, 7], 7071).into()));
        let message = |name: &str, text: &str| resolve(&[(name, text)]).unwrap_err().to_string();
        assert!(message("discover", "machine,cloud").contains("\"cloud\" is no place"));
        let dns = |name: &str, port| Discover::Dns { name: name.to_owned(), port };
        let config = resolve(&[("discover", "dns:_bourse._tcp.example.org, dns:nodes.:7071")]).unwrap();
        assert_eq!(config.discover(), [dns("_bourse._tcp.example.org", None), dns("nodes.", Some(7071))]);
        assert_eq!((config.listen(), config.resolver()), (None, None));
        let long = format!("dns:{}", "x.".repeat(200));
        for bad in ["dns:", "dns:a..b", "dns:a:0", "dns:a:x", "dns:a b", "dns:a:1:2", "dns:ä:1", &long] {
            assert!(message("discover", bad).contains("is not dns:NAME"), "{bad}");
        }
        assert_eq!(config.multicast().to_string(), "239.192.70.71:7071");
        for bad in ["239.192.70.71", "239.192.70.71:0", "10.0.0.7:7071", "[ff02::1]:7071"] {
            assert!(message("multicast", bad).contains("is no multicast group"), "{bad}");
        }
        for bad in ["my shop", "shop\n", "läden", &"x".repeat(64)] {
            assert!(message("grid", bad).contains("is no name of a grid"), "{bad}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let key = Key([1; 32]).to_hex();
        let message = |name: &str, text: &str| resolve(&[(name, text)]).unwrap_err().to_string();
        assert!(message("join", "10.0.0.7:7071").contains("no @"));
        assert!(message("join", "alder@10.0.0.7:7071").contains("\"alder\" is not a key"));
        for bad in ["", "host", "host:", ":7071", "host:0", "host:70710", "fd00::7:7071", "host:x"] {
            let said = message("join", &format!("{key}@{bad}"));
            assert!(said.contains("is not HOST:PORT"), "{bad}: {said}");
        }
        assert!(message("allow", &format!("{key},nonsense")).contains("\"nonsense\" is not a key"));
        assert!(message("listen", "nowhere").contains("is not an address"));
    }
}
