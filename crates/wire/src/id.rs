//! Names of things.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use uuid::Uuid;

/// A call's identity: a UUID of version 7, so that ids sort by the time at which calls were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(Uuid);

impl CallId {
    /// From the wall clock (milliseconds since 1970) and 10 random bytes.
    pub fn new(wall_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(wall_ms, &random).into_uuid())
    }

    /// From the wire; `None` unless it is 16 bytes.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    /// The partition that a durable call is at home in, and always was: its last byte.
    pub fn home(self) -> u8 {
        self.0.as_bytes()[15]
    }

    /// The same call id at home elsewhere. Ids of one node differ before their last byte.
    #[must_use]
    pub fn at(self, partition: u8) -> Self {
        let mut bytes = *self.0.as_bytes();
        bytes[15] = partition;
        Self(Uuid::from_bytes(bytes))
    }

    /// The least id of a call that was made at this wall time (milliseconds since 1970), or later.
    pub fn first_of(wall_ms: u64) -> Self {
        Self::new(wall_ms, [0; 10])
    }

    /// When it was made, by the wall clock of who made it, in milliseconds since 1970.
    pub fn made_ms(self) -> u64 {
        let mut wide = [0; 8];
        wide[2..].copy_from_slice(&self.0.as_bytes()[..6]);
        u64::from_be_bytes(wide)
    }

    /// Its bytes, which sort as the ids do.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// For the wire.
    pub fn to_wire(self) -> Bytes {
        Bytes::copy_from_slice(self.0.as_bytes())
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CallId {
    type Err = uuid::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(s).map(Self)
    }
}

/// Counts the times a call was handed to an instance, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u32);

/// One life of a node: grows each time it starts, whatever its clock says, so that others know the later of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// The module whose functions the daemon itself performs.
pub const HOST_MODULE: &str = "bourse";

/// What durable calls of a function stand in line with: those of its module. Each function of [`HOST_MODULE`] has a line
/// of its own, since what one waits for is nothing to the others.
pub fn lane_of(function: &str) -> &str {
    match function.rsplit_once('.') {
        Some((HOST_MODULE, _)) => function,
        Some((module, _)) => module,
        None => "",
    }
}

/// A function's full name, `module.function`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionName {
    text: String,
    dot: usize,
}

impl FunctionName {
    /// From its two parts.
    pub fn new(module: &str, function: &str) -> Self {
        Self { text: format!("{module}.{function}"), dot: module.len() }
    }

    /// The module's part.
    pub fn module(&self) -> &str {
        &self.text[..self.dot]
    }

    /// The function's own part.
    pub fn function(&self) -> &str {
        &self.text[self.dot + 1..]
    }

    /// Whether the daemon itself performs it.
    pub fn is_host(&self) -> bool {
        self.module() == HOST_MODULE
    }

    /// See [`lane_of`].
    pub fn lane(&self) -> &str {
        lane_of(&self.text)
    }

    /// Both, with the dot.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for FunctionName {
    type Err = NotAFunctionName;

    /// Splits at the last dot. Neither part may be empty.
    fn from_str(s: &str) -> Result<Self, NotAFunctionName> {
        match s.rfind('.') {
            Some(dot) if dot > 0 && dot + 1 < s.len() && s.len() <= NAME_BYTES_MAX => {
                Ok(Self { text: s.to_owned(), dot })
            }
            _ => Err(NotAFunctionName),
        }
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The longest function name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// A text that is not `module.function`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a function's name is written module.function, in at most {NAME_BYTES_MAX} bytes")]
pub struct NotAFunctionName;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_ids_sort_by_time() {
        let early = CallId::new(1_000, [0xff; 10]);
        let late = CallId::new(1_001, [0; 10]);
        assert!(early < late);
        assert_eq!(early.to_string().parse::<CallId>().unwrap(), early);
        assert_eq!(CallId::from_wire(&late.to_wire()), Some(late));
        assert_eq!(CallId::from_wire(b"short"), None);
        assert_eq!((late.made_ms(), late.at(9).home()), (1_001, 9));
        assert!(CallId::first_of(1_001) <= late && early < CallId::first_of(1_001));
    }

    #[test]
    fn a_function_name_has_two_parts() {
        let name: FunctionName = "shop.orders.place".parse().unwrap();
        assert_eq!((name.module(), name.function()), ("shop.orders", "place"));
        for bad in ["", ".", "a", "a.", ".b"] {
            assert_eq!(bad.parse::<FunctionName>(), Err(NotAFunctionName), "{bad:?}");
        }
    }
}
