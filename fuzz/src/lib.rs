//! Fuzz targets for every decoder that a stranger reaches: see `tests/`.
//!
//! Each begins with something valid and breaks it, so that it gets past the first check. `cargo test -p bourse-fuzz` runs
//! each for a moment, as CI does; `cargo bolero test TARGET` (from crates.io: cargo-bolero) runs one for as long as
//! you like, guided by coverage.
