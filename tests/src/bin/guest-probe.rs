//! The client and server of the guests of `make vm`: frames inside frames, and an echo of every frame size.
//!
//! It runs inside the guests that `tests/vm` boots, where there is no tcpdump and no Python.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};

/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;

/// The beginning of an inner frame's payload.
const MARK: &[u8] = b"NESTED\n";

/// The datagram that ends a count.
const STOP: &[u8] = b"STOP\n";

/// Time after which an echo is requested again.
const ECHO_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Sends UDP datagrams to port 5555 whose payloads contain another frame.
    Nested(Nested),
    /// Sends datagrams to port 9 with the same beginning as inner frames: `count` counts them.
    Marked {
        #[arg(long)]
        from: Ipv4Addr,
        #[arg(long)]
        to: Ipv4Addr,
        #[arg(long, default_value_t = 5)]
        count: usize,
    },
    /// Echoes every UDP datagram.
    Echo { listen: SocketAddr },
    /// Counts datagrams with the beginning of inner frames until `stop`, and prints the number.
    Count { listen: SocketAddr },
    /// Counts datagrams of the kernel's packet generator until `stop`, and prints the numbers of datagrams and of
    /// duplicates.
    CountLoad { listen: SocketAddr },
    /// Ends a `count` or `count-load` at that address.
    Stop { at: SocketAddr },
    /// Requests an echo of each frame size from 60 bytes to that of the MTU, and fails if one is lost.
    Sizes {
        bind: SocketAddr,
        to: SocketAddr,
        #[arg(long, default_value_t = 1500)]
        mtu: usize,
        #[arg(long, default_value_t = 1)]
        step: usize,
    },
}

#[derive(clap::Args)]
struct Nested {
    /// The source address: an address outside.
    #[arg(long)]
    from: Ipv4Addr,
    /// The server.
    #[arg(long)]
    to: Ipv4Addr,
    /// The source address of the inner frame: one with an open door.
    #[arg(long)]
    inner_from: Ipv4Addr,
    /// Hardware address of the server, as 12 hexadecimal digits.
    #[arg(long, value_parser = hardware)]
    server_mac: [u8; 6],
    /// The byte of the outer frame at which the inner one begins.
    #[arg(long)]
    offset: usize,
    /// Bytes of the inner frame.
    #[arg(long, default_value_t = 490)]
    inner_bytes: usize,
    #[arg(long, value_enum, default_value = "udp")]
    kind: Kind,
    #[arg(long, default_value_t = 5)]
    count: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// UDP to port 9 of the server.
    Udp,
    /// An ARP reply that assigns the inner address to another machine.
    Arp,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Nested(nested) => send_nested(&nested),
        Task::Marked { from, to, count } => send_marked(from, to, count),
        Task::Echo { listen } => echo(listen),
        Task::Count { listen } => count(listen),
        Task::CountLoad { listen } => count_load(listen),
        Task::Stop { at } => stop(at),
        Task::Sizes { bind, to, mtu, step } => sizes(bind, to, mtu, step),
    }
}

fn hardware(text: &str) -> Result<[u8; 6], String> {
    let number = u64::from_str_radix(text, 16).map_err(|error| error.to_string())?;
    let bytes = number.to_be_bytes();
    Ok([bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

fn send_nested(nested: &Nested) -> anyhow::Result<()> {
    let inner = match nested.kind {
        Kind::Udp => inner_udp(nested),
        Kind::Arp => inner_arp(nested),
    };
    let before = nested.offset.checked_sub(HEADERS).context("the inner frame begins behind the outer headers")?;
    let mut payload = vec![b'x'; before];
    payload.extend_from_slice(&inner);
    let socket = UdpSocket::bind((nested.from, 0))?;
    for _ in 0..nested.count {
        socket.send_to(&payload, (nested.to, 5555)).with_context(|| format!("{} bytes", payload.len()))?;
        // The pause ensures that no part of a frame can be read as a part of the next one.
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn send_marked(from: Ipv4Addr, to: Ipv4Addr, count: usize) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((from, 0))?;
    for _ in 0..count {
        socket.send_to(MARK, (to, 9))?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn inner_udp(nested: &Nested) -> Vec<u8> {
    let ip_bytes = nested.inner_bytes - 14;
    let mut frame = Vec::with_capacity(nested.inner_bytes);
    frame.extend_from_slice(&nested.server_mac);
    frame.extend_from_slice(&[0x52, 0x54, 0, 0, 0, 3, 8, 0]);
    let mut ip = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ip[2..4].copy_from_slice(&(ip_bytes as u16).to_be_bytes());
    ip[12..16].copy_from_slice(&nested.inner_from.octets());
    ip[16..20].copy_from_slice(&nested.to.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&ip);
    // Ports 1025 and 9, and no checksum (RFC 768).
    frame.extend_from_slice(&[4, 1, 0, 9]);
    frame.extend_from_slice(&((ip_bytes - 20) as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(MARK);
    frame.resize(nested.inner_bytes, b'y');
    frame
}

fn inner_arp(nested: &Nested) -> Vec<u8> {
    let other = [0x52, 0x54, 0, 0, 0, 0x99];
    let mut frame = nested.server_mac.to_vec();
    frame.extend_from_slice(&other);
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend_from_slice(&other);
    frame.extend_from_slice(&nested.inner_from.octets());
    frame.extend_from_slice(&nested.server_mac);
    frame.extend_from_slice(&nested.to.octets());
    frame.resize(nested.inner_bytes, 0);
    frame
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn echo(listen: SocketAddr) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        // The server continues if a client has ended.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

fn count(listen: SocketAddr) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    let (mut buffer, mut frames) = (vec![0; 65_536], 0);
    loop {
        let (length, _) = socket.recv_from(&mut buffer)?;
        if &buffer[..length] == STOP {
            println!("{frames}");
            return Ok(());
        }
        frames += usize::from(buffer[..length].starts_with(MARK));
    }
}

/// The generator numbers its datagrams: a magic number, then a sequence number (`struct pktgen_hdr`, Linux
/// `net/core/pktgen.c`).
fn count_load(listen: SocketAddr) -> anyhow::Result<()> {
    const MAGIC: [u8; 4] = 0xbe9b_e955_u32.to_be_bytes();
    let socket = UdpSocket::bind(listen)?;
    let (mut buffer, mut seen, mut repeated) = (vec![0; 65_536], HashSet::new(), 0);
    loop {
        let (length, _) = socket.recv_from(&mut buffer)?;
        match &buffer[..length] {
            STOP => {
                println!("{} {repeated}", seen.len() + repeated);
                return Ok(());
            }
            datagram if length >= 8 && datagram.starts_with(&MAGIC) => {
                repeated += usize::from(!seen.insert(datagram[4..8].to_vec()));
            }
            _ => {}
        }
    }
}

fn stop(at: SocketAddr) -> anyhow::Result<()> {
    UdpSocket::bind("0.0.0.0:0")?.send_to(STOP, at)?;
    Ok(())
}

fn sizes(bind: SocketAddr, to: SocketAddr, mtu: usize, step: usize) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(bind)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(ECHO_PATIENCE))?;
    let headers = if to.is_ipv6() { HEADERS + 20 } else { HEADERS };
    let (mut lost, mut tried) = (Vec::new(), 0);
    let largest = mtu + 14;
    for size in (60.max(headers + 1)..=largest).step_by(step).chain([largest]) {
        tried += 1;
        if !echoed(&socket, size - headers) {
            lost.push(size);
        }
        // This number shows the pattern. Each further loss takes seconds.
        if lost.len() == 8 {
            break;
        }
    }
    if lost.is_empty() {
        println!("{tried} sizes up to {largest} bytes");
        return Ok(());
    }
    bail!("{} of {tried} sizes did not come back: {lost:?}", lost.len());
}

/// Whether a datagram of this length is echoed unchanged. Three attempts: emulated NICs lose one occasionally.
fn echoed(socket: &UdpSocket, length: usize) -> bool {
    (0..3).any(|attempt: u8| {
        let sent: Vec<u8> = (0..length).map(|index| (index + length) as u8 ^ attempt).collect();
        let mut received = [0; 65_536];
        if socket.send(&sent).is_err() {
            return false;
        }
        // Late echoes of earlier datagrams are ignored.
        while let Ok(count) = socket.recv(&mut received) {
            if received[..count] == sent {
                return true;
            }
        }
        false
    })
}
