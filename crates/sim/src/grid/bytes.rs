//! How many bytes messages take on the wire: the only place that says so.

use bourse_market::{Message, codec};

/// What a frame takes beside what it says: its length, its kind, and what encryption adds.
const FRAME: usize = 24;

/// Bytes of a message of the market.
pub fn encoded(message: &Message) -> usize {
    FRAME + codec::encoded_len(message)
}
