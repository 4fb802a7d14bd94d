//! Draws the screen of `top`: paths, the tabs of the views, the rows of one, and the keys.
//!
//! ```text
//! knockctl top  dataplane up 1h2m, generation 3, rates over 1.0 s
//! PATH …                                             5 lines, left out if the screen has fewer than 14
//! [1 rules]  2 lists  3 doors  4 workers  5 drops  6 sources
//! RULE …
//! rows …
//! rows 1 to 14 of 40, by packets/s
//! q quit …
//! ```
//! No colours: the chosen view has brackets, and titles are reversed.

use ratatui::Frame;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use unicode_width::UnicodeWidthStr as _;

use super::batch::{PATH_COLUMNS, heading, path_rows};
use super::state::TopState;
use super::view::{Order, Rows, View};
use crate::cli::table::Align::{self, Left, Right};
use crate::cli::table::cut;

/// The number of lines below which the paths are left out.
const WITH_PATHS: usize = 14;

/// The number of columns between the cells of a row.
const GAP: usize = 2;

/// The minimum width of a column of numbers: that of the longest short number.
const NUMBER: usize = 6;

/// The columns that are never left out.
const MOST_IMPORTANT: usize = 4;

/// The minimum width of a column of words that is too wide.
const NARROWEST: usize = 6;

/// A line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ScreenLine {
    text: String,
    is_marked: bool,
}

fn plain(text: impl Into<String>) -> ScreenLine {
    ScreenLine { text: text.into(), is_marked: false }
}

fn marked(text: impl Into<String>) -> ScreenLine {
    ScreenLine { text: text.into(), is_marked: true }
}

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, state: &TopState) {
    let area = frame.area();
    let lines = lines(state, usize::from(area.width), usize::from(area.height));
    let line = |line: ScreenLine| {
        let modifier = if line.is_marked { Modifier::REVERSED } else { Modifier::empty() };
        Line::styled(line.text, Style::new().add_modifier(modifier))
    };
    frame.render_widget(Text::from_iter(lines.into_iter().map(line)), area);
}

/// The lines of a screen of this size.
fn lines(state: &TopState, width: usize, height: usize) -> Vec<ScreenLine> {
    let mut lines = vec![title(state)];
    if let Some(top) = state.top.as_ref().filter(|_| height >= WITH_PATHS) {
        let rows: Vec<_> = path_rows(&top.paths).into_iter().map(|row| row.to_vec()).collect();
        lines.extend(table(&PATH_COLUMNS, &rows, width).into_iter().map(plain));
    }
    lines.push(plain(tabs(state.view)));
    let Some(Rows { columns, rows, notes }) = state.rows() else {
        lines.push(plain("waiting for the first answer"));
        return fitted(lines, width, height);
    };
    // Besides the rows: their titles, the notes, and two lines at the end.
    let notes = if height >= WITH_PATHS { notes } else { Vec::new() };
    let room = height.saturating_sub(lines.len() + notes.len() + 3);
    let first = state.first(rows.len(), room);
    let cells: Vec<_> = rows.iter().map(|row| row.cells.clone()).collect();
    let mut text = table(&columns, &cells, width).into_iter();
    lines.extend(text.next().map(|titles| marked(format!("{titles:<width$}"))));
    lines.extend(text.skip(first).take(room).map(plain));
    let end = (first + room).min(rows.len());
    lines.resize(height.saturating_sub(notes.len() + 2).max(lines.len()), plain(""));
    lines.extend(notes.into_iter().map(plain));
    lines.push(plain(position(state, rows.len(), first, end)));
    lines.push(plain(help(state)));
    fitted(lines, width, height)
}

/// The first line: the interval, or what prevents rates.
fn title(state: &TopState) -> ScreenLine {
    if let Some(problem) = &state.problem {
        return marked(format!("knockctl top: {problem}; asking again"));
    }
    let told = state.top.as_ref().map_or_else(String::new, heading);
    let restarted = if state.has_restarted() && !told.contains("RESTARTED") { ": IT RESTARTED" } else { "" };
    let paused = if state.is_paused { ", PAUSED" } else { "" };
    let text = format!("knockctl top  {told}{restarted}{paused}");
    if state.has_restarted() { marked(text) } else { plain(text) }
}

fn tabs(shown: View) -> String {
    let tab = |(number, view): (usize, View)| {
        let name = format!("{} {}", number + 1, view.name());
        if view == shown { format!("[{name}]") } else { format!(" {name} ") }
    };
    View::ALL.into_iter().enumerate().map(tab).collect::<Vec<_>>().join(" ")
}

/// The shown rows, their order and the filter.
fn position(state: &TopState, rows: usize, first: usize, end: usize) -> String {
    let [packets, bytes] = state.view.compared();
    let order = match state.order {
        Order::Packets => packets,
        Order::Bytes => bytes,
        Order::Total => "total",
        Order::Name => "name",
    };
    let shown = match rows {
        0 => "no rows".to_owned(),
        _ if first >= end => format!("{rows} rows"),
        _ => format!("rows {} to {end} of {rows}", first + 1),
    };
    let reversed = if state.is_reversed { ", reversed" } else { "" };
    let filter = if state.filter.is_empty() { String::new() } else { format!(", with `{}`", state.filter) };
    format!("{shown}, by {order}{reversed}{filter}")
}

fn help(state: &TopState) -> String {
    if state.is_typing {
        return format!("filter: {}_   Enter keeps it, Esc clears it", state.filter);
    }
    "q quit  1-6 Tab view  p b t n order  r reverse  / filter  Space pause  Up Down".to_owned()
}

/// Titles and rows in columns, at most `width` wide: the widest columns of words are cut, then the last numbers are left out.
fn table(columns: &[(&str, Align)], rows: &[Vec<String>], width: usize) -> Vec<String> {
    let of = |at: usize| {
        // Numbers do not move their columns.
        let least = if columns[at].1 == Right { NUMBER } else { 0 };
        rows.iter().map(|row| row[at].width()).chain([columns[at].0.width()]).max().unwrap_or_default().max(least)
    };
    let mut widths: Vec<usize> = (0..columns.len()).map(of).collect();
    let total = |widths: &[usize]| {
        let shown = widths.iter().filter(|width| **width > 0).count();
        widths.iter().sum::<usize>() + GAP * shown.saturating_sub(1)
    };
    while total(&widths) > width {
        let is_words = |at: &usize| columns[*at].1 == Left && widths[*at] > NARROWEST;
        let words = (1..columns.len()).filter(is_words).max_by_key(|at| widths[*at]);
        let is_more = |at: &usize| columns[*at].1 == Right && widths[*at] > 0;
        match words {
            Some(widest) => widths[widest] -= 1,
            // The names are cut last.
            None => match (MOST_IMPORTANT..columns.len()).rev().find(is_more) {
                Some(last) => widths[last] = 0,
                None if is_words(&0) => widths[0] -= 1,
                None => break,
            },
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells =
            cells.zip(columns).zip(&widths).filter(|(_, width)| **width > 0).map(|((cell, (_, align)), width)| {
                let cell = cut(cell, *width);
                let blanks = " ".repeat(width - cell.width());
                if *align == Left { cell + &blanks } else { blanks + &cell }
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let titles = line(&mut columns.iter().map(|(title, _)| *title));
    let rows = rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
    [titles].into_iter().chain(rows).collect()
}

/// The lines that fit. The last line, with the keys, stays.
fn fitted(mut lines: Vec<ScreenLine>, width: usize, height: usize) -> Vec<ScreenLine> {
    if lines.len() > height {
        let last = lines.pop();
        lines.truncate(height.saturating_sub(1));
        lines.extend(last.filter(|_| height > 0));
    }
    for line in &mut lines {
        line.text = cut(&line.text, width);
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::json::top::Reading;
    use crate::sample;

    /// A state with rates over one second.
    fn state(view: View) -> TopState {
        let mut state = TopState::new(view);
        let sources = Some(sample::source_rates());
        state.take(Ok(Reading { counters: sample::metrics(), sources: sources.clone() }));
        let mut counters = sample::metrics();
        counters.status.uptime += Duration::from_secs(1);
        counters.rules[0].counter.packets += 1_250;
        counters.rules[0].counter.bytes += 75_000;
        state.take(Ok(Reading { counters, sources }));
        state
    }

    fn text(state: &TopState, width: usize, height: usize) -> String {
        lines(state, width, height).iter().map(|line| format!("{}\n", line.text)).collect()
    }

    #[test]
    fn a_view_fits_the_smallest_usual_terminal() {
        insta::assert_snapshot!(text(&state(View::Rules), 80, 24));
        for view in View::ALL {
            let text = text(&state(view), 80, 24);
            assert!(text.lines().count() == 24 && text.lines().all(|line| line.width() <= 80), "{text}");
            assert!(text.contains(&format!(" {}]", view.name())) && text.ends_with("Up Down\n"), "{text}");
            // A comment may be cut, and the reason of a drop beside a long address.
            assert!(matches!(view, View::Rules | View::Sources) || !text.contains('~'), "nothing is cut: {text}");
            assert!(view != View::Sources || text.contains("\n2001:db8:1234:5678:9abc:def0:1234:5678 "), "{text}");
        }
    }

    #[test]
    fn every_size_can_be_drawn() {
        for view in View::ALL {
            for (width, height) in [(0, 0), (1, 1), (1, 30), (10, 3), (20, 5), (40, 13), (79, 14), (300, 100)] {
                let mut state = state(view);
                for code in [None, Some(KeyCode::Down), Some(KeyCode::Char('/')), Some(KeyCode::Char('x'))] {
                    if let Some(code) = code {
                        state.key(KeyEvent::new(code, KeyModifiers::NONE));
                    }
                    let lines = lines(&state, width, height);
                    assert!(lines.len() <= height && lines.iter().all(|line| line.text.width() <= width.max(1)));
                    let mut terminal = Terminal::new(TestBackend::new(width as u16, height as u16)).unwrap();
                    terminal.draw(|frame| draw(frame, &state)).unwrap();
                }
            }
        }
        let empty = TopState::new(View::Rules);
        assert!(text(&empty, 80, 24).contains("waiting for the first answer"));
    }

    #[test]
    fn words_are_cut_and_numbers_are_not() {
        let columns = [("NAME", Left), ("NUMBER", Right), ("COMMENT", Left)];
        let rows = [vec!["a name".to_owned(), "12345".to_owned(), "a long comment on it".to_owned()]];
        assert_eq!(table(&columns, &rows, 30), ["NAME    NUMBER  COMMENT", "a name   12345  a long commen~"]);
        assert_eq!(table(&columns, &rows, 5)[1], "a name   12345  a lon~");
        assert_eq!(cut("äöü", 2), "ä~");
    }
}
