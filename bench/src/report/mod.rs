//! Result tables of every benchmark program: Markdown on standard output, and a CSV file each for plots
//! (`bench/plots.gp`).

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// The folder of results, unless an option names another one.
pub const FOLDER: &str = "target/bench";

/// The cell of a value that does not exist.
pub const NONE: &str = "–";

/// A titled table of results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Name of the CSV file, without extension.
    pub name: &'static str,
    /// Heading.
    pub title: &'static str,
    /// Paragraphs above the table.
    pub notes: Vec<String>,
    /// The heads of the columns.
    pub columns: Vec<&'static str>,
    /// The cells. Each row has one for each column.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(name: &'static str, title: &'static str, columns: &[&'static str]) -> Self {
        Table { name, title, columns: columns.to_vec(), ..Table::default() }
    }

    /// The same table with these rows.
    pub fn with_rows(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.rows.is_empty()
    }

    /// A heading of the third level, the notes and the table. Columns of numbers are aligned to the right.
    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.title);
        for note in &self.notes {
            text += &format!("{note}\n\n");
        }
        if self.rows.is_empty() {
            return text;
        }
        let heads: Vec<String> = self.columns.iter().map(|head| (*head).to_owned()).collect();
        let is_number = |cell: &String| {
            cell.is_empty() || cell == NONE || cell.starts_with(['<', '-', '+']) || cell.starts_with(char::is_numeric)
        };
        let columns: Vec<(usize, bool)> = (0..heads.len())
            .map(|column| {
                let width = self.rows.iter().chain([&heads]).map(|row| row[column].chars().count()).max();
                (width.unwrap_or_default(), self.rows.iter().all(|row| is_number(&row[column])))
            })
            .collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&columns).map(|(cell, (width, is_right))| {
                if *is_right { format!(" {cell:>width$} |") } else { format!(" {cell:<width$} |") }
            });
            format!("|{}\n", cells.collect::<String>())
        };
        text += &line(&heads);
        let rule = columns.iter().map(|(_, is_right)| if *is_right { "---:|" } else { "---|" });
        text += &format!("|{}\n", rule.collect::<String>());
        text.extend(self.rows.iter().map(line));
        text + "\n"
    }

    /// Column heads and rows as CSV (RFC 4180).
    fn csv(&self) -> String {
        let quoted = |cell: &str| format!("\"{}\"", cell.replace('"', "\"\""));
        let heads = self.columns.iter().map(|head| quoted(head)).collect::<Vec<_>>().join(",");
        let rows = self.rows.iter().map(|row| row.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(","));
        [heads].into_iter().chain(rows).map(|line| line + "\n").collect()
    }
}

/// Prints tables and writes their CSV files into a folder. Omits empty tables.
///
/// # Errors
/// If a file cannot be written.
pub fn publish(tables: &[Table], folder: &Path) -> Result<()> {
    for table in tables.iter().filter(|table| !table.is_empty()) {
        print!("{}", table.markdown());
    }
    store(tables, folder)
}

/// Writes the CSV files of tables into a folder. Omits tables without rows.
///
/// # Errors
/// If a file cannot be written.
pub fn store(tables: &[Table], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for table in tables.iter().filter(|table| !table.rows.is_empty()) {
        let file = folder.join(table.name).with_extension("csv");
        fs::write(&file, table.csv()).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new("rates", "Rates", &["load", "p90"])
            .with_rows([vec!["knocks, \"S\"".to_owned(), "1.25".to_owned()], vec!["mix".to_owned(), NONE.to_owned()]])
    }

    #[test]
    fn markdown_aligns_numbers_to_the_right() {
        let table = Table { notes: vec!["In Mpps.".to_owned()], ..table() };
        let expected = "### Rates\n\nIn Mpps.\n\n\
                        | load        |  p90 |\n|---|---:|\n| knocks, \"S\" | 1.25 |\n| mix         |    – |\n\n";
        assert_eq!(table.markdown(), expected);
    }

    #[test]
    fn csv_quotes_commas_and_quotation_marks() {
        assert_eq!(table().csv(), "\"load\",\"p90\"\n\"knocks, \"\"S\"\"\",\"1.25\"\n\"mix\",\"–\"\n");
    }

    #[test]
    fn files_are_written_for_tables_with_rows() {
        let folder = std::env::temp_dir().join(format!("knockplane-report-{}", std::process::id()));
        let empty = Table::new("empty", "Empty", &["load"]);
        store(&[table(), empty], &folder).expect("a folder that can be written");
        let names: Vec<_> =
            fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").file_name()).collect();
        fs::remove_dir_all(&folder).expect("removed");
        assert_eq!(names, ["rates.csv"]);
    }
}
