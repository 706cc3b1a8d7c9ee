use std::path::Path;

use sleuth_models::cpu::{CpuModel, KvType, SuffixKv};
use sleuth_models::mllama::MllamaFolder;
use sleuth_models::{LoadOptions, ModelFolder};

use super::*;

fn pool(workers: usize, prefix_bytes: u64) -> Vec<BackboneWorker<CpuModel>> {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/paligemma/many_kv_heads");
    let opened = ModelFolder::open(&folder, &LoadOptions::default()).unwrap();
    let model = opened.load_cpu(KvType::F32).unwrap();
    let settings = PoolSettings { workers, prefix_bytes, ..PoolSettings::with_threads(2) };
    BackboneWorker::pool(model, "v1", settings).unwrap()
}

fn item(shade: f32, prompt: &[u32], response: &[u32]) -> Task<SuffixKv> {
    let prepared = Prepared {
        pixels: Pixels::try_new(28, 28, vec![shade; 3 * 28 * 28].into()).unwrap(),
        image_key: [(shade * 10.0) as u8; 32],
        prompt: Arc::from(prompt),
        response: Arc::from(response),
    };
    Task { prepared, part: Part::Whole }
}

fn batch() -> Vec<Task<SuffixKv>> {
    vec![
        item(0.1, &[2, 5], &[7, 8, 9]),
        item(0.5, &[2, 5], &[7, 8]),
        item(0.1, &[2, 6, 4], &[11]),
        item(0.1, &[2, 5], &[12, 13, 14, 15]),
    ]
}

fn bits(outcome: Result<Outcome<SuffixKv>, ModelFailure>) -> Vec<u32> {
    outcome.unwrap().logits.into_iter().map(f32::to_bits).collect()
}

#[test]
fn items_of_mixed_groups_get_the_bits_they_get_alone() {
    let together = pool(1, 1 << 30).remove(0).score(batch());
    for (item, got) in batch().into_iter().zip(together) {
        let alone = pool(1, 0).remove(0).score(vec![item]).remove(0);
        assert_eq!(bits(got), bits(alone));
    }
}

#[test]
fn a_held_prefix_is_told_and_counted_and_changes_no_bit() {
    let mut workers = pool(2, 1 << 30);
    let first = workers[0].score(batch());
    let told: Vec<_> = first.iter().map(|o| o.as_ref().unwrap().reuse).collect();
    assert_eq!(told.iter().map(|r| r.prefix).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!(told[0].prefix_rows, workers[0].facts().image_tokens + 2);
    let work = workers[0].work(&batch());
    let again = workers[1].score(batch());
    assert!(again.iter().all(|o| o.as_ref().unwrap().reuse.prefix));
    assert!(work.vision == 0.0 && work.linear > 0.0);
    assert!(first.into_iter().map(bits).eq(again.into_iter().map(bits)));
    let prefixes = workers[0].facts().prefixes;
    let (kv, vision) = (prefixes.prefix_stats(), prefixes.vision_stats());
    assert_eq!((kv.hits, kv.misses, kv.resident_entries), (3, 3, 3));
    assert_eq!((vision.misses, vision.resident_entries), (2, 2));
    let one = workers[0].facts().kv.kept(workers[0].facts().image_tokens + 3);
    assert_eq!(kv.resident_bytes, 3 * one);
}

#[test]
fn without_room_in_the_cache_scores_are_the_same() {
    let mut worker = pool(1, 1).remove(0);
    let (one, two) = (worker.score(batch()), worker.score(batch()));
    assert!(one.into_iter().map(bits).eq(two.into_iter().map(bits)));
    assert_eq!(worker.facts().prefixes.prefix_stats().rejected, 6);
}

#[test]
fn an_item_that_goes_on_pins_its_prefix() {
    let mut worker = pool(1, 1 << 30).remove(0);
    let whole = worker.score(vec![item(0.1, &[2, 5], &[7, 8, 9])]).remove(0);
    let mut first = item(0.1, &[2, 5], &[7]);
    first.part = Part::First;
    let mut done = worker.score(vec![first]);
    let Outcome { mut logits, kept, .. } = done.remove(0).unwrap();
    let mut next = item(0.1, &[2, 5], &[8, 9]);
    next.part = Part::Next(kept.unwrap());
    let outcome = worker.score(vec![next, item(0.9, &[2], &[3])]).remove(0).unwrap();
    assert!(outcome.reuse.prefix && outcome.reuse.vision);
    logits.extend(outcome.logits);
    assert_eq!(logits.into_iter().map(f32::to_bits).collect::<Vec<_>>(), bits(whole));
}

#[test]
fn workers_that_want_one_image_at_a_time_compute_it_once() {
    let workers = pool(4, 1 << 30);
    let prefixes = workers[0].facts().prefixes;
    std::thread::scope(|scope| {
        for (n, mut worker) in workers.into_iter().enumerate() {
            // One image, four prompts: four prefixes.
            scope.spawn(move || worker.score(vec![item(0.3, &[2, n as u32], &[7])]));
        }
    });
    let (kv, vision) = (prefixes.prefix_stats(), prefixes.vision_stats());
    assert_eq!((kv.misses, vision.misses), (4, 1));
}

/// Llama 3.2 Vision: a prompt of it holds its image, and images are canvases of whole tiles.
fn of_tiles(image: u8, (height, width): (u32, u32), prompt: &[u32]) -> Task<SuffixKv> {
    let values = vec![f32::from(image) / 10.0; 3 * height as usize * width as usize];
    let prepared = Prepared {
        pixels: Pixels::try_new(height, width, values.into()).unwrap(),
        image_key: [image; 32],
        prompt: Arc::from(prompt),
        response: Arc::from([7, 8, 9]),
    };
    Task { prepared, part: Part::Whole }
}

#[test]
fn a_malformed_item_fails_alone() {
    const IMAGE: u32 = 160;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/mllama/wide_image");
    let opened = MllamaFolder::open(&folder, &LoadOptions::default()).unwrap();
    let worker = || {
        let model = opened.load_cpu(KvType::F32).unwrap();
        BackboneWorker::pool(model, "v1", PoolSettings::with_threads(2)).unwrap().remove(0)
    };
    let sound = || [of_tiles(1, (28, 84), &[5, IMAGE, 6]), of_tiles(2, (56, 28), &[IMAGE, 6])];
    let [first, second] = sound();
    let batch = vec![
        of_tiles(3, (28, 30), &[IMAGE, 6]),
        first,
        of_tiles(1, (28, 84), &[5, 6]),
        second,
        of_tiles(1, (28, 84), &[IMAGE, IMAGE]),
    ];
    let mut together = worker().score(batch);
    let told = |outcome: Result<Outcome<SuffixKv>, ModelFailure>| match outcome {
        Err(ModelFailure::Forward(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(told(together.remove(4)).contains("holds the image 2 times"));
    let [canvas, one, places, two] = together.try_into().unwrap();
    assert!(told(canvas).contains("28 by 30"));
    assert!(told(places).contains("holds the image 0 times"));
    for (item, got) in sound().into_iter().zip([one, two]) {
        assert_eq!(bits(got), bits(worker().score(vec![item]).remove(0)));
    }
    // Nothing is left to run.
    let all = vec![of_tiles(3, (28, 30), &[IMAGE]), of_tiles(3, (28, 28), &[6])];
    assert!(worker().score(all).into_iter().all(|outcome| outcome.is_err()));
}
