//! Compiles proto/ with protox, so that building needs no protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = [
        "bourse/v1/worker.proto",
        "bourse/v1/keeper.proto",
        "bourse/v1/record.proto",
        "bourse/v1/peer.proto",
    ];
    let descriptors = protox::compile(files, [&root])?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        // Large, and rare beside what else the messages around them can be.
        .boxed(".bourse.peer.v1.Told.live")
        .boxed(".bourse.peer.v1.Told.ended")
        .enable_type_names()
        .compile_fds(descriptors)?;
    Ok(())
}
