//! Reads on a connection of their own, which never waits for the writer nor makes it wait.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use bourse_durable::batch::{Owner, PartitionId, ReadError};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row};

use super::error::text;
use super::schema;
use crate::{Limit, Page, Range, Reader};

/// Reads a SQLite store. Every read is a transaction of its own, over when it returns.
#[derive(Debug)]
pub struct SqliteReader {
    pub(super) file: PathBuf,
    pub(super) connection: Connection,
}

impl SqliteReader {
    /// Reads a store that another process may have open, without its lock: SQLite lets readers of other
    /// processes in, and what the writer commits meanwhile does not disturb them. Checks nothing; whoever holds
    /// the lock has.
    pub fn open(file: &Path) -> Result<Self, ReadError> {
        let connection = schema::connect_reader(file).map_err(|error| ReadError(text(file, &error)))?;
        Ok(Self { file: file.into(), connection })
    }

    fn read_error(&self, error: &rusqlite::Error) -> ReadError {
        ReadError(text(&self.file, error))
    }
}

impl Reader for SqliteReader {
    fn owner(&mut self, partition: PartitionId) -> Result<Option<Owner>, ReadError> {
        let query = || {
            let mut statement = self.connection.prepare_cached(schema::OWNER)?;
            statement.query_row([partition.0], schema::owner_of).optional()
        };
        query().map_err(|error| self.read_error(&error))
    }

    fn read(&mut self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let query = || {
            let mut statement = self.connection.prepare_cached(schema::READ)?;
            statement.query_row((partition.0, key), |row| bytes(row, 0)).optional()
        };
        query().map_err(|error| self.read_error(&error))
    }

    fn scan(&mut self, partition: PartitionId, range: &Range, limit: Limit) -> Result<Page, ReadError> {
        let query = || {
            let mut statement = self.connection.prepare_cached(&scan_statement(range))?;
            let (from, until) = (key_of(&range.from), key_of(&range.until));
            let rows = statement
                .query_map((partition.0, from, until), |row| Ok((bytes(row, 0)?, bytes(row, 1)?)))?;
            Page::take(rows, limit)
        };
        query().map_err(|error| self.read_error(&error))
    }
}

/// One of six statements. A missing end of the range is the empty key: the least of all, or not looked at.
fn scan_statement(range: &Range) -> String {
    let from = match range.from {
        Bound::Excluded(_) => "key > ?2",
        Bound::Included(_) | Bound::Unbounded => "key >= ?2",
    };
    let until = match range.until {
        Bound::Excluded(_) => "key < ?3",
        Bound::Included(_) => "key <= ?3",
        Bound::Unbounded => "?3 IS NOT NULL",
    };
    format!("SELECT key, value FROM record WHERE partition = ?1 AND {from} AND {until} ORDER BY key")
}

fn key_of(bound: &Bound<Bytes>) -> &[u8] {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => key,
        Bound::Unbounded => b"",
    }
}

fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?))
}
