//! A node to connect to, as it is written: its key and its address.

use bourse_transport::Key;

/// A node to connect to: `KEY@HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Its public key.
    pub key: Key,
    /// Host and port.
    pub address: String,
}

impl std::str::FromStr for Join {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        join(text)
    }
}

/// A public key, or what is wrong with it.
pub fn key(text: &str) -> Result<Key, String> {
    Key::from_hex(text).map_err(|_| {
        format!(
            "{text:?} is not a key: 64 hexadecimal digits are expected, which `bourse init` prints on that node"
        )
    })
}

fn join(text: &str) -> Result<Join, String> {
    let Some((of, address)) = text.split_once('@') else {
        return Err(format!("{text:?} is not KEY@HOST:PORT: there is no @ in it"));
    };
    let key = key(of)?;
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    // Without brackets an IPv6 address does not say where it ends.
    let is_bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || is_bare_ipv6 || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        let like = "such as 10.0.0.7:7071, [fd00::7]:7071 or alder.example:7071";
        return Err(format!("{address:?} is not HOST:PORT, {like}"));
    }
    Ok(Join { key, address: address.to_owned() })
}
