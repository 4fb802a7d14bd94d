//! `knockctl explain-source`: the state of one address in the dataplane, and the reasons that its knocks do not count.
//!
//! | file      | owns |
//! |-----------|------|
//! | `mod.rs`  | the command line, and the request |
//! | `why.rs`  | the causes that keep the source out, with the remedies |
//! | `text.rs` | the answer as text |

mod text;
mod why;

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use knockplane_policy::time::format_duration;
use knockplane_policy::wire::source::{LONGEST_WATCH, Source};

pub(super) use self::text::{end, short};
use super::http::Client;
use super::output::complain;
use super::{Failed, as_json, decode, document};
use crate::api::messages::{DEFAULT_SOURCE_LIMIT, Watch};
use crate::json::source as report;
use crate::{Exit, address, rules};

/// The command line.
#[derive(Debug, Args)]
pub(super) struct ExplainSource {
    /// The address: `198.51.100.7` or `2001:db8::7`
    #[arg(value_parser = Asked::parse)]
    address: Asked,
    /// Watch the address for so long first, at most 1h, and count every packet of it that is dropped meanwhile
    #[arg(long, value_name = "TIME", value_parser = watch_time)]
    watch: Option<Duration>,
    /// Show at most so many lists, connections and reasons
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SOURCE_LIMIT)]
    limit: usize,
}

/// An address, and its form in the command line.
#[derive(Clone, Debug)]
struct Asked {
    text: String,
    address: IpAddr,
}

impl Asked {
    fn parse(text: &str) -> Result<Asked, String> {
        Ok(Asked { text: text.to_owned(), address: address::single(text)? })
    }

    /// The first line of the answer, if the address was written in the form of another family.
    fn note(&self) -> String {
        match (self.text.contains(':'), self.address) {
            (true, IpAddr::V4(address)) => format!("{} is the IPv4 address {address}, written as IPv6\n", self.text),
            _ => String::new(),
        }
    }
}

fn watch_time(text: &str) -> Result<Duration, String> {
    let time = rules::timeout(text)?;
    if time > LONGEST_WATCH {
        return Err(format!("a source can be watched for {} at most", format_duration(LONGEST_WATCH)));
    }
    Ok(time)
}

/// Sends the request. If `--watch` is given, watches the address before.
pub(super) async fn run(client: &Client, command: ExplainSource, json: bool) -> Result<String, Failed> {
    let ExplainSource { address: asked, watch, limit } = command;
    let path = format!("/api/v1/sources/{}", asked.address);
    if let Some(time) = watch {
        let body = as_json(&Watch { time: format_duration(time) })?;
        client.send(Method::POST, &format!("{path}/watch"), Some(body)).await?;
        complain(format_args!("knockctl: watching {} for {}\n", asked.address, format_duration(time)));
        tokio::time::sleep(time).await;
    }
    let answer = client.get(&format!("{path}?limit={limit}")).await?;
    let source: Source = decode(&answer)?;
    if watch.is_some() && source.drops.watch.is_none() {
        let message = "the watch was cut short: another source was watched meanwhile, and only one can be at a time";
        let error = Failed::new(Exit::Runtime, message);
        let text = || asked.note() + &text::text(&source);
        return Err(if json { error.beside(report::Source::from(source)) } else { error.with_output(text()) });
    }
    if json {
        return document(report::Source::from(source));
    }
    Ok(asked.note() + &text::text(&source))
}
