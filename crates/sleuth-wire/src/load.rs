use std::time::Duration;

use sleuth_core::{Load, LoadReport, PrefixChanges, ResidentPrefix};
use sleuth_proto::v1;

use crate::Unreadable;
use crate::item::duration;

/// A load report as it is sent.
pub fn load_response(report: LoadReport) -> v1::WatchLoadResponse {
    let LoadReport { sequence, load, prefixes, draining } = report;
    let bytes = |digest: [u8; 32]| digest.to_vec().into();
    let added = prefixes.added.into_iter().map(|prefix| v1::ResidentPrefix {
        digest: bytes(prefix.digest),
        positions: prefix.positions,
    });
    v1::WatchLoadResponse {
        sequence,
        // A queue too long to be told is told as unknown: absent.
        predicted_queue: load.queue.try_into().ok(),
        unfinished_items: u32::try_from(load.unfinished_items).unwrap_or(u32::MAX),
        kv_used_bytes: load.kv_used_bytes,
        kv_limit_bytes: load.kv_limit_bytes,
        added_prefixes: added.collect(),
        removed_prefixes: prefixes.removed.into_iter().map(bytes).collect(),
        versions: load.versions,
        draining,
        prefix_seconds: load.prefix_seconds,
        response_token_seconds: load.response_token_seconds,
    }
}

/// Reads a load report.
pub fn load_report(wire: v1::WatchLoadResponse) -> Result<LoadReport, Unreadable> {
    let digest = |bytes: &[u8], what| bytes.try_into().map_err(|_| Unreadable::Missing(what));
    let added = wire.added_prefixes.iter().map(|prefix| {
        let digest = digest(&prefix.digest, "added_prefixes")?;
        Ok(ResidentPrefix { digest, positions: prefix.positions })
    });
    let removed = wire.removed_prefixes.iter().map(|bytes| digest(bytes, "removed_prefixes"));
    let queue = wire.predicted_queue.as_ref().map(duration);
    let queue = queue.unwrap_or(Some(Duration::MAX)).ok_or(Unreadable::Missing("predicted_queue"));
    let seconds = |seconds: f64| {
        let sound = seconds.is_finite() && seconds >= 0.0;
        sound.then_some(seconds).ok_or(Unreadable::NotFinite)
    };
    Ok(LoadReport {
        sequence: wire.sequence,
        prefixes: PrefixChanges {
            added: added.collect::<Result<_, _>>()?,
            removed: removed.collect::<Result<_, _>>()?,
        },
        draining: wire.draining,
        load: Load {
            queue: queue?,
            unfinished_items: wire.unfinished_items as usize,
            kv_used_bytes: wire.kv_used_bytes,
            kv_limit_bytes: wire.kv_limit_bytes,
            prefix_seconds: seconds(wire.prefix_seconds)?,
            response_token_seconds: seconds(wire.response_token_seconds)?,
            versions: wire.versions,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> LoadReport {
        LoadReport {
            sequence: 7,
            load: Load {
                queue: Duration::from_millis(1500),
                unfinished_items: 3,
                kv_used_bytes: 1,
                kv_limit_bytes: 2,
                versions: vec!["v1".to_owned()],
                prefix_seconds: 0.25,
                response_token_seconds: 1e-5,
            },
            prefixes: PrefixChanges {
                added: vec![ResidentPrefix { digest: [1; 32], positions: 80 }],
                removed: vec![[2; 32]],
            },
            draining: true,
        }
    }

    #[test]
    fn a_report_comes_back_as_it_was_sent() {
        assert_eq!(load_report(load_response(report())), Ok(report()));
    }

    #[test]
    fn a_report_of_foreign_bytes_is_refused() {
        let mut short = load_response(report());
        short.removed_prefixes[0] = vec![0; 31].into();
        assert_eq!(load_report(short), Err(Unreadable::Missing("removed_prefixes")));
        let mut negative = load_response(report());
        negative.predicted_queue = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        assert_eq!(load_report(negative), Err(Unreadable::Missing("predicted_queue")));
        let mut nan = load_response(report());
        nan.prefix_seconds = f64::NAN;
        assert_eq!(load_report(nan), Err(Unreadable::NotFinite));
    }
}
