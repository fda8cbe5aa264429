//! Who runs what, on many machines: whoever can run a function sells capacity, whoever calls it buys. No scheduler, no
//! leader, no broker on the way of a call.
//!
//! Pure: every role is a state machine that is handed the time and what came, and says what to send. Nothing here does
//! I/O, reads a clock, draws entropy but from its seed, or calls anything and waits.
//!
//! ```text
//! node -> market: sells, buys, chooses, admits, settles       market -> node: tokens, slots that are free
//! market <-> market of another node: [`Message`]s, over links that may lose, repeat, delay and reorder them
//! ```
//!
//! | file | role | on |
//! |---|---|---|
//! | [`member`] | a node's place in the grid: finds authorities, stays with two of them, becomes one if there is none | every node |
//! | [`authority`] | knows the other authorities, tells everybody about them; how many there should be | a few nodes |
//! | [`exchange`] | one module's order book: matches what is sold with what is wanted | authorities |
//! | [`broker`] | this node's orders, kept up at the exchanges of each module | every node |
//! | [`listener`] | who has this node's slots: the last arbiter of capacity | every node |
//! | [`channel`] | both ends of the trade between a buyer and a seller: numbered tokens | every node |
//! | [`balancer`] | which seller a call goes to | every node |
//! | [`roster`] | who belongs to the grid: the list of keys, the same on all nodes | every node |
//! | [`store`] | which node keeps the grid's store | every node |
//! | [`placing`] | which authorities hold a module's exchanges: a rule that all agree on without asking | everywhere |
//!
//! All of it but the list of keys is soft state: lost in a crash, and rebuilt from what the others say again. That list is kept by
//! whoever runs the market, who hands it in at the next start.

mod agenda;
pub mod authority;
pub mod balancer;
pub mod broker;
pub mod chance;
pub mod channel;
pub mod codec;
pub mod exchange;
pub mod links;
pub mod listener;
pub mod market;
pub mod member;
pub mod message;
pub mod mutant;
pub mod name;
pub mod placing;
pub mod roster;
pub mod store;
pub mod times;

pub use links::LinkId;
pub use market::Market;
pub use message::Message;
pub use name::{Contact, Horizon, Lot, NodeId};
