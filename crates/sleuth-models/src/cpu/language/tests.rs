//! Same bits whatever shares a pass, sizes known beforehand.

use std::path::{Path, PathBuf};

use super::*;
use crate::cpu::{Behind, ImageFeatures};
use crate::{BackboneFolder, LoadOptions};
use sleuth_core::Pixels;

const CASES: [&str; 4] = ["published_defaults", "many_kv_heads", "grouped_sharded", "v5_names"];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/paligemma").join(case)
}

fn load(folder: &Path, adapter: Option<PathBuf>, tau: f64) -> (BackboneFolder, LanguageModel) {
    let opened = BackboneFolder::open(folder, &LoadOptions { adapter, tau }).unwrap();
    let model = opened.load_language(KvType::F32).unwrap();
    (opened, model)
}

fn features(model: &LanguageModel, space: &mut Workspace) -> ImageFeatures {
    let side = model.backbone().config().vision_config.image_size;
    let values: Vec<f32> = (0..3 * side * side).map(|i| (i % 97) as f32 / 48.5 - 1.0).collect();
    let pixels = Pixels::try_new(side as u32, side as u32, values.into()).unwrap();
    model.backbone().see(space, &[&pixels]).remove(0)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn prefilled(model: &LanguageModel, space: &mut Workspace) -> (Arc<PrefixKv>, Vec<f32>) {
    let features = features(model, space);
    model.prefill(space, NewPrefix { features: &features, prompt: &[2, 9, 11] }).unwrap()
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
        let (_, model) = load(&folder(case), None, 1.0);
        let sequences: [&[u32]; 3] = [&[5, 6, 7, 8], &[5, 6, 9, 3], &[5, 6, 1, 2]];
        let mut alone = Workspace::new(1).unwrap();
        let (prefix, last) = prefilled(&model, &mut alone);
        let want: Vec<Vec<f32>> = sequences
            .iter()
            .map(|tokens| {
                let whole = Suffix::Whole { prefix: Behind::Cached(&prefix), tokens };
                model.extend(&mut alone, vec![whole]).unwrap().states.remove(0)
            })
            .collect();
        for threads in [1, 2, 3] {
            let mut space = Workspace::new(threads).unwrap();
            let (prefix, state) = prefilled(&model, &mut space);
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
    let (_, model) = load(&folder("v5_names"), None, 1.0);
    let mut space = Workspace::new(2).unwrap();
    let (prefix, last) = prefilled(&model, &mut space);
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
    let folder = folder("adapter_wide_rank");
    let last = |adapter: bool, tau| {
        let adapter = adapter.then(|| folder.join("adapter"));
        let (_, model) = load(&folder, adapter, tau);
        bits(&prefilled(&model, &mut Workspace::new(1).unwrap()).1)
    };
    assert_eq!(last(true, 0.0), last(false, 1.0));
    assert_ne!(last(true, 0.5), last(false, 1.0));
    assert_ne!(last(true, 0.5), last(true, 1.0));
}
