//! The daemon's settings: flags, then `BOURSE_*` variables, then `bourse.toml`, then defaults; and which one won.
//!
//! Whatever is given and not known is refused, with the nearest name that is.

mod known;
mod resolve;
mod schema;
mod value;

pub(crate) use known::Scope;
pub(crate) use resolve::{Config, Given, Source};
pub(crate) use schema::schema;
