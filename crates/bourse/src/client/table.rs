//! Columns for people: as wide as they have to be, two spaces between them.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

pub(super) const HEAD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default();
pub(super) const ODD: Style = AnsiColor::Yellow.on_default();

/// A table; the last column is not padded, and may have a colour.
pub(super) struct Table<const N: usize> {
    rows: Vec<([String; N], Style)>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&str; N]) -> Self {
        Self { rows: vec![(head.map(str::to_owned), HEAD)] }
    }

    /// Line breaks in cells become spaces, control characters are left out.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.row_in(Style::new(), cells);
    }

    /// With the last cell in a colour.
    pub(super) fn row_in(&mut self, style: Style, cells: [String; N]) {
        let plain = cells.map(|c| c.replace('\n', " ").chars().filter(|c| !c.is_control()).collect());
        self.rows.push((plain, style));
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width =
            |column: usize| self.rows.iter().map(|(r, _)| r[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        for (i, (row, style)) in self.rows.iter().enumerate() {
            let (last, others) = row.split_last().expect("a table has columns");
            let head = if i == 0 { HEAD } else { Style::new() };
            for (cell, width) in others.iter().zip(widths) {
                let padding = width + 2 - cell.chars().count();
                write!(out, "{head}{cell}{head:#}{:padding$}", "")?;
            }
            writeln!(out, "{style}{last}{style:#}")?;
        }
        Ok(())
    }
}
