//! Three network namespaces in a row, joined by two veth pairs, and their removal.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{Output, run};

/// The client's address.
pub const CLIENT: &str = "10.77.0.1";
/// The server's address.
pub const SERVER: &str = "10.77.0.2";
/// A second address of the client's interface: another source outside.
pub const VISITOR: &str = "10.77.0.3";
/// The IPv4 address of a host behind the client.
pub const FAR: &str = "10.88.0.2";
/// The IPv6 address of a host behind the client.
pub const FAR6: &str = "fd88::2";
/// The client's IPv6 address.
pub const CLIENT6: &str = "fd77::1";
/// The server's IPv6 address.
pub const SERVER6: &str = "fd77::2";

/// A network namespace, removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    fn make(name: String) -> anyhow::Result<Self> {
        checked(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Namespace { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside, and that the kernel kills when the thread that started it ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "setpriv", "--pdeathsig", "KILL"]).arg(program);
        command
    }

    /// Runs a command line inside, words separated by spaces.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, line: &str) -> anyhow::Result<Output> {
        let mut words = line.split_whitespace();
        run(self.command(words.next().context("an empty command line")?).args(words))
    }

    /// Runs `ip` inside, which must succeed.
    ///
    /// # Errors
    /// If it fails, with its output.
    pub fn ip(&self, arguments: &str) -> anyhow::Result<String> {
        checked(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// Writes a kernel setting (`/proc/sys`).
    ///
    /// # Errors
    /// If the setting does not exist.
    pub fn set(&self, setting: &str, value: &str) -> anyhow::Result<()> {
        self.within(|| fs::write(format!("/proc/sys/{setting}"), value).with_context(|| setting.to_owned()))
    }

    /// Runs code on a thread inside the namespace. Its sockets remain in the namespace.
    ///
    /// # Errors
    /// The error of the code, or if the namespace cannot be entered.
    pub fn within<T: Send>(&self, code: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                enter(&self.name)?;
                code()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Frames that an interface inside has sent and received, by its driver's counters.
    ///
    /// # Errors
    /// If the interface does not exist.
    pub fn traffic(&self, interface: &str) -> anyhow::Result<(u64, u64)> {
        let text = self.ip(&format!("-j -s link show dev {interface}"))?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let count = |direction: &str| json[0]["stats64"][direction]["packets"].as_u64().context("no such counter");
        Ok((count("tx")?, count("rx")?))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The kernel removes the interfaces together with the namespace. A separate check finds remaining namespaces
        // after an error.
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// Moves this thread into a namespace.
pub(crate) fn enter(name: &str) -> anyhow::Result<()> {
    let path = format!("/run/netns/{name}");
    let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// Client, filter and server.
#[derive(Debug)]
pub struct Topology {
    /// The host outside.
    pub client: Namespace,
    /// Has the interfaces `outside` and `inside`, without addresses.
    pub filter: Namespace,
    /// The host inside.
    pub server: Namespace,
    /// Receive queues of each interface.
    pub queues: u32,
}

impl Topology {
    /// Creates and configures the namespaces and interfaces, with this many queues each. With KNOCKPLANE_REDIRECTS in the
    /// environment, [`Topology::allow_redirects`] holds from the beginning, so that the kernel's fast path carries flows.
    ///
    /// # Errors
    /// Without root, or if a tool is missing; everything created so far is removed.
    pub fn new(queues: u32) -> anyhow::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        ensure!(rustix::process::geteuid().is_root(), "network namespaces need root; run this as root");
        let run = format!("kp{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let topology = Topology {
            client: Namespace::make(format!("{run}-client"))?,
            filter: Namespace::make(format!("{run}-filter"))?,
            server: Namespace::make(format!("{run}-server"))?,
            queues,
        };
        topology.silence()?;
        topology.join(&topology.client, "outside")?;
        topology.join(&topology.server, "inside")?;
        topology.client.ip(&format!("addr add {CLIENT}/24 dev eth0"))?;
        topology.client.ip(&format!("addr add {VISITOR}/24 dev eth0"))?;
        topology.server.ip(&format!("addr add {SERVER}/24 dev eth0"))?;
        if std::env::var_os("KNOCKPLANE_REDIRECTS").is_some() {
            topology.allow_redirects()?;
        }
        Ok(topology)
    }

    /// Gives client and server IPv6 addresses, usable at once.
    ///
    /// # Errors
    /// If the kernel has no IPv6.
    pub fn add_ipv6(&self) -> anyhow::Result<()> {
        for (namespace, address) in [(&self.client, CLIENT6), (&self.server, SERVER6)] {
            namespace.set("net/ipv6/conf/eth0/disable_ipv6", "0")?;
            namespace.ip(&format!("addr add {address}/64 dev eth0 nodad"))?;
        }
        Ok(())
    }

    /// A host with 1,500-byte links behind the client, which forwards to it over a link of this MTU; IPv4 and IPv6.
    ///
    /// # Errors
    /// If a part of it cannot be created.
    pub fn add_far_host(&self, mtu: u32) -> anyhow::Result<Namespace> {
        let far = Namespace::make(self.client.name().replace("-client", "-far"))?;
        let (client, name) = (&self.client, far.name());
        client.ip(&format!("link add eth1 type veth peer eth0 netns {name}"))?;
        self.add_ipv6()?;
        for (namespace, interface, last) in [(client, "eth1", 1), (&far, "eth0", 2)] {
            namespace.set(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
            namespace.ip(&format!("addr add 10.88.0.{last}/24 dev {interface}"))?;
            namespace.ip(&format!("addr add fd88::{last}/64 dev {interface} nodad"))?;
            namespace.ip(&format!("link set {interface} up"))?;
        }
        client.ip(&format!("link set eth1 mtu {mtu}"))?;
        client.set("net/ipv4/ip_forward", "1")?;
        client.set("net/ipv6/conf/all/forwarding", "1")?;
        far.ip("route add default via 10.88.0.1")?;
        far.ip("-6 route add default via fd88::1")?;
        self.server.ip(&format!("route add 10.88.0.0/24 via {CLIENT}"))?;
        self.server.ip(&format!("-6 route add fd88::/64 via {CLIENT6}"))?;
        Ok(far)
    }

    /// Lets the filter's interfaces send redirected frames: a veth interface can while its far end runs GRO.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn allow_redirects(&self) -> anyhow::Result<()> {
        for host in [&self.client, &self.server] {
            let line = "ethtool -K eth0 gro on";
            let done = host.run(line)?;
            ensure!(done.ok(), "{line}: {}", done.stderr);
        }
        Ok(())
    }

    /// Turns off IPv6, so that hosts send no unsolicited frames, and tests can count frames.
    fn silence(&self) -> anyhow::Result<()> {
        for namespace in [&self.client, &self.filter, &self.server] {
            // A namespace may inherit this from its host.
            namespace.set("net/ipv4/ip_forward", "0")?;
            for scope in ["all", "default"] {
                namespace.set(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
            }
        }
        Ok(())
    }

    /// A veth pair between `eth0` of a host and an interface of the filter.
    fn join(&self, host: &Namespace, interface: &str) -> anyhow::Result<()> {
        let queues = format!("numrxqueues {0} numtxqueues {0}", self.queues);
        let (host_name, filter) = (host.name(), self.filter.name());
        let add =
            format!("link add eth0 netns {host_name} {queues} type veth peer {interface} netns {filter} {queues}");
        checked(Command::new("ip").args(add.split_whitespace()))?;
        // A veth sender leaves checksums, segmentation and VLAN tags to its peer. XDP sees frames before that work is
        // done.
        let off = "ethtool -K eth0 tx off tso off gso off gro off txvlan off tx-vlan-stag-hw-insert off";
        let done = host.run(off)?;
        ensure!(done.ok(), "{off}: {}", done.stderr);
        host.ip("link set eth0 up")?;
        self.filter.ip(&format!("link set {interface} up"))?;
        Ok(())
    }
}

fn checked(command: &mut Command) -> anyhow::Result<String> {
    let output = run(command)?;
    ensure!(output.ok(), "{command:?} failed: {}{}", output.stdout, output.stderr);
    Ok(output.stdout)
}
