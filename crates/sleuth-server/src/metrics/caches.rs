use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use sleuth_engine::CacheStats;
use sleuth_service::{ServiceStats, VersionStats};
use sleuth_telemetry::metrics::Family;

/// `version` is empty for caches that all versions share.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cache {
    cache: &'static str,
    version: String,
}

/// A cache's figures. What a cache does not know is `None`.
struct Figures {
    cache: Cache,
    hits: u64,
    misses: u64,
    evictions: Option<u64>,
    bytes: u64,
    limit: Option<u64>,
}

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    versions: &[VersionStats],
    service: &ServiceStats,
) -> fmt::Result {
    let of_versions = versions.iter().flat_map(|v| {
        [("prefix", &v.engine.prefix_cache), ("vision", &v.engine.vision_cache)]
            .map(|(cache, stats)| Figures::of_engine(cache, &v.card.version, stats))
    });
    let all: Vec<Figures> = of_versions.chain(shared(service)).collect();
    let help = "Lookups that found what they wanted, or somebody computing it.";
    let hits = all.iter().map(|f| (f.cache.clone(), f.hits));
    Family::new(encoder, "cache_hits", help).counters(hits)?;
    let misses = all.iter().map(|f| (f.cache.clone(), f.misses));
    Family::new(encoder, "cache_misses", "Lookups that found nothing.").counters(misses)?;
    let evictions = all.iter().filter_map(|f| Some((f.cache.clone(), f.evictions?)));
    Family::new(encoder, "cache_evictions", "Entries that made room for others.")
        .counters(evictions)?;
    let bytes = all.iter().map(|f| (f.cache.clone(), f.bytes));
    Family::new(encoder, "cache_bytes", "Bytes held.").gauges(bytes)?;
    let limits = all.iter().filter_map(|f| Some((f.cache.clone(), f.limit?)));
    Family::new(encoder, "cache_limit_bytes", "Bytes that may be held.").gauges(limits)
}

/// The caches that do not belong to a version.
fn shared(service: &ServiceStats) -> [Figures; 2] {
    let cache = |cache| Cache { cache, version: String::new() };
    let (images, keys) = (&service.images, &service.idempotency);
    [
        Figures {
            cache: cache("images"),
            hits: images.hits,
            misses: images.misses,
            evictions: Some(images.evicted),
            bytes: images.bytes,
            limit: None,
        },
        Figures {
            cache: cache("idempotency"),
            hits: keys.joined + keys.replayed,
            misses: keys.started,
            evictions: None,
            bytes: keys.stored_bytes,
            limit: None,
        },
    ]
}

// === impl Figures ===

impl Figures {
    fn of_engine(cache: &'static str, version: &str, stats: &CacheStats) -> Self {
        Self {
            cache: Cache { cache, version: version.to_owned() },
            hits: stats.hits + stats.joined,
            misses: stats.misses,
            evictions: Some(stats.evictions),
            bytes: stats.resident_bytes,
            limit: Some(stats.limit_bytes),
        }
    }
}
