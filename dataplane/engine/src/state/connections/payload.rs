//! The state of payload inspection of one connection.

use knockplane_policy::packet::Packet;

use crate::state::layer7::PayloadMatchers;
use crate::state::layer7::{PatternProgress, PatternSet};
use crate::state::server_name::{ServerName, ServerNameStream};

/// The state of payload inspection of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InspectedPayload {
    /// The id of the patterns; the state of other patterns is void.
    payload_matchers: u64,
    patterns: PatternProgress,
    /// The layer 7 streams of the originator and of the responder.
    streams: [ServerNameStream; 2],
}

impl InspectedPayload {
    pub(super) fn new(payload_matchers: &PayloadMatchers) -> InspectedPayload {
        InspectedPayload {
            payload_matchers: payload_matchers.id,
            patterns: payload_matchers.patterns.begin(),
            streams: Default::default(),
        }
    }

    /// A connection that began under other patterns matches none of the new ones, because its first bytes were not
    /// kept.
    pub(super) fn inspect(&mut self, packet: &Packet<'_>, back: bool, payload_matchers: &PayloadMatchers) {
        if self.payload_matchers != payload_matchers.id {
            *self = InspectedPayload {
                payload_matchers: payload_matchers.id,
                patterns: PatternProgress::over(),
                streams: [ServerNameStream::over(); 2],
            };
        }
        payload_matchers.patterns.go_on(&mut self.patterns, packet.payload);
        self.streams[usize::from(back)].push(packet, &payload_matchers.names);
    }

    pub(super) const fn patterns(&self) -> PatternSet {
        self.patterns.found
    }

    pub(super) fn name(&self, back: bool) -> ServerName {
        self.streams[usize::from(back)].server_name()
    }
}
