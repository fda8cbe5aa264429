//! Files that are made from proto/: message descriptors for Python, and what the examples have of it.

use std::fs;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const WORKER: &str = "bourse/v1/worker.proto";
const KEEPER: &str = "bourse/v1/keeper.proto";

/// What protoc would make of it, but without a check of protobuf's own version.
const WORKER_PB2: &str = r#"# Generated from proto/bourse/v1/worker.proto by `cargo xtask proto`; do not edit.
import base64

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode("@"))
_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_files.file[0].SerializeToString())
ToNode = message_factory.GetMessageClass(_pool.FindMessageTypeByName("bourse.v1.ToNode"))
ToWorker = message_factory.GetMessageClass(_pool.FindMessageTypeByName("bourse.v1.ToWorker"))
"#;

/// Writes them.
pub(crate) fn write() -> Result<()> {
    for (path, text) in files()? {
        fs::write(crate::root().join(path), text).context(path)?;
    }
    Ok(())
}

/// Names those that are not what proto/ says.
pub(crate) fn check() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (path, text) in files()? {
        if fs::read_to_string(crate::root().join(path)).unwrap_or_default() != text {
            problems.push(format!("{path} is not what proto/ says: `cargo xtask proto`"));
        }
    }
    Ok(problems)
}

/// Each with its text.
fn files() -> Result<[(&'static str, String); 3]> {
    let sdk = format!(
        "# Generated from proto/bourse/v1/{{worker,keeper}}.proto by `cargo xtask proto`; do not edit.\n\
         WORKER = \"{}\"\n",
        descriptors(&[WORKER, KEEPER])?
    );
    let plain = WORKER_PB2.replace('@', &descriptors(&[WORKER])?);
    let copy = fs::read_to_string(crate::root().join("proto").join(WORKER)).context(WORKER)?;
    Ok([
        ("sdk/python/src/bourse/_descriptors.py", sdk),
        ("examples/worker_plain/worker_pb2.py", plain),
        ("examples/worker_node/worker.proto", copy),
    ])
}

/// A `FileDescriptorSet` in base64.
fn descriptors(files: &[&str]) -> Result<String> {
    let mut compiler = protox::Compiler::new([crate::root().join("proto")])?;
    compiler.include_source_info(false).include_imports(true).open_files(files)?;
    Ok(STANDARD.encode(compiler.encode_file_descriptor_set()))
}
