//! The packet generator of `knockplane_bench::generator` as a program.

use std::io::{IsTerminal as _, stderr};
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::ensure;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use ipnet::IpNet;
use knockplane_bench::generator::{Generator, Mode, Profile, Spec, Summary, parse_mac, parse_prefix, parse_rate};
use knockplane_ring::Device;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Sends frames out of an interface: the typical loads of a port-knocking firewall.
///
/// Profiles:
///   flow                one UDP flow
///   flows:N             N UDP flows of one source, by source port
///   random-ports        UDP from one source to random ports
///   sources-sequential  a TCP SYN to a closed port from each source, in sequence
///   sources-random      the same from random sources
///   knock               from each source a TCP SYN to each knock port, so that all sources are admitted
///   first-knocks        from each source a TCP SYN to the first knock port
///   mix                 90 % flow, 9 % random-ports, 1 % first-knocks
#[derive(Parser)]
#[command(name = "knockplane-generate", version, verbatim_doc_comment)]
struct Arguments {
    /// The interface that sends the frames.
    interface: String,
    /// The kind of frames, see above.
    #[arg(long)]
    profile: Profile,
    /// live: frames are made in the kernel, which is fastest; the other end of a veth needs an XDP program or GRO. xsk: from
    /// userspace, by AF_XDP.
    #[arg(long, default_value = "live")]
    mode: Mode,
    /// Frames a second, such as 100k or 1.5M. Without it, the highest possible rate.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<u64>,
    /// Bytes of each frame, without the checksum of Ethernet: 60 to 1514. Without it, 64, or more if the headers need more.
    #[arg(long)]
    frame_bytes: Option<usize>,
    /// End after this many frames.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this many seconds, or at --count, if that is earlier.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// The core to run on.
    #[arg(long)]
    core: Option<usize>,
    /// The source address, and the prefix of varying sources. Without it, 198.18.0.1/16 or 2001:2::1/64. With an IPv6 prefix
    /// shorter than /64, the networks vary.
    #[arg(long, value_parser = parse_prefix, value_name = "ADDRESS/PREFIX")]
    from: Option<IpNet>,
    /// The destination. Without it, 198.19.0.1 or 2001:2:0:1::1.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<IpAddr>,
    /// Link address of the next hop.
    #[arg(long, value_parser = parse_mac, value_name = "MAC", default_value = "02:00:00:00:00:01")]
    destination_mac: [u8; 6],
    /// Link address of the sender.
    #[arg(long, value_parser = parse_mac, value_name = "MAC", default_value = "02:00:00:00:00:02")]
    source_mac: [u8; 6],
    /// Destination port of flows, and the closed port.
    #[arg(long, default_value_t = 9)]
    port: u16,
    /// Up to four ports to knock at.
    #[arg(long, value_delimiter = ',', default_value = "1234,4321")]
    knock_ports: Vec<u16>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn spec(&self) -> Spec {
        Spec {
            mode: self.mode,
            rate: self.rate,
            frame_bytes: self.frame_bytes,
            count: self.count,
            duration: Duration::from_secs(self.seconds),
            source_mac: self.source_mac,
            destination_mac: self.destination_mac,
            port: self.port,
            knock_ports: self.knock_ports.clone(),
            ..Spec::new(self.profile)
        }
        .between(self.from, self.to)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let spec = arguments.spec();
    if let Err(error) = spec.checked_frame_bytes() {
        Arguments::command().error(ErrorKind::ValueValidation, error).exit();
    }
    match generate(&arguments, &spec) {
        Ok(summary) if arguments.json => {
            println!("{}", json(&summary));
            ExitCode::SUCCESS
        }
        Ok(summary) => {
            print!("{}", text(&summary));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("knockplane-generate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn generate(arguments: &Arguments, spec: &Spec) -> anyhow::Result<Summary> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    if let Some(id) = arguments.core {
        ensure!(core_affinity::set_for_current(core_affinity::CoreId { id }), "cannot run on core {id}");
    }
    let generator = Generator::new(&Device::open(&arguments.interface)?, spec)?;
    let shows_progress = stderr().is_terminal();
    generator.run_with(&stop, |so_far| {
        if shows_progress {
            eprintln!(
                "{:>6.1} s {:>14} frames {:>9}",
                so_far.elapsed.as_secs_f64(),
                so_far.frames,
                rate(so_far.rate())
            );
        }
    })
}

fn text(summary: &Summary) -> String {
    let Summary { profile, mode, frame_bytes, frames, transmitted, elapsed, runs: _ } = summary;
    let mut text = format!("{profile}, {mode}, frames of {frame_bytes} bytes\n");
    text += &format!("{frames} frames in {:.3} s: {}\n", elapsed.as_secs_f64(), rate(summary.rate()));
    if let Some(transmitted) = transmitted.filter(|transmitted| transmitted < frames) {
        text += &format!("{transmitted} of them left the interface: {}\n", rate(summary.transmitted_rate()));
    }
    text
}

fn rate(per_second: f64) -> String {
    if per_second < 1e6 { format!("{:.1} kpps", per_second / 1e3) } else { format!("{:.3} Mpps", per_second / 1e6) }
}

fn json(summary: &Summary) -> serde_json::Value {
    json!({
        "profile": summary.profile.to_string(),
        "mode": summary.mode.to_string(),
        "frame_bytes": summary.frame_bytes,
        "frames": summary.frames,
        "transmitted": summary.transmitted,
        "seconds": summary.elapsed.as_secs_f64(),
        "frames_per_second": summary.rate(),
        "transmitted_per_second": summary.transmitted_rate(),
    })
}
