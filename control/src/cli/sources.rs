//! The rules, settings and lists for the evaluation of packets: from files and the command line, or from the running
//! dataplane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use knockplane_limits::input;
use knockplane_policy::packet::{Packet, Side};
use knockplane_policy::rule::{EntryAddress, RuleSet};
use knockplane_policy::settings::Settings;
use knockplane_policy::wire;

use super::capture::{Capture, CaptureError, CaptureRecord, Captured, Other};
use super::http::Client;
use super::output::complain;
use super::table::printable;
use super::{Failed, check, decode, list};
use crate::api::messages::ListQuery;
use crate::bench::{self, Bench};
use crate::json::Document;
use crate::json::lists::ListsJson;
use crate::running::Running;
use crate::settings::policy;
use crate::{Exit, rules};

/// An address in a list, with or without a timeout: `secured=198.51.100.7` or `secured=198.51.100.7,10s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    list: String,
    address: IpAddr,
    timeout: Option<Duration>,
}

impl FromStr for Membership {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write LIST=ADDRESS or LIST=ADDRESS,TIME, as `secured=198.51.100.7,10s`";
        let (list, entry) = text.split_once('=').ok_or(form)?;
        let (address, timeout) = match entry.split_once(',') {
            Some((address, time)) => (address, Some(rules::timeout(time)?)),
            None => (entry, None),
        };
        let address = address.parse().map_err(|_| format!("`{address}` is no address: {form}"))?;
        Ok(Membership { list: list.to_owned(), address, timeout })
    }
}

/// The list entries at the start.
#[derive(Debug, Default, Args)]
pub(super) struct Given {
    /// A list entry at the start; can be given several times
    #[arg(long, value_name = "LIST=ADDRESS[,TIME]")]
    in_list: Vec<Membership>,
    /// A file with the output of `knockctl show lists --json`: the list entries at the start
    #[arg(long, value_name = "FILE")]
    lists: Option<PathBuf>,
}

impl Given {
    /// Adds the entries.
    pub(super) fn put(&self, bench: &mut Bench<'_>) -> Result<(), Failed> {
        if let Some(file) = &self.lists {
            let invalid = |why: String| Failed::new(Exit::Invalid, format!("{}: {why}", file.display()));
            let text = input::read(file, &input::SAVED_LISTS).map_err(|error| invalid(format!("it {error}")))?;
            let Document { content, .. } = serde_json::from_slice::<Document<ListsJson>>(&text)
                .map_err(|error| invalid(format!("it is not what `knockctl show lists --json` prints: {error}")))?;
            if content.truncated {
                return Err(invalid("it does not hold all entries: print it with a higher --limit".to_owned()));
            }
            for entry in content.entries {
                bench::put(&entry.try_into().map_err(invalid)?, bench);
            }
        }
        for Membership { list, address, timeout } in &self.in_list {
            bench.put(list, &(*address).into(), *timeout);
        }
        Ok(())
    }
}

/// The options that identify packets from inside. All other packets came from outside.
#[derive(Debug, Default, Args)]
pub(super) struct Inside {
    /// Packets from these addresses came from inside, or those captured on the interface of this name (pcapng); can be
    /// given several times. All others came from outside
    #[arg(long = "inside", value_name = "PREFIX|INTERFACE")]
    inside: Vec<Origin>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Net(IpNet),
    Interface(String),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match net {
            Ok(net) => Ok(Origin::Net(net)),
            Err(_) if text.contains('/') => Err(format!("`{text}` is no prefix: write one as `203.0.113.0/24`")),
            Err(_) => Ok(Origin::Interface(text.to_owned())),
        }
    }
}

impl Inside {
    /// The side from which a captured packet came. `packet` is `None` if rules do not evaluate the frame.
    pub(super) fn side(&self, captured: &Captured<'_>, packet: Option<&Packet<'_>>) -> Side {
        let is_inside = self.inside.iter().any(|origin| match origin {
            Origin::Net(net) => packet.is_some_and(|packet| net.contains(&packet.source)),
            Origin::Interface(name) => captured.interface.as_deref() == Some(name),
        });
        if is_inside { Side::Inside } else { Side::Outside }
    }

    /// Reads a capture, and checks that it has all named interfaces.
    pub(super) fn load(&self, file: &Path) -> Result<Capture, Failed> {
        let broken = |error: CaptureError| Failed::new(Exit::Runtime, format!("{}: {error}", file.display()));
        let capture = Capture::load(file).map_err(broken)?;
        self.check(&capture).map_err(|why| Failed::new(Exit::Usage, why))?;
        Ok(capture)
    }

    /// Checks that the capture has all named interfaces.
    fn check(&self, capture: &Capture) -> Result<(), String> {
        let mut missing: Vec<_> = self
            .inside
            .iter()
            .filter_map(|origin| match origin {
                Origin::Interface(name) => Some(name.as_str()),
                Origin::Net(_) => None,
            })
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let records = capture.records().map_err(|broken| broken.to_string())?.1;
        let known: Vec<_> = records
            .map_while(Result::ok)
            .filter_map(|record| match record {
                CaptureRecord::Other(Other { interface, .. }) => interface,
                CaptureRecord::Packet(_) => None,
            })
            .collect();
        missing.retain(|missing| known.iter().all(|known| **known != **missing));
        let Some(missing) = missing.first() else { return Ok(()) };
        let known = match &known[..] {
            [] => "names no interfaces; write a prefix, as `203.0.113.0/24`".to_owned(),
            known => format!("has {}", known.join(", ")),
        };
        Err(format!("`{missing}` is neither a prefix nor an interface of the capture, which {known}"))
    }
}

/// The rules of a file, if they are valid.
pub(super) fn rules_of(file: &Path, settings: &Settings, json: bool) -> Result<RuleSet, Failed> {
    let rules = check::one(file, settings, json)?;
    note_unknown_lists(&[&rules], |_, _| false);
    Ok(rules)
}

/// Prints a note if lists contain host names whose addresses are not known. `is_known` gets a list and a name.
pub(super) fn note_unknown_lists(rules: &[&RuleSet], is_known: impl Fn(&str, &str) -> bool) {
    if let Some(note) = unknown_lists(rules, is_known) {
        complain(note);
    }
}

/// A note that lists contain host names, which are not resolved offline; `None` if no list contains one.
fn unknown_lists(rules: &[&RuleSet], is_known: impl Fn(&str, &str) -> bool) -> Option<String> {
    let mut lists = BTreeMap::<&str, BTreeSet<&str>>::new();
    for entry in rules.iter().flat_map(|rules| &rules.address_lists).filter(|entry| !entry.disabled) {
        if let EntryAddress::Name(name) = &entry.address
            && !is_known(&entry.list, name)
        {
            lists.entry(&entry.list).or_default().insert(name);
        }
    }
    let lists: Vec<_> = lists
        .into_iter()
        .map(|(list, names)| {
            let names: Vec<_> = names.into_iter().collect();
            format!("`{}` ({})", printable(list), printable(&names.join(", ")))
        })
        .collect();
    (!lists.is_empty()).then(|| {
        format!(
            "note: the addresses in these lists are not completely known offline, because host names are in them: {}\n  \
             their addresses count as not in the list; give some with --in-list LIST=ADDRESS, or ask the running \
             dataplane\n",
            lists.join(", ")
        )
    })
}

/// The section `[policy]` of a configuration file; the defaults without one.
pub(super) fn settings_of(config: Option<&Path>) -> Result<Settings, Failed> {
    let Some(file) = config else { return Ok(Settings::default()) };
    policy::load(file).map_err(|invalid| Failed::new(Exit::Invalid, invalid.to_string()))
}

/// Requests the running rules, settings and list entries.
pub(super) async fn running(client: &Client) -> Result<Running, Failed> {
    let status: wire::DataplaneStatus = decode(&client.get("/api/v1/status").await?)?;
    let wire::RunningRules { source, rules, .. } = decode(&client.get("/api/v1/rules").await?)?;
    let lists = list::entries(client, ListQuery::default(), usize::MAX).await?;
    Ok(Running { source, rules, settings: status.settings, lists })
}

#[cfg(test)]
mod tests {
    use knockplane_policy::rsc;

    use super::*;

    #[test]
    fn lists_with_host_names_are_said_to_be_unknown_offline() {
        let note =
            |text: &str| unknown_lists(&[&rsc::read(text.as_bytes()).rules], |_, name| name == "known.example.net");
        let menu = "/ip firewall address-list\nadd list=a address=one.example.net\nadd list=a address=192.0.2.1\n";
        let told = note(&format!("{menu}add list=b address=two.example.net disabled=yes\n")).expect("a note");
        assert!(told.contains("`a` (one.example.net)") && !told.contains("two"), "{told}");
        assert_eq!(note("/ip firewall address-list\nadd list=a address=known.example.net\n"), None);
        assert_eq!(note("/ip firewall address-list\nadd list=a address=192.0.2.1\n"), None);
    }

    #[test]
    fn memberships_have_a_list_an_address_and_perhaps_a_time() {
        let parse = Membership::from_str;
        let address = "198.51.100.7".parse().unwrap();
        let expected = Membership { list: "secured".to_owned(), address, timeout: Some(Duration::from_secs(10)) };
        assert_eq!(parse("secured=198.51.100.7,10s"), Ok(expected.clone()));
        assert_eq!(parse("secured=198.51.100.7"), Ok(Membership { timeout: None, ..expected }));
        for text in ["secured", "secured=", "secured=host", "secured=198.51.100.7,soon"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_an_interface() {
        assert_eq!(Origin::from_str("192.0.2.0/24"), Ok(Origin::Net("192.0.2.0/24".parse().unwrap())));
        assert_eq!(Origin::from_str("2001:db8::7"), Ok(Origin::Net("2001:db8::7/128".parse().unwrap())));
        assert_eq!(Origin::from_str("eth0"), Ok(Origin::Interface("eth0".to_owned())));
        assert!(Origin::from_str("192.0.2.0/33").is_err());
    }
}
