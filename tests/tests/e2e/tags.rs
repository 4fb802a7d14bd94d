//! Hosts in VLANs or in a PPPoE session, by eBPF programs at their interface, because not every kernel has interfaces
//! for them.

use std::path::Path;

use knockplane_tests::{Namespace, Topology};

/// A VLAN tag: its type and its VLAN.
pub(crate) type Tag = (u16, u16);

/// Tag types of customers, and of providers (802.1ad).
pub(crate) const CUSTOMER: u16 = 0x8100;
pub(crate) const PROVIDER: u16 = 0x88a8;

/// The PPPoE session of [`use_session`].
pub(crate) const SESSION: u16 = 0x1234;

/// Makes a host add these VLAN tags, the outer one first, to its sent frames, and remove as many tags from received
/// ones.
pub(crate) fn speak_in_vlans(host: &Namespace, tags: &[Tag], folder: &Path) {
    let _ = host.run("tc qdisc del dev eth0 clsact");
    if tags.is_empty() {
        return;
    }
    // A type is in network byte order.
    let push = |(kind, vlan): &Tag| format!("push(frame, {:#x}, {vlan}); ", kind.to_be());
    let (pushes, pops): (String, String) = (tags.iter().rev().map(push).collect(), "pop(frame); ".repeat(tags.len()));
    let programs = format!(
        r#"
static long (*push)(void *, unsigned short, unsigned short) = (void *)18;
static long (*pop)(void *) = (void *)19;
__attribute__((section("out"), used)) int tags_out(void *frame) {{ {pushes} return 0; }}
__attribute__((section("in"), used)) int tags_in(void *frame) {{ {pops} return 0; }}
"#
    );
    let object = compiled(host, "tags", &programs, folder);
    run(host, "tc qdisc add dev eth0 clsact");
    run(host, &format!("tc filter add dev eth0 egress bpf direct-action object-file {object} section out"));
    run(host, &format!("tc filter add dev eth0 ingress bpf direct-action object-file {object} section in"));
}

/// Both hosts of a wire.
pub(crate) fn both_speak_in_vlans(topology: &Topology, tags: &[Tag], folder: &Path) {
    [&topology.client, &topology.server].iter().for_each(|host| speak_in_vlans(host, tags, folder));
}

/// Wraps the IPv4 packets of both hosts in a PPPoE session, and unwraps received ones. There is no ARP in a session:
/// the hosts have static neighbours.
pub(crate) fn both_use_session(topology: &Topology, folder: &Path) {
    const PROGRAMS: &str = r#"
struct skb { unsigned len, type, mark, queue, protocol; };
struct xdp { unsigned data, end; };
struct __attribute__((packed)) header { unsigned char type[2], version, code, session[2], length[2], protocol[2]; };
static long (*load)(void *, unsigned, void *, unsigned) = (void *)26;
static long (*store)(void *, unsigned, const void *, unsigned, unsigned long long) = (void *)9;
static long (*room)(void *, int, unsigned, unsigned long long) = (void *)50;
static long (*head)(void *, int) = (void *)44;
__attribute__((section("out"), used)) int session_out(struct skb *frame) {
    unsigned length = frame->len - 14 + 2;
    struct header header = { {0x88, 0x64}, 0x11, 0, {0x12, 0x34}, {length >> 8, length}, {0, 0x21} };
    unsigned char type[2];
    if (load(frame, 12, type, 2)) return 2;
    if (type[0] == 0x88) return 0; /* what a test sends as it is */
    if (type[0] != 0x08 || type[1] != 0x00) return 2;
    if (room(frame, 8, 1 /* behind Ethernet */, 0)) return 2;
    store(frame, 12, &header, sizeof header, 0);
    return 0;
}
__attribute__((section("xdp"), used)) int session_in(struct xdp *frame) {
    unsigned char *data = (void *)(long)frame->data, addresses[12];
    if (data + 22 > (unsigned char *)(long)frame->end || data[12] != 0x88 || data[13] != 0x64) return 1;
    __builtin_memcpy(addresses, data, 12);
    if (head(frame, 8)) return 1;
    data = (void *)(long)frame->data;
    if (data + 14 > (unsigned char *)(long)frame->end) return 1;
    __builtin_memcpy(data, addresses, 12);
    data[12] = 0x08;
    data[13] = 0x00;
    return 2;
}
"#;
    for (host, other, address) in [
        (&topology.client, &topology.server, knockplane_tests::SERVER),
        (&topology.server, &topology.client, knockplane_tests::CLIENT),
    ] {
        let object = compiled(host, "session", PROGRAMS, folder);
        run(host, "tc qdisc add dev eth0 clsact");
        run(host, &format!("tc filter add dev eth0 egress bpf direct-action object-file {object} section out"));
        run(host, &format!("ip link set dev eth0 xdpgeneric object {object} section xdp"));
        run(host, &format!("ip route replace {address}/32 dev eth0 mtu 1492"));
        run(host, &format!("ip neigh replace {address} lladdr {} dev eth0 nud permanent", mac(other)));
    }
}

fn mac(host: &Namespace) -> String {
    let link = host.ip("-o link show eth0").expect("the interface");
    let (_, mac) = link.split_once("link/ether ").expect("an Ethernet address");
    mac.split_whitespace().next().expect("an Ethernet address").to_owned()
}

/// The object file of a program.
fn compiled(host: &Namespace, name: &str, program: &str, folder: &Path) -> String {
    let [source, object] = ["c", "o"].map(|kind| folder.join(format!("{name}.{kind}")).display().to_string());
    std::fs::write(&source, program).expect("written");
    run(host, &format!("clang -O2 -g -target bpf -c {source} -o {object}"));
    object
}

fn run(host: &Namespace, line: &str) {
    let output = host.run(line).expect("the command can be run");
    assert!(output.ok(), "{line}: {output:?}");
}
