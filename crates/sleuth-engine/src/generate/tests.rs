use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{D, DType, Device, Tensor};
use serde_json::Value;
use sleuth_core::Pixels;
use sleuth_models::cpu::KvType;
use sleuth_models::{BackboneFolder, LoadOptions, ModelConfig};

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden");
/// A gap of the two largest logits under which another order of sums may choose otherwise.
const CLOSE: f64 = 1e-3;

fn n(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

/// Of PaliGemma, unless the case's name says otherwise.
fn folder(case: &str) -> PathBuf {
    let architecture = if case.contains('/') { "" } else { "paligemma" };
    Path::new(GOLDEN).join(architecture).join(case)
}

fn backbone(case: &str, tau: f64) -> BackboneFolder {
    let folder = folder(case);
    let adapter = Some(folder.join("adapter")).filter(|adapter| adapter.exists());
    BackboneFolder::open(&folder, &LoadOptions { adapter, tau }).unwrap()
}

fn layout(threads: usize) -> LanguageSettings {
    LanguageSettings::with_threads(threads)
}

async fn start(case: &str, tau: f64, threads: usize, settings: GeneratorSettings) -> Generator {
    let opened = backbone(case, tau);
    let load = move || LanguageWorker::load(&opened, layout(threads), u64::MAX);
    Generator::start(load, settings).await.unwrap()
}

/// A case's image, prompt and first response, writing greedily after `given`.
struct Case {
    pixels: Pixels,
    prompt: Arc<[u32]>,
    response: Arc<[u32]>,
}

impl Case {
    fn open(case: &str) -> Self {
        let file = folder(case).join("golden.safetensors");
        let golden: HashMap<String, Tensor> =
            candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let ids = |name: &str| -> Arc<[u32]> {
            golden[name].to_dtype(DType::U32).unwrap().to_vec1().unwrap().into()
        };
        let pixels = golden.get("pixel_values").or(golden.get("canvas")).unwrap();
        let (height, width) = (pixels.dim(D::Minus2).unwrap(), pixels.dim(D::Minus1).unwrap());
        let values = pixels.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        Self {
            pixels: Pixels::try_new(height as u32, width as u32, values.into()).unwrap(),
            prompt: ids("prompt_ids"),
            response: ids("response_ids.0"),
        }
    }

    fn generate(&self, given: &[u32], candidates: usize, tokens: usize) -> Generate {
        Generate {
            pixels: self.pixels.clone(),
            image_key: [7; 32],
            prompt: Arc::clone(&self.prompt),
            given: given.into(),
            candidates: n(candidates),
            max_tokens: n(tokens),
            sampling: Sampling::Greedy,
            stop: Stop::default(),
        }
    }

    fn sampled(&self, candidates: usize, tokens: usize, seed: u64) -> Generate {
        let sampling = Sampling::Random { temperature: 1.0, top_p: None, top_k: None, seed };
        Generate { sampling, ..self.generate(&[], candidates, tokens) }
    }

    fn rate(&self, given: &[u32], continuations: &[&[u32]]) -> Rate {
        Rate {
            pixels: self.pixels.clone(),
            image_key: [7; 32],
            prompt: Arc::clone(&self.prompt),
            given: given.into(),
            continuations: continuations.iter().map(|&tokens| tokens.into()).collect(),
        }
    }
}

/// Equal up to the first step at which the reference was not sure.
fn assert_same(case: &str, got: &Candidate, want: &Value) {
    let list = |name: &str| want[name].as_array().unwrap().clone();
    let tokens: Vec<u32> = list("tokens").iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let sure = list("gaps").iter().take_while(|gap| gap.as_f64().unwrap() >= CLOSE).count();
    assert!(sure > 8, "{case}: the golden says too little");
    assert_eq!(got.tokens[..sure], tokens[..sure], "{case}");
    if sure == tokens.len() {
        let off = f64::from(got.log_probability) - want["log_probability"].as_f64().unwrap();
        assert!(off.abs() < 2e-2, "{case}: ln p is off by {off}");
    }
}

#[tokio::test]
async fn greedy_is_what_transformers_writes_and_probabilities_are_its() {
    let mut compared = 0;
    for (file, architecture) in
        [("generation.json", "paligemma"), ("mllama_generation.json", "mllama")]
    {
        let file = std::fs::read(Path::new(GOLDEN).join(file)).unwrap();
        let golden: Value = serde_json::from_slice(&file).unwrap();
        for (name, want) in golden.as_object().unwrap() {
            let name = format!("{architecture}/{name}");
            if folder(&name).exists() {
                assert_writes_as(&name, want).await;
                compared += 1;
            }
        }
    }
    assert!(compared >= 15, "{compared} cases");
}

async fn assert_writes_as(name: &str, want: &Value) {
    let case = Case::open(name);
    let tau = want["tau"].as_f64().unwrap();
    let generator = start(name, tau, 2, GeneratorSettings::default()).await;
    let written = generator.generate(case.generate(&[], 1, 24), None).await.unwrap();
    assert_eq!(written[0].ended, Ended::Length);
    assert_same(name, &written[0], want);
    let behind = case.generate(&case.response, 3, 24);
    for candidate in generator.generate(behind, None).await.unwrap() {
        assert_same(name, &candidate, &want["given"]);
    }
    let rated = generator.rate(case.rate(&[], &[&case.response]), None).await.unwrap();
    let wanted = want["rated"].as_array().unwrap();
    assert_eq!(rated[0].len(), wanted.len());
    for (got, want) in rated[0].iter().zip(wanted) {
        let off = f64::from(*got) - want.as_f64().unwrap();
        assert!(off.abs() < 5e-4, "{name}: ln p is off by {off}");
    }
}

#[tokio::test]
async fn candidates_of_one_batch_are_those_written_alone() {
    let case = Case::open("many_kv_heads");
    let generator = start("many_kv_heads", 1.0, 2, GeneratorSettings::default()).await;
    let eight = generator.generate(case.sampled(8, 20, 5), None).await.unwrap();
    // Another thread count, and other requests under way at once.
    let other = start("many_kv_heads", 1.0, 1, GeneratorSettings::default()).await;
    let (three, busy, again) = tokio::join!(
        other.generate(case.sampled(3, 20, 5), None),
        other.generate(case.generate(&case.response, 4, 33), None),
        other.generate(case.sampled(8, 20, 5), None),
    );
    assert_eq!(three.unwrap(), eight[..3], "candidate i draws from a stream of its own");
    assert_eq!(again.unwrap(), eight, "equal seeds write equal texts, to the bit of ln p");
    assert_eq!(busy.unwrap().len(), 4);
    let elsewhere = generator.generate(case.sampled(8, 20, 6), None).await.unwrap();
    assert_ne!(elsewhere, eight);
    let distinct: std::collections::HashSet<_> = eight.iter().map(|c| c.tokens.clone()).collect();
    assert!(distinct.len() > 6, "{} distinct of 8", distinct.len());
}

#[tokio::test]
async fn ln_p_of_a_candidate_is_that_of_rating_it() {
    let case = Case::open("v5_names");
    let generator = start("v5_names", 1.0, 2, GeneratorSettings::default()).await;
    let request = Generate { given: Arc::clone(&case.response), ..case.sampled(4, 9, 1) };
    let written = generator.generate(request, None).await.unwrap();
    let tokens: Vec<&[u32]> = written.iter().map(|c| c.tokens.as_slice()).collect();
    let rated = generator.rate(case.rate(&case.response, &tokens), None).await.unwrap();
    for (candidate, rated) in written.iter().zip(rated) {
        let sum: f32 = rated.iter().sum();
        assert!((candidate.log_probability - sum).abs() < 1e-4);
    }
    let none = generator.rate(case.rate(&[], &[&[], &[3]]), None).await.unwrap();
    assert_eq!((none[0].len(), none[1].len()), (0, 1), "nothing has no probability to tell");
}

#[tokio::test]
async fn branches_begin_with_the_likeliest_tokens_in_order() {
    let case = Case::open("grouped_sharded");
    let generator = start("grouped_sharded", 1.0, 1, GeneratorSettings::default()).await;
    let facts = generator.facts();
    let branch =
        |stop: Stop| Generate { sampling: Sampling::Branch, stop, ..case.generate(&[], 6, 3) };
    let written = generator.generate(branch(Stop::default()), None).await.unwrap();
    let greedy = generator.generate(case.generate(&[], 1, 3), None).await.unwrap();
    assert_eq!(written[0], greedy[0]);
    let firsts: Vec<&[u32]> = written.iter().map(|c| &c.tokens[..1]).collect();
    let rated = generator.rate(case.rate(&[], &firsts), None).await.unwrap();
    assert!(rated.windows(2).all(|pair| pair[0][0] >= pair[1][0]), "{rated:?}");
    // Of two allowed tokens there are two branches.
    let two = TokenSet::new(facts.vocabulary, |id| id == 40 || id == 41);
    let stop = Stop { first: Some(two), ..Stop::default() };
    let written = generator.generate(branch(stop), None).await.unwrap();
    let mut firsts: Vec<u32> = written.iter().map(|c| c.tokens[0]).collect();
    firsts.sort_unstable();
    assert_eq!(firsts, [40, 41]);
}

#[tokio::test]
async fn stops_end_a_candidate_before_themselves() {
    let case = Case::open("many_kv_heads");
    let generator = start("many_kv_heads", 1.0, 1, GeneratorSettings::default()).await;
    let vocabulary = generator.facts().vocabulary;
    let free = generator.generate(case.sampled(1, 16, 9), None).await.unwrap().remove(0);
    let at = free.tokens.iter().rposition(|t| !free.tokens[..8].contains(t)).unwrap();
    let end = free.tokens[at];
    let first = free.tokens.iter().position(|&t| t == end).unwrap();
    let with = |stop: Stop| Generate { stop, ..case.sampled(1, 16, 9) };
    let one = |stop: Stop| {
        let request = with(stop);
        let generator = &generator;
        async move { generator.generate(request, None).await.unwrap().remove(0) }
    };
    let by_token = one(Stop { tokens: [end].into(), ..Stop::default() }).await;
    assert_eq!(by_token.tokens, free.tokens[..first]);
    assert_eq!(by_token.ended, Ended::Stop);
    let ends = TokenSet::new(vocabulary, |id| id == end);
    let by_set = one(Stop { ends: Some(ends), ..Stop::default() }).await;
    assert_eq!(by_set, by_token);
    // Every token begins a unit, so a bound of five units is one of five tokens.
    let starts = TokenSet::new(vocabulary, |_| true);
    let by_units = one(Stop { units: Some(Units { starts, most: n(5) }), ..Stop::default() }).await;
    assert_eq!(by_units.tokens, free.tokens[..5]);
    assert_eq!(by_units.ended, Ended::Stop);
    // Nothing may stand there: the empty candidate.
    let nothing = TokenSet::new(vocabulary, |_| false);
    let empty = one(Stop { first: Some(nothing), ..Stop::default() }).await;
    assert_eq!((empty.tokens.len(), empty.ended), (0, Ended::Stop));
    assert!(empty.log_probability.abs() < f32::EPSILON);
    // What may come later is kept to.
    let even = TokenSet::new(vocabulary, |id| id % 2 == 0);
    let later = one(Stop { later: Some(even), ..Stop::default() }).await;
    assert!(later.tokens[1..].iter().all(|t| t % 2 == 0) && later.tokens.len() == 16);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_at_once() {
    let case = Case::open("many_kv_heads");
    let settings = GeneratorSettings { max_running_candidates: n(4), ..Default::default() };
    let generator = start("many_kv_heads", 1.0, 1, settings).await;
    let positions = generator.facts().max_positions;
    for request in [case.generate(&[], 5, 3), case.generate(&[], 1, positions)] {
        assert_eq!(generator.generate(request, None).await, Err(EngineError::TooLarge));
    }
    let opened = backbone("many_kv_heads", 1.0);
    let small = LanguageSettings { max_kv_bytes: 1, ..layout(1) };
    let load = move || LanguageWorker::load(&opened, small, u64::MAX);
    let generator = Generator::start(load, settings).await.unwrap();
    let refused = generator.generate(case.generate(&[], 1, 3), None).await;
    assert_eq!(refused, Err(EngineError::TooLarge));
}

#[tokio::test]
async fn a_backbone_over_its_memory_is_refused_with_the_figure() {
    let opened = backbone("many_kv_heads", 1.0);
    let layout = LanguageSettings {
        prefix_bytes: 1 << 20,
        vision_bytes: 1 << 20,
        max_kv_bytes: 1 << 20,
        ..layout(1)
    };
    let error = LanguageWorker::load(&opened, layout, 3 << 20).unwrap_err();
    let LanguageError::Memory { needed, weights, caches, work, allowed } = error else {
        panic!("{error}")
    };
    assert_eq!((weights, caches), (opened.weight_bytes(), 3 << 20));
    assert_eq!((needed, allowed), (weights + caches + work, 3 << 20));
    assert!(error.to_string().contains("where 3 MiB are allowed"), "{error}");
    assert!(error.to_string().contains(&format!("needs {} MiB", needed.div_ceil(1 << 20))));
    // Exactly as much as it says is enough.
    LanguageWorker::load(&opened, layout, needed).unwrap();
    let load = move || LanguageWorker::load(&opened, layout, needed - 1);
    let refused = Generator::start(load, GeneratorSettings::default()).await;
    assert!(matches!(refused, Err(StartError::Model(_))));
}

#[tokio::test]
async fn an_images_own_keys_and_values_count_once_and_bound_what_runs() {
    let name = "mllama/wide_image";
    let (case, opened) = (Case::open(name), backbone(name, 1.0));
    let image = opened.config.sizes(KvType::F32).image_bytes;
    assert!(image > 0);
    let start = async |max_kv_bytes: u64| {
        let (opened, layout) =
            (backbone(name, 1.0), LanguageSettings { max_kv_bytes, ..layout(1) });
        let load = move || LanguageWorker::load(&opened, layout, u64::MAX);
        Generator::start(load, GeneratorSettings::default()).await.unwrap()
    };
    let page = opened.config.sizes(KvType::F32).kv_page_bytes;
    // A prompt's page, and one for each candidate and one more.
    let one = start(image + 3 * page).await;
    assert_eq!(one.facts().image_bytes, image);
    let written = one.generate(case.generate(&[], 1, 4), None).await.unwrap();
    let short = start(image + 3 * page - 1).await;
    let refused = short.generate(case.generate(&[], 1, 4), None).await;
    assert_eq!(refused, Err(EngineError::TooLarge));
    // Two requests about one image fit beside each other where two images would not.
    let two = start(image + 6 * page).await;
    let again = tokio::join!(
        two.generate(case.generate(&[], 1, 4), None),
        two.generate(case.generate(&[], 1, 4), None)
    );
    assert_eq!((again.0.unwrap(), again.1.unwrap()), (written.clone(), written));
    // A prompt without its image costs nobody else.
    let bare = Generate { prompt: [5, 6].into(), ..case.generate(&[], 1, 4) };
    assert_eq!(two.generate(bare, None).await, Err(EngineError::WorkerFailed));
    assert!(two.generate(case.generate(&[], 1, 4), None).await.is_ok());
}

#[test]
fn room_follows_a_model_whose_images_are_large() {
    let small = backbone("many_kv_heads", 1.0);
    assert_eq!(layout(1).fitting(&small), layout(1));
    let mut large = backbone("mllama/wide_image", 1.0);
    let config = r#"{"model_type": "mllama", "vision_config": {"image_size": 560}}"#;
    large.config = ModelConfig::from_json(config).unwrap();
    let image = large.config.sizes(KvType::F32).image_bytes;
    let LanguageSettings { prefix_bytes, vision_bytes, max_kv_bytes, .. } =
        layout(1).fitting(&large);
    assert_eq!(vision_bytes, 2 * image);
    assert!(prefix_bytes > 2 * image);
    // 8,192 rows of 32 layers, keys and values, 8 heads of 128, four bytes.
    assert_eq!(max_kv_bytes, image + 8192 * 32 * 2 * 8 * 128 * 4);
}

#[tokio::test]
async fn deadlines_and_dropped_futures_end_work() {
    let case = Case::open("published_defaults");
    let settings = GeneratorSettings { max_queue_requests: n(2), ..Default::default() };
    let generator = start("published_defaults", 1.0, 1, settings).await;
    let long = || case.generate(&[], 32, 700);
    // Late before it began.
    let past = Some(Instant::now());
    let late = generator.generate(long(), past).await;
    assert_eq!(late, Err(EngineError::Deadline));
    // Late while it runs: much sooner than it would take.
    let soon = Some(Instant::now() + Duration::from_millis(30));
    let late = generator.generate(long(), soon).await;
    assert_eq!(late, Err(EngineError::Deadline));
    // Given up while it runs; what waits behind the other gets its turn.
    let given_up = generator.generate(long(), None);
    drop(given_up);
    let short = generator.generate(case.generate(&[], 1, 2), None);
    let written = timeout(Duration::from_mins(1), short).await.unwrap().unwrap();
    assert_eq!(written[0].tokens.len(), 2);
    let left = generator.shutdown(Duration::from_mins(1)).await;
    assert_eq!(left, Shutdown { turned_away: 0, stopped: true });
    let refused = generator.generate(case.generate(&[], 1, 2), None).await;
    assert_eq!(refused, Err(EngineError::Draining));
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_shutdown_turns_the_rest_away() {
    let case = Case::open("published_defaults");
    let settings = GeneratorSettings {
        max_queue_requests: n(1),
        max_running_candidates: n(32),
        retry_after: Duration::from_millis(250),
    };
    let generator = start("published_defaults", 1.0, 1, settings).await;
    let long = || case.generate(&[], 32, 700);
    // One runs, one is taken and has no room, one waits; the next finds the queue full.
    let mut waiting = Vec::new();
    let refused = loop {
        let mut next = Box::pin(generator.generate(long(), None));
        match futures_poll(&mut next).await {
            Some(Err(error)) => break error,
            Some(Ok(_)) => panic!("700 tokens were written at once"),
            None => waiting.push(next),
        }
        tokio::task::yield_now().await;
    };
    let retry_after = Duration::from_millis(250);
    assert_eq!(refused, EngineError::QueueFull { retry_after });
    assert!((1..=4).contains(&waiting.len()), "{}", waiting.len());
    let count = waiting.len();
    let left = generator.shutdown(Duration::from_millis(1)).await;
    assert_eq!(left, Shutdown { turned_away: count, stopped: true });
    for request in waiting {
        assert_eq!(request.await, Err(EngineError::Draining));
    }
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_prefix_that_is_held_is_not_computed_again_and_changes_nothing() {
    let opened = backbone("many_kv_heads", 1.0);
    let mut worker = LanguageWorker::load(&opened, layout(1), u64::MAX).unwrap();
    let case = Case::open("many_kv_heads");
    let first = worker.prefix(&case.pixels, [1; 32], &case.prompt).unwrap();
    let again = worker.prefix(&case.pixels, [1; 32], &case.prompt).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let other = worker.prefix(&case.pixels, [2; 32], &case.prompt).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    assert_eq!(first.state, other.state);
    let shorter: Arc<[u32]> = case.prompt[..1].into();
    worker.prefix(&case.pixels, [1; 32], &shorter).unwrap();
    let (prefixes, images) = worker.cache_stats();
    assert_eq!((prefixes.misses, prefixes.hits, prefixes.resident_entries), (3, 1, 3));
    assert_eq!((images.misses, images.hits), (2, 1));
}
