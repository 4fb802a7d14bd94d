//! What is on the screen of `top`, and the effect of keys and answers on it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::view::{Order, Rows, View};
use crate::cli::{Failed, watch};
use crate::json::top::{Reading, TopJson};

/// The number of answers for which the screen tells of a restart.
const RESTART_SHOWN: u32 = 10;

/// The maximum length of a filter, in characters.
const LONGEST_FILTER: usize = 40;

/// The state of the screen.
#[derive(Debug)]
pub(super) struct TopState {
    pub(super) view: View,
    pub(super) order: Order,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    /// Whether keys are text for the filter.
    pub(super) is_typing: bool,
    pub(super) is_paused: bool,
    /// The number of rows above the first one on the screen.
    offset: usize,
    last: Option<Reading>,
    pub(super) top: Option<TopJson>,
    /// The failure of the last request, and its time.
    pub(super) problem: Option<String>,
    /// The number of answers for which the screen still tells of a restart.
    restart_shown: u32,
}

/// The effect of a key outside the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// The screen needs an answer at once.
    Read,
    Quit,
}

impl TopState {
    pub(super) fn new(view: View) -> TopState {
        TopState {
            view,
            order: view.order(),
            is_reversed: false,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            offset: 0,
            last: None,
            top: None,
            problem: None,
            restart_shown: 0,
        }
    }

    /// Takes the answer to a request. After a failure, the rates before stay on the screen, with the failure.
    pub(super) fn take(&mut self, answer: Result<Reading, Failed>) {
        match answer {
            Ok(now) => {
                let top = TopJson::between(self.last.as_ref(), &now);
                self.restart_shown = if top.restarted { RESTART_SHOWN } else { self.restart_shown.saturating_sub(1) };
                (self.top, self.last, self.problem) = (Some(top), Some(now), None);
            }
            Err(failed) if self.problem.is_none() => {
                let sentence = failed.message.lines().next().unwrap_or_default().to_owned();
                self.problem = Some(format!("no answer since {}: {sentence}", watch::now()));
            }
            Err(_) => {}
        }
    }

    /// Whether the dataplane restarted a short time ago.
    pub(super) fn has_restarted(&self) -> bool {
        self.restart_shown > 0
    }

    /// The rows of the view that the filter keeps, in order.
    pub(super) fn rows(&self) -> Option<Rows> {
        let mut rows = self.view.rows(self.top.as_ref()?);
        rows.filter(&self.filter);
        rows.sort(self.order, self.is_reversed);
        Some(rows)
    }

    /// The first row to show of this number, if there is room for `room` rows.
    pub(super) fn first(&self, rows: usize, room: usize) -> usize {
        self.offset.min(rows.saturating_sub(room))
    }

    fn show(&mut self, view: View) -> Effect {
        (self.view, self.offset) = (view, 0);
        // Sources are read only for their view.
        if view == View::Sources { Effect::Read } else { Effect::None }
    }

    /// The effect of a key.
    pub(super) fn key(&mut self, key: KeyEvent) -> Effect {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Effect::Quit;
        }
        if self.is_typing {
            self.type_filter(key, is_control);
            return Effect::None;
        }
        let mut sort = |order| (self.order, self.offset) = (order, 0);
        match key.code {
            KeyCode::Char('q') => return Effect::Quit,
            KeyCode::Char('p') => sort(Order::Packets),
            KeyCode::Char('b') => sort(Order::Bytes),
            KeyCode::Char('t') => sort(Order::Total),
            KeyCode::Char('n') => sort(Order::Name),
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char(' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Tab | KeyCode::Right => return self.show(self.view.next(1)),
            KeyCode::BackTab | KeyCode::Left => return self.show(self.view.next(View::ALL.len() - 1)),
            KeyCode::Char(digit @ '1'..='6') => return self.show(View::ALL[digit as usize - '1' as usize]),
            KeyCode::Down => self.scroll(1),
            KeyCode::Up => self.scroll(-1),
            KeyCode::PageDown => self.scroll(10),
            KeyCode::PageUp => self.scroll(-10),
            KeyCode::Home => self.offset = 0,
            _ => {}
        }
        Effect::None
    }

    fn scroll(&mut self, rows: isize) {
        let last = self.rows().map_or(0, |rows| rows.rows.len().saturating_sub(1));
        self.offset = self.offset.saturating_add_signed(rows).min(last);
    }

    fn type_filter(&mut self, key: KeyEvent, is_control: bool) {
        match key.code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.is_typing = false;
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(letter) if !is_control && self.filter.chars().count() < LONGEST_FILTER => {
                self.filter.push(letter);
            }
            _ => {}
        }
        self.offset = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Exit;
    use crate::sample;

    fn press(state: &mut TopState, code: KeyCode) -> Effect {
        state.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn reading() -> Reading {
        Reading { counters: sample::metrics(), sources: None }
    }

    #[test]
    fn keys_change_the_view_the_order_and_the_filter() {
        let mut state = TopState::new(View::Rules);
        assert_eq!(press(&mut state, KeyCode::Char('4')), Effect::None);
        assert_eq!(state.view, View::Workers);
        press(&mut state, KeyCode::BackTab);
        assert_eq!(state.view, View::Doors);
        assert_eq!(press(&mut state, KeyCode::Char('6')), Effect::Read);
        press(&mut state, KeyCode::Tab);
        assert_eq!(state.view, View::Rules);
        press(&mut state, KeyCode::Char('n'));
        press(&mut state, KeyCode::Char('r'));
        assert_eq!((state.order, state.is_reversed), (Order::Name, true));
        press(&mut state, KeyCode::Char('/'));
        for letter in "q1x".chars() {
            assert_eq!(press(&mut state, KeyCode::Char(letter)), Effect::None);
        }
        press(&mut state, KeyCode::Backspace);
        press(&mut state, KeyCode::Enter);
        assert_eq!((state.filter.as_str(), state.view), ("q1", View::Rules));
        press(&mut state, KeyCode::Esc);
        assert_eq!(state.filter, "");
        press(&mut state, KeyCode::Char('/'));
        (0..100).for_each(|_| _ = press(&mut state, KeyCode::Char('x')));
        assert_eq!(state.filter.len(), LONGEST_FILTER);
        assert_eq!(state.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Effect::Quit);
        press(&mut state, KeyCode::Esc);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Effect::Quit);
    }

    #[test]
    fn a_lost_connection_keeps_the_rates_and_a_restart_is_told_for_a_while() {
        let mut state = TopState::new(View::Rules);
        state.take(Ok(reading()));
        state.take(Err(Failed::new(Exit::Unreachable, "first\nsecond")));
        let problem = state.problem.clone().unwrap();
        assert!(problem.ends_with(": first") && state.top.is_some(), "{problem}");
        state.take(Err(Failed::new(Exit::Unreachable, "later")));
        assert_eq!(state.problem, Some(problem), "since the first failure");
        let mut again = reading();
        again.counters.started += Duration::from_secs(1);
        state.take(Ok(again.clone()));
        assert!(state.problem.is_none() && state.has_restarted());
        (0..RESTART_SHOWN).for_each(|_| state.take(Ok(again.clone())));
        assert!(!state.has_restarted());
    }

    #[test]
    fn the_first_row_leaves_no_empty_room() {
        let mut state = TopState::new(View::Rules);
        state.take(Ok(reading()));
        (0..50).for_each(|_| _ = press(&mut state, KeyCode::Down));
        assert_eq!(
            (state.first(100, 10), state.first(8, 5), state.first(3, 10), state.first(0, 0)),
            (state.offset, 3, 0, 0)
        );
        (0..50).for_each(|_| _ = press(&mut state, KeyCode::Up));
        assert_eq!(state.first(100, 10), 0);
    }
}
