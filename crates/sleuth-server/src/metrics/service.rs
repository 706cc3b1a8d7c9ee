use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use sleuth_service::{PhaseStats, ServiceStats};
use sleuth_telemetry::metrics::Family;
use sleuth_telemetry::traces::Phase;

use super::engine::counted;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ItemPhase {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyResult {
    result: &'static str,
}

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    stats: &ServiceStats,
    phases: &PhaseStats,
) -> fmt::Result {
    let PhaseStats { tokenise, decode, realign } = phases;
    let phases = [(Phase::Tokenise, tokenise), (Phase::Decode, decode), (Phase::Realign, realign)];
    let phases = phases.map(|(phase, d)| (ItemPhase { phase: phase.name() }, counted(d)));
    let help = "Time of items' phases outside of batches.";
    Family::new(encoder, "item_phase_seconds", help).histograms(phases)?;
    let keys = &stats.idempotency;
    let results = [
        ("started", keys.started),
        ("joined", keys.joined),
        ("replayed", keys.replayed),
        ("conflict", keys.conflicts),
        ("rescored", keys.rescored),
        ("given_up", keys.given_up),
        ("finished_alone", keys.finished_alone),
    ];
    let results = results.map(|(result, n)| (KeyResult { result }, n));
    Family::new(encoder, "idempotency", "What came of idempotency keys.").counters(results)?;
    let help = "Bytes of responses that were appended piece by piece, of items that ended.";
    Family::new(encoder, "appended_bytes", help).counter(stats.appended_bytes)?;
    let help = "Those of them whose tokens only the end of the response settled.";
    Family::new(encoder, "held_back_bytes", help).counter(stats.held_back_bytes)?;
    Family::new(encoder, "images", "Images that are held for items to name.")
        .gauge(stats.images.images as u64)
}
