//! Which authorities hold a module's exchanges: the ones with the greatest hash of both names (rendezvous hashing, Thaler
//! and Ravishankar 1998). Whoever knows the same authorities places alike, without asking; when one comes or goes, only
//! the modules that it takes or had move.

use crate::name::{Contact, NodeId};

/// The `replicas` authorities that hold the exchanges of a module, the first one first.
pub fn hosts<'a>(module: &str, authorities: &'a [Contact], replicas: usize) -> Vec<&'a Contact> {
    let mut ranked: Vec<_> = authorities.iter().map(|a| (weight(module.as_bytes(), a.id), a)).collect();
    ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.id.cmp(&b.1.id)));
    ranked.truncate(replicas);
    ranked.into_iter().map(|(_, contact)| contact).collect()
}

/// How much a node is drawn to a name.
pub fn weight(name: &[u8], node: NodeId) -> u64 {
    let mut hash = blake3::Hasher::new();
    hash.update(&node.0);
    hash.update(name);
    first_word(&hash.finalize())
}

/// A number for a set of authorities, whatever their order: who has the same knows the same.
pub fn view<'a>(authorities: impl IntoIterator<Item = &'a Contact>) -> u64 {
    let one = |a: &Contact| {
        let mut hash = blake3::Hasher::new();
        hash.update(&a.id.0);
        hash.update(&a.incarnation.0.to_le_bytes());
        hash.update(a.address.as_bytes());
        first_word(&hash.finalize())
    };
    authorities.into_iter().map(one).fold(0, u64::wrapping_add)
}

fn first_word(hash: &blake3::Hash) -> u64 {
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}
