//! Where state lives: keys, scopes, and the partition of each.
//!
//! A key reads as `scope/rest`; without a slash all of it is scope. A scope belongs to a namespace (its module's
//! name) and is the *home* of the calls that touch it: all of it lies in one partition and changes in one commit.

use std::fmt;

use crate::batch::PartitionId;

/// The longest state key, in bytes.
pub const STATE_KEY_BYTES_MAX: usize = 1024;
/// The longest namespace, in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 255;

/// A scope of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Home {
    namespace: String,
    scope: String,
}

/// One record of state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateKey {
    namespace: String,
    name: String,
}

/// A text that cannot be a state key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Nothing before the first slash.
    #[error("a state key needs a scope before its first slash")]
    NoScope,
    /// Longer than [`STATE_KEY_BYTES_MAX`] or [`NAMESPACE_BYTES_MAX`].
    #[error(
        "a state key has at most {STATE_KEY_BYTES_MAX} bytes, its module's name at most {NAMESPACE_BYTES_MAX}"
    )]
    TooLong,
    /// A NUL character.
    #[error("a state key holds no NUL character")]
    Nul,
    /// No module named.
    #[error("a state key belongs to a module, and none is named")]
    NoNamespace,
}

impl StateKey {
    /// The record `name` of a module.
    pub fn new(namespace: &str, name: &str) -> Result<Self, BadKey> {
        match () {
            () if namespace.is_empty() => Err(BadKey::NoNamespace),
            () if namespace.len() > NAMESPACE_BYTES_MAX || name.len() > STATE_KEY_BYTES_MAX => {
                Err(BadKey::TooLong)
            }
            () if namespace.contains('\0') || name.contains('\0') => Err(BadKey::Nul),
            () if name.is_empty() || name.starts_with('/') => Err(BadKey::NoScope),
            () => Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() }),
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Scope and rest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The scope it lives in.
    pub fn home(&self) -> Home {
        let scope = self.name.split_once('/').map_or(self.name.as_str(), |(scope, _)| scope);
        Home { namespace: self.namespace.clone(), scope: scope.to_owned() }
    }
}

impl Home {
    /// That of what is no state.
    pub(crate) fn none() -> Self {
        Self { namespace: String::new(), scope: String::new() }
    }

    /// The partition that holds it: the first byte of `blake3(namespace, 0, scope)`.
    pub fn partition(&self) -> PartitionId {
        let mut hash = blake3::Hasher::new();
        hash.update(self.namespace.as_bytes()).update(&[0]).update(self.scope.as_bytes());
        PartitionId(hash.finalize().as_bytes()[0])
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The scope.
    pub fn scope(&self) -> &str {
        &self.scope
    }
}

impl fmt::Display for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace, self.name)
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace, self.scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_together_stays_together() {
        let a = StateKey::new("shop", "order-7/lines/1").unwrap();
        let b = StateKey::new("shop", "order-7").unwrap();
        assert_eq!(a.home(), b.home());
        assert_eq!(a.home().to_string(), "shop:order-7");
        assert_ne!(a.home(), StateKey::new("other", "order-7").unwrap().home());
    }

    #[test]
    fn partitions_never_move() {
        let of = |scope| StateKey::new("shop", scope).unwrap().home().partition();
        // Golden values: a change of these loses sight of everything that is stored.
        assert_eq!([of("a"), of("b"), of("order-7")], [PartitionId(236), PartitionId(107), PartitionId(147)]);
    }

    #[test]
    fn bad_keys_are_refused() {
        let key = |name: &str| StateKey::new("shop", name);
        assert_eq!(key(""), Err(BadKey::NoScope));
        assert_eq!(key("/a"), Err(BadKey::NoScope));
        assert_eq!(key("a\0"), Err(BadKey::Nul));
        assert_eq!(key(&"a".repeat(2000)), Err(BadKey::TooLong));
        assert_eq!(StateKey::new("", "a"), Err(BadKey::NoNamespace));
    }
}
