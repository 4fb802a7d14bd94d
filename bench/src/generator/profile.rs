//! The loads, by name.

use std::fmt;
use std::str::FromStr;

use anyhow::Context as _;

/// Kinds of frames. Ports and addresses are those of the [`Spec`](super::Spec).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// One UDP flow, with constant addresses and ports: the best case of forwarding through an open door.
    Flow,
    /// This many UDP flows of one source, with different source ports, in turns.
    Flows(u16),
    /// UDP from one source to random ports: a scan.
    RandomPorts,
    /// A TCP SYN to a closed port from each source of the prefix, in sequence.
    SourcesSequential,
    /// The same from random sources of the prefix: a spoofed flood.
    SourcesRandom,
    /// From each source of the prefix, in sequence, a TCP SYN to each of the knock ports: all sources are admitted.
    Knock,
    /// From each source of the prefix, in sequence, a TCP SYN to the first knock port: all begin to knock, and none sends the
    /// second knock.
    FirstKnocks,
    /// Of a hundred frames 90 like `Flow`, 9 like `RandomPorts`, and one like `FirstKnocks`.
    Mix,
}

impl Profile {
    /// Every profile, for lists and tests.
    pub const ALL: [Profile; 8] = [
        Profile::Flow,
        Profile::Flows(DEFAULT_FLOWS),
        Profile::RandomPorts,
        Profile::SourcesSequential,
        Profile::SourcesRandom,
        Profile::Knock,
        Profile::FirstKnocks,
        Profile::Mix,
    ];

    /// Whether its frames have more than one source, so that a prefix is needed.
    pub const fn varies_source(self) -> bool {
        matches!(
            self,
            Profile::SourcesSequential | Profile::SourcesRandom | Profile::Knock | Profile::FirstKnocks | Profile::Mix
        )
    }

    /// Whether some of its frames are TCP.
    pub const fn has_tcp(self) -> bool {
        self.varies_source()
    }

    const fn name(self) -> &'static str {
        match self {
            Profile::Flow => "flow",
            Profile::Flows(_) => "flows",
            Profile::RandomPorts => "random-ports",
            Profile::SourcesSequential => "sources-sequential",
            Profile::SourcesRandom => "sources-random",
            Profile::Knock => "knock",
            Profile::FirstKnocks => "first-knocks",
            Profile::Mix => "mix",
        }
    }
}

/// Number of flows of `flows` without a number.
const DEFAULT_FLOWS: u16 = 1000;

/// The number of source ports that are not well known.
const MOST_FLOWS: u16 = u16::MAX - super::streams::FIRST_SOURCE_PORT + 1;

impl FromStr for Profile {
    type Err = anyhow::Error;

    /// A name; for `flows` also `flows:N`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(number) = text.strip_prefix("flows:") {
            let flows = number.parse().ok().filter(|flows| (1..=MOST_FLOWS).contains(flows));
            return flows.map(Profile::Flows).with_context(|| format!("flows:N, with N from 1 to {MOST_FLOWS}"));
        }
        let found = Profile::ALL.into_iter().find(|profile| profile.name() == text);
        found.with_context(|| {
            let names = Profile::ALL.map(Profile::name).join(", ");
            format!("there is no profile {text}, but {names}")
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Profile::Flows(flows) => write!(f, "flows:{flows}"),
            profile => f.write_str(profile.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse::<Profile>().expect("its own name"), profile);
        }
        assert_eq!("flows".parse::<Profile>().expect("a default"), Profile::Flows(DEFAULT_FLOWS));
        for wrong in ["", "flood", "flows:", "flows:0", "flows:64513", "mix:2"] {
            wrong.parse::<Profile>().expect_err(wrong);
        }
    }
}
