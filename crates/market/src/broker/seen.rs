//! What of a match is new: replicas find the same.

use super::SEEN_MAX;
use crate::message::Match;
use crate::times::QUANTITY_MAX;

impl super::Buy {
    /// How much of a match is new: not passed on before for the same offer and the same revision of this order.
    pub(super) fn new_of(&mut self, found: &Match) -> u32 {
        let key = (found.seller.id, found.lot.version.clone());
        let quantity = found.quantity.min(QUANTITY_MAX);
        let is_full = self.seen.len() >= SEEN_MAX;
        match self.seen.get_mut(&key) {
            Some((offered, revision, known)) => {
                if found.offered <= *offered && found.revision <= *revision {
                    let more = quantity.saturating_sub(*known);
                    *known = quantity.max(*known);
                    return more;
                }
                *offered = found.offered.max(*offered);
                *revision = found.revision.max(*revision);
                *known = quantity;
            }
            None => {
                if is_full {
                    self.seen.clear();
                }
                self.seen.insert(key, (found.offered, found.revision, quantity));
            }
        }
        quantity
    }
}
