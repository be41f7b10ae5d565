//! Aligned columns for people. Machines ask for `--json`.

use std::fmt;

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header, each column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows.
    #[must_use]
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|&(name, align)| (name.to_owned(), align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; cells beyond the columns are not shown, missing ones are empty.
    pub fn row<I>(&mut self, cells: I)
    where
        I: IntoIterator,
        I::Item: ToString,
    {
        self.rows.push(cells.into_iter().map(|cell| cell.to_string()).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let width = |index: usize, header: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            cells.map(|c| c.chars().count()).fold(header.chars().count(), usize::max)
        };
        self.columns.iter().enumerate().map(|(i, (name, _))| width(i, name)).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let header: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for (index, ((_, align), width)) in self.columns.iter().zip(&widths).enumerate() {
                if index > 0 {
                    line.push_str("  ");
                }
                let cell = row.get(index).map_or("", String::as_str);
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                match align {
                    Align::Left => line.extend([cell, &padding]),
                    Align::Right => line.extend([padding.as_str(), cell]),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_also_with_wide_letters_of_utf8() {
        let mut table = Table::new(&[("NAME", Align::Left), ("PAGES", Align::Right)]);
        table.row(["zürich.db", "7"]);
        table.row(["a", "123456"]);
        assert_eq!(
            table.to_string(),
            "NAME        PAGES\n\
             zürich.db       7\n\
             a          123456\n"
        );
    }

    #[test]
    fn a_missing_cell_is_empty_and_nothing_trails() {
        let mut table = Table::new(&[("A", Align::Left), ("B", Align::Left)]);
        table.row(["x"]);
        assert_eq!(table.to_string(), "A  B\nx\n");
    }
}
