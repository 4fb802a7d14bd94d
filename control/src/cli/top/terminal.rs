//! The terminal of `top`: keys, signals, answers, and the restoration of the terminal at the end.

use std::io;
use std::thread;

use crossterm::event::{self, Event, KeyEventKind};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::state::{Effect, TopState};
use super::view::View;
use super::{Top, read, screen};
use crate::Exit;
use crate::cli::Failed;
use crate::cli::http::Client;

/// Events of the terminal that wait. A reader that is faster than the screen waits.
const EVENTS: usize = 64;

/// Restores the terminal when it is dropped, and also if the program fails.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = ratatui::try_restore();
    }
}

/// Shows the screen until the operator ends it.
///
/// # Errors
/// If the first request fails, or the terminal does.
pub(super) async fn run(client: &Client, command: &Top) -> Result<String, Failed> {
    let failed = |error: io::Error| Failed::new(Exit::Runtime, format!("the terminal cannot be used: {error}"));
    let mut state = TopState::new(command.view.unwrap_or(View::Rules));
    // The command does not wait for a daemon that does not answer the first request: the name of the socket may be wrong.
    state.take(Ok(read(client, state.view == View::Sources).await?));
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    let _restore = Restore;
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let mut events = events();
    let (answers, mut answered) = mpsc::channel(1);
    let mut ticks = interval_at(Instant::now() + command.interval, command.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_asking, mut left) = (false, command.count);
    loop {
        terminal.draw(|frame| screen::draw(frame, &state)).map_err(failed)?;
        let is_due = tokio::select! {
            () = any(&mut ends) => return Ok(String::new()),
            event = events.recv() => match event {
                // The terminal is gone.
                None => return Ok(String::new()),
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => match state.key(key) {
                    Effect::Quit => return Ok(String::new()),
                    effect => effect == Effect::Read,
                },
                // Every event draws the screen again, with its present size.
                Some(_) => false,
            },
            answer = answered.recv() => {
                is_asking = false;
                if let Some(answer) = answer.filter(|_| !state.is_paused) {
                    state.take(answer);
                    left = left.map(|left| left - 1);
                }
                if left == Some(0) {
                    return Ok(String::new());
                }
                false
            }
            _ = ticks.tick() => !state.is_paused,
        };
        if is_due && !is_asking {
            is_asking = true;
            let (client, answers, wants_sources) = (client.clone(), answers.clone(), state.view == View::Sources);
            tokio::spawn(async move {
                // The screen may have ended.
                let _ = answers.send(read(&client, wants_sources).await).await;
            });
        }
    }
}

/// Waits for any of these signals.
async fn any(signals: &mut [Signal]) {
    std::future::poll_fn(|context| match signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
        true => std::task::Poll::Ready(()),
        false => std::task::Poll::Pending,
    })
    .await;
}

/// The events of the terminal, until it is gone. The thread that reads them ends with the process.
fn events() -> Receiver<Event> {
    let (sender, receiver) = mpsc::channel(EVENTS);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
