//! The table of properties: every property of RouterOS for the filter and `raw` menus.
//!
//! A row has the parser of the value, its description in the language reference (meaning, grammar, example), the
//! differences from RouterOS, and the menus that have it. Source: RouterOS manual, Filter and RAW, and exports of
//! RouterOS 5 to 7.

use std::convert::identity;

use super::super::property::{Property, read_text, set};
use super::super::value;
use super::Draft;
use crate::packet::Family;
use crate::rule::Direction::{In, Out};
use crate::rule::{Condition, InterfaceKind, Mark};

type Row = Property<Draft>;

#[rustfmt::skip] // A row is what is looked at, not its arguments.
pub(in crate::rsc) const PROPERTIES: &[Row] = &[
    // Properties of every rule.
    Row::fixed("action", |rule, value| rule.read_action(value))
        .says("The action on a packet that the rule matches; the default is `accept`.", "action", "drop"),
    Row::fixed("chain", |rule, value| read_text(&mut rule.chain, value, value::chain_name))
        .says("The chain that the rule belongs to; names are compared exactly.", "name", "input")
        .differs("Whether a packet enters `input`, `output` or `forward` follows from which addresses are protected."),
    Row::optional("comment", |rule, value| set(&mut rule.comment, Ok(value::comment(value))))
        .says("Free text.", "text", "knock1"),
    Row::fixed("disabled", |rule, value| read_text(&mut rule.disabled, value, value::yes_no))
        .says("Keeps the rule without running it.", "yes|no", "yes"),
    Row::optional("log", |rule, value| read_text(&mut rule.log, value, value::yes_no))
        .says("Also logs every packet that the rule matches.", "yes|no", "yes"),
    Row::optional("log-prefix", |rule, value| set(&mut rule.log_prefix, value::log_prefix(value)))
        .says("The beginning of the log line, for `log=yes` and `action=log`.", "text", "knock1"),

    // Arguments of actions.
    Row::optional("address-list", |rule, value| read_text(&mut rule.list, value, value::list_name))
        .says("The list that `add-src-to-address-list` and `add-dst-to-address-list` add to.", "name", "knock1"),
    Row::optional("address-list-timeout", |rule, value| read_text(&mut rule.timeout, value, value::list_timeout))
        .says("Timeout of the address in the list; every matching packet renews it.", TIMEOUT, "1m30s"),
    Row::optional("hw-offload", |rule, value| rule.keep_inert("hw-offload", value, value::yes_no)).filter_only()
        .says("Whether hardware may forward the connections of `fasttrack-connection`.", "yes|no", "yes")
        .differs("It has no effect: there is no such hardware here."),
    Row::optional("jump-target", |rule, value| read_text(&mut rule.target, value, value::chain_name))
        .says("The chain that `jump` evaluates; a jump to a chain without rules has no effect.", "name", "knock"),
    Row::optional("reject-with", |rule, value| rule.read_answer(value))
        .says("The answer of `reject`; the default is `icmp-network-unreachable`, for IPv6 `icmp-no-route`.", ANSWERS, "tcp-reset")
        .filter_only(),

    // Conditions on Ethernet and on interfaces.
    Row::matcher("src-mac-address", |rule, value| rule.ask(value, value::mac_address))
        .says("The source address of the Ethernet header.", "[!]address", "00:11:22:AA:BB:CC"),
    Row::matcher("in-interface", |rule, value| rule.ask_interface(value, In, InterfaceKind::Interface))
        .says("The interface on which the packet arrived.", "[!]name", "ether1").differs(SIDES),
    Row::matcher("in-interface-list", |rule, value| rule.ask_interface(value, In, InterfaceKind::List))
        .says("The interface on which the packet arrived is in this list.", "[!]name", "WAN").differs(SIDES),
    Row::matcher("in-bridge-port", |rule, value| rule.ask_interface(value, In, InterfaceKind::BridgePort))
        .says("The bridge port on which the packet arrived.", "[!]name", "ether1").differs(SIDES),
    Row::matcher("in-bridge-port-list", |rule, value| rule.ask_interface(value, In, InterfaceKind::BridgePortList))
        .says("The bridge port on which the packet arrived is in this list.", "[!]name", "WAN").differs(SIDES),
    Row::matcher("out-interface", |rule, value| rule.ask_interface(value, Out, InterfaceKind::Interface))
        .says("The interface by which the packet leaves.", "[!]name", "ether2").differs(SIDES),
    Row::matcher("out-interface-list", |rule, value| rule.ask_interface(value, Out, InterfaceKind::List))
        .says("The interface by which the packet leaves is in this list.", "[!]name", "LAN").differs(SIDES),
    Row::matcher("out-bridge-port", |rule, value| rule.ask_interface(value, Out, InterfaceKind::BridgePort))
        .says("The bridge port by which the packet leaves.", "[!]name", "ether2").differs(SIDES),
    Row::matcher("out-bridge-port-list", |rule, value| rule.ask_interface(value, Out, InterfaceKind::BridgePortList))
        .says("The bridge port by which the packet leaves is in this list.", "[!]name", "LAN").differs(SIDES),
    Row::matcher("priority", |rule, value| rule.ask_as(value, value::priority, Condition::Priority))
        .says("The priority of the packet.", "[!]0-63", "5").differs(PRIORITY),
    Row::matcher("ingress-priority", |rule, value| rule.ask_as(value, value::priority, Condition::IngressPriority))
        .says("The priority with which the packet arrived.", "[!]0-63", "5").differs(PRIORITY),

    // Conditions on the IP header.
    Row::matcher("src-address", |rule, value| rule.ask_by_family(value, value::addresses, Condition::SrcAddress))
        .says("The source address is this, or in this prefix or, for IPv4, range.", ADDRESSES, "192.0.2.0/24"),
    Row::matcher("dst-address", |rule, value| rule.ask_by_family(value, value::addresses, Condition::DstAddress))
        .says("The destination address is this, or in this prefix or, for IPv4, range.", ADDRESSES, "192.0.2.1"),
    Row::matcher("src-address-list", |rule, value| rule.ask_as(value, value::list_name, Condition::SrcAddressList))
        .says("The source address is in this list; a list without entries and rules is empty.", "[!]name", "knock1"),
    Row::matcher("dst-address-list", |rule, value| rule.ask_as(value, value::list_name, Condition::DstAddressList))
        .says("The destination address is in this list; a list without entries and rules is empty.", "[!]name", "!servers"),
    Row::matcher("src-address-type", |rule, value| rule.ask_as(value, value::address_types, Condition::SrcAddressType))
        .says("The type of the source address for the router is one of these.", ADDRESS_TYPES, "local,broadcast")
        .differs(LOCAL),
    Row::matcher("dst-address-type", |rule, value| rule.ask_as(value, value::address_types, Condition::DstAddressType))
        .says("The type of the destination address for the router is one of these.", ADDRESS_TYPES, "!multicast")
        .differs(LOCAL),
    Row::matcher("protocol", |rule, value| rule.ask_as(value, value::protocol, Condition::Protocol))
        .says("The protocol after the IP header and IPv6's extension headers.", "[!]name|0-255", "tcp"),
    Row::matcher("packet-size", |rule, value| rule.ask(value, value::packet_size))
        .says("The length of the IP packet in bytes, with its header.", "[!]bytes[-bytes]", "128-65535").differs(FRAGMENTS),
    Row::matcher("dscp", |rule, value| rule.ask(value, value::dscp))
        .says("The differentiated services code point.", "[!]0-63", "46"),
    Row::matcher("tos", |rule, value| rule.ask(value, value::tos))
        .says("The type of service, or IPv6's traffic class; with a mask, only its bits.", "[!]0-255[/mask]", "16/28"),
    Row::matcher("ttl", |rule, value| rule.ask_plain(value, value::ttl))
        .says("The time to live.", COMPARISON, "less-than:5").only(Family::Ipv4),
    Row::matcher("hop-limit", |rule, value| rule.ask_plain(value, value::hop_limit))
        .says("The hop limit.", COMPARISON, "equal:1").only(Family::Ipv6),
    Row::matcher("fragment", |rule, value| rule.ask_plain(value, value::fragment))
        .says("Whether it is a later fragment of a packet.", "yes|no", "yes").only(Family::Ipv4),
    Row::matcher("ipv4-options", |rule, value| rule.ask_plain(value, value::ipv4_options))
        .says("Which options the IPv4 header has, or has not.", "any|none|option|no-option", "no-source-routing")
        .only(Family::Ipv4),
    Row::matcher("headers", |rule, value| rule.ask_plain(value, value::headers))
        .says("The extension headers: exactly these (the default), or these and others.",
            "hop|dst|route|frag|ah|esp|none|proto,…[:exact|:contains]", "frag:contains").only(Family::Ipv6),
    Row::matcher("ipsec-policy", |rule, value| rule.ask_plain(value, value::ipsec_policy))
        .says("Whether the packet arrived through IPsec, or leaves through it.", "in|out,ipsec|none", "in,none")
        .differs("There is no IPsec here: `none` is true for every packet, `ipsec` for none."),

    // Conditions on TCP, UDP and ICMP.
    Row::matcher("src-port", |rule, value| rule.ask_as(value, value::ports, Condition::SrcPort))
        .says("The source port is one of these; needs a protocol that has ports.", PORTS, "1024-65535")
        .differs(OTHER_PORTS),
    Row::matcher("dst-port", |rule, value| rule.ask_as(value, value::ports, Condition::DstPort))
        .says("The destination port is one of these; needs a protocol that has ports.", PORTS, "22,8000-8080")
        .differs(OTHER_PORTS),
    Row::matcher("port", |rule, value| rule.ask_as(value, value::ports, Condition::AnyPort))
        .says("Source or destination port is one of these; needs a protocol that has ports.", PORTS, "!53")
        .differs(OTHER_PORTS),
    Row::matcher("tcp-flags", |rule, value| rule.ask_each(value, value::tcp_flags))
        .says("These flags are set, and those after a `!` are clear; needs `protocol=tcp`.",
            "[!]fin|syn|rst|psh|ack|urg|ece|cwr,…", "syn,!ack"),
    Row::matcher("tcp-mss", |rule, value| rule.ask(value, value::tcp_mss))
        .says("The maximum segment size that a SYN offers; needs `protocol=tcp`.", "[!]bytes[-bytes]", "0-535"),
    Row::matcher("icmp-options", |rule, value| rule.ask(value, value::icmp_options))
        .says("ICMP type and code; needs `protocol=icmp`, for IPv6 `protocol=icmpv6`.", "[!]type[:code[-code]]", "8:0"),
    Row::matcher("tls-host", |rule, value| rule.ask(value, value::tls_host))
        .says("The server's name in a TLS ClientHello; `*` stands for any characters, `?` for one.",
            "[!]name", "*.example.com"),

    // Conditions on payloads.
    Row::matcher("content", |rule, value| rule.ask_bytes(value, value::content))
        .says("The payload contains these bytes; case matters.", "[!]text", "open sesame"),
    Row::matcher("layer7-protocol", |rule, value| rule.ask_as(value, value::pattern_name, Condition::Layer7))
        .says("The beginning of the connection matches a pattern of `/ip firewall layer7-protocol`.",
            "[!]name", "secret").filter_only()
        .differs("RouterOS has it for IPv4 only."),

    // Conditions on connections.
    Row::matcher("connection-state", |rule, value| rule.ask(value, value::connection_states)).filter_only()
        .says("The packet's state in connection tracking is one of these.",
            "[!]invalid|established|related|new|untracked,…", "established,related"),
    Row::matcher("connection-nat-state", |rule, value| rule.ask(value, value::nat_states)).filter_only()
        .says("The translation of the connection's addresses is one of these.", "[!]srcnat|dstnat,…", "!dstnat")
        .differs("No address is translated here: `!dstnat` is true for every packet, `dstnat` for none."),
    Row::matcher("connection-bytes", |rule, value| rule.ask_plain(value, value::connection_bytes)).filter_only()
        .says("The bytes of the connection so far, both directions; an upper limit of 0 is no limit.", "from-to", "500000-0"),
    Row::matcher("connection-rate", |rule, value| rule.ask(value, value::connection_rate)).filter_only()
        .says("The bits of the connection in the last whole second, both directions.",
            "[!]from-to; either may end in k, M or G", "0-100k"),
    Row::matcher("connection-limit", |rule, value| rule.ask_by_family(value, value::connection_limit, identity))
        .says("More than this number of connections of the source's prefix have reached the rule.",
            "[!]count,prefix length", "30,32").filter_only(),
    Row::matcher("connection-type", |rule, value| rule.keep("connection-type", value, HELPERS)).filter_only()
        .says("The connection was announced in another one, of this protocol.", "[!]ftp|sip|…", "ftp")
        .never_run(NEVER_RUN),
    Row::matcher("connection-mark", |rule, value| rule.ask_mark(value, Mark::Connection)).filter_only()
        .says("The mark of the packet's connection.", "[!]no-mark|name", "no-mark").differs(MARKS),
    Row::matcher("packet-mark", |rule, value| rule.ask_mark(value, Mark::Packet))
        .says("The mark of the packet.", "[!]no-mark|name", "no-mark").differs(MARKS),
    Row::matcher("routing-mark", |rule, value| rule.ask_mark(value, Mark::Routing))
        .says("The mark of the packet's route.", "[!]no-mark|name", "no-mark").differs(MARKS),

    // Conditions on state beyond the packet.
    Row::matcher("time", |rule, value| rule.ask(value, value::time_of_week))
        .says("The packet arrives between these times of day, beginning on one of these days.",
            "[!]time-time,sun|mon|tue|wed|thu|fri|sat,…", "8h-17h30m,mon,tue,wed,thu,fri")
        .differs("The time zone is a setting and does not follow summer time; the days must be named."),
    Row::matcher("psd", |rule, value| rule.ask_plain(value, value::psd))
        .says("The ports that the source has tried, each within the delay of the last, reach the threshold in weight.",
            "threshold,delay,weight below port 1024,weight of other ports", "21,3s,3,1")
        .differs("RouterOS has it for IPv4 only."),
    Row::matcher("random", |rule, value| rule.ask_plain(value, value::random))
        .says("This percentage of packets, at random.", "1-99", "50"),
    Row::matcher("nth", |rule, value| rule.ask_plain(value, value::nth))
        .says("One packet of this number that reach the matcher; by default the first.", "every[,packet]", "3,2"),
    Row::matcher("per-connection-classifier", |rule, value| rule.ask(value, value::classifier))
        .says("A hash of these fields, divided by the denominator, leaves the remainder.",
            "[!]fields:denominator/remainder", "both-addresses:2/0"),
    Row::matcher("limit", |rule, value| rule.ask(value, value::limit))
        .says("The rule's bucket, full at first, has a token for the packet, or one for each of its bits.",
            "[!]count[/time],burst[:packet|:bit]; counts may end in k, M or G", "10/1m,5:packet"),
    Row::matcher("dst-limit", |rule, value| rule.ask_plain(value, value::dst_limit))
        .says("As `limit`, with a bucket for each address or flow; it is removed after `expire`, by default 10s.",
            LIMITS, "10/1m,5,src-address/1m40s"),

    // Conditions that have no meaning in this filter.
    Row::matcher("hotspot", |rule, value| rule.keep("hotspot", value, "there is no hotspot here"))
        .says("The client's state in the hotspot.", "[!]auth|from-client|http|local-dst|to-client,…", "auth")
        .only(Family::Ipv4).never_run(NEVER_RUN),
    Row::matcher("p2p", |rule, value| rule.keep("p2p", value, "file-sharing protocols are not recognized here"))
        .says("The packet belongs to a file-sharing protocol.", "[!]all-p2p|bit-torrent|…", "all-p2p")
        .only(Family::Ipv4).filter_only().never_run(NEVER_RUN),
    Row::matcher("realm", |rule, value| rule.keep("realm", value, "there are no routes here"))
        .says("The realm of the packet's route.", "[!]number", "1").only(Family::Ipv4).never_run(NEVER_RUN),
    Row::matcher("routing-table", |rule, value| rule.keep("routing-table", value, "there are no routes here"))
        .says("The routing table in which the destination is looked up.", "[!]name", "main").never_run(NEVER_RUN),

    // Properties that no rule file should have.
    Row::unsupported("copy-from"),
    Row::unsupported("place-before"),
    Row::of_doors("connection-door"),
    Row::of_doors("door"),
    Row::printed("bytes"),
    Row::printed("dynamic"),
    Row::printed("invalid"),
    Row::printed("packets"),
];

const ADDRESSES: &str = "[!]address[/length]|address-address";
const ADDRESS_TYPES: &str = "[!]unicast|local|broadcast|multicast|blackhole,…";
const ANSWERS: &str = "icmp-…|tcp-reset, as the family has them";
const COMPARISON: &str = "equal|not-equal|less-than|greater-than:0-255";
const LIMITS: &str = "count[/time],burst,mode[/expire]; mode: dst-address|dst-address-and-port|src-address|\
    src-and-dst-addresses|addresses-and-dst-port";
const PORTS: &str = "[!]port[-port],…, at most 16";
const TIMEOUT: &str = "none-dynamic|none-static|time, up to 35w3d13h13m56s";

const FRAGMENTS: &str = "RouterOS reassembles fragments before it compares. Here each fragment is decided separately: a \
    size above the MTU matches nothing, and the MTU itself the first fragment of every longer packet.";
const HELPERS: &str = "there are no connection helpers here";
const LOCAL: &str = "`/ip address` and `/ipv6 address` define which addresses are `local` and `broadcast`; there are no `blackhole` routes.";
const MARKS: &str =
    "No rule sets marks here: `no-mark` is true for every packet, and a rule with another mark is kept, but not run.";
const NEVER_RUN: &str = "It is not supported: the rule is kept, but not run.";
const OTHER_PORTS: &str =
    "Only ports of TCP and UDP are supported: a rule for those of DCCP, SCTP or UDP-Lite is kept, but not run.";
const PRIORITY: &str = "It is the priority of the VLAN tag, 0 without one: no rule sets another priority here.";
const SIDES: &str = "The filter has two sides: `[policy.interfaces]` of the configuration maps names to them.";
