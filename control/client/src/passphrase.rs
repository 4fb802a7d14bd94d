//! Passphrases from standard input, for steps that end in `=`.
//!
//! Other users can read the command lines of this machine's processes, and shells keep a history of them. Standard input has
//! neither weakness.

use std::io::{self, BufRead, IsTerminal, Read};

use crate::plan::UsageError;
use crate::step::MAX_PASSPHRASE_LEN;

/// Appends a line of standard input to each step that ends in `=`, in order. On a terminal, prompts for each without echo.
///
/// # Errors
/// If no step ends in `=`, if a line is missing or empty, or if standard input cannot be read.
pub(crate) fn complete(steps: &mut [Vec<u8>]) -> anyhow::Result<()> {
    if io::stdin().is_terminal() {
        return complete_with(steps, |number| {
            rpassword::prompt_password(format!("passphrase of step {number}: ")).map(String::into_bytes)
        });
    }
    let mut input = io::stdin().lock();
    complete_with(steps, |_| line(&mut input))
}

fn complete_with(steps: &mut [Vec<u8>], mut next: impl FnMut(usize) -> io::Result<Vec<u8>>) -> anyhow::Result<()> {
    // `icmp=` lacks a size, not a passphrase.
    let incomplete = |step: &[u8]| {
        step.ends_with(b"=") && step.iter().filter(|byte| **byte == b'=').count() == 1 && step != b"icmp="
    };
    if !steps.iter().any(|step| incomplete(step)) {
        return Err(UsageError::new("--passphrase-stdin: no step ends in `=`; write one as `4321:udp=`").into());
    }
    for (index, step) in steps.iter_mut().enumerate().filter(|(_, step)| incomplete(step)) {
        let number = index + 1;
        let passphrase = next(number).map_err(|error| {
            anyhow::anyhow!("cannot read the passphrase of step {number} from standard input: {error}")
        })?;
        if passphrase.is_empty() {
            let text = format!(
                "step {number}: standard input has no passphrase for this step; write one line for each step that ends in `=`"
            );
            return Err(UsageError::new(&text).into());
        }
        step.extend(passphrase);
    }
    Ok(())
}

/// The next line without its LF or CR LF; empty at the end of the input. Reads only so much that the line is seen to be too
/// long for a datagram, which is an error of the step.
fn line(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(MAX_PASSPHRASE_LEN as u64 + 3).read_until(b'\n', &mut line)?;
    if line.pop_if(|byte| *byte == b'\n').is_some() {
        line.pop_if(|byte| *byte == b'\r');
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(steps: &[&str], input: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut steps: Vec<Vec<u8>> = steps.iter().map(|step| step.as_bytes().to_vec()).collect();
        let mut input = input;
        match complete_with(&mut steps, |_| line(&mut input)) {
            Ok(()) => Ok(steps),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn lines_are_appended_in_order_to_the_steps_without_a_passphrase() {
        let steps = completed(&["1", "2:udp=", "3:udp=x", "icmp=", "4:udp="], b"a=b \xff\r\nsecond\nunused").unwrap();
        assert_eq!(steps, [&b"1"[..], b"2:udp=a=b \xff", b"3:udp=x", b"icmp=", b"4:udp=second"]);
        assert_eq!(completed(&["2:udp="], b"without an end").unwrap(), [b"2:udp=without an end"]);
    }

    #[test]
    fn the_error_for_a_missing_passphrase_names_its_step() {
        for input in [&b"one\n"[..], b"one\n\nthree\n"] {
            let error = completed(&["2:udp=", "1", "4:udp="], input).unwrap_err();
            assert!(error.contains("step 3"), "{error}");
        }
        let error = completed(&["1", "3:udp=x"], b"one\n").unwrap_err();
        assert!(error.contains("no step ends in"), "{error}");
    }

    #[test]
    fn a_line_without_an_end_is_read_up_to_the_limit() {
        let steps = completed(&["1:udp="], &vec![b'x'; 1 << 20]).unwrap();
        assert!(steps[0].len() > MAX_PASSPHRASE_LEN && steps[0].len() < MAX_PASSPHRASE_LEN + 20);
    }
}
