//! Same bits whatever shares a pass, sizes known beforehand.

use std::path::{Path, PathBuf};

use super::*;
use crate::backbone::PassError;
use crate::cpu::{Behind, LanguageFeatures};
use crate::{BackboneFolder, LoadOptions};
use sleuth_core::Pixels;

const CASES: [&str; 8] = [
    "paligemma/published_defaults",
    "paligemma/many_kv_heads",
    "paligemma/grouped_sharded",
    "paligemma/v5_names",
    "mllama/published_defaults",
    "mllama/wide_image",
    "mllama/tall_image",
    "mllama/two_tiles",
];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case)
}

fn load(folder: &Path, adapter: Option<PathBuf>, tau: f64) -> (BackboneFolder, LanguageModel) {
    let opened = BackboneFolder::open(folder, &LoadOptions { adapter, tau }).unwrap();
    let model = opened.load_language(KvType::F32).unwrap();
    (opened, model)
}

fn features(
    opened: &BackboneFolder,
    model: &LanguageModel,
    space: &mut Workspace,
) -> LanguageFeatures {
    let side = opened.config.image_side();
    let values: Vec<f32> = (0..3 * side * side).map(|i| (i % 97) as f32 / 48.5 - 1.0).collect();
    let pixels = Pixels::try_new(side as u32, side as u32, values.into()).unwrap();
    model.see(space, &pixels).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn prefilled(
    (opened, model): &(BackboneFolder, LanguageModel),
    space: &mut Workspace,
) -> (Arc<PrefixKv>, Vec<f32>) {
    let features = features(opened, model, space);
    let mut prompt = vec![2, 9, 11];
    // Now text stands before the image too.
    prompt.splice(1..1, opened.config.image_in_prompt());
    model.prefill(space, NewPrefix { features: &features, prompt: &prompt }).unwrap()
}

#[test]
fn weights_take_the_bytes_that_were_foretold() {
    for case in CASES {
        let (opened, model) = load(&folder(case), None, 1.0);
        assert_eq!(opened.weight_bytes(), model.weight_bytes(), "{case}");
    }
}

#[test]
fn batches_threads_cuts_and_forks_change_no_bit() {
    for case in CASES {
        let loaded = load(&folder(case), None, 1.0);
        let model = &loaded.1;
        let sequences: [&[u32]; 3] = [&[5, 6, 7, 8], &[5, 6, 9, 3], &[5, 6, 1, 2]];
        let mut alone = Workspace::new(1).unwrap();
        let (prefix, last) = prefilled(&loaded, &mut alone);
        let want: Vec<Vec<f32>> = sequences
            .iter()
            .map(|tokens| {
                let whole = Suffix::Whole { prefix: Behind::Cached(&prefix), tokens };
                model.extend(&mut alone, vec![whole]).unwrap().states.remove(0)
            })
            .collect();
        for threads in [1, 2, 3] {
            let mut space = Workspace::new(threads).unwrap();
            let (prefix, state) = prefilled(&loaded, &mut space);
            assert_eq!(bits(&state), bits(&last), "{case}");
            // What all share once, then each on its own, token by token.
            let first = Suffix::First { prefix: Behind::Cached(&prefix), tokens: &[5, 6] };
            let shared = model.extend(&mut space, vec![first]).unwrap();
            let shared_kv = shared.suffixes.into_iter().flatten().next().unwrap();
            let mut open: Vec<SuffixKv> = sequences.iter().map(|_| shared_kv.fork()).collect();
            let mut got = vec![shared.states[0].clone(); 3];
            for step in 2..4 {
                let suffixes = open
                    .drain(..)
                    .zip(&sequences)
                    .map(|(so_far, tokens)| Suffix::Next { so_far, tokens: &tokens[step..=step] })
                    .collect();
                let done = model.extend(&mut space, suffixes).unwrap();
                open = done.suffixes.into_iter().flatten().collect();
                for (got, states) in got.iter_mut().zip(done.states) {
                    got.extend(states);
                }
            }
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(bits(got), bits(want), "{case} on {threads} threads");
            }
        }
    }
}

#[test]
fn log_probabilities_are_those_of_the_distribution() {
    for case in ["paligemma/v5_names", "mllama/instruct"] {
        log_probabilities_of(&load(&folder(case), None, 1.0));
    }
}

fn log_probabilities_of(loaded: &(BackboneFolder, LanguageModel)) {
    let model = &loaded.1;
    let mut space = Workspace::new(2).unwrap();
    let (prefix, last) = prefilled(loaded, &mut space);
    let whole = Suffix::Whole { prefix: Behind::Cached(&prefix), tokens: &[5, 6] };
    let states = model.extend(&mut space, vec![whole]).unwrap().states.remove(0);
    let hidden = last.len();
    let next = model.next(&mut space, &[&last, &states[hidden..]]);
    for row in 0..2 {
        let all = (0..model.vocabulary() as u32).map(|id| next.log_probability(row, id).exp());
        assert!((all.map(f64::from).sum::<f64>() - 1.0).abs() < 1e-4);
    }
    // More pairs than fit one product.
    let pairs: Vec<(&[f32], u32)> =
        (0..100).map(|i| (if i % 2 == 0 { &*last } else { &states[hidden..] }, i)).collect();
    let got = model.log_probabilities(&mut space, &pairs);
    for (i, got) in got.iter().enumerate() {
        assert_eq!(got.to_bits(), next.log_probability(i % 2, i as u32).to_bits());
    }
}

#[test]
fn tau_moves_the_backbone_and_zero_is_the_base() {
    for case in ["paligemma/adapter_wide_rank", "mllama/adapter_wide_rank"] {
        let folder = folder(case);
        let last = |adapter: bool, tau| {
            let adapter = adapter.then(|| folder.join("adapter"));
            let loaded = load(&folder, adapter, tau);
            bits(&prefilled(&loaded, &mut Workspace::new(1).unwrap()).1)
        };
        assert_eq!(last(true, 0.0), last(false, 1.0));
        assert_ne!(last(true, 0.5), last(false, 1.0));
        assert_ne!(last(true, 0.5), last(true, 1.0));
    }
}

#[test]
fn a_prompt_without_its_image_and_an_image_of_another_size_are_refused() {
    let (opened, model) = load(&folder("mllama/two_tiles"), None, 1.0);
    let mut space = Workspace::new(1).unwrap();
    let features = features(&opened, &model, &mut space);
    let prefix = NewPrefix { features: &features, prompt: &[2, 9] };
    let error = model.prefill(&mut space, prefix).unwrap_err();
    assert!(matches!(error, PassError::ImagePlaces { found: 0 }), "{error}");
    let odd = Pixels::try_new(28, 30, vec![0.0; 3 * 28 * 30].into()).unwrap();
    assert!(matches!(model.see(&mut space, &odd), Err(PassError::Canvas { .. })));
}

#[test]
fn sizes_and_work_space_are_those_that_were_foretold() {
    for case in CASES {
        let loaded = load(&folder(case), None, 1.0);
        let (opened, model) = &loaded;
        let sizes = opened.config.sizes(KvType::F32);
        assert_eq!(model.sizes(), sizes);
        for threads in [1, 3] {
            let mut space = Workspace::new(threads).unwrap();
            let features = features(opened, model, &mut space);
            assert_eq!(features.bytes(), sizes.features_bytes, "{case}");
            let prompt = opened.config.image_in_prompt().into_iter().chain(5..75);
            let prompt: Vec<u32> = prompt.collect();
            let prefix = NewPrefix { features: &features, prompt: &prompt };
            let (kv, _) = model.prefill(&mut space, prefix).unwrap();
            assert_eq!(kv.bytes(), sizes.prefix_bytes(prompt.len()), "{case}");
            let shape = PassShape { images: 1, prefixes: vec![kv.rows()], suffixes: Vec::new() };
            let most = LanguageModel::workspace_bytes_of(&opened.config, &shape, threads);
            assert!(space.bytes() <= most, "{case}: {} over {most}", space.bytes());
        }
    }
}
