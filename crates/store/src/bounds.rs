//! How large a batch may be. Every backend refuses larger ones the same way, before it touches anything.

use bourse_durable::batch::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, Batch, KEY_BYTES_MAX, Op, Outcome, VALUE_BYTES_MAX,
};

/// A batch is larger than a store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverBound {
    /// More than [`BATCH_OPS_MAX`] operations.
    #[error("the batch has {0} operations; a store takes at most {BATCH_OPS_MAX}")]
    Ops(usize),
    /// A key of more than [`KEY_BYTES_MAX`] bytes.
    #[error("a record's key has {0} bytes; a store takes at most {KEY_BYTES_MAX}")]
    Key(usize),
    /// A value of more than [`VALUE_BYTES_MAX`] bytes.
    #[error("a record's value has {0} bytes; a store takes at most {VALUE_BYTES_MAX}")]
    Value(usize),
    /// More than [`BATCH_BYTES_MAX`] bytes of keys and values.
    #[error("the batch has {0} bytes; a store takes at most {BATCH_BYTES_MAX}")]
    Bytes(usize),
}

impl From<OverBound> for Outcome {
    fn from(over: OverBound) -> Self {
        Self::Failed(over.to_string())
    }
}

/// The bytes of a batch's keys and values, if they and all else are within the bounds.
pub fn check(batch: &Batch) -> Result<usize, OverBound> {
    if batch.ops.len() > BATCH_OPS_MAX {
        return Err(OverBound::Ops(batch.ops.len()));
    }
    let mut bytes = 0;
    for op in &batch.ops {
        let (key, value) = match op {
            Op::Put { key, value } => (key.len(), value.len()),
            Op::Delete { key } => (key.len(), 0),
        };
        if key > KEY_BYTES_MAX {
            return Err(OverBound::Key(key));
        }
        if value > VALUE_BYTES_MAX {
            return Err(OverBound::Value(value));
        }
        bytes += key + value;
    }
    if bytes > BATCH_BYTES_MAX { Err(OverBound::Bytes(bytes)) } else { Ok(bytes) }
}
