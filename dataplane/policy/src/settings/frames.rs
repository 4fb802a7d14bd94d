//! The section `[policy.frames]`: the verdict on each class of frames that rules do not see, and the rate at which a
//! class may pass.

use std::fmt;
use std::num::NonZeroU32;

use ipnet::IpNet;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Choice;
use crate::frames::FrameClass;
use crate::packet::Side;
use crate::time::Time;

/// The verdicts on frames that rules do not see, by class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FrameClasses {
    /// [`FrameClass::Arp`].
    pub arp: SideChoice,
    /// [`FrameClass::NeighbourDiscovery`].
    pub neighbour_discovery: SideChoice,
    /// [`FrameClass::RouterAdvertisement`].
    pub router_advertisement: SideChoice,
    /// [`FrameClass::Redirect`].
    pub redirect: SideChoice,
    /// [`FrameClass::SpanningTree`].
    pub spanning_tree: SideChoice,
    /// [`FrameClass::Lldp`].
    pub lldp: SideChoice,
    /// [`FrameClass::Lacp`].
    pub lacp: SideChoice,
    /// [`FrameClass::Eapol`].
    pub eapol: SideChoice,
    /// [`FrameClass::Pppoe`].
    pub pppoe: SideChoice,
    /// [`FrameClass::Unknown`].
    pub unknown: SideChoice,
    /// The rate of each class from each side, in frames per second.
    pub rate: FrameRate,
    /// The permitted Ethernet padding after an ARP packet.
    pub padding: Padding,
    /// Addresses of `protect` that belong to the outside, for example the router of a protected network. The outside
    /// may claim them.
    pub outside_addresses: Vec<IpNet>,
}

impl Default for FrameClasses {
    /// Accepts frames that a network needs to resolve addresses. Accepts frames that change the routes of hosts only
    /// from inside.
    fn default() -> Self {
        let from_inside = SideChoice { outside: Choice::Drop, inside: Choice::Accept };
        FrameClasses {
            arp: SideChoice::both(Choice::Accept),
            neighbour_discovery: SideChoice::both(Choice::Accept),
            router_advertisement: from_inside,
            redirect: from_inside,
            spanning_tree: SideChoice::both(Choice::Drop),
            lldp: SideChoice::both(Choice::Drop),
            lacp: SideChoice::both(Choice::Drop),
            eapol: SideChoice::both(Choice::Drop),
            pppoe: SideChoice::both(Choice::Drop),
            unknown: SideChoice::both(Choice::Drop),
            rate: FrameRate::default(),
            padding: Padding::default(),
            outside_addresses: Vec::new(),
        }
    }
}

impl FrameClasses {
    /// The verdict on frames of this class from this side, within the rate.
    pub const fn choice(&self, class: FrameClass, side: Side) -> Choice {
        let choice = match class {
            FrameClass::Arp => self.arp,
            FrameClass::NeighbourDiscovery => self.neighbour_discovery,
            FrameClass::RouterAdvertisement => self.router_advertisement,
            FrameClass::Redirect => self.redirect,
            FrameClass::SpanningTree => self.spanning_tree,
            FrameClass::Lldp => self.lldp,
            FrameClass::Lacp => self.lacp,
            FrameClass::Eapol => self.eapol,
            FrameClass::Pppoe => self.pppoe,
            FrameClass::Unknown => self.unknown,
        };
        choice.from(side)
    }
}

/// A choice for frames from each side. Written as one word if both are the same, otherwise as `{ outside = "drop",
/// inside = "accept" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideChoice {
    /// The choice for frames from outside.
    pub outside: Choice,
    /// The choice for frames from inside.
    pub inside: Choice,
}

impl SideChoice {
    /// The same for both sides.
    pub const fn both(choice: Choice) -> SideChoice {
        SideChoice { outside: choice, inside: choice }
    }

    /// The choice for frames from this side.
    pub const fn from(self, side: Side) -> Choice {
        match side {
            Side::Outside => self.outside,
            Side::Inside => self.inside,
        }
    }
}

/// The long form of a [`SideChoice`]. Both keys are required, because no default is safe for all classes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sides {
    outside: Choice,
    inside: Choice,
}

impl Serialize for SideChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let SideChoice { outside, inside } = *self;
        if outside == inside { outside.serialize(serializer) } else { Sides { outside, inside }.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for SideChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = SideChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "\"accept\", \"drop\" or a choice for each side, such as { outside = \"drop\", inside = \"accept\" }",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<SideChoice, E> {
                match text {
                    "accept" => Ok(SideChoice::both(Choice::Accept)),
                    "drop" => Ok(SideChoice::both(Choice::Drop)),
                    _ => Err(E::unknown_variant(text, &["accept", "drop"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SideChoice, A::Error> {
                let Sides { outside, inside } = Sides::deserialize(MapAccessDeserializer::new(map))?;
                Ok(SideChoice { outside, inside })
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Maximum rate of a class from one side, in frames per second, for all workers together. The number of one second may
/// pass at once. Written as a number, or as `"off"` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRate(Option<NonZeroU32>);

impl FrameRate {
    /// No limit.
    pub const OFF: FrameRate = FrameRate(None);

    /// The maximum limit. Above it, the rounding of the interval between two frames to nanoseconds has an error of more
    /// than a thousandth.
    const MAX: u32 = 1_000_000;

    const SECOND_NS: u64 = 1_000_000_000;

    /// This number of frames per second, from 1 to 1,000,000.
    pub const fn per_second(frames: u32) -> Option<FrameRate> {
        match NonZeroU32::new(frames) {
            Some(limit) if frames <= FrameRate::MAX => Some(FrameRate(Some(limit))),
            _ => None,
        }
    }

    /// Whether there is no limit.
    pub const fn is_off(self) -> bool {
        self.0.is_none()
    }

    /// Counts a frame if the rate admits it. `paid_until` is the time until which earlier frames have used the rate
    /// (the theoretical arrival time of GCRA, ITU-T I.371), zero at first. Returns the new value of `paid_until`;
    /// `None` if the frame exceeds the rate. The state is one number, so that workers can share it without a lock.
    pub fn admit(self, paid_until: Time, now: Time) -> Option<Time> {
        let Some(limit) = self.0 else { return Some(paid_until) };
        let interval = FrameRate::SECOND_NS / u64::from(limit.get());
        let ahead = paid_until.as_nanos().saturating_sub(now.as_nanos());
        let paid = Time::from_nanos(paid_until.max(now).as_nanos().saturating_add(interval));
        (ahead + interval <= FrameRate::SECOND_NS).then_some(paid)
    }
}

impl Default for FrameRate {
    /// The default is far more than the hosts of an Ethernet segment send together: at most a few hundred frames per
    /// second, when all of them start at once. It is far less than a rate that slows down a host: Linux handles about
    /// 100,000 ARP packets per second on one core.
    fn default() -> Self {
        FrameRate(NonZeroU32::new(1000))
    }
}

impl Serialize for FrameRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(limit) => serializer.serialize_u32(limit.get()),
            None => serializer.serialize_str("off"),
        }
    }
}

impl<'de> Deserialize<'de> for FrameRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Reader {
            fn limit<E: Error>(frames: impl TryInto<u32> + Copy + fmt::Display) -> Result<FrameRate, E> {
                frames.try_into().ok().and_then(FrameRate::per_second).ok_or_else(|| {
                    E::custom(format!(
                        "`rate` is {frames}; write frames per second, from 1 to 1000000, or \"off\" for no limit; to let none \
                         of a class pass, set the class to \"drop\""
                    ))
                })
            }
        }
        impl Visitor<'_> for Reader {
            type Value = FrameRate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("frames per second, such as 1000, or \"off\" for no limit")
            }

            fn visit_u64<E: Error>(self, frames: u64) -> Result<FrameRate, E> {
                Reader::limit(frames)
            }

            fn visit_i64<E: Error>(self, frames: i64) -> Result<FrameRate, E> {
                Reader::limit(frames)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<FrameRate, E> {
                match text {
                    "off" => Ok(FrameRate::OFF),
                    _ => Err(E::unknown_variant(text, &["off"])),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// The permitted bytes that pad an ARP packet's frame to Ethernet's minimum length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Padding {
    /// Zeros, as nearly all senders send (RFC 894, RFC 1042).
    #[default]
    Zero,
    /// Any bytes.
    Any,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FrameClasses, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_class_has_one_choice_or_one_for_each_side() {
        let classes = read("arp = \"drop\"\nlldp = { outside = \"drop\", inside = \"accept\" }").unwrap();
        assert_eq!(classes.arp, SideChoice::both(Choice::Drop));
        assert_eq!(classes.choice(FrameClass::Lldp, Side::Inside), Choice::Accept);
        assert_eq!(classes.choice(FrameClass::Lldp, Side::Outside), Choice::Drop);
        assert_eq!(
            FrameClasses { arp: FrameClasses::default().arp, lldp: classes.eapol, ..classes },
            read("").unwrap()
        );
    }

    #[test]
    fn frames_that_change_routes_pass_only_from_inside() {
        let classes = FrameClasses::default();
        for class in [FrameClass::RouterAdvertisement, FrameClass::Redirect] {
            assert_eq!(classes.choice(class, Side::Outside), Choice::Drop);
            assert_eq!(classes.choice(class, Side::Inside), Choice::Accept);
        }
    }

    #[test]
    fn the_written_form_parses_to_the_same_value() {
        let text = "redirect = { outside = \"accept\", inside = \"drop\" }\nrate = \"off\"\npadding = \"any\"\n\
                    outside-addresses = [\"192.0.2.1/32\"]";
        for classes in [FrameClasses::default(), read(text).unwrap()] {
            assert_eq!(read(&toml::to_string(&classes).unwrap()).unwrap(), classes);
            assert_eq!(
                serde_json::from_str::<FrameClasses>(&serde_json::to_string(&classes).unwrap()).unwrap(),
                classes
            );
        }
    }

    #[test]
    fn errors_are_refused_with_the_remedy() {
        let cases = [
            ("arp = \"pass\"", "unknown variant `pass`, expected `accept` or `drop`"),
            ("arp = 1", "expected \"accept\", \"drop\" or a choice for each side"),
            ("arp = { outside = \"drop\" }", "missing field `inside`"),
            ("arp = { outside = \"drop\", inside = \"drop\", both = \"drop\" }", "unknown field `both`"),
            ("rate = 0", "`rate` is 0; write frames per second, from 1 to 1000000, or \"off\""),
            ("rate = -1", "`rate` is -1; write frames per second"),
            ("rate = 1000001", "`rate` is 1000001; write frames per second"),
            ("rate = \"on\"", "unknown variant `on`, expected `off`"),
            ("rate = 1.5", "expected frames per second, such as 1000, or \"off\" for no limit"),
            ("padding = \"zeros\"", "unknown variant `zeros`, expected `zero` or `any`"),
            ("outside-addresses = [\"here\"]", "invalid IP address syntax"),
            ("rarp = \"drop\"", "unknown field `rarp`"),
        ];
        for (text, expected) in cases {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: expected {expected:?} in {error:?}");
        }
    }

    #[test]
    fn a_seconds_worth_passes_at_once_and_then_the_rate() {
        let rate = FrameRate::per_second(10).unwrap();
        let mut paid = Time::default();
        let mut passes = |ms: u64| match rate.admit(paid, Time::from_nanos(ms * 1_000_000)) {
            Some(until) => {
                paid = until;
                true
            }
            None => false,
        };
        assert_eq!((0..20).filter(|_| passes(5_000)).count(), 10);
        assert!(!passes(5_099) && passes(5_100) && !passes(5_100));
        assert_eq!((0..1000).filter(|step| passes(5_101 + step)).count(), 10, "ten a second");
        assert_eq!((0..20).filter(|_| passes(60_000)).count(), 10, "unused frames do not accumulate beyond one second");
        assert!(!passes(59_000), "a worker whose clock is behind gains nothing");
    }

    #[test]
    fn a_full_bucket_holds_the_rate_whatever_it_is() {
        for frames in [1, 2, 3, 7, 1000, 999_999, FrameRate::MAX] {
            let rate = FrameRate::per_second(frames).unwrap();
            let (mut paid, now) = (Time::default(), Time::from_nanos(1 << 40));
            let mut passed = 0;
            while let Some(until) = rate.admit(paid, now) {
                (paid, passed) = (until, passed + 1);
            }
            assert!(passed == frames || passed == frames + 1, "{frames}: {passed}");
        }
        assert!(FrameRate::OFF.admit(Time::NEVER, Time::default()).is_some() && FrameRate::per_second(0).is_none());
    }
}
