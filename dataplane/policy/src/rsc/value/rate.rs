//! Token buckets and port scans.
//!
//! ```text
//!  limit      count[/time],burst[:packet or :bit]        10/1m,5:packet
//!  dst-limit  count[/time],burst,mode[/expire]           10/1m,5,src-address/1m40s
//! ```

use std::ops::Range;
use std::time::Duration;

use super::super::problem::Complaint;
use super::time::duration;
use super::{Parsed, bad, items, number, scaled, word};
use crate::rule::{Condition, Rate, RateUnit};

/// Maximum rate: more bits than any link transports in the time of a bucket. The limit keeps sums within 64 bits.
const LARGEST_RATE: u64 = 1_000_000_000_000;

/// The default time for which `dst-limit` keeps a bucket, as in iptables' `hashlimit`.
const DEFAULT_EXPIRE: Duration = Duration::from_secs(10);

/// Parses `limit`, in all forms in exports of RouterOS 5 to 7. The unit is packets, unless the value ends with `:bit`.
pub(in crate::rsc) fn limit(value: &str) -> Parsed<Condition> {
    let parts: Vec<_> = items(value).collect();
    let [(rate_at, rate), (burst_at, burst)] = &parts[..] else {
        return Err(bad(value, "a limit").expected("a rate and a burst: `10,5`, `10/1m,5:packet` or `10M,1M:bit`"));
    };
    let (count, per) = count_per(rate, rate_at)?;
    let (number, unit) = match burst.split_once(':') {
        Some((number, unit)) => {
            let at = burst_at.end - unit.len()..burst_at.end;
            (number, word(unit, "a unit of rates").map_err(|complaint: Complaint| complaint.at(at))?)
        }
        None => (*burst, RateUnit::Packet),
    };
    let at = burst_at.start..burst_at.start + number.len();
    Ok(Condition::Limit(Rate { count, per, burst: self::burst(number, &at)?, unit }))
}

/// Parses `dst-limit`: the rate, the key of a bucket, and the lifetime of a bucket.
pub(in crate::rsc) fn dst_limit(value: &str) -> Parsed<Condition> {
    let parts: Vec<_> = items(value).collect();
    let [(rate_at, rate), (burst_at, burst), (mode_at, mode)] = &parts[..] else {
        return Err(bad(value, "a limit for each destination or source")
            .expected("a rate, a burst and a mode: `10,5,dst-address` or `10/1m,5,src-address/1m40s`"));
    };
    let (count, per) = count_per(rate, rate_at)?;
    let burst = self::burst(burst, burst_at)?;
    let (mode, expire) = match mode.split_once('/') {
        Some((mode, expire)) => {
            let at = mode_at.end - expire.len()..mode_at.end;
            let complaint = || bad(expire, "a duration").expected("how long a bucket is kept, such as `1m40s`").at(at);
            (mode, duration(expire).ok_or_else(complaint)?)
        }
        None => (*mode, DEFAULT_EXPIRE),
    };
    let at = mode_at.start..mode_at.start + mode.len();
    let mode = word(mode, "a mode of `dst-limit`").map_err(|complaint: Complaint| complaint.at(at))?;
    Ok(Condition::DstLimit { rate: Rate { count, per, burst, unit: RateUnit::Packet }, mode, expire })
}

/// Parses `10` (a second) or `10/1m`.
fn count_per(value: &str, at: &Range<usize>) -> Parsed<(u64, Duration)> {
    let (count, per) = match value.split_once('/') {
        Some((count, per)) => (count, duration(per)),
        None => (value, Some(Duration::from_secs(1))),
    };
    let count = scaled(count).filter(|count| (1..=LARGEST_RATE).contains(count));
    count.zip(per).ok_or_else(|| {
        bad(value, "a rate").expected("a number from 1 on, and perhaps a time: `10`, `10M` or `10/1m`").at(at.clone())
    })
}

fn burst(value: &str, at: &Range<usize>) -> Parsed<u64> {
    let complaint = || bad(value, "a burst").expected("a number, such as `5` or `10k`").at(at.clone());
    scaled(value).filter(|burst| *burst <= LARGEST_RATE).ok_or_else(complaint)
}

/// Parses `21,3s,3,1`: threshold, delay, weight of low ports, weight of high ports.
pub(in crate::rsc) fn psd(value: &str) -> Parsed<Condition> {
    let parts: Vec<_> = value.split(',').collect();
    let parsed = match parts[..] {
        [weight, delay, low, high] => number(weight).zip(duration(delay)).zip(number(low).zip(number(high))),
        _ => None,
    };
    match parsed {
        // A threshold of 0 would be reached before the first port.
        Some(((weight, delay), (low_weight, high_weight))) if weight > 0 => {
            Ok(Condition::Psd { weight, delay, low_weight, high_weight })
        }
        _ => Err(bad(value, "a measure of port scans")
            .expected("threshold, delay, and the weights of a low and of a high port: `21,3s,3,1`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::LimitMode;

    fn rate(count: u64, seconds: u64, burst: u64, unit: RateUnit) -> Rate {
        Rate { count, per: Duration::from_secs(seconds), burst, unit }
    }

    #[test]
    fn limits_in_every_form() {
        use RateUnit::{Bit, Packet};
        for (text, expected) in [
            ("10,5", rate(10, 1, 5, Packet)),
            ("1,5", rate(1, 1, 5, Packet)),
            ("10/1s,5:packet", rate(10, 1, 5, Packet)),
            ("50,5:packet", rate(50, 1, 5, Packet)),
            ("30/1m,0", rate(30, 60, 0, Packet)),
            ("30/00:01:00,0", rate(30, 60, 0, Packet)),
            ("400k/1m,10", rate(400_000, 60, 10, Packet)),
            ("10M,1M:bit", rate(10_000_000, 1, 1_000_000, Bit)),
            ("1G/10s,512k:bit", rate(1_000_000_000, 10, 512_000, Bit)),
            ("64000,0:bit", rate(64_000, 1, 0, Bit)),
        ] {
            assert_eq!(limit(text), Ok(Condition::Limit(expected)), "{text}");
        }
        for text in ["", "10", "10,", ",5", "0,5", "10/0s,5", "10/,5", "10/s,5", "10,5,5", "10,-5", "1.5,5", "9999G,5"]
        {
            assert!(limit(text).is_err(), "{text}");
        }
        assert_eq!(limit("10,5:byte").unwrap_err().part, Some(5..9));
        assert_eq!(limit("10,x:bit").unwrap_err().part, Some(3..4));
        assert_eq!(limit("10/x,5").unwrap_err().part, Some(0..4));
    }

    #[test]
    fn limits_for_each_address_in_every_form() {
        let packets = rate(32, 1, 32, RateUnit::Packet);
        for (text, expected) in [
            ("32,32,src-and-dst-addresses/10s", (packets, LimitMode::SrcAndDstAddresses, 10)),
            ("32,32,src-and-dst-addresses", (packets, LimitMode::SrcAndDstAddresses, 10)),
            ("1/1m,5,dst-address/1m40s", (rate(1, 60, 5, RateUnit::Packet), LimitMode::DstAddress, 100)),
            ("32/1s,32,addresses-and-dst-port/00:01:00", (packets, LimitMode::AddressesAndDstPort, 60)),
        ] {
            let (rate, mode, seconds) = expected;
            let expire = Duration::from_secs(seconds);
            assert_eq!(dst_limit(text), Ok(Condition::DstLimit { rate, mode, expire }), "{text}");
        }
        assert_eq!(dst_limit("1,5,dst-adress").unwrap_err().part, Some(4..14));
        assert_eq!(dst_limit("1,5,dst-address/x").unwrap_err().part, Some(16..17));
        assert_eq!(dst_limit("1,x,dst-address").unwrap_err().part, Some(2..3));
        for text in ["", "1,5", "1,5,", "0,5,dst-address", "1,5,dst-address/0s", "1,5:packet,dst-address", "1,5,a,b"] {
            assert!(dst_limit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn port_scans() {
        let scan = |weight, seconds, low_weight, high_weight| {
            Ok(Condition::Psd { weight, delay: Duration::from_secs(seconds), low_weight, high_weight })
        };
        assert_eq!(psd("21,3s,3,1"), scan(21, 3, 3, 1));
        assert_eq!(psd("10,00:01:00,1,0"), scan(10, 60, 1, 0));
        for text in ["", "21", "21,3s,3", "21,3s,3,1,1", "0,3s,3,1", "21,0s,3,1", "21,x,3,1", "21,3s,-3,1"] {
            assert!(psd(text).is_err(), "{text}");
        }
    }
}
