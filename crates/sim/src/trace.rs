//! What happened, as text for people, and as one number that two runs of a seed share.

use std::fmt::Write as _;
use std::io::Write as _;

use bourse_wire::time::Mono;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    text: Option<String>,
    live: bool,
    digest: u64,
    lines: u64,
}

impl Trace {
    /// One that keeps the text.
    pub fn kept() -> Self {
        Self { text: Some(String::new()), ..Self::default() }
    }

    /// One that is written to standard output as it goes, so that it is there even if the run ends the process.
    pub fn live() -> Self {
        Self { live: true, ..Self::default() }
    }

    /// Something happened. `kind` stands for it in the digest; the text is made only if it is kept.
    pub fn line(&mut self, at: Mono, kind: u64, text: impl FnOnce() -> String) {
        self.lines += 1;
        self.digest = mix(mix(self.digest, at.0), kind);
        if self.live {
            // Whoever reads it may have seen enough.
            _ = writeln!(std::io::stdout(), "{:>14}  {}", at.to_string(), text());
        } else if let Some(all) = &mut self.text {
            writeln!(all, "{:>14}  {}", at.to_string(), text()).expect("a string takes all");
        }
    }

    /// How many things happened.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Equal for equal runs.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The text, if it was kept.
    pub fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}

/// FNV-1a, a word at a time.
pub(crate) fn mix(digest: u64, word: u64) -> u64 {
    (digest ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
}

/// The same over bytes; of many, over the first ones.
pub(crate) fn mix_bytes(digest: u64, bytes: &[u8]) -> u64 {
    let first = bytes.iter().take(256);
    first.fold(mix(digest, bytes.len() as u64), |digest, byte| mix(digest, u64::from(*byte)))
}
