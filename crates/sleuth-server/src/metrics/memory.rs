use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use sleuth_service::VersionStats;
use sleuth_telemetry::metrics::Family;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Place {
    device: &'static str,
    version: String,
    adapter: String,
    kind: &'static str,
}

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    versions: &[VersionStats],
) -> fmt::Result {
    let bytes = versions.iter().flat_map(|v| {
        let engine = &v.engine;
        let kinds = [
            ("weights", engine.memory.weights),
            ("workspace", engine.memory.workspace),
            ("kv_prefix", engine.prefix_cache.resident_bytes),
            ("kv_running", engine.running_kv_bytes),
            ("kv_open", engine.open.bytes),
            ("vision", engine.vision_cache.resident_bytes),
        ];
        let device = if engine.memory.device.is_empty() { "none" } else { engine.memory.device };
        kinds.map(|(kind, bytes)| {
            let version = v.card.version.clone();
            let adapter = v.card.adapter.clone().unwrap_or_default();
            (Place { device, version, adapter, kind }, bytes)
        })
    });
    let help = "Bytes on a device: weights, buffers, keys and values, images' features.";
    Family::new(encoder, "memory_bytes", help).gauges(bytes)
}
