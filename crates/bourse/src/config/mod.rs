//! The daemon's settings: flags, then `BOURSE_*` variables, then `bourse.toml`, then defaults; and which one won.
//!
//! Whatever is given and not known is refused, with the nearest name that is.

mod grid;
pub(crate) mod known;
mod mail;
mod resolve;
mod schema;
mod things;
mod value;

pub(crate) use grid::Discover;
pub(crate) use known::Scope;
pub(crate) use resolve::{Config, Given, Source};
pub(crate) use schema::schema;

/// The process's environment, as far as it is text.
pub(crate) fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}
