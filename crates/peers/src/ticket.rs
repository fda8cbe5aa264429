//! A ticket: what somebody needs to put a node of theirs on the grid's list of keys, in one word that can be sent.
//!
//! ```text
//! bourse-ticket-  base64url of: 1, the ticket's secret key (32), until (8, ms since 1970, big-endian),
//!                 how many seeds (1), each: key (32), bytes of the address (1), the address; check (4)
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bourse_transport::{Key, KeyPair};

use crate::join::Join;

const PREFIX: &str = "bourse-ticket-";
const FORM: u8 = 1;
/// Most nodes that a ticket names: it should fit into a line or two.
pub const SEEDS_MAX: usize = 4;
const CHECK_BYTES: usize = 4;

/// See the module.
pub struct Ticket {
    /// With which a node of the grid is spoken to.
    pub keys: KeyPair,
    /// In milliseconds since 1970, by the clock of who has made it.
    pub until: u64,
    /// Who may be asked.
    pub seeds: Vec<Join>,
}

impl Ticket {
    /// How long ago its time was over, by this machine's clock.
    pub fn expired(&self) -> Option<Duration> {
        let until = SystemTime::UNIX_EPOCH + Duration::from_millis(self.until.min(1 << 50));
        SystemTime::now().duration_since(until).ok()
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![FORM];
        bytes.extend(self.keys.secret());
        bytes.extend(self.until.to_be_bytes());
        let fits = |seed: &&Join| u8::try_from(seed.address.len()).is_ok();
        let seeds: Vec<&Join> = self.seeds.iter().filter(fits).take(SEEDS_MAX).collect();
        bytes.push(u8::try_from(seeds.len()).expect("there are few"));
        for Join { key, address } in seeds {
            bytes.extend(key.0);
            bytes.push(u8::try_from(address.len()).expect("long ones were left out"));
            bytes.extend(address.as_bytes());
        }
        bytes.extend(&blake3::hash(&bytes).as_bytes()[..CHECK_BYTES]);
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Ticket {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or("a ticket begins with bourse-ticket-")?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| "characters are missing or wrong")?;
        let (told, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or("most of it is missing")?;
        if blake3::hash(told).as_bytes()[..CHECK_BYTES] != *check {
            return Err("characters are missing or wrong");
        }
        let mut rest = told;
        let short = "it ends too soon";
        let [form] = *take(&mut rest).ok_or(short)?;
        if form != FORM {
            return Err("it was made by another version of bourse");
        }
        let keys = KeyPair::from_secret(*take(&mut rest).ok_or(short)?);
        let until = u64::from_be_bytes(*take(&mut rest).ok_or(short)?);
        let [count] = *take(&mut rest).ok_or(short)?;
        let mut seeds = Vec::new();
        for _ in 0..count {
            let key = Key(*take(&mut rest).ok_or(short)?);
            let [length] = *take(&mut rest).ok_or(short)?;
            let (address, after) = rest.split_at_checked(usize::from(length)).ok_or(short)?;
            rest = after;
            let address = std::str::from_utf8(address).map_err(|_| "an address is no text")?.to_owned();
            seeds.push(Join { key, address });
        }
        Ok(Self { keys, until, seeds })
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_nothing_else_is() {
        let keys = KeyPair::generate();
        let seeds = vec![
            Join { key: Key([7; 32]), address: "alder.example:7071".to_owned() },
            Join { key: Key([8; 32]), address: "[::1]:9".to_owned() },
        ];
        let ticket = Ticket { keys: keys.clone(), until: 1_764_432_000_000, seeds };
        let text = ticket.to_string();
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{text}");
        let read: Ticket = format!("  {text}\n").parse().unwrap();
        assert_eq!((read.keys.public(), read.until), (keys.public(), ticket.until));
        assert_eq!(read.seeds, ticket.seeds);
        assert_eq!(read.to_string(), text);
        // Cut off, mistyped, something else: never a panic, always a word about it.
        for length in 0..text.len() {
            assert!(text[..length].parse::<Ticket>().is_err());
        }
        for at in (PREFIX.len()..text.len()).step_by(7) {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert!(String::from_utf8(other).unwrap().parse::<Ticket>().is_err());
        }
    }
}
