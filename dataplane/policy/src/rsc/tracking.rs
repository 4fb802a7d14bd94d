//! `/ip firewall connection tracking`: one entry, which `set` changes.

use std::time::Duration;

use super::problem::{Complaint, Problems, show};
use super::property::{self, Add, Property};
use super::value::{self, Parsed};
use crate::rule::{Tracking, TrackingMode};
use crate::time::{format_duration, is_timeout, parse_duration};
use crate::word::Word as _;

type Row = Property<Tracking>;

/// Every property RouterOS has for this menu. Source: RouterOS manual, Connection tracking, and exports of RouterOS
/// 5 to 7.
#[rustfmt::skip] // As the table of `filter`.
pub(super) const PROPERTIES: &[Row] = &[
    Row::fixed("enabled", |tracking, value| mode(&mut tracking.enabled, value))
        .says("Whether connections are tracked; `auto`: if a rule needs it.", "auto|yes|no", "auto"),
    Row::fixed("loose-tcp-tracking", |tracking, value| yes_no(&mut tracking.loose_tcp, value))
        .says("Whether a TCP packet in the middle of an unknown connection begins a connection instead of being invalid.",
            "yes|no", "no"),
    Row::fixed("tcp-syn-sent-timeout", |tracking, value| timeout(&mut tracking.tcp_syn_sent, value))
        .says("Timeout of a TCP connection after one end has sent its SYN.", TIME, "5s"),
    Row::fixed("tcp-syn-received-timeout", |tracking, value| timeout(&mut tracking.tcp_syn_received, value))
        .says("The timeout after the other end has answered with SYN-ACK.", TIME, "5s"),
    Row::fixed("tcp-established-timeout", |tracking, value| timeout(&mut tracking.tcp_established, value))
        .says("The timeout after that was acknowledged.", TIME, "1d"),
    Row::fixed("tcp-fin-wait-timeout", |tracking, value| timeout(&mut tracking.tcp_fin_wait, value))
        .says("The timeout after one end has sent its FIN.", TIME, "10s"),
    Row::fixed("tcp-close-wait-timeout", |tracking, value| timeout(&mut tracking.tcp_close_wait, value))
        .says("The timeout after that was acknowledged.", TIME, "10s"),
    Row::fixed("tcp-last-ack-timeout", |tracking, value| timeout(&mut tracking.tcp_last_ack, value))
        .says("The timeout after the other end has sent its FIN as well.", TIME, "10s"),
    Row::fixed("tcp-time-wait-timeout", |tracking, value| timeout(&mut tracking.tcp_time_wait, value))
        .says("The timeout after both FINs are acknowledged.", TIME, "10s"),
    Row::fixed("tcp-close-timeout", |tracking, value| timeout(&mut tracking.tcp_close, value))
        .says("The timeout after one end has reset it.", TIME, "10s"),
    Row::fixed("tcp-max-retrans-timeout", |tracking, value| timeout(&mut tracking.tcp_max_retrans, value))
        .says("The timeout while one end retransmits.", TIME, "5m")
        .differs("It is kept and has no effect."),
    Row::fixed("tcp-unacked-timeout", |tracking, value| timeout(&mut tracking.tcp_unacked, value))
        .says("The timeout while sent data is not acknowledged.", TIME, "5m")
        .differs("It is kept and has no effect."),
    Row::fixed("udp-timeout", |tracking, value| timeout(&mut tracking.udp, value))
        .says("Timeout of a UDP connection that was seen in one direction.", TIME, "30s")
        .differs("The default is 10s for exports of RouterOS before 7, as on that router."),
    Row::fixed("udp-stream-timeout", |tracking, value| timeout(&mut tracking.udp_stream, value))
        .says("The timeout of a UDP connection that was seen in both directions.", TIME, "3m"),
    Row::fixed("icmp-timeout", |tracking, value| timeout(&mut tracking.icmp, value))
        .says("Timeout of a ping.", TIME, "10s"),
    Row::fixed("generic-timeout", |tracking, value| timeout(&mut tracking.generic, value))
        .says("Timeout of a connection of any other protocol.", TIME, "10m"),
    Row::fixed("liberal-tcp-tracking", |tracking, value| yes_no_inert(tracking, "liberal-tcp-tracking", value))
        .says("Whether segments outside the window of a TCP connection belong to it.", "yes|no", "no")
        .differs("It has no effect: windows are always checked."),
    Row::fixed("tcp-syncookie", |tracking, value| yes_no_inert(tracking, "tcp-syncookie", value))
        .says("Whether the router answers floods of SYNs with cookies.", "yes|no", "no")
        .differs("It has no effect: it is about the router's own connections."),
    Row::fixed("max-entries", |tracking, value| inert(tracking, "max-entries", value))
        .says("Highest number of connections on the router.", "number", "100000").differs(COUNTED),
    Row::fixed("total-entries", |tracking, value| inert(tracking, "total-entries", value))
        .says("Number of connections on the router.", "number", "7").differs(COUNTED),
    Row::fixed("active-ipv4", |tracking, value| yes_no_inert(tracking, "active-ipv4", value))
        .says("Whether it tracked IPv4.", "yes|no", "yes").differs(COUNTED),
    Row::fixed("active-ipv6", |tracking, value| yes_no_inert(tracking, "active-ipv6", value))
        .says("Whether it tracked IPv6.", "yes|no", "yes").differs(COUNTED),
];

const TIME: &str = "time, up to 35w3d13h13m56s";
const COUNTED: &str = "It has no effect: the router determines it.";

/// The settings of a file without this menu: RouterOS's defaults at the version of the export.
pub(super) fn defaults(text: &[u8]) -> Tracking {
    let mut tracking = Tracking::default();
    if exported_by(text).is_some_and(|version| version < 7) {
        tracking.udp = Duration::from_secs(10);
    }
    tracking
}

/// The major version of RouterOS in the comments at the head of an export.
fn exported_by(text: &[u8]) -> Option<u32> {
    const MOST_LINES: usize = 20;
    const BEFORE: &[u8] = b" by RouterOS ";
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let lines = text.split(|byte| matches!(byte, b'\r' | b'\n')).filter(|line| !line.is_empty()).take(MOST_LINES);
    let mut comments = lines.take_while(|line| line.starts_with(b"#"));
    let version = comments.find_map(|line| {
        let at = line.windows(BEFORE.len()).position(|window| window == BEFORE)?;
        Some(&line[at + BEFORE.len()..])
    })?;
    let digits = version.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Parses one `set`.
pub(super) fn set(tracking: &mut Tracking, set: &Add<'_>, problems: &mut Problems) {
    let before = problems.count();
    let mut changed = tracking.clone();
    property::read(PROPERTIES, None, set, &mut changed, problems);
    if problems.count() == before {
        *tracking = changed;
    }
}

/// Stores properties without effect, for exports.
fn inert(tracking: &mut Tracking, name: &str, value: &[u8]) -> Parsed<()> {
    tracking.inert.insert(name.to_owned(), value::text(value).into_owned());
    Ok(())
}

fn yes_no_inert(tracking: &mut Tracking, name: &str, value: &[u8]) -> Parsed<()> {
    value::yes_no(&value::text(value))?;
    inert(tracking, name, value)
}

fn mode(place: &mut TrackingMode, value: &[u8]) -> Parsed<()> {
    *place = TrackingMode::from_name(&value::text(value))
        .ok_or_else(|| Complaint::new(format!("`{}` is not a mode", show(value))).expected("`auto`, `yes` or `no`"))?;
    Ok(())
}

fn yes_no(place: &mut bool, value: &[u8]) -> Parsed<()> {
    *place = value::yes_no(&value::text(value))?;
    Ok(())
}

/// The settings that differ from RouterOS's defaults, by name: properties and values in the form for [`set`].
pub(super) fn changed(tracking: &Tracking) -> Vec<(&str, String)> {
    let (given, default) = (values(tracking), values(&Tracking::default()));
    let given = given.into_iter().zip(default).filter(|(given, default)| given != default).map(|(given, _)| given);
    let inert = tracking.inert.iter().map(|(name, value)| (name.as_str(), value.clone()));
    let mut changed: Vec<_> = given.chain(inert).collect();
    changed.sort();
    changed
}

/// All settings, by name.
fn values(tracking: &Tracking) -> [(&'static str, String); 16] {
    let Tracking { enabled, loose_tcp, .. } = tracking;
    let timeout = |name, timeout| (name, format_duration(timeout));
    [
        ("enabled", enabled.name().to_owned()),
        timeout("generic-timeout", tracking.generic),
        timeout("icmp-timeout", tracking.icmp),
        ("loose-tcp-tracking", if *loose_tcp { "yes" } else { "no" }.to_owned()),
        timeout("tcp-close-timeout", tracking.tcp_close),
        timeout("tcp-close-wait-timeout", tracking.tcp_close_wait),
        timeout("tcp-established-timeout", tracking.tcp_established),
        timeout("tcp-fin-wait-timeout", tracking.tcp_fin_wait),
        timeout("tcp-last-ack-timeout", tracking.tcp_last_ack),
        timeout("tcp-max-retrans-timeout", tracking.tcp_max_retrans),
        timeout("tcp-syn-received-timeout", tracking.tcp_syn_received),
        timeout("tcp-syn-sent-timeout", tracking.tcp_syn_sent),
        timeout("tcp-time-wait-timeout", tracking.tcp_time_wait),
        timeout("tcp-unacked-timeout", tracking.tcp_unacked),
        timeout("udp-stream-timeout", tracking.udp_stream),
        timeout("udp-timeout", tracking.udp),
    ]
}

fn timeout(place: &mut Duration, value: &[u8]) -> Parsed<()> {
    let text = &*value::text(value);
    match parse_duration(text) {
        Some(timeout) if is_timeout(timeout) => {
            *place = timeout;
            Ok(())
        }
        _ => Err(Complaint::new(format!("`{}` is not a timeout", show(value)))
            .expected("`10s`, `1m30s`, `1d`, `00:00:10` or seconds, up to 35w3d13h13m56s")),
    }
}
