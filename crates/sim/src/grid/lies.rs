//! Peers that lie. Each has a real market, and what it says is changed on its way out, or there is more of it.
//!
//! An authority is believed when it says who the other authorities are; so a liar may not serve. All else may be lied
//! about, and nobody but those who trade with the liar may notice.

use bourse_market::message::{Claim, Grant, Join, Match, Mesh, Message, Order, Orders, Terms};
use bourse_market::{Contact, Lot, NodeId};
use bourse_wire::id::Incarnation;
use semver::{Version, VersionReq};

use super::catalog::Catalog;
use crate::chance::Chance;

/// Messages that a liar remembers.
const HEARD_MAX: usize = 64;

/// How a liar lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Its numbers are absurd.
    Absurd,
    /// It says again what it, or somebody else, has said long ago.
    Replay,
    /// It says things that have no connection with anything.
    Noise,
    /// It grants what it does not have.
    Mint,
    /// It takes calls and never answers.
    Silent,
    /// It has the identity of another node.
    Double,
}

/// All of them.
pub const LIES: [Lie; 6] = [Lie::Absurd, Lie::Replay, Lie::Noise, Lie::Mint, Lie::Silent, Lie::Double];

/// Somebody who lies.
#[derive(Clone, Debug)]
pub struct Liar {
    lie: Lie,
    heard: Vec<Message>,
}

impl Liar {
    /// One that lies like this.
    pub fn new(lie: Lie) -> Self {
        Self { lie, heard: Vec::new() }
    }

    /// How it lies.
    pub fn lie(&self) -> Lie {
        self.lie
    }

    /// It never answers a call.
    pub fn is_silent(&self) -> bool {
        self.lie == Lie::Silent
    }

    /// It may say this again.
    pub fn hears(&mut self, message: &Message, chance: &mut Chance) {
        if self.lie == Lie::Replay {
            self.remember(message, chance);
        }
    }

    fn remember(&mut self, message: &Message, chance: &mut Chance) {
        if self.heard.len() < HEARD_MAX {
            self.heard.push(message.clone());
        } else {
            let at = usize::try_from(chance.below(HEARD_MAX as u64)).expect("it is below a usize");
            self.heard[at] = message.clone();
        }
    }

    /// What it says instead of a message.
    pub fn says(&mut self, mut message: Message, chance: &mut Chance, catalog: &Catalog) -> Vec<Message> {
        match self.lie {
            Lie::Absurd => {
                if chance.hits(500) {
                    exaggerate(&mut message, chance);
                }
                vec![message]
            }
            Lie::Replay => {
                self.remember(&message, chance);
                let mut all = vec![message];
                if chance.hits(400) {
                    let at =
                        usize::try_from(chance.below(self.heard.len() as u64)).expect("it is below a usize");
                    all.push(self.heard[at].clone());
                }
                all
            }
            Lie::Noise => {
                let mut all = vec![message];
                if chance.hits(400) {
                    all.push(noise(chance, catalog));
                }
                all
            }
            Lie::Mint => {
                if let Message::Grant(grant) = &mut message {
                    grant.granted = grant.granted.saturating_add(chance.between((1, 20)));
                }
                vec![message]
            }
            Lie::Silent | Lie::Double => vec![message],
        }
    }
}

/// A number that nobody should believe.
fn absurd(chance: &mut Chance) -> u64 {
    chance.pick(&[0, 1, 1 << 20, u64::from(u32::MAX), 1 << 40, u64::MAX - 1, u64::MAX])
}

fn absurd_small(chance: &mut Chance) -> u32 {
    chance.pick(&[0, 1, 1_000_001, 1 << 30, u32::MAX - 1, u32::MAX])
}

fn exaggerate(message: &mut Message, chance: &mut Chance) {
    match message {
        Message::Beat | Message::Appoint => {}
        Message::Join(join) => join.view = absurd(chance),
        Message::Grid(grid) => grid.nodes = absurd_small(chance),
        Message::Mesh(mesh) => {
            mesh.nodes = absurd_small(chance);
            mesh.view = absurd(chance);
        }
        Message::Resign(incarnation) => *incarnation = Incarnation(absurd(chance)),
        Message::Orders(orders) => {
            for order in &mut orders.orders {
                match chance.below(4) {
                    0 => order.quantity = absurd_small(chance),
                    1 => order.revision = absurd(chance),
                    2 => order.in_line = !order.in_line,
                    _ => {}
                }
            }
        }
        Message::Roster(told) => told.digest = absurd(chance),
        Message::Matches(all) => all.iter_mut().for_each(|found| found.quantity = absurd_small(chance)),
        Message::Claim(claim) => match chance.below(6) {
            4 => claim.revision = absurd(chance),
            5 => claim.known = absurd(chance),
            0 => claim.want = absurd_small(chance),
            1 => claim.next = absurd(chance),
            2 => claim.epoch = absurd(chance),
            _ => claim.open = (0..chance.below(50)).map(|_| absurd(chance)).collect(),
        },
        Message::Grant(grant) => match chance.below(5) {
            4 => grant.seen = absurd(chance),
            0 => grant.granted = absurd(chance),
            1 => grant.revoked = absurd(chance),
            2 => grant.epoch = absurd(chance),
            _ => grant.void = (0..chance.below(50)).map(|_| absurd(chance)).collect(),
        },
    }
}

/// Something that a stranger might say.
fn noise(chance: &mut Chance, catalog: &Catalog) -> Message {
    let module = usize::try_from(chance.below(catalog.modules.len() as u64)).expect("it is below a usize");
    let module = &catalog.modules[module];
    let lot = match chance.below(3) {
        0 => Lot { module: String::new(), version: Version::new(absurd(chance), 0, 0) },
        1 => Lot { module: "x".repeat(300), version: Version::new(0, 0, 0) },
        _ => module.lots[0].clone(),
    };
    let numbers = |chance: &mut Chance| (0..chance.below(5)).map(|_| absurd(chance)).collect::<Vec<_>>();
    match chance.below(11) {
        0 => Message::Beat,
        1 => Message::Appoint,
        2 => Message::Resign(Incarnation(absurd(chance))),
        3 => Message::Join(Join {
            contact: stranger(chance),
            may_serve: chance.hits(500),
            first: chance.hits(500),
            view: absurd(chance),
            roster: absurd(chance),
        }),
        4 | 5 => Message::Orders(Orders {
            contact: stranger(chance),
            all: chance.hits(500),
            orders: (0..chance.below(4))
                .map(|_| Order {
                    module: lot.module.clone(),
                    terms: match chance.below(2) {
                        0 => Terms::Sell(lot.version.clone()),
                        _ => Terms::Buy(VersionReq::STAR),
                    },
                    revision: absurd(chance),
                    quantity: absurd_small(chance),
                    in_line: chance.hits(500),
                })
                .collect(),
        }),
        6 => Message::Matches(vec![Match {
            requirement: VersionReq::STAR,
            revision: absurd(chance),
            lot,
            seller: stranger(chance),
            offered: absurd(chance),
            quantity: absurd_small(chance),
            in_line: chance.hits(500),
        }]),
        7 | 8 => Message::Claim(Claim {
            lot,
            epoch: absurd(chance),
            revision: absurd(chance),
            want: absurd_small(chance),
            known: absurd(chance),
            next: absurd(chance),
            open: numbers(chance),
            closed: chance.hits(300),
        }),
        9 => Message::Grant(Grant {
            lot,
            epoch: absurd(chance),
            seen: absurd(chance),
            granted: absurd(chance),
            revoked: absurd(chance),
            void: numbers(chance),
            closed: chance.hits(300),
        }),
        _ => Message::Mesh(Mesh {
            contact: stranger(chance),
            view: absurd(chance),
            nodes: absurd_small(chance),
            authorities: Vec::new(),
            roster: absurd(chance),
        }),
    }
}

/// Somebody who is nowhere.
fn stranger(chance: &mut Chance) -> Contact {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&chance.word().to_le_bytes());
    let address = match chance.below(3) {
        0 => String::new(),
        1 => "x".repeat(1000),
        _ => "nowhere:1".to_owned(),
    };
    let domain = "y".repeat(usize::try_from(chance.below(400)).expect("it is below a usize"));
    Contact { id: NodeId(id), incarnation: Incarnation(absurd(chance)), address, domain }
}
