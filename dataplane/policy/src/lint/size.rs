//! Sizes that packets have only after reassembly. RouterOS reassembles packets before its rules; this filter does not.

use super::view::View;
use super::{Code, Lint};
use crate::packet::Family;
use crate::rule::{Condition, Matcher, Rule};

/// The default MTU of links in bytes, without jumbo frames. Source: RFC 894.
const MTU: u32 = 1_500;

/// Minimum and maximum size of an IPv4 packet in bytes. Source: RFC 791.
const SMALLEST: u32 = 20;
const LARGEST: u32 = 65_535;

pub(super) fn lints(view: &View<'_>, lints: &mut Vec<Lint>) {
    for (rule, _) in view.live() {
        let sizes = rule.matchers.iter().find_map(|matcher| match &matcher.condition {
            Condition::PacketSize(sizes) => Some((matcher, *sizes.start()..=*sizes.end())),
            _ => None,
        });
        if let Some((matcher, sizes)) = sizes {
            let (from, to) = (u32::from(*sizes.start()), u32::from(*sizes.end()));
            lints.extend(size(rule, matcher, from, to));
        }
    }
}

fn size(rule: &Rule, matcher: &Matcher, from: u32, to: u32) -> Option<Lint> {
    let is_above = if matcher.negated { from <= SMALLEST && (MTU..LARGEST).contains(&to) } else { from > MTU };
    let is_first_fragment = !matcher.negated && from == MTU && rule.family == Family::Ipv4;
    let (sentence, remedy) = if is_above {
        (
            format!(
                "this rule matches packets of more than {MTU} bytes, which arrive as fragments over a link with an MTU of \
                 {MTU}: fragments are not reassembled here, so it matches none of them"
            ),
            format!("match a size of at most {MTU}, and send packets of that size"),
        )
    } else if is_first_fragment {
        (
            format!(
                "{MTU} bytes is also the size of the first fragment of every longer packet over a link with an MTU of \
                 {MTU}: fragments are not reassembled here, so it matches those too"
            ),
            format!("match a size below {MTU}, and send packets of that size"),
        )
    } else {
        return None;
    };
    Some(Lint::new(Code::FragmentedSize, rule, sentence, remedy).at("packet-size"))
}
