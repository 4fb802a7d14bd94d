//! Requests about traces of packets.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use knockplane_log::target;
use knockplane_policy::wire::trace::{TraceBegun, TraceQuery, TracedPacket, TracedPackets};
use schemars::JsonSchema;
use serde::Serialize;
use tracing::info;

use super::App;
use super::failure::ApiError;
use super::messages::BeginTrace;
use super::operator::Operator;
use crate::{bench, packet, rules};

/// The packets since the last read.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DescribedPackets {
    /// The packets, in the order of their arrival.
    packets: Vec<DescribedPacket>,
    /// The number of packets since the begin that fit, but were over the rate or found no room.
    missed: u64,
    /// Whether the time of the trace is over: then no packets follow these.
    is_over: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct DescribedPacket {
    #[serde(flatten)]
    packet: TracedPacket,
    /// The packet in the words of `knockctl explain`; `null` for a frame that rules do not see.
    text: Option<String>,
}

impl From<TracedPackets> for DescribedPackets {
    fn from(TracedPackets { packets, missed, is_over }: TracedPackets) -> Self {
        let described = |packet: TracedPacket| {
            let text = bench::parse(&packet.frame()).map(|packet| packet::summary(&packet));
            DescribedPacket { packet, text }
        };
        DescribedPackets { packets: packets.into_iter().map(described).collect(), missed, is_over }
    }
}

pub(super) async fn begin(
    State(app): State<Arc<App>>,
    operator: Operator,
    body: Result<Json<BeginTrace>, JsonRejection>,
) -> Result<Json<TraceBegun>, ApiError> {
    let Json(BeginTrace { filter, time, rate }) = body?;
    let query =
        TraceQuery { filter: filter.clone(), time: rules::timeout(&time).map_err(ApiError::bad_request)?, rate };
    let begun = app.ask(app.dataplane.begin_trace(query)).await?;
    info!(target: target!("operator"), filter, time, operator.by.uid = operator.uid(), operator.by.token = operator.token(), operator.by.page = operator.is_at_page().then_some(true), "packets traced");
    Ok(Json(begun))
}

pub(super) async fn read(
    State(app): State<Arc<App>>,
    path: Result<Path<u64>, PathRejection>,
) -> Result<Json<DescribedPackets>, ApiError> {
    let Path(trace) = path?;
    Ok(Json(app.ask(app.dataplane.read_trace(trace)).await?.into()))
}

pub(super) async fn end(
    State(app): State<Arc<App>>,
    path: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(trace) = path?;
    app.ask(app.dataplane.end_trace(trace)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use knockplane_policy::packet::Side;
    use knockplane_policy::reason::{Reason, Verdict};
    use serde_json::{Value, json};

    use super::*;

    fn text(bytes: Vec<u8>) -> Value {
        let (side, verdict, reason) = (Side::Outside, Verdict::Drop, Reason::ChainDefault);
        let packet =
            TracedPacket { at: 7, side, verdict, reason, generation: 1, facts: None, length: bytes.len(), bytes };
        let packets = TracedPackets { packets: vec![packet], ..TracedPackets::default() };
        let answer = serde_json::to_value(DescribedPackets::from(packets)).unwrap();
        assert_eq!((&answer["packets"][0]["at"], &answer["is_over"]), (&json!(7), &json!(false)));
        answer["packets"][0]["text"].clone()
    }

    #[test]
    fn a_packet_is_described_and_another_frame_is_not() {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let packet = ethernet.ipv4([198, 51, 100, 7], [203, 0, 113, 5], 64).udp(4000, 53);
        let mut frame = Vec::new();
        packet.write(&mut frame, b"hello").unwrap();
        assert_eq!(text(frame), "udp 198.51.100.7:4000 > 203.0.113.5:53, 33 bytes");
        let mut request = vec![0xff; 60];
        request[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(text(request), Value::Null);
    }
}
