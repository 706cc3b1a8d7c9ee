use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use sleuth_engine::{BATCH_TOKEN_BOUNDS, Distribution, Measured};
use sleuth_service::VersionStats;
use sleuth_telemetry::metrics::{Counted, Family};

use super::Version;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionPhase {
    version: String,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionEnd {
    version: String,
    end: &'static str,
}

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    versions: &[VersionStats],
) -> fmt::Result {
    batches(encoder, versions)?;
    waits(encoder, versions)?;
    counters(encoder, versions)?;
    gauges(encoder, versions)
}

/// What a distribution has counted.
pub(super) fn counted(distribution: &Distribution) -> Counted<'_> {
    Counted {
        bounds: distribution.bounds(),
        counts: distribution.counts(),
        sum: distribution.sum(),
    }
}

/// One distribution of each version.
fn of_each<'v>(
    versions: &'v [VersionStats],
    which: impl Fn(&'v Measured) -> &'v Distribution,
) -> impl Iterator<Item = (Version, Counted<'v>)> {
    versions.iter().map(move |v| (Version::of(v), counted(which(&v.engine.measured))))
}

fn batches(encoder: &mut DescriptorEncoder<'_>, versions: &[VersionStats]) -> fmt::Result {
    let bounds = BATCH_TOKEN_BOUNDS.map(|bound| bound as f64);
    let tokens = versions.iter().map(|v| {
        let (counts, sum) = (v.engine.batch_tokens.as_slice(), v.engine.tokens as f64);
        (Version::of(v), Counted { bounds: &bounds, counts, sum })
    });
    Family::new(
        encoder,
        "batch_tokens",
        "Tokens of batches, prefixes that had to be computed included.",
    )
    .histograms(tokens)?;
    Family::new(encoder, "batch_items", "Items of batches.")
        .histograms(of_each(versions, |m| &m.batch_items))?;
    Family::new(encoder, "batch_seconds", "Time that batches took on a worker.")
        .histograms(of_each(versions, |m| &m.batch_seconds))?;
    let phases = versions.iter().flat_map(|v| {
        v.engine.measured.phases.iter().map(|(phase, distribution)| {
            let version = v.card.version.clone();
            (VersionPhase { version, phase: phase.name() }, counted(distribution))
        })
    });
    let help = "Time of the phases of batches that had them.";
    Family::new(encoder, "batch_phase_seconds", help).histograms(phases)
}

fn waits(encoder: &mut DescriptorEncoder<'_>, versions: &[VersionStats]) -> fmt::Result {
    let help = "Time that items were predicted to wait when they took room in the queue.";
    Family::new(encoder, "queue_wait_predicted_seconds", help)
        .histograms(of_each(versions, |m| &m.predicted_wait))?;
    Family::new(encoder, "queue_wait_seconds", "Time that items waited for their batch.")
        .histograms(of_each(versions, |m| &m.wait))?;
    let predicted = versions.iter().map(|v| (Version::of(v), v.predicted_wait.as_secs_f64()));
    let help = "Time that an item which came now would wait.";
    Family::new(encoder, "predicted_queue_seconds", help).gauges(predicted)
}

fn counters(encoder: &mut DescriptorEncoder<'_>, versions: &[VersionStats]) -> fmt::Result {
    let ends = versions.iter().flat_map(|v| {
        let engine = &v.engine;
        let ends = [
            ("scored", engine.scored),
            ("failed", engine.failed),
            ("refused", engine.refused),
            ("expired", engine.expired),
            ("cancelled", engine.cancelled),
            ("drained", engine.drained),
        ];
        ends.map(|(end, n)| (VersionEnd { version: v.card.version.clone(), end }, n))
    });
    let help = "Items, and appends to open ones, by how they left the queue.";
    Family::new(encoder, "engine_items", help).counters(ends)?;
    let abandoned = versions.iter().map(|v| (Version::of(v), v.engine.abandoned));
    let help = "Items computed although nobody waited any more.";
    Family::new(encoder, "engine_abandoned_items", help).counters(abandoned)?;
    let panics = versions.iter().map(|v| (Version::of(v), v.engine.panics));
    Family::new(encoder, "model_panics", "Panics caught in the model.").counters(panics)?;
    let lost = versions.iter().map(|v| (Version::of(v), v.engine.devices_lost));
    Family::new(encoder, "devices_lost", "Devices that failed for good.").counters(lost)?;
    let prefixes = versions.iter().map(|v| (Version::of(v), v.engine.prefixes_computed));
    let help = "Prefixes that batches had to compute.";
    Family::new(encoder, "prefixes_computed", help).counters(prefixes)?;
    let copied = versions.iter().map(|v| (Version::of(v), v.engine.prefix_cache.copied));
    let help = "Prefixes copied from another device.";
    Family::new(encoder, "prefixes_copied", help).counters(copied)?;
    let again = versions.iter().map(|v| (Version::of(v), v.engine.open.recomputed_tokens));
    let help = "Tokens of open items computed again because memory was short.";
    Family::new(encoder, "open_recomputed_tokens", help).counters(again)
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, versions: &[VersionStats]) -> fmt::Result {
    let mut gauge = |name, help, which: fn(&VersionStats) -> usize| {
        let values = versions.iter().map(|v| (Version::of(v), which(v) as u64));
        Family::new(encoder, name, help).gauges(values)
    };
    gauge("queued_items", "Items that wait.", |v| v.engine.queued_items)?;
    gauge("queued_tokens", "Tokens of items that wait.", |v| v.engine.queued_tokens)?;
    gauge("running_items", "Items that are computed.", |v| v.engine.running_items)?;
    gauge("running_tokens", "Tokens that are computed.", |v| v.engine.running_tokens)?;
    gauge("open_items", "Items that are being generated.", |v| v.engine.open.items)?;
    gauge("workers", "Workers of the device.", |v| v.engine.workers)?;
    let errors = versions.iter().map(|v| (Version::of(v), v.engine.prediction_error));
    let help = "Mean of |predicted - measured| / measured over recent batches.";
    Family::new(encoder, "prediction_error_ratio", help).gauges(errors)
}
