use super::*;

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn rate(count: u64, seconds: u64, burst: u64, unit: RateUnit) -> Rate {
    Rate { count, per: Duration::from_secs(seconds), burst, unit }
}

#[test]
fn a_bucket_is_full_at_first_and_refilled_each_ten_milliseconds() {
    let rate = rate(200, 1, 2, RateUnit::Packet);
    let mut bucket = Bucket::full(&rate, at(7));
    assert!(bucket.take(&rate, 40, at(7)) && bucket.take(&rate, 40, at(9)) && !bucket.take(&rate, 40, at(9)));
    // Each refill adds two tokens.
    assert!(bucket.take(&rate, 40, at(10)) && bucket.take(&rate, 40, at(19)) && !bucket.take(&rate, 40, at(19)));
}

#[test]
fn with_a_burst_of_zero_packets_pass_at_the_rate() {
    // `30/1m,0` of RouterOS 6.
    let rate = rate(30, 60, 0, RateUnit::Packet);
    let mut bucket = Bucket::full(&rate, at(0));
    let taken = [0, 1_990, 2_000, 2_010, 4_000].map(|now| bucket.take(&rate, 40, at(now)));
    assert_eq!(taken, [true, false, true, false, true]);
}

#[test]
fn bits_are_those_of_the_ip_packet() {
    let rate = rate(8_000, 1, 1_600, RateUnit::Bit);
    let mut bucket = Bucket::full(&rate, at(0));
    assert!(bucket.take(&rate, 150, at(0)) && !bucket.take(&rate, 51, at(0)) && bucket.take(&rate, 50, at(0)));
    // Each refill adds tokens for ten bytes.
    assert!(!bucket.take(&rate, 100, at(99)) && bucket.take(&rate, 100, at(100)));
    // A packet larger than the burst never passes.
    assert!(!bucket.take(&rate, 201, at(1_000_000)));
}

#[test]
fn long_pauses_and_large_rates_do_not_overflow() {
    let rate = rate(u64::MAX, 86_400 * 7, u64::MAX, RateUnit::Bit);
    let mut bucket = Bucket::full(&rate, at(0));
    assert!(bucket.take(&rate, u32::MAX, at(0)) && bucket.take(&rate, u32::MAX, Time::from_nanos(u64::MAX - 1)));
    let rate = Rate { per: Duration::MAX, ..rate };
    assert!(Bucket::full(&rate, at(0)).take(&rate, u32::MAX, at(0)));
    // A clock that moves backwards refills nothing.
    assert!(bucket.take(&rate, 40, at(0)));
}
