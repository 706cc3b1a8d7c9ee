//! Parity on the golden files, and the same bits whatever stands around an item.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sleuth_core::Pixels;

use super::*;
use crate::{LoadOptions, ModelFolder, SuffixAttention};

/// Absolute, in f32, against transformers: logits are of order 5.
const TOLERANCE: f32 = 2e-4;

struct Case {
    name: String,
    model: CpuModel,
    pixels: Pixels,
    prompt: Vec<u32>,
    responses: Vec<Vec<u32>>,
    logits: Vec<Vec<f32>>,
}

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/paligemma");
    let entries = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|p| p.is_dir()).collect();
    folders.sort();
    folders
}

fn case(folder: &Path, kv: KvType) -> Case {
    let file = folder.join("golden.safetensors");
    let golden: HashMap<String, Tensor> =
        candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let ids = |name: &str| golden[name].to_dtype(DType::U32).unwrap().to_vec1::<u32>().unwrap();
    let count = (0..64).take_while(|r| golden.contains_key(&format!("logits.{r}"))).count();
    let pixels = &golden["pixel_values"];
    let (_, _, height, width) = pixels.dims4().unwrap();
    let values = pixels.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let adapter = Some(folder.join("adapter")).filter(|p| p.exists());
    let opened = ModelFolder::open(folder, &LoadOptions { adapter, tau: 1.0 }).unwrap();
    Case {
        name: folder.display().to_string(),
        model: opened.load_cpu(kv).unwrap(),
        pixels: Pixels::try_new(height as u32, width as u32, values.into()).unwrap(),
        prompt: ids("prompt_ids"),
        responses: (0..count).map(|r| ids(&format!("response_ids.{r}"))).collect(),
        logits: (0..count).map(|r| golden[&format!("logits.{r}")].to_vec1().unwrap()).collect(),
    }
}

fn causal_cases(kv: KvType) -> Vec<Case> {
    let cases = folders().iter().map(|folder| case(folder, kv)).collect::<Vec<_>>();
    cases.into_iter().filter(|c| c.model.attention() == SuffixAttention::Causal).collect()
}

fn space(threads: usize) -> Workspace {
    Workspace::new(threads).unwrap()
}

fn worst(got: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    assert_eq!(
        got.iter().map(Vec::len).collect::<Vec<_>>(),
        want.iter().map(Vec::len).collect::<Vec<_>>()
    );
    let pairs = got.iter().flatten().zip(want.iter().flatten());
    pairs
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

impl Case {
    fn features(&self, space: &mut Workspace) -> ImageFeatures {
        self.model.see(space, &[&self.pixels]).remove(0)
    }

    /// All responses in one pass.
    fn score(&self, space: &mut Workspace) -> Vec<Vec<f32>> {
        let features = self.features(space);
        let prefix = NewPrefix { features: &features, prompt: &self.prompt };
        if self.model.attention() == SuffixAttention::Full {
            let sequences: Vec<_> = self.responses.iter().map(|r| (prefix, r.as_slice())).collect();
            return self.model.score_full(space, &sequences).unwrap();
        }
        let suffixes = self.responses.iter().map(|r| whole(Behind::New(0), r)).collect();
        self.model.score(space, Work { prefixes: vec![prefix], suffixes }).unwrap().logits
    }

    fn prefix(&self, space: &mut Workspace) -> Arc<PrefixKv> {
        let features = self.features(space);
        let prefixes = vec![NewPrefix { features: &features, prompt: &self.prompt }];
        let work = Work { prefixes, suffixes: Vec::new() };
        self.model.score(space, work).unwrap().prefixes.remove(0)
    }
}

fn whole<'a>(prefix: Behind<'a>, tokens: &'a [u32]) -> Suffix<'a> {
    Suffix::Whole { prefix, tokens }
}

#[test]
fn logits_agree_with_transformers() {
    for folder in folders() {
        let case = case(&folder, KvType::F32);
        let off = worst(&case.score(&mut space(2)), &case.logits);
        assert!(off <= TOLERANCE, "{} is off by {off}", case.name);
    }
}

#[test]
fn keys_and_values_in_f16_move_logits_by_little() {
    for folder in folders() {
        let case = case(&folder, KvType::F16);
        let off = worst(&case.score(&mut space(1)), &case.logits);
        assert!(off <= 2e-2, "{} is off by {off}", case.name);
    }
}

#[test]
fn threads_neighbours_and_order_change_no_bit() {
    for kv in [KvType::F32, KvType::F16] {
        for case in causal_cases(kv) {
            let want: Vec<_> = case.score(&mut space(1)).iter().map(|l| bits(l)).collect();
            for threads in [2, 5] {
                let got = case.score(&mut space(threads));
                assert!(got.iter().map(|l| bits(l)).eq(want.iter().cloned()), "{}", case.name);
            }
            let mut space = space(2);
            let features = case.features(&mut space);
            let prefixes = vec![
                NewPrefix { features: &features, prompt: &case.prompt[..1] },
                NewPrefix { features: &features, prompt: &case.prompt },
            ];
            let mut suffixes = vec![whole(Behind::New(0), &case.responses[0])];
            for response in case.responses.iter().rev() {
                suffixes.push(whole(Behind::New(1), response));
                suffixes.push(whole(Behind::New(0), &response[..1]));
            }
            let done = case.model.score(&mut space, Work { prefixes, suffixes }).unwrap();
            let got: Vec<_> =
                done.logits.iter().skip(1).step_by(2).rev().map(|l| bits(l)).collect();
            assert!(got == want, "{}", case.name);
        }
    }
}

#[test]
fn every_cut_of_a_response_gives_the_bits_of_the_whole() {
    for kv in [KvType::F32, KvType::F16] {
        for case in causal_cases(kv) {
            let mut space = space(2);
            let want = case.score(&mut space);
            let prefix = case.prefix(&mut space);
            for (response, want) in case.responses.iter().zip(&want) {
                for cut in 0..=response.len() {
                    let first =
                        Suffix::First { prefix: Behind::Cached(&prefix), tokens: &response[..cut] };
                    let work = Work { prefixes: Vec::new(), suffixes: vec![first] };
                    let mut done = case.model.score(&mut space, work).unwrap();
                    let so_far = done.suffixes.remove(0).unwrap();
                    assert_eq!(so_far.rows(), cut);
                    let mut got = done.logits.remove(0);
                    let next = Suffix::Next { so_far, tokens: &response[cut..] };
                    // Another item of the batch goes on at the same time.
                    let other = whole(Behind::Cached(&prefix), response);
                    let work = Work { prefixes: Vec::new(), suffixes: vec![other, next] };
                    let mut done = case.model.score(&mut space, work).unwrap();
                    got.extend(done.logits.remove(1));
                    assert_eq!(bits(&got), bits(want), "{} cut at {cut}", case.name);
                    let kept = done.suffixes.remove(1).unwrap();
                    assert_eq!(
                        (kept.rows(), kept.prefix().rows()),
                        (response.len(), prefix.rows())
                    );
                }
            }
        }
    }
}

#[test]
fn a_cached_prefix_gives_the_bits_of_a_computed_one() {
    for kv in [KvType::F32, KvType::F16] {
        for case in causal_cases(kv) {
            let mut space = space(2);
            let want = case.score(&mut space);
            let prefix = case.prefix(&mut space);
            assert_eq!(prefix.bytes(), case.model.kv_bytes(prefix.rows()));
            for (response, want) in case.responses.iter().zip(&want) {
                let suffixes = vec![whole(Behind::Cached(&prefix), response)];
                let work = Work { prefixes: Vec::new(), suffixes };
                let got = case.model.score(&mut space, work).unwrap().logits.remove(0);
                assert_eq!(bits(&got), bits(want), "{}", case.name);
            }
        }
    }
}

#[test]
fn memory_is_known_before_a_pass_runs() {
    for case in causal_cases(KvType::F32) {
        let mut space = space(2);
        let features = case.features(&mut space);
        let prefix = NewPrefix { features: &features, prompt: &case.prompt };
        // Sizes that grow, as buffers do.
        for copies in [1, 3, 40] {
            let suffixes = case
                .responses
                .iter()
                .cycle()
                .take(copies)
                .map(|tokens| Suffix::First { prefix: Behind::New(0), tokens })
                .collect();
            let work = Work { prefixes: vec![prefix], suffixes };
            let shape = PassShape::of(&work, 1, case.model.image_tokens());
            let (space_bytes, kv_bytes) =
                (case.model.workspace_bytes(&shape, 2), case.model.pass_kv_bytes(&shape));
            let done = case.model.score(&mut space, work).unwrap();
            let held: u64 = done.suffixes.iter().flatten().map(SuffixKv::bytes).sum();
            assert_eq!(held + done.prefixes[0].bytes(), kv_bytes, "{}", case.name);
            assert!(space.bytes() <= space_bytes, "{} > {space_bytes}", space.bytes());
        }
    }
}
