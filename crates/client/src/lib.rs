//! A program of your own on a grid of Bourse nodes. It calls functions, publishes messages and looks around, and is no daemon: it
//! serves nothing, and needs none beside it.
//!
//! A [`Client`] is a node of the grid that buys for itself: it holds slots of those that serve a module, and sends calls straight to
//! them, one hop away. It has keys as every node has, which come onto the grid's list with a ticket, once:
//!
//! ```no_run
//! use bourse_client::{Client, Options};
//!
//! # async fn shop() -> Result<(), bourse_client::Error> {
//! // The first time, with what `bourse ticket` has printed on any node; later without: Client::open("shop-keys", …).
//! let client = Client::join("bourse-ticket-AbC...", "shop-keys", Options::default()).await?;
//!
//! let price = client.call("shop.price").arg("bread").named("pieces", 3).await?.value()?;
//! println!("{price}");
//!
//! let order = client.call("shop.deliver").arg("bread").start().await?; // durable: done whatever becomes of this program
//! client.outcome(order).await?;
//!
//! for node in client.nodes().await? {
//!     println!("{} {}", node.key.to_hex(), node.address);
//! }
//! client.close().await;
//! # Ok(()) }
//! ```
//!
//! What needs the grid's store, durable calls above all, goes to the node that keeps it, as at any other node. All else goes to
//! sellers directly, and goes on when the node is gone by which this client came.
//!
//! A handle can be cloned, sent and shared; it works in any async runtime. Behind all clones is one thread, which ends when they
//! are gone or [`Client::close`] is called. A future that is dropped cancels its call. A call is never answered twice, and always
//! once while the client lives: with a result, or an [`Error`] that says what happened and what to do.
//!
//! Built with debug assertions, the node behind it checks after each step all that must hold, which takes long with thousands of calls
//! under way. `debug-assertions = false` and `opt-level = 2` for `[profile.dev.package."*"]` spare that.
//!
//! | file | is |
//! |---|---|
//! | `client` | the handle |
//! | `call` | calls and messages |
//! | `driver` | the loop behind it, around a node that serves nothing |
//! | `place` | keys, and what else is kept between two lives |
//! | `view` | what is seen of the grid |
//! | `options`, `error` | how it behaves, what can go wrong |
//!
//! It never serves, sells, keeps a store, is an authority, or listens; nobody can connect with it.

mod call;
mod client;
mod driver;
mod error;
mod options;
mod place;
mod view;

pub use bourse_node::Overflow;
pub use bourse_peers::join::Join as Seed;
pub use bourse_peers::ticket::Ticket;
pub use bourse_transport::{Key, KeyPair};
pub use bourse_wire::arguments::Arguments;
pub use bourse_wire::failure::Code;
pub use bourse_wire::id::CallId;
pub use bourse_wire::value::Value;
pub use call::{Call, Horizon, Publish, Published, Reply};
pub use client::{Client, Standing};
pub use error::{Error, Failure};
pub use options::Options;
pub use view::{Bought, Function, Market, Module, Node, Parameter, Short};
