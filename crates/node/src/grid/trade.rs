//! What this node sells, and what it is short of.

use std::collections::BTreeMap;

use bourse_market::Lot;
use bourse_market::name::Horizon;
use bourse_wire::time::Now;
use semver::VersionReq;

use crate::Node;
use crate::message::Event;
use crate::timers::Timer;

/// Between two looks at what waits.
const TELL_AGAIN: std::time::Duration = std::time::Duration::from_millis(2);
/// So many waiting calls of a module are looked at to see which versions they need.
const LOOKED_AT_MAX: usize = 1_000;

impl Node {
    /// Offers what can be run here now.
    pub(crate) fn offer_modules(&mut self, now: Now) {
        if !std::mem::take(&mut self.grid.offers_stale) {
            return;
        }
        let most = self.config.grid.as_ref().and_then(|g| g.sell_max).unwrap_or(self.config.running_max);
        let mut offers: BTreeMap<Lot, u32> = BTreeMap::new();
        for (name, module) in &self.modules {
            let Some(revision) = module.for_others() else { continue };
            let sells = !self.draining && !module.pause.open;
            let limit = match module.attached.is_some() {
                true => revision.instances.len().min(most),
                false => self.config.of(name).instances_max.unwrap_or(most).min(most),
            };
            let Some(version) = revision.version.clone().filter(|_| sells && limit > 0) else { continue };
            let lot = Lot { module: name.clone(), version };
            offers.insert(lot, u32::try_from(limit).unwrap_or(u32::MAX));
        }
        let before: Vec<Lot> = self.grid.market.offered().map(|(lot, _)| lot.clone()).collect();
        for lot in before.iter().filter(|lot| !offers.contains_key(lot)) {
            self.grid.market.offer(now.mono, lot, 0);
        }
        for (lot, most) in &offers {
            self.grid.market.offer(now.mono, lot, *most);
        }
    }

    /// Sends waiting calls of a module elsewhere, as far as there are tokens for them. One that may not go there, or needs
    /// another version, does not hold up those behind it.
    pub(crate) fn route_elsewhere(&mut self, now: Now, name: &str) {
        if !self.grid.on || self.grid.market.tokens(name, &VersionReq::STAR) == 0 {
            return;
        }
        let Some(module) = self.modules.get(name) else { return };
        // First those that can run nowhere else.
        let waiting = module.abroad.values().chain(module.queue.values());
        // One whose function is not known yet may need a key, or the store.
        let waiting = waiting.filter(|id| !self.unkeyed.contains(id));
        let waiting: Vec<_> = waiting.take(LOOKED_AT_MAX).copied().collect();
        let mut in_vain: Vec<(String, Horizon)> = Vec::new();
        for id in waiting {
            let (version, farthest) = (&self.calls[&id].version, self.farthest(id));
            if in_vain.iter().any(|(v, f)| v == version && *f == farthest) {
                continue;
            }
            match self.buy(now, name, id) {
                Some(process) => {
                    let waited = now.mono.since(self.calls[&id].accepted);
                    self.event(Event::Bought { module: name.to_owned(), waited });
                    self.unqueue(id);
                    self.hand(now, id, process);
                }
                None => in_vain.push((self.calls[&id].version.clone(), farthest)),
            }
        }
    }

    /// Tells the market how many calls wait that have waited long enough.
    pub(crate) fn tell_short(&mut self, now: Now) {
        if self.config.on_shortage.is_some() {
            for name in self.backlog.clone() {
                self.look_for_shortage(now, &name);
            }
        }
        if !self.grid.on || (self.backlog.is_empty() && self.grid.short.is_empty()) {
            return;
        }
        if now.mono < self.grid.short_after {
            if let Some(name) = self.backlog.first().or(self.grid.short.first()).cloned() {
                self.timers.set_earliest(Timer::Scale(name), self.grid.short_after);
            }
            return;
        }
        self.grid.short_after = now.mono + TELL_AGAIN;
        let before = std::mem::take(&mut self.grid.short);
        let names: Vec<String> = before.iter().chain(&self.backlog).cloned().collect();
        for name in names {
            if !self.grid.short.contains(&name) {
                self.tell_module_short(now, &name);
            }
        }
    }

    fn tell_module_short(&mut self, now: Now, name: &str) {
        let mut waiting: BTreeMap<&str, u32> = BTreeMap::new();
        let scale_after = self.config.of(name).scale_after;
        let mut again = None;
        if let Some(module) = self.modules.get(name).filter(|_| !self.draining) {
            let all = module.waiting();
            for id in module.abroad.values().chain(module.queue.values()).take(LOOKED_AT_MAX) {
                let call = &self.calls[id];
                // Nothing is to be waited for where nothing here can run it.
                let due = match call.is_abroad {
                    true => call.accepted,
                    false => call.accepted + call.terms.scale_after(scale_after),
                };
                if self.farthest(*id) <= Horizon::Process {
                    continue;
                }
                if due <= now.mono {
                    *waiting.entry(&call.version).or_default() += 1;
                } else {
                    again = Some(again.map_or(due, |at: bourse_wire::time::Mono| at.min(due)));
                }
            }
            if all > LOOKED_AT_MAX {
                // The rest is as those that were looked at.
                for count in waiting.values_mut() {
                    *count = u32::try_from(*count as usize * all / LOOKED_AT_MAX).unwrap_or(u32::MAX);
                }
            }
        }
        let parsed = |text: &str| VersionReq::parse(text).unwrap_or(VersionReq::STAR);
        let waiting: BTreeMap<String, u32> =
            waiting.into_iter().map(|(t, n)| (parsed(t).to_string(), n)).collect();
        let ordered: Vec<VersionReq> = self.grid.market.demanded(name).cloned().collect();
        for requirement in ordered.iter().filter(|r| !waiting.contains_key(&r.to_string())) {
            self.grid.market.demand(now.mono, name, requirement, 0);
        }
        for (text, calls) in &waiting {
            self.grid.market.demand(now.mono, name, &parsed(text), *calls);
        }
        if !waiting.is_empty() {
            self.grid.short.insert(name.to_owned());
        }
        if let Some(at) = again {
            self.timers.set_earliest(Timer::Scale(name.to_owned()), at);
        }
    }
}
