//! A heading, some sentences and a table, for terminals and as Markdown.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A part of the report.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Section {
    pub(super) title: String,
    /// Sentences above the table.
    pub(super) text: Vec<String>,
    /// The heads of the columns. Words are in those whose head begins with a space; numbers in the others.
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Row>,
}

/// A line of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Row {
    /// What the next ones have in common.
    Group(String),
    Cells(Vec<String>),
}

impl Section {
    /// Whether there is nothing to be shown.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.rows.is_empty()
    }

    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.title, "=".repeat(self.title.chars().count()));
        for sentence in &self.text {
            text += &format!("{sentence}\n");
        }
        if self.rows.is_empty() {
            return text + "\n";
        }
        let mut table = self.table(presets::NOTHING);
        for row in &self.rows {
            if let Row::Cells(cells) = row {
                table.add_row(cells);
            }
        }
        let table = table.trim_fmt();
        let mut lines = table.lines();
        text += &format!("{}\n", lines.next().unwrap_or_default());
        // A row is a line: nothing is wrapped.
        for row in &self.rows {
            match row {
                Row::Group(group) => text += &format!("{group}\n"),
                Row::Cells(_) => text += &format!("{}\n", lines.next().unwrap_or_default()),
            }
        }
        text + "\n"
    }

    /// With a heading of the third level.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.title);
        for sentence in &self.text {
            text += &format!("{sentence}\n\n");
        }
        if self.rows.is_empty() {
            return text;
        }
        let mut table = self.table(presets::ASCII_MARKDOWN);
        for row in &self.rows {
            match row {
                Row::Cells(cells) => table.add_row(cells),
                Row::Group(group) => {
                    let mut cells = vec![String::new(); self.columns.len()];
                    cells[0] = format!("**{group}**");
                    table.add_row(cells)
                }
            };
        }
        let rule = self.columns.iter().map(|head| if head.starts_with(' ') { "---|" } else { "---:|" });
        let rule = format!("|{}", rule.collect::<String>());
        for (number, line) in table.lines().enumerate() {
            // The preset's own rule does not say how columns are aligned.
            text += &format!("{}\n", if number == 1 { &rule } else { line.trim_end() });
        }
        text + "\n"
    }

    fn table(&self, preset: &str) -> Table {
        let mut table = Table::new();
        table.load_preset(preset).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
        table.set_header(self.columns.iter().map(|head| head.trim()));
        for (column, head) in table.column_iter_mut().zip(&self.columns) {
            let is_text = head.starts_with(' ');
            column.set_cell_alignment(if is_text { CellAlignment::Left } else { CellAlignment::Right });
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        Section {
            title: "Rates".to_owned(),
            text: vec!["In Mpps.".to_owned()],
            columns: vec![" candidate", "p90"],
            rows: vec![
                Row::Group("drop, on one core, with a long name".to_owned()),
                Row::Cells(vec!["knockplane".to_owned(), "1.25".to_owned()]),
                Row::Cells(vec!["xdp".to_owned(), "10.5".to_owned()]),
            ],
        }
    }

    #[test]
    fn in_a_terminal() {
        let expected = "Rates\n=====\nIn Mpps.\n candidate    p90\ndrop, on one core, with a long name\n \
                        knockplane  1.25\n xdp         10.5\n\n";
        assert_eq!(section().text(), expected);
    }

    #[test]
    fn as_markdown() {
        let text = section().markdown();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..4], ["### Rates", "", "In Mpps.", ""]);
        assert_eq!(lines[5], "|---|---:|");
        assert!(lines[6].starts_with("| **drop, on one core, with a long name** |"), "{}", lines[6]);
        assert!(lines[7].ends_with("| 1.25 |"), "{}", lines[7]);
    }
}
