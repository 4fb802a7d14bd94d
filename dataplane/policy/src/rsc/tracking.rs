//! `/ip firewall connection tracking`: one entry, which `set` changes.

use std::time::Duration;

use super::problem::{Complaint, Problems, show};
use super::property::{self, Add, Property};
use super::value::{self, Parsed};
use crate::rule::{Tracking, TrackingMode};
use crate::time::{LONGEST_TIMEOUT, format_duration, parse_duration};
use crate::word::Word as _;

/// Every property RouterOS has for this menu. Source: RouterOS manual, Connection tracking, and exports of RouterOS
/// 5 to 7.
const PROPERTIES: &[Property<Tracking>] = &[
    Property::fixed("enabled", |tracking, value| {
        let text = value::text(value)?;
        tracking.enabled = TrackingMode::from_name(text).ok_or_else(|| {
            Complaint::new(format!("`{}` is not a mode", show(value))).expected("`auto`, `yes` or `no`")
        })?;
        Ok(())
    }),
    Property::fixed("loose-tcp-tracking", |tracking, value| {
        tracking.loose_tcp = value::yes_no(value::text(value)?)?;
        Ok(())
    }),
    Property::fixed("tcp-syn-sent-timeout", |tracking, value| timeout(&mut tracking.tcp_syn_sent, value)),
    Property::fixed("tcp-syn-received-timeout", |tracking, value| timeout(&mut tracking.tcp_syn_received, value)),
    Property::fixed("tcp-established-timeout", |tracking, value| timeout(&mut tracking.tcp_established, value)),
    Property::fixed("tcp-fin-wait-timeout", |tracking, value| timeout(&mut tracking.tcp_fin_wait, value)),
    Property::fixed("tcp-close-wait-timeout", |tracking, value| timeout(&mut tracking.tcp_close_wait, value)),
    Property::fixed("tcp-last-ack-timeout", |tracking, value| timeout(&mut tracking.tcp_last_ack, value)),
    Property::fixed("tcp-time-wait-timeout", |tracking, value| timeout(&mut tracking.tcp_time_wait, value)),
    Property::fixed("tcp-close-timeout", |tracking, value| timeout(&mut tracking.tcp_close, value)),
    Property::fixed("tcp-max-retrans-timeout", |tracking, value| timeout(&mut tracking.tcp_max_retrans, value)),
    Property::fixed("tcp-unacked-timeout", |tracking, value| timeout(&mut tracking.tcp_unacked, value)),
    Property::fixed("udp-timeout", |tracking, value| timeout(&mut tracking.udp, value)),
    Property::fixed("udp-stream-timeout", |tracking, value| timeout(&mut tracking.udp_stream, value)),
    Property::fixed("icmp-timeout", |tracking, value| timeout(&mut tracking.icmp, value)),
    Property::fixed("generic-timeout", |tracking, value| timeout(&mut tracking.generic, value)),
    // It makes valid what is outside the window, and nothing here looks at windows.
    Property::fixed("liberal-tcp-tracking", |_, value| value::yes_no(value::text(value)?).map(|_| ())),
    // The router's own connections.
    Property::fixed("tcp-syncookie", |_, value| value::yes_no(value::text(value)?).map(|_| ())),
    // What the router counts.
    Property::fixed("max-entries", |_, value| value::text(value).map(|_| ())),
    Property::fixed("total-entries", |_, value| value::text(value).map(|_| ())),
    Property::fixed("active-ipv4", |_, value| value::yes_no(value::text(value)?).map(|_| ())),
    Property::fixed("active-ipv6", |_, value| value::yes_no(value::text(value)?).map(|_| ())),
];

/// What holds if a file says nothing: RouterOS's defaults, as they were when the file was exported.
pub(super) fn defaults(text: &[u8]) -> Tracking {
    let mut tracking = Tracking::default();
    if exported_by(text).is_some_and(|version| version < 7) {
        tracking.udp = Duration::from_secs(10);
    }
    tracking
}

/// The major version of RouterOS that the comments at the head of an export name.
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

/// Reads one `set`.
pub(super) fn set(tracking: &mut Tracking, set: &Add<'_>, problems: &mut Problems) {
    property::read(PROPERTIES, None, set, tracking, problems);
}

/// What is not as RouterOS has it by default, by name: properties and their values as [`set`] takes them.
pub(super) fn changed(tracking: &Tracking) -> Vec<(&'static str, String)> {
    let (given, default) = (values(tracking), values(&Tracking::default()));
    given.into_iter().zip(default).filter(|(given, default)| given != default).map(|(given, _)| given).collect()
}

/// All of it, by name.
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
    let text = value::text(value)?;
    match parse_duration(text) {
        Some(timeout) if !timeout.is_zero() && timeout <= LONGEST_TIMEOUT => {
            *place = timeout;
            Ok(())
        }
        _ => Err(Complaint::new(format!("`{}` is not a timeout", show(value)))
            .expected("`10s`, `1m30s`, `1d`, `00:00:10` or seconds, up to 35w3d13h13m56s")),
    }
}
