//! The smallest possible AF_XDP forwarder, on the same rings as the dataplane: what comes in on one side goes out of
//! the other, unseen. What the dataplane takes longer than this is what it decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context as _;
use clap::Parser;
use knockplane_policy::packet::Side;
use knockplane_ring::{BATCH, Device, Disposition, Program, RingSettings, Rings, raise_memlock_limit};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Forwards every frame between two interfaces until SIGINT or SIGTERM.
#[derive(Parser)]
struct Arguments {
    outside: String,
    inside: String,
    /// The core to run on.
    #[arg(long)]
    core: usize,
    /// Drop instead.
    #[arg(long)]
    drop: bool,
    #[arg(long, default_value_t = 2048)]
    ring_size: u32,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut devices = [Device::open(&arguments.outside)?, Device::open(&arguments.inside)?];
    raise_memlock_limit();
    let mut programs = [Program::attach(&devices[0], 1)?, Program::attach(&devices[1], 1)?];
    for device in &mut devices {
        device.promiscuous()?;
    }
    let settings = RingSettings { ring_size: arguments.ring_size, max_frame: devices[0].mtu()? + 22, copy: false };
    let mut rings = Rings::bind([&devices[0], &devices[1]], 0, &settings)?;
    rings.connect(&mut programs, 0)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }
    core_affinity::set_for_current(core_affinity::CoreId { id: arguments.core });
    println!("ready");

    let disposition = if arguments.drop { Disposition::Drop } else { Disposition::Forward };
    while !stop.load(Relaxed) {
        let mut frames = 0;
        for side in Side::ALL {
            let count = rings.receive(side);
            if count > 0 {
                rings.settle(&mut [disposition; BATCH][..count]);
            }
            frames += count;
        }
        for side in Side::ALL {
            rings.kick(side);
        }
        if frames == 0 {
            rings.wait(100);
        }
    }
    Ok(())
}
