use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use sleuth_core::{Load, PrefixChanges, ScoreRequest, prefix_digest};
use sleuth_engine::{Engine, EngineSettings, SimulatedDevice, SimulatedModel};

use super::*;
use crate::fake::{FakePrepare, card};
use crate::{Caller, LoadedModel, ScoreService, Scorer as _, ServiceSettings};

/// A service over a device that holds one prefix.
async fn service() -> ScoreService {
    let device = SimulatedDevice {
        batch_time: Duration::ZERO,
        tokens_per_second: 1e9,
        image_tokens: 4,
        prefixes: NonZeroUsize::MIN,
    };
    let build = move || Ok::<_, std::io::Error>(SimulatedModel::pool(NonZeroUsize::MIN, device));
    let engine = Engine::start(build, EngineSettings::default()).await.unwrap();
    let model = LoadedModel::new(card(), FakePrepare::default(), engine);
    ScoreService::new(model, ServiceSettings::default())
}

async fn score(service: &ScoreService, image: &'static [u8], prompt: Option<&str>) {
    let mut request = ScoreRequest::new(Bytes::from_static(image), "fine");
    request.context.prompt = prompt.map(str::to_owned);
    service.score(&Caller::default(), request).await.unwrap();
}

fn digest(image: &[u8], prompt: Option<&str>) -> [u8; 32] {
    let own = card();
    prefix_digest(&own.version, blake3::hash(image).as_bytes(), prompt.unwrap_or(&own.prompt))
}

#[tokio::test]
async fn prefixes_that_come_and_leave_are_told_once() {
    let service = service().await;
    let mut told = Told::default();
    assert_eq!(service.prefix_changes(&mut told), PrefixChanges::default());
    score(&service, b"cat", None).await;
    let changes = service.prefix_changes(&mut told);
    assert_eq!(changes.removed, Vec::<[u8; 32]>::new());
    let digests: Vec<_> = changes.added.iter().map(|prefix| prefix.digest).collect();
    assert_eq!(digests, [digest(b"cat", None)]);
    assert!(changes.added[0].positions > 4);

    score(&service, b"cat", None).await;
    assert_eq!(service.prefix_changes(&mut told), PrefixChanges::default());
    // Somebody who comes later is told all.
    assert_eq!(service.prefix_changes(&mut Told::default()).added, changes.added);

    score(&service, b"cat", Some("another")).await;
    let changes = service.prefix_changes(&mut told);
    assert_eq!(changes.removed, [digest(b"cat", None)]);
    assert_eq!(changes.added[0].digest, digest(b"cat", Some("another")));
    // And back: what left can come again.
    score(&service, b"cat", None).await;
    let changes = service.prefix_changes(&mut told);
    assert_eq!(changes.added[0].digest, digest(b"cat", None));
}

#[tokio::test]
async fn the_load_tells_versions_and_what_work_costs() {
    let service = service().await;
    score(&service, b"cat", None).await;
    let load = service.load().unwrap();
    assert_eq!(load.versions, [card().version]);
    assert_eq!((load.kv_used_bytes, load.kv_limit_bytes), (1, 1));
    assert!(load.prefix_seconds >= 0.0 && load.response_token_seconds >= 0.0, "{load:?}");
    assert_eq!(Load { queue: Duration::ZERO, ..load }.unfinished_items, 0);
}
