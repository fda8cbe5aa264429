//! Batches to one transaction, and its errors to outcomes.
//!
//! All batches of a group share one transaction, hence one sync. In each, the conditional change of the owner
//! record comes first: if it changes no row, that is a conflict and the batch has done nothing.

use bourse_durable::batch::{Batch, Op, Outcome, Owner};
use rusqlite::Connection;

use super::error::Trouble;
use super::schema;

/// How the transaction of a group ended.
pub(super) enum Ended {
    /// Committed: an outcome for each batch.
    Answered(Vec<Outcome>),
    /// Certainly undone, and the connection is usable.
    Undone(rusqlite::Error),
    /// Certainly undone, but the connection is not to be used again.
    Broken(rusqlite::Error),
    /// Nobody can tell, and the connection is not to be used again.
    Unsure(rusqlite::Error),
}

pub(super) fn commit_group<'a>(writer: &Connection, group: impl Iterator<Item = &'a Batch>) -> Ended {
    if let Err(error) = execute(writer, "BEGIN IMMEDIATE") {
        return match Trouble::of(&error) {
            Trouble::Io => Ended::Broken(error),
            _ => Ended::Undone(error),
        };
    }
    let applied: rusqlite::Result<Vec<Outcome>> = group.map(|batch| apply(writer, batch)).collect();
    match applied {
        Ok(outcomes) => match execute(writer, "COMMIT") {
            Ok(()) => Ended::Answered(outcomes),
            Err(error) => Ended::Unsure(error),
        },
        // SQLite may already have rolled back by itself, and pages may have gone to the log before the commit:
        // they count for nothing without it. An I/O error is believed to mean more than it says.
        Err(error) if Trouble::of(&error) == Trouble::Io => Ended::Unsure(error),
        Err(error) if writer.is_autocommit() || execute(writer, "ROLLBACK").is_ok() => Ended::Undone(error),
        Err(error) => Ended::Broken(error),
    }
}

fn apply(writer: &Connection, batch: &Batch) -> rusqlite::Result<Outcome> {
    if !change_owner(writer, batch)? {
        return Ok(Outcome::Conflict);
    }
    let partition = batch.partition.0;
    let mut put = writer.prepare_cached(schema::PUT)?;
    let mut delete = writer.prepare_cached(schema::DELETE)?;
    for op in &batch.ops {
        match op {
            Op::Put { key, value } => put.execute((partition, key.as_ref(), value.as_ref()))?,
            Op::Delete { key } => delete.execute((partition, key.as_ref()))?,
        };
    }
    Ok(Outcome::Committed)
}

/// Whether the owner record was the one expected; it is then the new one.
fn change_owner(writer: &Connection, batch: &Batch) -> rusqlite::Result<bool> {
    let partition = batch.partition.0;
    let [node, fence, seq] = columns(batch.owner);
    let changed = match batch.expect.map(columns) {
        None => writer.prepare_cached(schema::FIRST_OWNER)?.execute((partition, node, fence, seq))?,
        Some([expect_node, expect_fence, expect_seq]) => writer
            .prepare_cached(schema::NEXT_OWNER)?
            .execute((partition, node, fence, seq, expect_node, expect_fence, expect_seq))?,
    };
    Ok(changed == 1)
}

fn columns(owner: Owner) -> [i64; 3] {
    [owner.node, owner.fence.0, owner.seq.0].map(u64::cast_signed)
}

fn execute(writer: &Connection, statement: &'static str) -> rusqlite::Result<()> {
    writer.prepare_cached(statement)?.execute(()).map(drop)
}
