//! Passphrases from standard input, for steps that end in `=`.
//!
//! Whoever may list this machine's processes reads its command lines, and shells keep them. Standard input is seen by
//! nobody else.

use std::io::{self, BufRead, IsTerminal, Read};

use crate::plan::UsageError;
use crate::step::MAX_PASSPHRASE_LEN;

/// Adds a line of standard input to each step that ends in `=`, in order. A terminal is asked for each, without showing it.
///
/// # Errors
/// If no step ends so, if a line is missing or empty, or if standard input cannot be read.
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
    // `icmp=` misses a size.
    let incomplete = |step: &[u8]| {
        step.ends_with(b"=") && step.iter().filter(|byte| **byte == b'=').count() == 1 && step != b"icmp="
    };
    if !steps.iter().any(|step| incomplete(step)) {
        return Err(
            UsageError::new("--passphrase-stdin: no step waits for a passphrase; write one as `4321:udp=`").into()
        );
    }
    for (index, step) in steps.iter_mut().enumerate().filter(|(_, step)| incomplete(step)) {
        let number = index + 1;
        let passphrase = next(number).map_err(|error| {
            anyhow::anyhow!("cannot read the passphrase of step {number} from standard input: {error}")
        })?;
        if passphrase.is_empty() {
            let text = format!(
                "step {number}: standard input has no passphrase for it; write one line for each step that ends in `=`"
            );
            return Err(UsageError::new(&text).into());
        }
        step.extend(passphrase);
    }
    Ok(())
}

/// The next line without its end, LF or CR LF; empty at the end of the input. At most as much as shows that it is too long
/// for a datagram, which the step says then.
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
    fn lines_go_to_the_steps_that_wait_for_them_in_order() {
        let steps = completed(&["1", "2:udp=", "3:udp=x", "icmp=", "4:udp="], b"a=b \xff\r\nsecond\nunused").unwrap();
        assert_eq!(steps, [&b"1"[..], b"2:udp=a=b \xff", b"3:udp=x", b"icmp=", b"4:udp=second"]);
        assert_eq!(completed(&["2:udp="], b"without an end").unwrap(), [b"2:udp=without an end"]);
    }

    #[test]
    fn a_missing_passphrase_is_told_with_its_step() {
        for input in [&b"one\n"[..], b"one\n\nthree\n"] {
            let error = completed(&["2:udp=", "1", "4:udp="], input).unwrap_err();
            assert!(error.contains("step 3"), "{error}");
        }
        let error = completed(&["1", "3:udp=x"], b"one\n").unwrap_err();
        assert!(error.contains("no step waits"), "{error}");
    }

    #[test]
    fn a_line_without_an_end_is_not_read_for_ever() {
        let steps = completed(&["1:udp="], &vec![b'x'; 1 << 20]).unwrap();
        assert!(steps[0].len() > MAX_PASSPHRASE_LEN && steps[0].len() < MAX_PASSPHRASE_LEN + 20);
    }
}
