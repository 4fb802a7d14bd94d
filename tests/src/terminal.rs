//! A program in a pseudo-terminal: keys, the screen as text, its size, and the terminal's state afterwards.
//!
//! The screen is that of a VT100 parser, so that a test reads what an operator sees and not what was written.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// Time within which a screen must show what a test expects.
const PATIENCE: Duration = Duration::from_secs(15);

/// The keys of terminals that are no letters.
pub mod key {
    /// Enter.
    pub const ENTER: &str = "\r";
    /// Escape. A program waits a moment for the rest of another key.
    pub const ESCAPE: &str = "\x1b";
    /// Tab.
    pub const TAB: &str = "\t";
    /// Backspace.
    pub const BACKSPACE: &str = "\x7f";
    /// Ctrl-C.
    pub const CTRL_C: &str = "\x03";
    /// The arrow down.
    pub const DOWN: &str = "\x1b[B";
}

/// A program in a terminal. It is killed when this value is dropped.
pub struct Terminal {
    child: Child,
    master: File,
    /// Kept open, so that the state of the terminal can be read after the end of the program.
    slave: OwnedFd,
    parser: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts a command in a terminal of this size: rows, columns. It has no colours (NO_COLOR), and is the session leader
    /// of the terminal, as a shell is.
    ///
    /// # Errors
    /// If the terminal or the command cannot be started.
    pub fn start(command: &mut Command, (rows, columns): (u16, u16)) -> anyhow::Result<Terminal> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        tcsetwinsize(&master, size((rows, columns)))?;
        // util-linux's setsid makes the standard input the controlling terminal; then it becomes the command.
        let mut leader = Command::new("setsid");
        leader.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        leader.env("TERM", "xterm").env("NO_COLOR", "1");
        leader.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?);
        let child = leader.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let parser = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let mut output = File::from(master.try_clone()?);
        let screen = Arc::clone(&parser);
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                screen.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
            }
        });
        Ok(Terminal { child, master: File::from(master), slave, parser, reader: Some(reader) })
    }

    /// The process id of the program.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn parser(&self) -> MutexGuard<'_, vt100::Parser> {
        self.parser.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The screen: a line for each row, without blanks at the ends.
    pub fn screen(&self) -> String {
        let parser = self.parser();
        let screen = parser.screen();
        let (_, columns) = screen.size();
        screen.rows(0, columns).map(|row| format!("{}\n", row.trim_end())).collect()
    }

    /// Sends keys: text, or constants of [`key`].
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn send(&mut self, keys: &str) -> io::Result<()> {
        self.master.write_all(keys.as_bytes())
    }

    /// Changes the size: rows, columns. The program gets a signal.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn resize(&self, (rows, columns): (u16, u16)) -> anyhow::Result<()> {
        self.parser().screen_mut().set_size(rows, columns);
        Ok(tcsetwinsize(&self.master, size((rows, columns)))?)
    }

    /// Waits until the screen is as expected, and returns it.
    ///
    /// # Errors
    /// If it is not in time, with the screen, or if the program has ended.
    pub fn wait_for(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return Ok(screen);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{what}: the program has ended with {status}:\n{screen}");
            }
            if Instant::now() > patience {
                bail!("{what}: not within {PATIENCE:?}:\n{screen}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of the program, which must succeed, and returns the screen with all of its output.
    ///
    /// # Errors
    /// If it fails or does not end in time.
    pub fn wait_for_output(&mut self) -> anyhow::Result<String> {
        let status = self.wait()?;
        // Output is in the terminal when the program has ended, and in the parser a moment later: until two looks agree.
        let mut screen = self.screen();
        loop {
            thread::sleep(Duration::from_millis(100));
            let next = self.screen();
            if next == screen {
                break;
            }
            screen = next;
        }
        if !status.success() {
            bail!("the program has ended with {status}:\n{screen}");
        }
        Ok(screen)
    }

    /// Waits for the end of the program.
    ///
    /// # Errors
    /// If it does not end in time, with the screen.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the program does not end:\n{}", self.screen())
    }

    /// Whether the terminal is as a shell expects it: with line editing, echo and a cursor, and not in the alternate screen.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn is_restored(&self) -> anyhow::Result<bool> {
        let modes = tcgetattr(&self.slave)?.local_modes;
        let parser = self.parser();
        let screen = parser.screen();
        let is_cooked = modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        Ok(is_cooked && !screen.alternate_screen() && !screen.hide_cursor())
    }
}

impl Terminal {
    /// Waits until the terminal is restored: the parser reads the last output of a program a moment after its end.
    ///
    /// # Errors
    /// If it is not restored in time, with the screen.
    pub fn wait_until_restored(&self) -> anyhow::Result<()> {
        let patience = Instant::now() + PATIENCE;
        while !self.is_restored()? {
            if Instant::now() > patience {
                bail!("the terminal is not restored:\n{}", self.screen());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The program may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The thread ends with the process: it waits until all ends of the terminal are closed, and one is in this value.
        drop(self.reader.take());
    }
}

const fn size((rows, columns): (u16, u16)) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The text with `#` for each number, so that a page with it is the same after each run.
///
/// A number behind two blanks or more, as in a table, keeps its last column. Elsewhere it is one `#`, and so are groups of
/// digits and times such as `1m30s`. IPv4 addresses stay. Lines whose text begins with one of `kept` stay as they are.
pub fn masked(screen: &str, kept: &[&str]) -> String {
    let mask = |line: &str| {
        let is_kept = kept.iter().any(|start| line.trim_start().starts_with(start));
        if is_kept { line.to_owned() } else { masked_line(line) }
    };
    screen.lines().map(|line| mask(line).trim_end().to_owned() + "\n").collect()
}

fn masked_line(line: &str) -> String {
    let letters: Vec<char> = line.chars().collect();
    let (mut text, mut at) = (String::new(), 0);
    while let Some(letter) = letters.get(at) {
        let blanks = letters[..at].iter().rev().take_while(|letter| **letter == ' ').count();
        let is_in_word = at > 0 && letters[at - 1].is_alphabetic();
        if !letter.is_ascii_digit() {
            text.push(*letter);
            at += 1;
            continue;
        }
        let begin = at;
        let is_digit = |at: usize| letters.get(at).is_some_and(char::is_ascii_digit);
        while is_digit(at) || (letters.get(at) == Some(&'.') && is_digit(at + 1)) {
            at += 1;
        }
        if letters[begin..at].iter().filter(|letter| **letter == '.').count() == 3 {
            // An address.
            text.extend(&letters[begin..at]);
            continue;
        }
        // Groups of a thousand, units, and times.
        loop {
            let next = letters.get(at..).unwrap_or_default();
            let digits =
                |from: usize| next[from.min(next.len())..].iter().take_while(|letter| letter.is_ascii_digit()).count();
            match next {
                [' ', ..] if digits(1) == 3 => at += 4,
                ['s' | 'm' | 'h' | 'd', ..] if !is_in_word && digits(1) > 0 => at += 1 + digits(1),
                _ => break,
            }
        }
        while !is_in_word
            && letters.get(at).is_some_and(|letter| "kMGTPsmhd".contains(*letter))
            && letters.get(at + 1).is_none_or(|letter| !letter.is_alphanumeric())
        {
            at += 1;
        }
        if blanks >= 2 {
            text += &" ".repeat(at - begin - 1);
        }
        text.push('#');
    }
    text
}

#[cfg(test)]
mod tests {

    #[test]
    fn numbers_are_masked_and_columns_stay() {
        for (line, masked) in [
            ("up 1m30s, generation 3, rates over 1.0 s", "up #, generation #, rates over # s"),
            ("ip filter 0  input  1250  75.0k  x", "ip filter #  input     #      #  x"),
            ("ip filter 0  input   250   7.0k  x", "ip filter #  input     #      #  x"),
            ("carried 14 100 549 frames", "carried # frames"),
            ("/tmp/kp1234-0-filter", "/tmp/kp#-#-filter"),
            ("10.77.0.1  50 %", "10.77.0.1   # %"),
            ("1. a link", "#. a link"),
        ] {
            assert_eq!(super::masked(line, &[]), format!("{masked}\n"), "{line}");
        }
        assert_eq!(super::masked(" [1 rules]  2 lists", &["[1"]), " [1 rules]  2 lists\n");
    }
}
